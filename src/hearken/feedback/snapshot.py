"""Dataset snapshots: the examples that a query finds in the feedback database as of one judgment, frozen in a file.

The file is Parquet with the columns kind, prompt (its content key) and example (`formats.canonical`); `read_examples`
reads it like any other. A training run pins the snapshot's hash, so that it can be walked back to its judgments.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import (
    CALLS,
    CUT,
    MEDIA,
    SAMPLED,
    Comparison,
    Demonstration,
    Example,
    PromptOnly,
    Rating,
    Thumb,
    content_key,
)
from hearken.feedback.formats import canonical, read_examples, write_examples
from hearken.feedback.records import (
    ComparisonPayload,
    DemonstrationPayload,
    EditPayload,
    Judgment,
    RatingPayload,
    ThumbPayload,
)
from hearken.feedback.splits import labeler_of
from hearken.feedback.store import FeedbackStore

_BATCH = 1_000
"""Judgments whose texts are in memory at a time."""

_SOURCES = {
    "comparison": ("comparison", "edit"),
    "rating": ("rating",),
    "thumb": ("thumb",),
    "demonstration": ("demonstration", "edit"),
}
"""The kinds of judgment that each kind of example is made of."""


@dataclass(frozen=True)
class Snapshot:
    """A frozen data set."""

    path: Path
    hash: str
    """Of the examples, whatever their order (`canonical.content_hash`)."""
    as_of: int
    """Number of the newest judgment that it takes into account."""
    counts: dict[str, int]
    """Examples by kind."""


def inline_examples(
    store: FeedbackStore,
    kinds: Collection[str],
    split: str | None = None,
    as_of: int | None = None,
    *,
    round: int | None = None,
    provenance: bool | Mapping[str, str] = True,
    attributes: bool = False,
    weigh: Callable[[Judgment], float] = lambda judgment: 1.0,
    evaluations: bool = True,
) -> Iterator[Example]:
    """The judgments in force as self-contained examples, in the order they were given.

    An edit is a demonstration, and a comparison in which the edited text beats the original. Each judgment is an
    example of its own, also where several labelers judged the same item. Left out are skips, flags, critiques and span
    flags; superseded, withdrawn and erased judgments; answers to gold and repeated items; comparisons with fewer than
    two ranked responses. Which responses were cut, and so have no end, stands in the metadata (`examples.CUT`).

    Args:
        store: the feedback database.
        kinds: kinds of example: comparison, rating, thumb, demonstration, prompt.
        split: only prompts of this split.
        as_of: only what was in force when this judgment was the newest. Prompts themselves have no such number.
        round: only judgments of this round.
        provenance: put the ids of the labeler, judgment and item into the metadata; or names of labelers, by id, of
            which that of who judged is put there where nothing names them.
        attributes: put what labelers said about themselves there too.
        weigh: multiplied onto each judgment's own weight.
        evaluations: with judgments that were asked for to compare policies.

    Raises:
        UserError: an unknown kind.
    """
    unknown = sorted(set(kinds) - {*_SOURCES, "prompt"})
    if unknown:
        raise UserError(f"unknown kind of example '{unknown[0]}'", f"Known: {', '.join(_SOURCES)}, prompt")
    if "prompt" in kinds:
        prompts = (prompt for prompt in store.prompts(split=split) if prompt.domain != "practice")
        yield from (PromptOnly(prompt.content, prompt.metadata) for prompt in prompts)
    sources = {source for kind in kinds if kind in _SOURCES for source in _SOURCES[kind]}
    if not sources:
        return
    labelers = {labeler.id: labeler.attributes for labeler in store.labelers()} if attributes else {}
    left_out = set() if evaluations else {item.id for item in store.items(selection="evaluation")}
    found = store.judgments(as_of=as_of, kinds=sources, split=split, round=round)
    while batch := list(itertools.islice(found, _BATCH)):
        # Texts are looked up for some judgments at a time: all of them may not fit into memory.
        contents = {id: prompt.content for id, prompt in store.prompts_by_id(j.prompt_id for j in batch).items()}
        responses = store.responses_by_id(response for j in batch for response in j.response_ids)
        texts = {id: response.content for id, response in responses.items()}
        media = {id: response.payload.type for id, response in responses.items() if response.payload is not None}
        cut = {id: content_key(one.content) for id, one in responses.items() if one.finish_reason == "length"}
        kept = {
            id: (content_key(one.text), {"tokenizer": tokenizer, "ids": list(one.token_ids)})
            for id, one in responses.items()
            if one.token_ids and (tokenizer := one.metadata.get("tokenizer"))
        }
        calls = {
            id: (content_key(one.text), one.messages[-1].more)
            for id, one in responses.items()
            if one.messages and one.messages[-1].more
        }
        for judgment in batch:
            if judgment.item_id in left_out:
                continue
            if judgment.prompt_id not in contents or not texts.keys() >= set(judgment.response_ids):
                continue  # erased since the judgment was read
            metadata = dict(judgment.metadata)
            if provenance is True:
                metadata |= {"labeler": judgment.labeler_id, "judgment": judgment.id, "item": judgment.item_id}
            elif provenance and (name := provenance.get(judgment.labeler_id)) and labeler_of(metadata) is None:
                metadata["labeler"] = name
            if unfinished := sorted({cut[shown] for shown in judgment.response_ids if shown in cut}):
                metadata[CUT] = unfinished
            if own := {kept[shown][0]: kept[shown][1] for shown in judgment.response_ids if shown in kept}:
                metadata[SAMPLED] = own
            if called := dict(calls[shown] for shown in judgment.response_ids if shown in calls):
                metadata[CALLS] = called
            if kinds_of_file := sorted({media[shown] for shown in judgment.response_ids if shown in media}):
                metadata[MEDIA] = ", ".join(kinds_of_file)
            if attributes:
                metadata["attributes"] = labelers.get(judgment.labeler_id, {})
            weight = judgment.weight * weigh(judgment)
            common = {"prompt": contents[judgment.prompt_id], "weight": weight, "metadata": metadata}
            for example in _inline(judgment, texts, common):
                if canonical.kind_name(example) in kinds:
                    yield example


def snapshot(
    store: FeedbackStore,
    kinds: Collection[str],
    split: str | None,
    as_of: int | None,
    out: str | os.PathLike[str],
    *,
    round: int | None = None,
    attributes: bool = False,
    round_weights: Mapping[int, float] | None = None,
) -> Snapshot:
    """Freeze what `inline_examples` finds in the Parquet file ``out``, without judgments that compared policies.

    Those speak of answers that were optimised against a reward model, which a data set shall fit or judge.
    Doing it again with the same result changes nothing.

    Args:
        store: the feedback database.
        kinds: kinds of example: comparison, rating, thumb, demonstration, prompt.
        split: only prompts of this split; None means all.
        as_of: number of a judgment; None means the newest one now.
        out: the file to write, ``*.parquet``.
        round: only judgments of this round.
        attributes: put what labelers said about themselves into the metadata.
        round_weights: multiplied onto the judgments' own; one without a round counts as of round 0.

    Raises:
        UserError: the query finds nothing, or ``out`` holds something else.
    """
    if Path(out).suffix != ".parquet":
        raise UserError(f"{out}: a snapshot is a Parquet file", "Give a name that ends in .parquet")
    as_of = store.last_seq() if as_of is None else as_of
    by_round = round_weights or {}
    examples = list(
        inline_examples(
            store, kinds, split, as_of, round=round, attributes=attributes, evaluations=False,
            weigh=lambda judgment: by_round.get(judgment.round or 0, 1.0),
        )
    )  # fmt: skip
    if not examples:
        where = f"the split '{split}' of {store.name}" if split else store.name
        raise UserError(f"no {' or '.join(sorted(kinds))} in {where} as of judgment {as_of}", "Label or import some")
    made = _describe(Path(out), examples, as_of)
    if made.path.exists():
        if load_snapshot(out)[0] == made:
            return made
        raise UserError(f"{out}: exists already and holds something else", "Choose another name")
    query: dict[str, Any] = {"kinds": sorted(kinds), "split": split, "round": round, "attributes": attributes}
    if round_weights:
        query["round_weights"] = {str(number): weight for number, weight in round_weights.items()}
    note = {key: value for key, value in asdict(made).items() if key != "path"} | {"query": query}
    write_examples(examples, out, "snapshot", note=json.dumps(note, sort_keys=True))
    return made


def load_snapshot(path: str | os.PathLike[str]) -> tuple[Snapshot, list[Example]]:
    """Read a snapshot back, and check that its contents are still those of its hash.

    Raises:
        UserError: not a snapshot, or one that was changed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        note = json.loads((pq.read_schema(path).metadata or {})[b"hearken"])
        as_of, digest = note["as_of"], note["hash"]
    except (OSError, KeyError, ValueError, pa.ArrowException):
        raise UserError(f"{path}: not a dataset snapshot", "Make one with hearken.feedback.snapshot") from None
    examples = read_examples(path, "snapshot")
    found = _describe(Path(path), examples, as_of)
    if found.hash != digest:
        raise UserError(f"{path}: the contents no longer match the hash", "Make the snapshot again")
    return found, examples


def _describe(path: Path, examples: list[Example], as_of: int) -> Snapshot:
    counts = Counter(canonical.kind_name(example) for example in examples)
    return Snapshot(path, canonical.content_hash(examples), as_of, dict(sorted(counts.items())))


def _inline(judgment: Judgment, texts: dict[str, str], common: dict[str, Any]) -> Iterator[Example]:
    match judgment.payload:
        case ComparisonPayload() as said:
            ranked = [rank for rank in said.ranks if rank is not None]
            if len(ranked) >= 2:
                yield Comparison(
                    responses=tuple(texts[response] for response in said.response_ids),
                    ranks=tuple(None if rank is None else rank - min(ranked) for rank in said.ranks),
                    strength=said.strength,
                    share=said.share,
                    **common,
                )
        case RatingPayload() as said:
            yield Rating(response=texts[said.response_id], ratings=said.ratings, low=said.low, high=said.high, **common)
        case ThumbPayload() as said:
            yield Thumb(response=texts[said.response_id], label=said.label, **common)
        case DemonstrationPayload() as said:
            yield Demonstration(response=said.text, **common)
        case EditPayload() as said:
            yield Demonstration(response=said.text, **common)
            original = texts[said.response_id]
            if original != said.text:
                yield Comparison(responses=(said.text, original), ranks=(0, 1), **common)
