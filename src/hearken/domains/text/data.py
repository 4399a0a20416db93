"""Rows of feedback as token groups: what the algorithms iterate over."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hearken.config import located
from hearken.domains.text.encoder import TextEncoder
from hearken.errors import UserError
from hearken.feedback.examples import (
    MEDIA,
    SAMPLED,
    Comparison,
    Content,
    Demonstration,
    Document,
    Example,
    Graded,
    PromptOnly,
    Rating,
    finished,
    sampled,
    spoken,
)
from hearken.feedback.formats import read_as
from hearken.feedback.formats.canonical import kind_name
from hearken.feedback.pairs import best_and_worst
from hearken.feedback.splits import check_leakage, deduplicate, labeler_value, split_by_prompt
from hearken.models.layout import Group
from hearken.training.artifact import hash_files
from hearken.training.options import TextOptions


@dataclass(frozen=True)
class Rows:
    """Training and validation rows with what the manifest says about them."""

    train: list[Example]
    validation: list[Example]
    facts: dict[str, Any]


class Disputed(dict[str, Any]):
    """The metadata of a prompt that has others in another row: a reward function cannot know which are right.

    ``where`` names both rows, and what they differ in.
    """

    def __init__(self, facts: Mapping[str, Any], where: str) -> None:
        super().__init__(facts)
        self.where = where


def _marked(rows: list[Example], sizes: Sequence[tuple[str, int]]) -> list[Example]:
    """The rows of files of these names and sizes, a prompt's metadata as `Disputed` where a later row has others."""

    def place(at: int) -> str:
        for path, size in sizes:
            if at < size:
                return f"{path}, row {at + 1}"
            at -= size
        raise AssertionError(at)

    first: dict[Content, int] = {}
    disputed: dict[int, Disputed] = {}
    for at, row in enumerate(rows):
        if not isinstance(row, PromptOnly):
            continue
        before, old = first.setdefault(row.prompt, at), rows[first[row.prompt]]
        if row.metadata != old.metadata and before not in disputed:
            keys = sorted(k for k in old.metadata | row.metadata if old.metadata.get(k) != row.metadata.get(k))
            where = f"{place(before)} and {place(at)} have the same prompt, but not the same {', '.join(keys)}"
            disputed[before] = Disputed(old.metadata, where)
    for at, facts in disputed.items():
        rows[at] = replace(rows[at], metadata=facts)
    return rows


@dataclass
class Reader:
    """Reads every input of a stage in the same way, and remembers what it left out.

    The option ``format`` is the layout of data and validation files; what stands beside them has its own.
    """

    options: TextOptions
    skipped: dict[str, str] = field(default_factory=dict)
    """By file: how many rows were left out, why, and the first of them."""

    def read(self, paths: Sequence[str], layout: str = "format") -> list[Example]:
        """The rows of some files, folders or Hub names.

        Args:
            paths: what to read.
            layout: name of the option that says their layout.

        Raises:
            UserError: where and what is wrong; with ``on_bad=skip`` only where nothing can be read.
        """
        rows: list[Example] = []
        sizes: list[tuple[str, int]] = []
        for path in paths:
            try:
                found, report = read_as(path, self.options, format=getattr(self.options, layout, "auto"))
            except UserError as error:
                raise UserError(error.what, error.hint.replace("--format", f"--{layout.replace('_', '-')}")) from None
            if kind := next((row.metadata[MEDIA] for row in found if MEDIA in row.metadata), None):
                what = f"{path}: its responses are files ({kind}), and this stage reads text"
                raise UserError(what, "Train by a stage of their domain")
            rows += found
            sizes.append((path, report.examples))
            if report.skipped:
                self.skipped[path] = f"{report}; the first: {report.first}"
        return _marked(rows, sizes)

    def rows(self, data: Sequence[str], validation: Sequence[str], share: float, seed: int) -> Rows:
        """Read, leave out what stands there twice and split by prompt; refuse leakage from validation files.

        Raises:
            UserError: as `read`; a prompt is on both sides; nothing is left to train on.
        """
        found = deduplicate(self.read(data))
        rows = found.kept
        if found.removed:
            what = "prompts, documents, or judgments of the same labeler or id, word for word"
            warnings.warn(f"left out {found.removed} rows that stand there twice ({what})", stacklevel=2)
        if found.repeated:
            warnings.warn(
                f"{found.repeated} of {len(rows)} judgments say what one before them says, and name no labeler: "
                "each counts as a vote",
                stacklevel=2,
            )
        if validation:
            train, held_out = rows, self.read(validation)
            check_leakage(train, held_out, strict=True)
        else:
            split = split_by_prompt(rows, validation=share, seed=seed)
            train, held_out = split.train, split.validation
        if not train:
            raise UserError(f"{', '.join(data)} leaves no rows to train on", "Add rows, or lower validation")
        facts = {
            "files": list(map(located, data)), "hash": hash_files(tuple(data)),
            "rows": len(train), "validation_rows": len(held_out),
            "duplicates_removed": found.removed, "repeated_votes": found.repeated,
        }  # fmt: skip
        return Rows(train, held_out, facts)


def nothing_fits(data: Sequence[str]) -> UserError:
    """What to say where every row was left out for its length."""
    what = f"{', '.join(data)}: no row is left, as every prompt alone fills max_length"
    return UserError(what, "Raise max_length, or set -o long_prompts=truncate")


def encoded(row: Example, encoder: TextEncoder, where: str = "", train_on: str = "last") -> list[Group]:
    """One row as token groups: what every stage is fed, and what `hearken inspect` shows.

    Args:
        row: of any kind; a prompt alone becomes a group without responses, a long document several groups.
        encoder: of the model.
        where: for messages.
        train_on: of a demonstration that is a dialogue, the ``last`` answer or ``all`` of them.
    """
    if isinstance(row, Document):
        return encoder.documents([row.text])
    if isinstance(row, PromptOnly):
        ids = encoder.prompt(row.prompt, where)
        return [] if ids is None else [Group(ids, [])]
    kept = SAMPLED in row.metadata
    if isinstance(row, Demonstration) and not (kept and sampled(row, row.response, encoder.fingerprint)):
        if train_on == "all" and not isinstance(row.prompt, str):
            group = encoder.dialogue([*row.prompt, spoken(row, row.response)], where)
        else:
            group = encoder.demonstration(
                row.prompt, spoken(row, row.response), where, finished=finished(row, row.response)
            )
    else:
        responses = row.responses if isinstance(row, Comparison) else (row.response,)
        ends = [finished(row, r) for r in responses]
        tokens = [sampled(row, r, encoder.fingerprint) for r in responses] if kept else None
        group = encoder.group(row.prompt, [spoken(row, r) for r in responses], where, finished=ends, tokens=tokens)
    return [] if group is None else [group]


def demonstrations(
    rows: Sequence[Example], encoder: TextEncoder, train_on: str = "last", file: str = ""
) -> list[Group]:
    """One group per demonstration (or best response of a comparison), with its weight, and pieces of plain text.

    ``file`` says for messages where the rows are from, if not from the data.
    """
    groups: list[Group] = []
    documents: list[Group] = []
    for number, row in enumerate(rows, 1):
        where = f"{file}{', ' if file else ''}row {number}"
        if isinstance(row, Document):
            documents += encoded(row, encoder, where)
        elif isinstance(row, Demonstration | Comparison):
            one = row
            if isinstance(row, Comparison):
                one = Demonstration(row.prompt, best(row), row.weight, row.metadata)
            found = encoded(one, encoder, where, train_on)
            groups += [replace(group, weight=row.weight) for group in found if row.weight > 0]
        else:
            raise UserError(
                f"{where} is a {kind_name(row)}, which is not something to imitate",
                "Give prompt/completion, messages, plain text, or comparisons, whose best response is taken",
            )
    return groups + documents


def best(row: Comparison) -> str:
    """The response that was preferred to the others (the first of several)."""
    decided = best_and_worst(row.ranks, row.share)
    first = next(i for i, rank in enumerate(row.ranks) if rank is not None)
    return row.responses[decided[0] if decided else first]


def prompts(rows: Sequence[Example], encoder: TextEncoder) -> tuple[list[Content], list[list[int]]]:
    """The distinct prompts of rows of any kind, as content and as token ids."""
    found: dict[Content, list[int]] = {}
    for number, row in enumerate(rows, 1):
        if isinstance(row, Document):
            raise UserError(f"row {number} is plain text, not a prompt", "Give rows with a prompt column")
        if row.prompt not in found and (ids := encoder.prompt(row.prompt, f"row {number}")) is not None:
            found[row.prompt] = ids
    return list(found), list(found.values())


@dataclass(frozen=True)
class Judged:
    """One judgment, encoded.

    Attributes:
        group: the prompt with its K responses.
        ranks: K ranks, 0 best, -1 not ranked (comparisons).
        share: share of votes for the first response (pairs), or None.
        strength: how much better, 0..1 (pairs), or None.
        target: a rating scaled to -1..1 (the mean over its attributes), or a thumb as 0 or 1, or None.
        ratings: a rating's attributes, each scaled to -1..1.
        kind: ``comparison``, ``rating`` or ``thumb``.
        weight: weight in the loss.
        key: the prompt's identity, for clustering.
        who: what its labeler says of what was asked for (`judgments`), or None.
    """

    group: Group
    kind: str
    ranks: tuple[int, ...] = ()
    share: float | None = None
    strength: float | None = None
    target: float | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0
    key: Content = ""
    who: str | None = None


def by_responses(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Judgments on the same responses together: what is computed once, and never split between two batches."""
    found: dict[int, list[Judged]] = {}
    for one in judged:
        found.setdefault(id(one.group), []).append(one)
    return list(found.values())


def judgments(rows: Sequence[Example], encoder: TextEncoder, by: str = "") -> list[Judged]:
    """Comparisons, ratings and thumbs as token groups; judgments on the same responses share one `Group`.

    ``by`` is a key of what is known of labelers, e.g. ``group`` or ``labeler`` (see `splits.labeler_value`).
    """
    found: list[Judged] = []
    groups: dict[tuple[Content, tuple[str, ...]], Group | None] = {}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Graded):
            raise UserError(
                f"row {number} is a {kind_name(row)}, not a judgment",
                "A reward model reads comparisons, rankings, ratings or thumbs",
            )
        responses = row.responses if isinstance(row, Comparison) else (row.response,)
        if (row.prompt, responses) not in groups:
            groups[row.prompt, responses] = next(iter(encoded(row, encoder, f"row {number}")), None)
        group = groups[row.prompt, responses]
        if group is None:
            continue
        common: dict[str, Any] = {"weight": row.weight, "key": row.prompt, "who": labeler_value(row, by)}
        if isinstance(row, Comparison):
            ranks = tuple(-1 if r is None else r for r in row.ranks)
            found.append(Judged(group, "comparison", ranks, row.share, row.strength, **common))
        elif isinstance(row, Rating):
            scaled = {name: 2 * (x - row.low) / (row.high - row.low) - 1 for name, x in row.ratings.items()}
            mean = sum(scaled.values()) / len(scaled)
            found.append(Judged(group, "rating", target=mean, ratings=scaled, **common))
        else:
            found.append(Judged(group, "thumb", target=float(row.label), **common))
    return found
