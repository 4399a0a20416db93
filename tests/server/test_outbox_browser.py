"""No answer is lost: the database stopped, the disk full; network, session and proxy at fault; in a browser."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from people_world import Running, fill, running

from hearken.feedback import database
from hearken.feedback.access import Account
from hearken.feedback.records import utc_now
from hearken.feedback.store import FeedbackStore

pytestmark = pytest.mark.slow

READ = 350
"""Milliseconds after which the page takes an answer to the item that has just come."""
ROUNDS = 3
ITEMS = 3 * ROUNDS
SENT = "**/api/v1/judgments"


def prepare(store: FeedbackStore) -> None:
    for number in range(ROUNDS):
        fill(store, round=number + 1)
    store.access.set_settings({"practice": [], "check_share": 0.0})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "feedback.db", prepare) as found:
        yield found


@pytest.fixture
def at_work(chromium: Any) -> Iterator[Callable[[Running], Any]]:
    """A page on which somebody judges."""
    contexts = []

    def begin(server: Running) -> Any:
        person = server.store.access.add_account(Account(name="Ann", consented=utc_now()))
        context = chromium.new_context(accept_downloads=True)
        contexts.append(context)
        context.add_cookies([server.cookie(person)])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{server.url}/label")
        page.locator("#desk .question").wait_for()
        page.wait_for_timeout(800)  # the next item is fetched ahead
        return page

    yield begin
    for context in contexts:
        context.close()


def answer(page: Any, times: int = 1) -> None:
    for _ in range(times):
        page.locator("#desk .question").wait_for()
        page.wait_for_timeout(READ)
        page.keyboard.press("1")


def notice(page: Any, words: str) -> str:
    """What the page says of answers that wait, once it says so."""
    found = page.locator("#notice", has_text=re.compile(words))
    found.wait_for()
    return str(found.inner_text())


def stored(page: Any, server: Running, count: int) -> None:
    """Waits until so many answers are stored; then each is stored once, and the page has nothing more to say."""
    for _ in range(800):
        if server.store.last_seq() >= count:
            break
        page.wait_for_timeout(50)
    found = list(server.store.judgments(history=True))
    assert len(found) == count and len({one.item_id for one in found}) == count
    page.locator("#notice").wait_for(state="hidden")


def waiting(page: Any) -> set[str]:
    """Ids of the answers that this browser keeps."""
    ids = page.evaluate("() => Object.keys(localStorage).filter((key) => key.startsWith('hearken:answer:'))")
    return {one.rsplit(":", 1)[1] for one in ids}


def work_through(
    page: Any, server: Running, stop: Callable[[], None], start: Callable[[], None], words: str, fewest: int = 2
) -> None:
    """Answers while something is away, and a reload meanwhile: what was given is stored afterwards, and only that.

    A lost answer's item would be asked again, so it is the answers that are counted, by their ids, not the items.
    """
    given: set[str] = set()

    def note(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/api/v1/judgments"):
            given.add(json.loads(request.post_data)["id"])

    page.on("request", note)
    answer(page)
    stored(page, server, 1)
    page.wait_for_timeout(1000)  # the next item is fetched ahead
    stop()
    answer(page, 2)
    for _ in range(2):  # one more may have been fetched ahead
        page.wait_for_timeout(1000)
        if page.locator("#desk .question").count():
            page.keyboard.press("1")
    page.get_by_role("heading", name="Waiting for the server").wait_for()
    kept = waiting(page)
    assert len(kept) >= fewest
    given |= kept
    said = notice(page, f"{words}.* {len(kept)} answers? waits? to be sent")
    assert "://" not in said and "feedback" not in said
    page.reload()
    page.wait_for_timeout(1500)
    start()
    answer(page, ITEMS - len(given))  # not one is asked twice
    stored(page, server, ITEMS)
    assert {one.id for one in server.store.judgments(history=True)} == given
    assert not waiting(page)


def test_postgresql_stopped_and_started(stoppable_postgres: Any, at_work: Any) -> None:
    with running(stoppable_postgres.location, prepare) as server:
        page = at_work(server)
        work_through(page, server, stoppable_postgres.stop, stoppable_postgres.start, "does not answer")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, at_work: Any) -> None:
    filler = small_disk / "filler"

    def fill_up() -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass

    with running(small_disk / "feedback.db", prepare) as server:
        work_through(at_work(server), server, fill_up, filler.unlink, "disk is full", fewest=1)  # one may fit in


def test_a_locked_database(tmp_path: Path, at_work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    with running(tmp_path / "feedback.db", prepare) as server:
        other = sqlite3.connect(server.path, isolation_level=None)
        begin, end = (lambda words=words: other.execute(words) for words in ("BEGIN IMMEDIATE", "ROLLBACK"))
        work_through(at_work(server), server, begin, end, "database is busy")
        other.close()


def test_a_server_that_was_killed(tmp_path: Path, chromium: Any, at_work: Any) -> None:
    """The same port answers again after a while; the page finds it by itself."""
    with running(tmp_path / "feedback.db", prepare) as server:
        page, port = at_work(server), int(server.url.rsplit(":", 1)[1])
    answer(page, 2)
    notice(page, "No connection.*2 answers wait")
    with running(tmp_path / "feedback.db", lambda store: None, port=port) as server:
        stored(page, server, 2)


def refuse(status: int, body: str = "<html>no JSON</html>", **headers: str) -> Callable[[Any], None]:
    return lambda route: route.fulfill(status=status, body=body, headers=headers)


FAULTS = {
    "the network": lambda route: route.abort(),
    "a proxy": refuse(502),
    "a bug": refuse(500, "Internal Server Error"),
    "too many": refuse(429, '{"error": "too many", "hint": ""}', **{"Retry-After": "1"}),
    "a captive portal": refuse(200),
    "a limit of the proxy": refuse(413),
    "another service": refuse(404, '{"detail": "Not Found"}'),
}


def test_whatever_the_way_does_the_answer_is_kept_and_sent_again(server: Running, at_work: Any) -> None:
    page = at_work(server)
    for number, fault in enumerate(FAULTS.values()):
        page.route(SENT, fault)
        answer(page)
        notice(page, "1 answer waits to be sent and is kept in this browser")
        page.unroute(SENT)
        stored(page, server, number + 1)


def test_answers_in_trouble_do_not_hold_up_the_others(server: Running, at_work: Any) -> None:
    page = at_work(server)
    troubled: list[str] = []

    def fail(route: Any) -> None:
        sent = json.loads(route.request.post_data)["id"]
        if len(troubled) < 2 and sent not in troubled:
            troubled.append(sent)
        route.fulfill(status=500, body="bug") if sent in troubled else route.continue_()

    page.route(SENT, fail)
    answer(page, 2)
    notice(page, "2 answers wait")
    page.reload()  # their items are open for the server; they are not asked again
    answer(page, ITEMS - 2)
    page.get_by_role("heading", name="All done for now").wait_for()
    for _ in range(100):
        if server.store.last_seq() == ITEMS - 2:
            break
        page.wait_for_timeout(50)
    notice(page, "2 answers wait")
    page.unroute(SENT)
    stored(page, server, ITEMS)


def test_what_can_never_be_stored_is_shown_and_can_be_kept(server: Running, at_work: Any) -> None:
    page = at_work(server)
    said = {"error": "the item was erased", "hint": "Nothing can be done", "final": True}
    page.route(SENT, refuse(400, json.dumps(said), **{"Content-Type": "application/json"}))
    answer(page)
    notice(page, "1 answer cannot be stored")
    page.reload()
    notice(page, "1 answer cannot be stored")
    page.locator("#notice").get_by_role("button", name="Show").click()
    assert "the item was erased" in page.locator("#unsent").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a file").click()
    [copy] = json.loads(Path(download.value.path()).read_text())
    assert copy["said"]["answer"] == {"kind": "comparison", "ranks": [0, 1]} and "erased" in copy["reason"]
    page.unroute(SENT)
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Close").click()
    stored(page, server, 1)


def test_after_the_session_ended_answers_wait_for_the_login(server: Running, at_work: Any) -> None:
    page = at_work(server)
    person = next(one for one in server.store.access.accounts() if one.name == "Ann")
    secret = next(one["value"] for one in page.context.cookies() if one["name"].startswith("hearken"))
    session, _ = server.store.access.session(secret)
    server.store.access.close_session(session.id)
    answer(page)
    notice(page, "You are logged out.*1 answer waits")
    assert page.locator("#notice").get_by_role("link", name="Log in again").get_attribute("href") == "/login"
    page.context.add_cookies([server.cookie(person)])  # as a login in another tab does
    stored(page, server, 1)
    answer(page)
    stored(page, server, 2)


def test_another_tab_sends_what_waits_here(server: Running, at_work: Any) -> None:
    page = at_work(server)
    page.route(SENT, lambda route: route.abort())
    answer(page, 2)
    notice(page, "2 answers wait")
    other = page.context.new_page()
    other.goto(f"{server.url}/label")
    stored(other, server, 2)
    page.locator("#notice").wait_for(state="hidden")


def test_a_browser_that_stores_nothing_keeps_answers_in_the_page(server: Running, at_work: Any) -> None:
    page = at_work(server)
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }; }")
    page.route(SENT, lambda route: route.abort())
    answer(page, 2)
    notice(page, "2 answers wait")
    page.unroute(SENT)
    stored(page, server, 2)


def test_others_never_get_answers_that_wait_here(server: Running, at_work: Any) -> None:
    """Somebody else logs in in another tab: nothing is stored in their name, and it goes on when the first is back."""
    page = at_work(server)
    page.route(SENT, lambda route: route.abort())
    answer(page)
    notice(page, "1 answer waits")
    page.unroute(SENT)
    ann = next(one for one in server.store.access.accounts() if one.name == "Ann")
    bob = server.store.access.add_account(Account(name="Bob", consented=utc_now()))
    page.context.add_cookies([server.cookie(bob)])
    page.wait_for_timeout(3000)
    assert server.store.last_seq() == 0
    page.context.add_cookies([server.cookie(ann)])
    page.goto(f"{server.url}/label")
    stored(page, server, 1)
    assert next(server.store.judgments()).labeler_id == ann.labeler_id
