"""Items that measure the labeler: gold items, whose answer is known, and repeats of items they have judged before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hearken.feedback.records import ComparisonPayload, QueueItem, RatingPayload, hash_id
from hearken.feedback.store import FeedbackStore


def agrees(said: Any, expected: Mapping[str, Any], *, exact: bool) -> bool:
    """Whether an answer to a gold item is right.

    Args:
        said: the judgment's payload.
        expected: the right payload, as a mapping.
        exact: everything must be as expected. Otherwise what is obvious is enough: of a comparison which responses are
            best, of ratings on which side of the scale's middle they lie.
    """
    if said.kind != expected["kind"]:
        return False
    if isinstance(said, ComparisonPayload):
        mine = dict(zip(said.response_ids, said.ranks, strict=True))
        right = dict(zip(expected["response_ids"], expected["ranks"], strict=True))
        return _shape(mine) == _shape(right) if exact else _best(mine) == _best(right)
    if isinstance(said, RatingPayload):
        middle = (said.low + said.high) / 2
        pairs = [(said.ratings.get(name, middle), value) for name, value in expected["ratings"].items()]
        return all(a == b if exact else (a > middle) == (b > middle) for a, b in pairs)
    return all(getattr(said, name, None) == value for name, value in expected.items())


def _best(ranks: Mapping[str, int | None]) -> set[str]:
    known = [rank for rank in ranks.values() if rank is not None]
    return {response for response, rank in ranks.items() if known and rank == min(known)}


def _shape(ranks: Mapping[str, int | None]) -> list[tuple[str, ...]]:
    """Responses from best to worst, ties together; those without a rank are left out."""
    levels = sorted({rank for rank in ranks.values() if rank is not None})
    return [tuple(sorted(response for response, rank in ranks.items() if rank == level)) for level in levels]


def gold_record(store: FeedbackStore, labeler_id: str, last: int) -> list[bool]:
    """Whether a labeler's last answers to gold items were right, oldest first; practice, skips and flags left out."""
    return [
        agrees(judgment.payload, item.expected or {}, exact=item.metadata.get("gold") == "exact")
        for judgment, item in store.gold_answers(labeler_id, last)
    ]


def repeat(item: QueueItem) -> QueueItem:
    """The item asked a second time, of somebody who judged it; its answer measures them and trains nothing."""
    return QueueItem(
        prompt_id=item.prompt_id, response_ids=item.response_ids, kind=item.kind, round=item.round,
        selection="repeat", repeat_of=item.id, id=hash_id("repeat", item.id),
    )  # fmt: skip
