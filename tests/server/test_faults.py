"""What passes is said as such: 503, when to come again, in words for those who judge; nothing of it is final."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from people_world import Site, fill
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hearken.feedback import database
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app

TIE = {"kind": "comparison", "ranks": [0, 0]}


def read_only(store: FeedbackStore) -> None:
    """Every connection refuses to write, as on a file system that became read-only."""
    store._database.engine.dispose()

    @event.listens_for(store._database.engine, "connect")
    def refuse(connection: Any, _: object) -> None:
        connection.execute("PRAGMA query_only = ON")


def full(store: FeedbackStore) -> None:
    """The file may not grow by a page."""
    store._database.engine.dispose()

    @event.listens_for(store._database.engine, "connect")
    def fill_up(connection: Any, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")


def exhausted(store: FeedbackStore) -> None:
    """All connections of the pool are out."""

    def nobody() -> Any:
        raise PoolTimeout("QueuePool limit of size 16 overflow 64 reached, connection timed out")

    store._database.engine.connect = nobody  # type: ignore[method-assign]


FAULTS = {
    "read-only": (read_only, "takes nothing new"),
    "full": (full, "disk is full"),
    "exhausted": (exhausted, "too much to do"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_passing_faults_are_503_without_a_word_about_the_machine(site: Site, fault: str, tmp_path: Path) -> None:
    ann = site.enter()
    task = ann.claim()[0]
    for number in range(40):  # so that the file has to grow: a judgment is smaller than a page
        site.store.access.note("test", "filler " * 500, str(number))
    cause, words = FAULTS[fault]
    cause(site.store)
    answers = [ann.submit(task, TIE, id=f"{number:032d}") for number in range(40)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused and {answer.status_code for answer in refused} == {503}
    for answer in refused:
        said = answer.json()
        assert words in said["error"] and "final" not in said
        assert int(answer.headers["Retry-After"]) > 0
        assert str(tmp_path) not in answer.text and "feedback.db" not in answer.text and "SQL" not in answer.text


def test_a_locked_database_is_waited_for_and_then_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = site.enter()
    task = ann.claim()[0]
    assert site.store._database._lock.acquire()
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    try:
        answer = ann.submit(task, TIE)
    finally:
        site.store._database._lock.release()
    assert answer.status_code == 503 and "busy" in answer.json()["error"]
    assert ann.submit(task, TIE).status_code == 200


def test_a_page_says_so_too_and_loads_again_by_itself(site: Site) -> None:
    ann = site.enter()
    site.store._database.engine.dispose()
    exhausted(site.store)
    page = ann.http.get("/label", headers={"Accept": "text/html"})
    assert page.status_code == 503 and 'http-equiv="refresh"' in page.text
    assert "feedback.db" not in page.text and "Traceback" not in page.text


def test_only_what_can_never_be_stored_is_final(site: Site) -> None:
    ann = site.enter()
    first, second = ann.claim(2)
    assert ann.submit(first, TIE).status_code == 200
    changed = ann.submit(first, {"kind": "comparison", "ranks": [0, 1]})
    assert changed.status_code == 409 and changed.json()["final"] is True
    unfit = ann.submit(second, {"kind": "comparison", "ranks": [0]}, id="b" * 32)
    assert unfit.status_code == 422 and unfit.json()["final"] is True
    item = site.store.item(second["item_id"])
    site.store.erase("prompt", item.prompt_id, "asked for")
    fresh = Site(site.store, create_app(site.store)).browser()
    fresh.cookies, fresh.headers = ann.http.cookies, ann.http.headers
    said = {"id": "c" * 32, "item_id": item.id, "ticket": second["ticket"], "answer": TIE}
    erased = fresh.post("/api/v1/judgments", json=said)
    assert erased.status_code == 400 and erased.json()["final"] is True
    stranger = site.browser().post("/api/v1/judgments", json=said)
    assert stranger.status_code == 401 and "final" not in stranger.json()
    foreign = ann.http.post("/api/v1/judgments", json=said, headers={"X-CSRF-Token": "stale"})
    assert foreign.status_code == 403 and "final" not in foreign.json()


def test_a_database_without_a_name_in_what_is_said(site: Site) -> None:
    owner = site.enter("owner", "Olga")
    answer = owner.http.get("/api/v1/labelers/nobody/agreement")
    assert answer.status_code == 400
    assert answer.json()["error"] == "no labeler 'nobody' in the database"


def test_an_answer_after_the_lease_ran_out_is_kept(site: Site) -> None:
    ann, bob = site.enter(), site.enter(name="Bob")
    task = ann.claim(lease_seconds=1)[0]
    with closing(site.store._database.engine.connect()) as connection:
        connection.execute(text("UPDATE leases SET expires = '2000-01-01 00:00:00.000000'"))
        connection.commit()
    again = next(one for one in bob.claim(3) if one["item_id"] == task["item_id"])
    assert bob.submit(again, TIE, id="b" * 32).status_code == 200
    late = ann.submit(task, TIE)
    assert late.status_code == 200 and late.json()["extra"] is True


@pytest.mark.slow
def test_postgresql_stopped_and_started(stoppable_postgres: Any) -> None:
    with FeedbackStore(stoppable_postgres.location) as store:
        fill(store)
        site = Site(store, create_app(store))
        ann = site.enter()
        task = ann.claim()[0]
        stoppable_postgres.stop()
        answer = ann.submit(task, TIE)
        page = ann.http.get("/label", headers={"Accept": "text/html"})
        stoppable_postgres.start()
        for said in (answer, page):
            assert said.status_code == 503 and said.headers["Retry-After"]
            assert "postgresql" not in said.text and "127.0.0.1" not in said.text and "SELECT" not in said.text
        assert ann.submit(task, TIE).status_code == 200
        assert store.count_judgments(ann.labeler_id) == 1
