"""The queue: who is served what, leases, and many labelers at once, in threads and in processes that may die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from hearken.errors import UserError
from hearken.feedback.records import (
    ComparisonPayload,
    FlagPayload,
    Judgment,
    QueueItem,
    SkipPayload,
)
from hearken.feedback.store import FeedbackStore


def answer(item: QueueItem, labeler: str) -> Judgment:
    payload = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
    return Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id=labeler, payload=payload)


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2024, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(location: str, clock: Clock) -> Any:
    with FeedbackStore(location, clock=clock) as opened:
        yield opened


# -- who is served what ----------------------------------------------------------------------------------------------


def test_own_lease_first_then_priority_then_id(store: FeedbackStore, fill: Any) -> None:
    prompts, answers, items = fill(store, prompts=4, labelers=("ann", "bob"))
    ids = tuple(response.id for response in answers[0])
    urgent = QueueItem(prompt_id=prompts[0].id, response_ids=ids, priority=2.5, round=9)
    store.enqueue([urgent])
    (first,) = store.claim("ann")
    assert first.item.id == urgent.id
    assert first.prompt == prompts[0] and [response.id for response in first.responses] == list(ids)
    assert [claim.item.id for claim in store.claim("ann")] == [urgent.id]
    expected = [urgent.id, *sorted(item.id for item in items)]
    assert [claim.item.id for claim in store.claim("ann", n=3)] == expected[:3]
    assert [claim.item.id for claim in store.claim("bob", n=9)] == expected[3:]
    assert store.progress().leased == 5
    assert store.claim("bob", kinds=("rating",)) == []


def test_nobody_is_served_an_item_twice(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store, slots=3, labelers=("ann", "bob"))
    store.submit(answer(item, "ann"))
    assert store.claim("ann") == []
    (claim,) = store.claim("bob")
    skip = Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id="bob", payload=SkipPayload())
    store.submit(skip)
    assert store.claim("bob") == []
    assert store.item(claim.item.id).filled == 1  # a skip fills no slot


def test_flags_and_skips_leave_the_item_to_others(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store, labelers=("ann", "bob"))
    flag = Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id="ann", payload=FlagPayload(reason="harm"))
    store.submit(flag)
    assert [claim.item.id for claim in store.claim("bob")] == [item.id]
    late = store.submit(answer(item, "ann"))  # Ann thought again
    assert late.supersedes == flag.id and not late.extra
    assert store.submit(answer(item, "bob")).extra


def test_an_expired_lease_goes_to_the_next_and_the_late_answer_is_kept(
    store: FeedbackStore, fill: Any, clock: Clock
) -> None:
    _, _, (item,) = fill(store, labelers=("ann", "bob"))
    store.claim("ann", lease_seconds=60)
    assert store.claim("bob") == []
    clock.wait(61)
    assert [claim.item.id for claim in store.claim("bob", lease_seconds=60)] == [item.id]
    assert store.claim("ann") == []
    first = store.submit(answer(item, "ann"))  # late, but the slot is open
    assert not first.extra and store.item(item.id).done
    second = store.submit(answer(item, "bob"))  # in time, but it was filled meanwhile
    assert second.extra and store.item(item.id).filled == 1
    assert len(list(store.judgments())) == 2 and store.verify() == []


def test_heartbeat_and_release(store: FeedbackStore, fill: Any, clock: Clock) -> None:
    _, _, (item,) = fill(store, labelers=("ann", "bob"))
    store.claim("ann", lease_seconds=60)
    clock.wait(50)
    assert store.heartbeat(item.id, "ann", 60) == clock.now + timedelta(seconds=60)
    clock.wait(50)
    assert store.claim("bob") == []
    clock.wait(20)
    assert store.heartbeat(item.id, "ann", 60) is not None  # expired, but nobody took it
    clock.wait(70)
    assert len(store.claim("bob")) == 1
    assert store.heartbeat(item.id, "ann") is None
    assert store.heartbeat(item.id, "nobody") is None
    store.release(item.id, "bob")
    assert [claim.item.id for claim in store.claim("ann")] == [item.id]


def test_repeats_go_to_those_who_judged_before(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store, slots=1, labelers=("ann", "bob"))
    repeat = QueueItem(prompt_id=item.prompt_id, response_ids=item.response_ids, repeat_of=item.id, priority=9)
    store.enqueue([repeat])
    assert [claim.item.id for claim in store.claim("ann", n=2)] == [item.id]
    store.submit(answer(item, "ann"))
    assert [claim.item.id for claim in store.claim("ann", n=2)] == [repeat.id]
    assert store.claim("bob") == []


def test_closed_items_are_not_served_and_late_judgments_are_extra(store: FeedbackStore, fill: Any) -> None:
    _, _, (item, other) = fill(store, prompts=2)
    store.claim("ann", n=2)
    store.close_items([item.id])
    assert [claim.item.id for claim in store.claim("ann", n=2)] == [other.id]
    late = store.submit(answer(item, "ann"))
    assert late.extra
    store.withdraw(late.id)
    assert store.item(item.id).done and store.verify() == []


def test_only_active_labelers_are_served(store: FeedbackStore, fill: Any) -> None:
    fill(store)
    store.set_labeler_status("ann", "paused")
    with pytest.raises(UserError, match="paused"):
        store.claim("ann")
    store.set_labeler_status("ann", "active")
    assert len(store.claim("ann")) == 1
    with pytest.raises(UserError, match="no labeler 'nobody'"):
        store.claim("nobody")


@pytest.mark.parametrize(
    "fields",
    [
        {"response_ids": ("a",)},
        {"response_ids": ("a", "a")},
        {"response_ids": (), "kind": "rating"},
        {"slots": 0},
        {"propensity": 0.0},
        {"kind": "applause"},
    ],
)
def test_items_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        QueueItem(**({"prompt_id": "p", "response_ids": ("a", "b")} | fields))


def test_the_head_of_the_queue_is_found_by_its_index(store: FeedbackStore, fill: Any) -> None:
    """However many finished items lie behind it, and without sorting."""
    if store._database.path is None:
        pytest.skip("PostgreSQL's planner reads small tables whole, rightly")
    from hearken.feedback.queue import _wanted

    values = {"labeler": "ann", "now": datetime.now(UTC), "n": 1, "had": ["x"]}
    query = _wanted(("comparison",), False)[1].first.params(**values)
    with store._database.read() as connection:
        compiled = query.compile(connection.engine, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    assert any("ix_queue_items_open" in step for step in plan), plan
    assert any("ix_judgments_live" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


LABELERS = ("ann", "bob", "cyd")
Step = tuple[str, str, int]
steps = st.lists(
    st.tuples(st.sampled_from(["claim", "submit", "skip", "withdraw", "wait", "release"]), st.sampled_from(LABELERS),
              st.integers(0, 2)),
    max_size=30,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, slots=st.integers(1, 2))
def test_any_course_of_events_keeps_the_books(tmp_path: Path, fill: Any, steps: list[Step], slots: int) -> None:
    """Against a model kept in plain dictionaries: what counts, what is extra, what is open."""
    clock, blank = Clock(), tmp_path / "blank.db"
    if not blank.exists():  # copied for each example: to make the tables takes longer than the rest
        FeedbackStore(blank).close()
    with FeedbackStore(shutil.copy(blank, tmp_path / f"{time.monotonic_ns()}.db"), clock=clock) as store:
        _, _, items = fill(store, prompts=3, slots=slots, labelers=LABELERS)
        filled: dict[str, set[str]] = {item.id: set() for item in items}
        said: dict[tuple[str, str], Judgment] = {}
        for what, labeler, number in steps:
            item = items[number]
            key = (item.id, labeler)
            if what == "claim":
                for claim in store.claim(labeler, lease_seconds=10):
                    assert (claim.item.id, labeler) not in said
                    assert len(filled[claim.item.id]) < slots
            elif what == "submit":
                counted = labeler in filled[item.id] or len(filled[item.id]) < slots
                said[key] = store.submit(answer(item, labeler))
                assert said[key].extra is not counted
                filled[item.id] |= {labeler} if counted else set()
            elif what == "skip":
                said[key] = store.submit(
                    Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id=labeler, payload=SkipPayload())
                )
                filled[item.id] -= {labeler}
            elif what == "withdraw" and key in said:
                store.withdraw(said.pop(key).id, lease_seconds=10)
                filled[item.id] -= {labeler}
            elif what == "release":
                store.release(item.id, labeler)
            elif what == "wait":
                clock.wait(6)
        assert {item.id: item.filled for item in store.items()} == {id: len(who) for id, who in filled.items()}
        assert {item.id: item.done for item in store.items()} == {i: len(who) >= slots for i, who in filled.items()}
        assert {judgment.id for judgment in store.judgments()} == {judgment.id for judgment in said.values()}
        assert store.verify() == []


# -- many at once ----------------------------------------------------------------------------------------------------

WORKER = """
import sys
from hearken.feedback.records import ComparisonPayload, Judgment
from hearken.feedback.store import FeedbackStore

location, labeler = sys.argv[1:]
with FeedbackStore(location) as store:
    while claims := store.claim(labeler):
        item = claims[0].item
        payload = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
        stored = store.submit(
            Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id=labeler, payload=payload)
        )
        print(stored.id, flush=True)
"""


def start_worker(location: str, labeler: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, location, labeler]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_books(store: FeedbackStore, items: int, slots: int, acknowledged: list[str]) -> None:
    judgments = list(store.judgments())
    assert len(judgments) == items * slots
    assert not any(judgment.extra for judgment in judgments)
    assert set(Counter(judgment.item_id for judgment in judgments).values()) == {slots}
    assert max(Counter((judgment.item_id, judgment.labeler_id) for judgment in judgments).values()) == 1
    assert set(acknowledged) <= {judgment.id for judgment in judgments}
    assert [judgment.seq for judgment in judgments] == list(range(1, items * slots + 1))
    assert store.progress().items_done == items and store.verify() == []


@pytest.mark.parametrize("slots", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_eight_threads(location: str, fill: Any, slots: int) -> None:
    names = tuple(f"l{n}" for n in range(8))
    acknowledged: list[str] = []
    failures: list[BaseException] = []
    with FeedbackStore(location) as store:
        fill(store, prompts=200, slots=slots, labelers=names)

        def work(labeler: str) -> None:
            try:
                while claims := store.claim(labeler):
                    acknowledged.append(store.submit(answer(claims[0].item, labeler)).id)
            except BaseException as error:  # a thread's exception would be lost
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(acknowledged) == 200 * slots
        check_books(store, 200, slots, acknowledged)


@pytest.mark.slow
def test_eight_processes(location: str, fill: Any) -> None:
    slots = 2
    names = tuple(f"l{n}" for n in range(8))
    with FeedbackStore(location) as store:
        fill(store, prompts=100, slots=slots, labelers=names)
        workers = [start_worker(location, name) for name in names]
        printed = [worker.communicate(timeout=120) for worker in workers]
        assert [error for _, error in printed] == [""] * 8
        assert all(worker.returncode == 0 for worker in workers)
        acknowledged = [line for output, _ in printed for line in output.split()]
        assert len(acknowledged) == 100 * slots
        check_books(store, 100, slots, acknowledged)


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_judgment(location: str, fill: Any) -> None:
    with FeedbackStore(location) as store:
        fill(store, prompts=300, labelers=("ann", "bob"))
        worker = start_worker(location, "ann")
        assert worker.stdout is not None
        acknowledged = [worker.stdout.readline().strip() for _ in range(20)]
        os.kill(worker.pid, signal.SIGKILL)
        acknowledged += worker.stdout.read().split()
        worker.wait()
        stored = {judgment.id for judgment in store.judgments()}
        assert set(acknowledged) <= stored and len(stored) < 300
        assert len(stored) - len(acknowledged) in (0, 1)  # committed, and killed before it could say so
        assert store.verify() == []
        while claims := store.claim("bob", n=50):  # the others go on at once; Ann's one lease holds one item
            store.submit_all([answer(claim.item, "bob") for claim in claims])
        assert store.progress().items_done >= 299


def test_two_claims_of_one_labeler_at_once_share_nothing(location: str, fill: Any) -> None:
    """Overlap 1, twenty claims at the same moment: never more leases than slots."""
    with FeedbackStore(location) as store:
        names = tuple(f"l{n}" for n in range(10))
        fill(store, prompts=6, labelers=names)
        barrier = threading.Barrier(20)
        got: list[tuple[str, str]] = []

        def work(labeler: str) -> None:
            barrier.wait()
            got.extend((claim.item.id, labeler) for claim in store.claim(labeler))

        threads = [threading.Thread(target=work, args=(name,)) for name in names * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({item for item, _ in set(got)}) == len(set(got)) == 6


def test_a_claim_sees_a_lease_that_was_committed_while_it_looked(postgres_location: str, fill: Any) -> None:
    """PostgreSQL: the slow claim's view is older than the quick claim's lease, and its row lock comes after it."""
    with FeedbackStore(postgres_location) as slow, FeedbackStore(postgres_location) as quick:
        fill(quick, labelers=("ann", "bob"))

        @event.listens_for(slow._database.engine, "before_cursor_execute", retval=True)
        def _dawdle(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> tuple[str, Any]:
            if "SKIP LOCKED" in statement:
                statement = statement.replace(" ORDER BY", " AND pg_sleep(0.6)::text = '' ORDER BY")
            return statement, parameters

        got: list[Any] = []
        late = threading.Thread(target=lambda: got.extend(slow.claim("ann")))
        late.start()
        time.sleep(0.2)
        assert len(quick.claim("bob")) == 1
        late.join()
        assert got == []


def test_a_batch_and_single_judgments_do_not_block_each_other(location: str, fill: Any) -> None:
    """Batches that touch the same items in opposite orders, claims and erasures together: no deadlock, nothing lost."""
    with FeedbackStore(location) as store:
        _, _, items = fill(store, prompts=20, slots=4, labelers=("ann", "bob", "cyd", "dan"))
        failures: list[BaseException] = []

        def batch(labeler: str, backwards: bool) -> None:
            try:
                for _ in range(3):
                    store.submit_all([answer(item, labeler) for item in (items[::-1] if backwards else items)])
            except BaseException as error:
                failures.append(error)

        def claims() -> None:
            try:
                for _ in range(6):
                    store.claim("cyd", n=15)
                    store.heartbeat(items[0].id, "cyd")
                store.submit_all([answer(item, "dan") for item in items])
                store.erase("labeler", "dan", "asked for it")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=batch, args=who) for who in (("ann", False), ("bob", True))]
        threads.append(threading.Thread(target=claims))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(list(store.judgments())) == 40 and len(list(store.judgments(history=True))) == 120
        assert store.verify() == []
