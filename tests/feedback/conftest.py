"""Databases for the tests of the feedback store: SQLite files, and PostgreSQL (`postgres`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hearken.feedback.records import Labeler, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore


@pytest.fixture
def store(location: str) -> Iterator[FeedbackStore]:
    """An open, empty store."""
    with FeedbackStore(location) as opened:
        yield opened


Filled = tuple[list[Prompt], list[list[Response]], list[QueueItem]]


@pytest.fixture
def fill() -> Callable[..., Filled]:
    """Put prompts with two responses each, comparisons of them, and active labelers into a store."""

    def _fill(store: FeedbackStore, prompts: int = 1, slots: int = 1, labelers: tuple[str, ...] = ("ann",)) -> Filled:
        made = [Prompt(content=f"Prompt {n}") for n in range(prompts)]
        answers = [[Response(prompt_id=p.id, text=f"Answer {k}", policy="sft") for k in range(2)] for p in made]
        items = [
            QueueItem(prompt_id=p.id, response_ids=tuple(r.id for r in pair), slots=slots, round=1)
            for p, pair in zip(made, answers, strict=True)
        ]
        store.add_prompts(made)
        store.add_responses([response for pair in answers for response in pair])
        store.enqueue(items)
        for name in labelers:
            store.add_labeler(Labeler(id=name, name=name.title(), kind="simulated"))
        return made, answers, items

    return _fill
