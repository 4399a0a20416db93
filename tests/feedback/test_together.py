"""Calls that come at the same time are done together, and hurt each other no more than alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from hearken.errors import UserError
from hearken.feedback.records import ComparisonPayload, Judgment, QueueItem
from hearken.feedback.store import FeedbackStore
from hearken.feedback.together import Together


def crowd(together: Together[int, int], values: list[int], first: threading.Event, go: threading.Event) -> list[Any]:
    """Call with all ``values`` at once: the first is under way when the others come, and all of those wait."""
    results: list[Any] = [None] * len(values)

    def call(n: int) -> None:
        try:
            results[n] = together(values[n])
        except ValueError as error:
            results[n] = str(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(values))]
    threads[0].start()
    assert first.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(together._waiting) < len(values) - 1:
        pass
    go.set()
    for thread in threads:
        thread.join(10)
    return results


@pytest.mark.parametrize("wrong", [None, 3])
def test_who_waits_is_done_in_one_group_and_a_wrong_one_hurts_nobody(wrong: int | None) -> None:
    groups: list[list[int]] = []
    first, go = threading.Event(), threading.Event()

    def double(values: list[int]) -> list[int]:
        first.set()
        assert go.wait(10)
        groups.append(sorted(values))
        if wrong in values:
            raise ValueError(f"not {wrong}")
        return [2 * value for value in values]

    found = crowd(Together(double), list(range(6)), first, go)
    assert found == [f"not {wrong}" if n == wrong else 2 * n for n in range(6)]
    assert groups[:2] == [[0], [1, 2, 3, 4, 5]]
    assert sorted(groups[2:]) == ([] if wrong is None else [[n] for n in range(1, 6)])


def test_judgments_from_many_threads_are_all_kept_and_a_wrong_one_is_refused(
    store: FeedbackStore, fill: Callable[..., Any]
) -> None:
    _, _, items = fill(store, prompts=12, labelers=("ann", "bob"))
    refused: list[str] = []

    def submit(item: QueueItem, labeler: str) -> None:
        payload = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
        made = Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id=labeler, payload=payload)
        try:
            stored = store.submit(made)
            assert stored.id == made.id and stored.seq
        except UserError as error:
            refused.append(error.what)

    whose = ["ann", "bob", "nobody"]
    threads = [threading.Thread(target=submit, args=(item, name)) for item in items for name in whose]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    kept = list(store.judgments())
    assert len(kept) == 24 and [judgment.seq for judgment in kept] == list(range(1, 25))
    assert sum(judgment.extra for judgment in kept) == 12  # one slot each: the second judgment is kept, as extra
    assert len(refused) == 12 and all("nobody" in what for what in refused)
    assert store.verify() == []


def test_claims_from_many_threads_are_disjoint_and_a_paused_labeler_gets_none(
    store: FeedbackStore, fill: Callable[..., Any]
) -> None:
    names = [f"labeler {n}" for n in range(8)]
    fill(store, prompts=20, labelers=(*names, "paused"))
    store.set_labeler_status("paused", "paused")
    got: dict[str, list[str]] = {}

    def claim(name: str) -> None:
        try:
            got[name] = [claim.item.id for claim in store.claim(name, n=2)]
        except UserError as error:
            got[name] = [error.what]

    threads = [threading.Thread(target=claim, args=(name,)) for name in ("paused", *names, *names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got.pop("paused") == ["labeler 'paused' is paused"]
    assert len({item for items in got.values() for item in items}) == 16  # asked twice, each has the same two
