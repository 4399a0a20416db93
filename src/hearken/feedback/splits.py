"""Deduplication, and train/validation splits by prompt with a check for leakage."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Document, Example, PromptOnly, content_key
from hearken.feedback.formats import canonical


@dataclass(frozen=True)
class Split:
    """Examples on two sides; no prompt is on both."""

    train: list[Example]
    validation: list[Example]


@dataclass(frozen=True)
class Leakage:
    """Prompts of the validation side that also stand on the train side."""

    exact: tuple[Content, ...]
    near: tuple[Content, ...]
    """Equal but for capitals and white space; the exact ones are not among them."""
    validation_rows: int
    """Rows of the validation side with such a prompt."""

    def __bool__(self) -> bool:
        return bool(self.exact or self.near)

    def __str__(self) -> str:
        """One line, such as "2 prompts of the validation data (5 rows) are in the training data, 1 of them nearly"."""
        prompts = len(self.exact) + len(self.near)
        line = f"{prompts} prompts of the validation data ({self.validation_rows} rows) are in the training data"
        return f"{line}, {len(self.near)} of them nearly" if self.near else line


def identity(example: Example) -> str | None:
    """What tells a judgment from another one that says the same, and is equal for the same judgment read twice.

    It is the judgment's own id (metadata "judgment", Label Studio's "annotation_id") with what it says; else its
    labeler (`labeler_of`) with all that the row holds; None where neither is known: two such rows are two votes,
    however alike. Prompts and documents are nobody's vote: they are their text.
    """
    kind = canonical.kind_name(example)
    if isinstance(example, PromptOnly | Document):
        return f"{kind} {canonical.dump(example, metadata=False)}"
    known = example.metadata.get("judgment", example.metadata.get("annotation_id"))
    if known is None and labeler_of(example.metadata) is None:
        return None
    plain = _sorted(example) if isinstance(example, Comparison) else example
    return f"{kind} {known} {canonical.dump(plain, metadata=known is None)}"


@dataclass(frozen=True)
class Deduplicated:
    """What `deduplicate` returns."""

    kept: list[Example]
    """In order."""
    removed: int
    """Examples left out because they are one that is kept, read again (see `identity`)."""
    repeated: int
    """Judgments kept that say what one before them says, without a labeler or an id: each is a vote of its own."""


def deduplicate(examples: Iterable[Example]) -> Deduplicated:
    """Leave out what was read twice, and keep repeated votes: three for and one against stay three to one.

    Only the same prompt or document, and the same identified judgment, is left out: see `identity`.
    """
    seen: set[str] = set()
    said: set[str] = set()
    kept: list[Example] = []
    removed = repeated = 0
    for example in examples:
        key = identity(example)
        if key is None:
            plain = _sorted(example) if isinstance(example, Comparison) else example
            words = f"{canonical.kind_name(example)} {canonical.dump(plain, metadata=False)}"
            repeated += words in said
            said.add(words)
        elif key in seen:
            removed += 1
            continue
        else:
            seen.add(key)
        kept.append(example)
    return Deduplicated(kept, removed, repeated)


def side(prompt: Content, validation: float = 0.1, seed: int = 0) -> Literal["train", "validation"]:
    """On which side a prompt stands: by a hash of the prompt and ``seed`` alone, so that added rows move nobody.

    Prompts that differ only in capitals and white space stand on the same side.

    Args:
        prompt: the prompt (or a document's text).
        validation: the share of prompts that go to validation, 0..1.
        seed: another seed, another split.
    """
    digest = hashlib.sha256(f"{seed} {content_key(_normalised(prompt))}".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") / 2**64 < validation else "train"


def split_by_prompt(examples: Iterable[Example], validation: float = 0.1, seed: int = 0) -> Split:
    """Divide examples so that everything about one prompt is on one side; see `side`.

    With few prompts a side may be empty.

    Raises:
        UserError: ``validation`` is not a share.
    """
    if not 0 <= validation <= 1:
        raise UserError(f"the share of validation must lie in 0..1, not {validation}", "For a tenth write 0.1")
    split = Split([], [])
    sides: dict[Content, list[Example]] = {}
    for example in examples:
        prompt = _prompt(example)
        if prompt not in sides:
            sides[prompt] = split.train if side(prompt, validation, seed) == "train" else split.validation
        sides[prompt].append(example)
    return split


def check_leakage(train: Sequence[Example], validation: Sequence[Example], strict: bool = False) -> Leakage:
    """Find prompts that stand on both sides.

    Args:
        train: the one side.
        validation: the other.
        strict: refuse instead of only reporting.

    Raises:
        UserError: with ``strict``, when there are any.
    """
    seen = {_prompt(example) for example in train}
    seen_normalised = {_normalised(prompt) for prompt in seen}
    exact: dict[Content, None] = {}
    near: dict[Content, None] = {}
    rows = 0
    for example in validation:
        prompt = _prompt(example)
        if _normalised(prompt) in seen_normalised:
            rows += 1
            (exact if prompt in seen else near)[prompt] = None
    leakage = Leakage(tuple(exact), tuple(near), rows)
    if strict and leakage:
        raise UserError(
            str(leakage), "Leave those rows out; or leave --validation out: then a share of the prompts is held out"
        )
    return leakage


def _prompt(example: Example) -> Content:
    return example.text if isinstance(example, Document) else example.prompt


def _normalised(prompt: Content) -> Content:
    if isinstance(prompt, str):
        return " ".join(prompt.split()).casefold()
    return tuple(replace(message, content=" ".join(message.content.split()).casefold()) for message in prompt)


def _sorted(example: Comparison) -> Comparison:
    if example.share is not None:
        return example  # a share speaks of the first response
    order = sorted(zip(example.responses, example.ranks, strict=True), key=lambda pair: (pair[0], str(pair[1])))
    responses, ranks = tuple(text for text, _ in order), tuple(rank for _, rank in order)
    return replace(example, responses=responses, ranks=ranks)


def of_labelers(examples: Iterable[Example], only: str) -> list[Example]:
    """The examples whose labelers fit ``KEY=VALUE``: a key of the metadata or of the labeler's ``attributes`` in them.

    Raises:
        UserError: not of that form, or no example fits.
    """
    key, equals, value = only.partition("=")
    if not equals or not key or not value:
        raise UserError(f"only={only} is not KEY=VALUE", "For example: -o only=group=quest, or only=labeler=ID")
    rows = list(examples)
    found = [r for r in rows if labeler_value(r, key) == value]
    if not found:
        known = {said for r in rows if (said := labeler_value(r, key)) is not None}
        said = f"Its values: {', '.join(sorted(known)[:8])}" if known else "No judgment says anything of it"
        raise UserError(f"no judgment has {key}={value}", said)
    return found


LABELER_COLUMNS = ("labeler", "labeler_id", "annotator", "annotator_id", "worker", "worker_id", "judge")
"""Columns that name who judged; the first of them that a row fills in counts."""


def labeler_of(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """The column among a judgment's metadata that names its labeler, and the name; None where none does."""
    for column in LABELER_COLUMNS:
        name = metadata.get(column)
        if isinstance(name, float) and name.is_integer():
            name = int(name)  # tables with empty cells write whole numbers so
        if isinstance(name, str | int) and not isinstance(name, bool) and str(name).strip():
            return column, str(name).strip()
    return None


def labeler_value(example: Example, key: str) -> str | None:
    """What a judgment says of its labeler: the name ("labeler"), a key of its metadata or of ``attributes`` there."""
    if key == "labeler":
        named = labeler_of(example.metadata)
        return None if named is None else named[1]
    told = example.metadata.get("attributes")
    said = example.metadata.get(key, told.get(key) if isinstance(told, dict) else None)
    return None if said is None else str(said)


def split_by_labeler(examples: Iterable[Example], held_out: float, seed: int = 0) -> Split:
    """Hold out whole *labelers* (`labeler_of`): does a reward model know people, or these people?

    Examples without a labeler stay on the train side.

    Args:
        examples: judgments.
        held_out: share of the labelers, 0..1; at least one.
        seed: of the choice.

    Raises:
        UserError: fewer than two labelers.
    """
    rows = list(examples)
    names = sorted({name for r in rows if (name := labeler_value(r, "labeler")) is not None})
    if len(names) < 2:
        raise UserError(f"{len(names)} labelers: none can be held out", "Give judgments with a labeler each")
    names.sort(key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    out = set(names[: min(max(round(held_out * len(names)), 1), len(names) - 1)])
    sides: tuple[list[Example], list[Example]] = [], []
    for row in rows:
        sides[labeler_value(row, "labeler") in out].append(row)
    return Split(*sides)
