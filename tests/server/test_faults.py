"""What passes is said as such: 503, when to come again, in words for those who judge; nothing of it is final."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from people_world import HERE, Site, fill
from sqlalchemy import event, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hearken.feedback import database
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.client import HearkenClient, Refused

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


@pytest.mark.slow
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
    nowhere = ann.http.get("/nowhere", headers={"Accept": "text/html"})
    assert nowhere.status_code == 503 and "too much to do" in nowhere.text


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


# -- the HTTP API's own client -----------------------------------------------------------------------------------


class Faulty(httpx.BaseTransport):
    """A network on which every kind of passing fault comes before the true answer."""

    def __init__(self, app: Any, faults: list[int | None]) -> None:
        self.through, self.faults, self.sent = TestClient(app, base_url=HERE), faults, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        fault = self.faults.pop(0) if self.faults else 200
        if fault is None:
            raise httpx.ConnectError("connection refused")
        if fault != 200:
            return httpx.Response(fault, headers={"Retry-After": "1"}, text="<html>no JSON</html>")
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "content-type")}
        url = request.url.raw_path.decode()
        found = self.through.request(request.method, url, headers=headers, content=request.read())
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited, each time."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_the_client_sends_again_what_a_passing_fault_refused(site: Site, slept: list[float]) -> None:
    secret = site.machine().headers["Authorization"].removeprefix("Bearer ")
    network = Faulty(site.app, [])
    with HearkenClient(HERE, secret, transport=network) as client:
        task = client.claim()[0]
        network.faults += [503, 429, None, 502, 504, None]
        stored = client.submit(task, TIE)
    assert site.store.judgment(stored["id"]).item_id == task.item_id and site.store.last_seq() == 1
    assert len(slept) == 6 and slept[0] == 1 and all(pause <= 10 for pause in slept)


def test_the_client_gives_up_after_its_patience_and_at_once_where_nothing_will_change(
    site: Site, slept: list[float]
) -> None:
    secret = site.machine().headers["Authorization"].removeprefix("Bearer ")
    network = Faulty(site.app, [])
    with HearkenClient(HERE, secret, patience=5, transport=network) as client:
        task = client.claim()[0]
        network.faults += [503] * 99
        with pytest.raises(Refused) as away:
            client.submit(task, TIE)
        assert away.value.status == 503 and not away.value.final and len(slept) < 5
        network.faults.clear()
        slept.clear()
        with pytest.raises(Refused) as wrong:
            client.submit(task, {"kind": "comparison", "ranks": [0]})
        assert wrong.value.status == 422 and wrong.value.final and not slept
