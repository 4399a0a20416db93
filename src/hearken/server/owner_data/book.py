"""The store in memory, and the pairs that its judgments compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response, utc_now
from hearken.feedback.store import FeedbackStore

BREAK_SECONDS = 600.0
"""An answer that took longer is taken for one with a break in it, and counts as this long."""

LENGTH_GAPS = (("within 10 %", 0.10), ("10 to 50 %", 0.50), ("over 50 %", math.inf))
"""Classes of pairs by how much longer the longer response is, in words."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses that one judgment compares, in the order of their ids: the same for every labeler."""

    prompt_id: str
    a: str
    b: str
    outcome: float
    """Of ``a``: 1 preferred, 0.5 tied, 0 not preferred."""
    labeler_id: str
    judgment_id: str
    item_id: str | None
    a_first: bool | None
    """Whether ``a`` was shown before ``b``; None where the order was not stored."""
    tags: tuple[str, ...] = ()

    @property
    def unit(self) -> tuple[str, str]:
        """What several labelers may have judged."""
        return self.a, self.b


def pairs_of(judgment: Judgment) -> Iterator[Pair]:
    """The pairs that a comparison ranks."""
    said = judgment.payload
    if not isinstance(said, ComparisonPayload):
        return
    place = {index: at for at, index in enumerate(judgment.order or ())}
    for i, j in itertools.combinations(range(len(said.response_ids)), 2):
        first, second = said.ranks[i], said.ranks[j]
        if first is None or second is None:
            continue
        outcome = said.share if said.share is not None else (0.5 if first == second else float(first < second))
        if said.response_ids[i] > said.response_ids[j]:
            i, j, outcome = j, i, 1 - outcome
        shown = place[i] < place[j] if i in place and j in place else None
        yield Pair(
            judgment.prompt_id, said.response_ids[i], said.response_ids[j], outcome, judgment.labeler_id, judgment.id,
            judgment.item_id, shown, judgment.tags,
        )  # fmt: skip


@dataclass(frozen=True)
class Book:
    """The store as of one judgment, in memory."""

    prompts: dict[str, Prompt]
    responses: dict[str, Response]
    labelers: dict[str, Labeler]
    items: dict[str, QueueItem]
    judgments: tuple[Judgment, ...]
    """In force, in the order they were stored; answers to gold and repeated items too."""
    now: datetime
    name: str = ""

    @classmethod
    def load(cls, store: FeedbackStore, round: int | None = None, now: datetime | None = None) -> Book:
        """Read everything that is in force, of one round or of all."""
        return cls(
            prompts={prompt.id: prompt for prompt in store.prompts()},
            responses={response.id: response for response in store.responses()},
            labelers={labeler.id: labeler for labeler in store.labelers()},
            items={item.id: item for item in store.items(round=round)},
            judgments=tuple(store.judgments(round=round, checks=None)),
            now=now or utc_now(),
            name=store.name,
        )

    def is_check(self, judgment: Judgment) -> bool:
        """Whether it answers a gold or repeated item, and so measures the labeler only."""
        item = self.items.get(judgment.item_id or "")
        return item is not None and (item.is_gold or item.repeat_of is not None)

    def is_uniform(self, item_id: str | None) -> bool:
        """Whether the item was chosen uniformly at random (or there is none: judgments from files)."""
        item = self.items.get(item_id or "")
        return item is None or item.selection == "uniform"

    @cached_property
    def work(self) -> tuple[Judgment, ...]:
        """Judgments that are data: no checks, no skips or flags."""
        return tuple(j for j in self.judgments if j.kind not in FILLS_NO_SLOT and not self.is_check(j))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Compared pairs of all judgments that are data."""
        return tuple(pair for judgment in self.work for pair in pairs_of(judgment))

    @cached_property
    def fair_pairs(self) -> tuple[Pair, ...]:
        """Those of items that were chosen uniformly at random."""
        return tuple(pair for pair in self.pairs if self.is_uniform(pair.item_id))

    @cached_property
    def words(self) -> dict[str, int]:
        """Length of each response in words."""
        return {response.id: len(response.text.split()) for response in self.responses.values()}

    def labeler_name(self, labeler_id: str) -> str:
        """A labeler's name; "erased" where there is none any more."""
        labeler = self.labelers.get(labeler_id)
        return labeler.name if labeler else "erased"

    def length_gap(self, pair: Pair) -> str:
        """The pair's class of `LENGTH_GAPS`."""
        long, short = sorted((self.words.get(pair.a, 0), self.words.get(pair.b, 0)), reverse=True)
        gap = math.inf if short == 0 < long else (long - short) / max(short, 1)
        return next(name for name, limit in LENGTH_GAPS if gap <= limit)
