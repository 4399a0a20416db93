"""What figures are computed from: the judgments as arrays, brought up to date with the new ones only.

200,000 responses and 300,000 judgments take some tens of megabytes so; as records they take gigabytes. Texts stay in
the database: pages that show some read those few.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from hearken.feedback.checks import agrees
from hearken.feedback.figures import State, judgments_between, prompts_between, responses_between, state_of
from hearken.feedback.pairs import ADJUDICATION, UNNAMED, ranked_pairs, words
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import KINDS, Labeler, Payload, utc_now
from hearken.feedback.store import FeedbackStore

BREAK_SECONDS = 600.0
"""An answer that took longer is taken for one with a break in it, and counts as this long."""

LENGTH_GAPS = (("within 10 %", 0.10), ("10 to 50 %", 0.50), ("over 50 %", math.inf))
"""Classes of pairs by how much longer the longer response is, in words."""

THUMB = "thumbs"
"""The scale of thumbs, beside those of ratings."""

Rows: TypeAlias = NDArray[np.void]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

RESPONSES = np.dtype([("seq", "i8"), ("prompt", "i8"), ("policy", "i4"), ("words", "i4")])
"""``seq`` and ``prompt``: their numbers in the database; ``policy``: its place in `Book.policies`, -1 for none."""
JUDGMENTS = np.dtype(
    [
        ("seq", "i8"), ("created", "i8"), ("seconds", "f8"), ("item", "i8"), ("repeats", "i8"), ("guideline", "i4"),
        ("labeler", "i4"), ("kind", "i1"), ("check", "?"), ("drawn", "i1"), ("gold", "i1"), ("settles", "?"),
        ("live", "?"),
    ]
)  # fmt: skip
"""``created``: microseconds since 1970; ``item``, and ``repeats`` (the item it asks again): numbers in the database, 0
for none; ``labeler``: place in `Book.people`; ``check``: answers a gold or repeated item; ``drawn``: 1 uniformly at
random, or there is no item, 2 with all others to compare policies, 0 actively selected; ``gold``: 1 answered as
expected, 0 not, -1 no gold item; ``settles``: an adjudication."""
PAIRS = np.dtype(
    [("judgment", "i4"), ("a", "i4"), ("b", "i4"), ("outcome", "f8"), ("verdict", "i1"), ("shown_first", "i1")]
)
"""`feedback.pairs.Pair` as a row. ``judgment``, ``a`` and ``b`` are places, in `Book.judgments` and `Book.responses`;
``shown_first`` is -1 where the order is not known."""
SCORES = np.dtype([("judgment", "i4"), ("response", "i4"), ("scale", "i4"), ("value", "f8"), ("share", "f8")])
"""Ratings and thumbs; ``scale``: place in `Book.scales`; ``share``: the value on a scale from 0 to 1."""
MARKS = np.dtype([("of", "i8"), ("tag", "i4")])
"""Tags, of judgments (by place) or prompts (by number); ``tag``: place in `Book.tags`."""


@dataclass
class Names:
    """Names by number, in the order in which they were first seen."""

    known: list[str] = field(default_factory=list)
    _number: dict[str, int] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """Its number, a new one where it is new."""
        found = self._number.setdefault(name, len(self._number))
        if found == len(self.known):
            self.known.append(name)
        return found


def microseconds(time: datetime) -> int:
    """Since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The time so long after 1970, in UTC."""
    return _EPOCH + timedelta(microseconds=int(microseconds))


@dataclass(frozen=True)
class Book:
    """The store as of one judgment, without texts. Only judgments in force count (`live`)."""

    now: datetime
    name: str = ""
    labelers: Mapping[str, Labeler] = field(default_factory=dict)
    responses: Rows = field(default_factory=lambda: np.empty(0, RESPONSES))
    judgments: Rows = field(default_factory=lambda: np.empty(0, JUDGMENTS))
    pairs: Rows = field(default_factory=lambda: np.empty(0, PAIRS))
    scores: Rows = field(default_factory=lambda: np.empty(0, SCORES))
    judgment_marks: Rows = field(default_factory=lambda: np.empty(0, MARKS))
    prompt_marks: Rows = field(default_factory=lambda: np.empty(0, MARKS))
    state: State = (0, 0, 0, 0)
    """What `state_of` said of the store."""
    _place: dict[str, int] = field(default_factory=dict)
    _policies: Names = field(default_factory=Names)
    _people: Names = field(default_factory=Names)
    _scales: Names = field(default_factory=Names)
    _tags: Names = field(default_factory=Names)

    @classmethod
    def load(cls, store: FeedbackStore, now: datetime | None = None) -> Book:
        """Read everything that is in force."""
        return cls(now or utc_now()).updated(store, now)

    def updated(self, store: FeedbackStore, now: datetime | None = None, say: Callable[[int], object] = int) -> Book:
        """The book as of now: what is new is read. After an erasure all is read again. The old one stays as it is.

        Args:
            store: the one that this book is of.
            now: the time; by default the store's.
            say: called with the number of the judgment that was read last.
        """
        now, state = now or utc_now(), state_of(store)
        labelers = {labeler.id: labeler for labeler in store.labelers()}
        if state == self.state:
            return replace(self, now=now, labelers=labelers, name=store.name)
        if self.state[0] and (state[0] < self.state[0] or state[3] != self.state[3]):
            return Book(now).updated(store, now, say)
        try:
            return _Reader(self, store, say).read(now, labelers, state)
        except KeyError:  # PostgreSQL: a response whose number is lower was committed later than others were read
            if not self.state[0]:
                raise
            return Book(now).updated(store, now, say)

    # -- what the numbers stand for ------------------------------------------------------------------------------

    @property
    def as_of(self) -> int:
        """The number of the newest judgment."""
        return self.state[0]

    @property
    def policies(self) -> list[str]:
        """By number, in the order of their first responses."""
        return self._policies.known

    @property
    def people(self) -> list[str]:
        """Ids of labelers by number, in the order of their first judgments; erased ones too."""
        return self._people.known

    @property
    def scales(self) -> list[str]:
        """`THUMB` and the names of ratings, by number."""
        return self._scales.known

    @property
    def tags(self) -> list[str]:
        """Tags of judgments and prompts by number."""
        return self._tags.known

    def labeler_name(self, labeler_id: str) -> str:
        """A labeler's name; "erased" where there is none any more."""
        labeler = self.labelers.get(labeler_id)
        return labeler.name if labeler else "erased"

    # -- which of them count -------------------------------------------------------------------------------------

    @cached_property
    def fills(self) -> Bools:
        """(J,) whether a judgment is in force and says something: no skip, no flag."""
        silent = [KINDS.index(kind) for kind in FILLS_NO_SLOT]
        found: Bools = self.judgments["live"] & ~np.isin(self.judgments["kind"], silent)
        return found

    @cached_property
    def work(self) -> Bools:
        """(J,) whether a judgment is data: `fills`, and answers no gold or repeated item, which measure the labeler."""
        found: Bools = self.fills & ~self.judgments["check"]
        return found

    @cached_property
    def repeated(self) -> Ints:
        """(R, 2) places of a labeler's answer to an item and of their answer when they were asked it again."""
        judgments = self.judgments
        again = np.flatnonzero(judgments["live"] & (judgments["repeats"] > 0))
        first = np.flatnonzero(judgments["live"] & np.isin(judgments["item"], judgments["repeats"][again]))
        place = {(judgments["item"][at], judgments["labeler"][at]): at for at in first.tolist()}
        asked = [(judgments["repeats"][at], judgments["labeler"][at]) for at in again.tolist()]
        both = [(place[key], at) for key, at in zip(asked, again.tolist(), strict=True) if key in place]
        return np.array(both, np.int64).reshape(-1, 2)

    @cached_property
    def work_pairs(self) -> Rows:
        """Compared pairs of all judgments that are data; of several by one labeler on the same responses the last."""
        return self.latest(self.pairs[self.work[self.pairs["judgment"]]])

    @cached_property
    def votes(self) -> Rows:
        """All pairs that labelers compared: adjudications left out, each of several judgments of one labeler there."""
        counted = self.work & ~self.judgments["settles"]
        found: Rows = self.pairs[counted[self.pairs["judgment"]]]
        return found

    @cached_property
    def opinions(self) -> Rows:
        """`votes`, of several by one labeler on the same responses the last."""
        return self.latest(self.votes)

    def latest(self, pairs: Rows) -> Rows:
        """As `feedback.pairs.latest`: of each labeler the last on the same two responses, in order."""
        key = self.unit(pairs) * max(len(self.people), 1) + self.labeler(pairs)
        key = np.where(self.named(pairs), key, -1 - np.arange(len(pairs)))
        _, last = np.unique(key[::-1], return_index=True)
        found: Rows = pairs[np.sort(len(pairs) - 1 - last)]
        return found

    def named(self, pairs: Rows) -> Bools:
        """(N,) whether one known labeler said it: of a file that names nobody each row is anybody's."""
        nobody = self.people.index(UNNAMED) if UNNAMED in self.people else -1
        found: Bools = self.labeler(pairs) != nobody
        return found

    def fair(self, pairs: Rows) -> Rows:
        """Those that were not selected for what labelers or models made of them: drawn uniformly, or in no queue."""
        found: Rows = pairs[self.judgments["drawn"][pairs["judgment"]] > 0]
        return found

    def unit(self, pairs: Rows) -> Ints:
        """(N,) a number for the two responses: what several labelers may have judged."""
        found: Ints = pairs["a"].astype(np.int64) * len(self.responses) + pairs["b"]
        return found

    def prompt(self, pairs: Rows) -> Ints:
        """(N,) number of the prompt."""
        found: Ints = self.responses["prompt"][pairs["a"]]
        return found

    def labeler(self, rows: Rows) -> Ints:
        """(N,) who said it, of pairs or scores."""
        found: Ints = self.judgments["labeler"][rows["judgment"]].astype(np.int64)
        return found

    def by_labeler(self, judgments: NDArray[np.integer[Any]]) -> dict[str, Ints]:
        """Which of the judgments at these places are each labeler's, in the order of their first ones."""
        who = self.judgments["labeler"][judgments]
        order = np.argsort(who.astype(np.uint16) if len(self.people) < 2**16 else who, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(who[order])) + 1) if len(who) else []
        return {self.people[who[part[0]]]: part for part in sorted(parts, key=lambda part: int(part[0]))}

    def words(self, places: NDArray[np.integer[Any]]) -> Ints:
        """(N,) length in words of the responses at these places."""
        found: Ints = self.responses["words"][places].astype(np.int64)
        return found

    def length_gap(self, pairs: Rows) -> Ints:
        """(N,) the pair's class of `LENGTH_GAPS`."""
        one, other = self.words(pairs["a"]), self.words(pairs["b"])
        long, short = np.maximum(one, other), np.minimum(one, other)
        gap = np.where((short == 0) & (long > 0), np.inf, (long - short) / np.maximum(short, 1))
        return np.searchsorted([limit for _, limit in LENGTH_GAPS], gap, side="left")


class _Reader:
    """Reads what a book does not have yet."""

    def __init__(self, book: Book, store: FeedbackStore, say: Callable[[int], object]) -> None:
        self._book, self._store, self._say = book, store, say
        self._new: dict[str, list[Rows]] = {
            name: [getattr(book, name)]
            for name in ("responses", "judgments", "pairs", "scores", "judgment_marks", "prompt_marks")
        }
        self._count, self._responses_read = len(book.judgments), len(book.responses)

    def read(self, now: datetime, labelers: Mapping[str, Labeler], state: State) -> Book:
        """The book with everything up to ``state``, which was read before."""
        book, (newest, responses, prompts, _) = self._book, state
        for batch in prompts_between(self._store, book.state[2], prompts):
            marks = [(seq, book._tags.number(tag)) for seq, metadata in batch for tag in _prompt_tags(metadata)]
            self._add("prompt_marks", marks, MARKS)
        for batch in responses_between(self._store, book.state[1], responses):
            self._responses(batch)
        superseded: list[int] = []
        for batch, replaced in judgments_between(self._store, book.as_of, newest):
            superseded += replaced
            self._judgments(batch)
            self._say(batch[-1][0])
        whole: dict[str, Any] = {
            name: np.concatenate(parts) if len(parts) > 1 else parts[0] for name, parts in self._new.items()
        }
        if superseded:
            judgments = whole["judgments"].copy()
            judgments["live"] &= ~np.isin(judgments["seq"], superseded)
            whole["judgments"] = judgments
        return replace(book, **whole, now=now, name=self._store.name, labelers=labelers, state=state)

    def _add(self, name: str, rows: list[tuple[Any, ...]], kind: np.dtype[np.void]) -> None:
        if rows:
            self._new[name].append(np.array(rows, dtype=kind))

    def _responses(self, batch: Sequence[Any]) -> None:
        place, policies, rows = self._book._place, self._book._policies, []
        for seq, name, prompt, policy, text in batch:
            place[name] = self._responses_read
            self._responses_read += 1
            rows.append((seq, prompt, -1 if policy is None else policies.number(policy), words(text)))
        self._add("responses", rows, RESPONSES)

    def _judgments(self, batch: Sequence[Any]) -> None:
        book, place = self._book, self._book._place
        rows: list[tuple[Any, ...]] = []
        pairs: list[tuple[Any, ...]] = []
        scores: list[tuple[Any, ...]] = []
        marks: list[tuple[Any, ...]] = []
        for (
            seq, kind, who, seconds, guideline, created, live, payload, order, tags, item, selection, is_gold,
            expected, metadata, repeats,
        ) in batch:  # fmt: skip
            if not live:
                continue
            number, said = self._count, json.loads(payload)
            self._count += 1
            tags = () if tags == "[]" else json.loads(tags)
            marks += [(number, book._tags.number(tag)) for tag in tags]
            if kind == "comparison":
                shown = None if order is None else json.loads(order)
                ids = said["response_ids"]
                for i, j, outcome, verdict, first in ranked_pairs(said["ranks"], said.get("share"), shown, ids):
                    shown_first = -1 if first is None else first
                    pairs.append((number, place[ids[i]], place[ids[j]], outcome, verdict, shown_first))
            elif kind == "thumb":
                value = float(said["label"])
                scores.append((number, place[said["response_id"]], book._scales.number(THUMB), value, value))
            elif kind == "rating":
                low, high = said.get("low", 1.0), said.get("high", 5.0)
                scores += [
                    (
                        number, place[said["response_id"]], book._scales.number(f"rating: {name}"), value,
                        (value - low) / ((high - low) or 1.0),
                    )
                    for name, value in said["ratings"].items()
                ]  # fmt: skip
            gold = (
                -1 if not is_gold or expected is None else _gold(kind, said, json.loads(expected), json.loads(metadata))
            )
            rows.append(
                (
                    seq, microseconds(created), math.nan if seconds is None else seconds, item or 0, repeats or 0,
                    -1 if guideline is None else guideline, book._people.number(who), _KIND[kind],
                    bool(is_gold or repeats), _DRAWN.get(selection, 0), gold, ADJUDICATION in tags, True,
                )
            )  # fmt: skip
        self._add("judgments", rows, JUDGMENTS)
        self._add("pairs", pairs, PAIRS)
        self._add("scores", scores, SCORES)
        self._add("judgment_marks", marks, MARKS)


_DRAWN = {None: 1, "uniform": 1, "evaluation": 2}
_KIND = {kind: number for number, kind in enumerate(KINDS)}
_PAYLOAD: TypeAdapter[Any] = TypeAdapter(Annotated[Payload, Field(discriminator="kind")])


def _gold(kind: str, said: Any, expected: Mapping[str, Any], metadata: Mapping[str, Any]) -> int:
    """Whether a gold item was answered as expected; -1 where nothing was said, or it was practice."""
    if "practice" in metadata or kind in FILLS_NO_SLOT:
        return -1
    return int(agrees(_PAYLOAD.validate_python(said), expected, exact=metadata.get("gold") == "exact"))


def _prompt_tags(metadata: Mapping[str, Any]) -> Iterable[str]:
    """What the prompt's own metadata says it is about."""
    found = metadata.get("tags", metadata.get("category", ()))
    return [found] if isinstance(found, str) else [str(tag) for tag in found] if isinstance(found, list) else ()
