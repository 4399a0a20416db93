"""One test per promise about security."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from argon2 import PasswordHasher
from fastapi import Request
from people_world import HERE, SECRET_POLICY, Site, fill

from hearken.feedback.access import Access
from hearken.feedback.records import ComparisonPayload, ItemKind, Judgment, Labeler, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.security import (
    CONTENT_SECURITY_POLICY,
    MOST_NEW,
    MOST_TRIES,
    TRIES_OF_NEW,
    ApiError,
    Attempts,
    Door,
    Passwords,
    address_of,
)

# -- passwords and logins ----------------------------------------------------------------------------------------


def with_password(site: Site, login: str = "ann") -> None:
    visitor = site.enter()
    assert visitor.http.post("/account", json={"login": login, "password": "correct horse"}).status_code == 200


def test_passwords_are_stored_as_argon2id(site: Site) -> None:
    with_password(site)
    stored = site.store.access.account_by_login("ann")
    assert stored is not None and (stored.password or "").startswith("$argon2id$")
    assert "correct horse" not in repr(stored) and (stored.password or "") not in repr(stored)


def test_short_passwords_are_refused() -> None:
    passwords = Passwords()
    with pytest.raises(Exception, match="10 characters"):
        passwords.hash("too short")
    assert passwords.check(passwords.hash("long enough"), "long enough")
    assert not passwords.check(passwords.hash("long enough"), "something else")
    assert not passwords.check(None, "long enough") and not passwords.check("not a hash", "x")


def test_login_needs_the_right_password_and_says_no_more_than_that(site: Site) -> None:
    with_password(site)
    browser = site.browser()
    right = {"login": "ann", "password": "correct horse"}
    wrong = browser.post("/login", json=right | {"password": "wrong horse!"})
    nobody = browser.post("/login", json=right | {"login": "nobody"})
    assert wrong.status_code == nobody.status_code == 403 and wrong.json() == nobody.json()
    assert browser.post("/login", json=right).status_code == 200
    assert browser.get("/label").status_code == 200


def test_a_password_costs_what_the_library_advises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the other tests' cheap ones
    assert Passwords().hash("correct horse").startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_every_login_costs_the_same_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash of the same cost, whether there is such an account or not, and whatever its state."""
    site.enter("owner")
    with_password(site)
    with_password(site, "closed")
    closed = site.store.access.account_by_login("closed")
    assert closed is not None
    site.store.access.change_account(closed.id, status="closed")
    by_link = site.enter(name="By link")
    site.store.access.change_account(by_link.account_id, login="by link")
    costs: list[tuple[str, ...]] = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, stored: str, given: bytes) -> bool:
        costs.append(tuple(stored.split("$")[:4]))  # the method, its version, memory, rounds and lanes
        return real(self, stored, given)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    for name in ("ann", "closed", "by link", "nobody", "\x00"):
        assert site.browser().post("/login", json={"login": name, "password": "wrong horse"}).status_code == 403
    assert len(costs) == 5 and len(set(costs)) == 1


def test_logins_are_limited(site: Site) -> None:
    with_password(site)
    browser = site.browser()
    tries = [browser.post("/login", json={"login": "ann", "password": f"guess {n} xxx"}) for n in range(11)]
    assert [answer.status_code for answer in tries] == [403] * 10 + [429]
    assert int(tries[-1].headers["Retry-After"]) > 0
    assert browser.post("/login", json={"login": "ann", "password": "correct horse"}).status_code == 429


def test_of_many_guesses_at_once_no_more_are_tried_than_are_allowed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on one database, 60 guesses at the same moment."""
    with_password(site)
    tried: list[str] = []
    monkeypatch.setattr(Passwords, "check", lambda self, stored, given, known=False: tried.append(given) or False)
    other = Site(site.store, create_app(site.store))

    def guess(n: int) -> int:
        browser = (site, other)[n % 2].browser()
        return browser.post("/login", json={"login": "ann", "password": f"guess {n} xxx"}).status_code

    with ThreadPoolExecutor(20) as pool:
        codes = Counter(pool.map(guess, range(60)))
    assert codes == {403: MOST_TRIES, 429: 60 - MOST_TRIES} and len(tried) == MOST_TRIES


def test_who_has_the_right_password_is_not_locked_out_by_others_guesses(site: Site) -> None:
    with_password(site, "ann")
    with_password(site, "bob")
    at_home = site.browser()  # has logged in here before
    right = {"login": "ann", "password": "correct horse"}
    assert at_home.post("/login", json=right).status_code == 200
    stranger = site.browser()  # the same address: an office, or a proxy that says nothing
    for n in range(MOST_TRIES + 2):
        stranger.post("/login", json=right | {"password": f"guess {n} xxx"})
    assert stranger.post("/login", json=right).status_code == 429
    assert at_home.post("/login", json=right).status_code == 200
    assert site.browser().post("/login", json=right | {"login": "bob"}).status_code == 200
    elsewhere = site.browser(client=("192.0.2.7", 50_000))
    assert elsewhere.post("/login", json=right).status_code == 200


def test_a_new_browser_is_not_locked_out_by_who_guesses_the_same_name_at_its_address(site: Site) -> None:
    with_password(site)
    right = {"login": "ann", "password": "correct horse"}
    guesser = site.browser()
    guesser.get("/login")
    codes = [guesser.post("/login", json=right | {"password": f"guess {n} xxx"}).status_code for n in range(16)]
    assert codes == [403] * (TRIES_OF_NEW + MOST_TRIES) + [429] * 3
    guesser.cookies.clear()
    assert guesser.post("/login", json=right).status_code == 429
    new = site.browser()
    new.get("/login")
    assert new.post("/login", json=right | {"password": "mistyped"}).status_code == 403
    assert new.post("/login", json=right).status_code == 200
    with_password(site, "bob")
    for n in range(MOST_TRIES + 2):  # its mark is ann's now
        new.post("/login", json={"login": "bob", "password": f"guess {n} xxx"})
    assert new.post("/login", json={"login": "bob", "password": "correct horse"}).status_code == 429


def test_marks_of_new_browsers_are_few(site: Site) -> None:
    """Who collects them has so many guesses more, for all names together."""
    with_password(site)
    browsers = [site.browser() for _ in range(MOST_NEW + 2)]
    marked = [bool(b.get("/login").cookies.get(site.door.mark)) for b in browsers]
    assert marked == [True] * MOST_NEW + [False] * 2
    assert browsers[0].get("/login").cookies.get(site.door.mark) is None, "it has one"
    codes = [b.post("/login", json={"login": f"{b}", "password": "x"}).status_code for b in browsers[:1] * 5]
    assert codes == [403] * 5
    elsewhere = site.browser(client=("192.0.2.7", 50_000))
    assert elsewhere.get("/login").cookies.get(site.door.mark)


def test_the_mark_of_a_browser_is_its_accounts_own_and_cannot_be_made(site: Site) -> None:
    attempts: Attempts = site.app.state.attempts
    mark = attempts.mark("ann")
    assert attempts.knows("ann", mark) and not attempts.knows("bob", mark)
    nonce, _, signature = mark.partition(".")
    forged = ("", "x", f"{nonce}.", f"other.{signature}", f"{nonce}.{signature[:-1]}", "\ud800.\xff")
    assert not any(attempts.knows("ann", one) for one in forged)
    with_password(site)
    stranger = site.browser()
    stranger.cookies.set(site.door.mark, mark)  # of another account
    codes = [
        stranger.post("/login", json={"login": "ann", "password": f"guess {n} xxx"}).status_code for n in range(11)
    ]
    assert codes == [403] * 10 + [429]


def test_many_names_from_one_address_are_limited_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.server.security.MOST_OF_ADDRESS", 25)
    monkeypatch.setattr(Passwords, "check", lambda *_: False)
    codes = [site.browser().post("/login", json={"login": f"name {n}", "password": "x"}).status_code for n in range(27)]
    assert codes == [403] * 25 + [429] * 2
    assert site.browser(client=("192.0.2.7", 1)).post("/login", json={"login": "x", "password": "x"}).status_code == 403


def test_attempts_count_for_a_time_and_survive_the_server(store: FeedbackStore) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    access = Access(store._database, lambda: now[0])
    assert [access.attempt({"a": 2, "b": 9}, 60) for _ in range(2)] == [0, 0]
    assert access.attempt({"a": 2, "b": 9}, 60) == 60 and access.attempt({"b": 3}, 60) == 0  # the third was not counted
    assert access.attempt({"b": 3}, 60) == 60
    now[0] += timedelta(seconds=59)
    again = Access(store._database, lambda: now[0])
    assert again.attempt({"a": 2}, 60) == 1
    again.forgive(one=["a"])
    assert again.attempt({"a": 2}, 60) == 0 and again.attempt({"a": 2}, 60) == 1
    again.forgive(all=["a"])
    assert [again.attempt({"a": 2}, 60) for _ in range(3)] == [0, 0, 60]
    now[0] += timedelta(seconds=60)
    assert again.attempt({"a": 2, "b": 3}, 60) == 0


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "?"),
    ],
)
def test_an_address_is_counted_as_the_house_it_stands_for(address: str, counted: str) -> None:
    assert address_of(Request({"type": "http", "client": (address, 1), "headers": []})) == counted


def test_passwords_are_hashed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 at once, strangers' and known browsers': never more than two together, a few wait, the others are told."""
    passwords, running, most = Passwords(at_once=2, waiting=3), [], []
    started = threading.Barrier(60)

    def verify(*_: object) -> bool:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return True

    monkeypatch.setattr(passwords, "_hasher", SimpleNamespace(verify=verify))

    def check(n: int) -> int:
        started.wait(30)
        try:
            return 200 if passwords.check("hash", "x", known=n % 2 == 0) else 403
        except ApiError as error:
            assert error.headers and error.headers["Retry-After"]
            return error.status

    with ThreadPoolExecutor(60) as pool:
        codes = Counter(pool.map(check, range(60)))
    assert max(most) == 2 and 10 <= codes[200] < 60 and codes[200] + codes[503] == 60


def test_a_server_too_busy_to_check_a_password_counts_no_attempt(site: Site) -> None:
    with_password(site)
    right = {"login": "ann", "password": "correct horse"}
    site.app.state.passwords = Passwords(at_once=0, waiting=0)
    for _ in range(MOST_TRIES + 1):
        answer = site.browser().post("/login", json=right)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    site.app.state.passwords = Passwords()
    assert site.browser().post("/login", json=right).status_code == 200


def test_strange_characters_in_a_password_are_characters(site: Site) -> None:
    visitor = site.enter()
    said = b'{"login": "ann", "password": "correct \\u0000 \\ud83d\\ude00"}'
    headers = {"Content-Type": "application/json"}
    assert visitor.http.post("/account", content=said, headers=headers).status_code == 200
    assert site.browser().post("/login", content=said, headers=headers).status_code == 200
    assert site.browser().post("/login", content=said.replace(b"u0000", b"u0001"), headers=headers).status_code == 403


def test_a_right_link_is_never_kept_waiting(site: Site) -> None:
    browser = site.browser()
    for n in range(12):
        browser.post("/enter", json={"secret": f"guess-{n}"})
    secret, _ = site.store.access.invite("labeler")
    assert browser.post("/enter", json={"secret": secret}).status_code == 200


def test_guessing_links_is_limited(site: Site) -> None:
    browser = site.browser()
    codes = [browser.post("/enter", json={"secret": f"guess-{n}"}).status_code for n in range(11)]
    assert codes == [403] * 10 + [429]


# -- sessions ----------------------------------------------------------------------------------------------------


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(site: Site) -> None:
    secret, _ = site.store.access.invite("labeler")
    cookie = site.browser().post("/enter", json={"secret": secret}).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert cookie.startswith("hearken-8765=")


def test_off_loopback_the_cookie_goes_over_https_only(store: FeedbackStore) -> None:
    door = Door(secure=True, hosts=frozenset({"label.example.org"}))
    site = Site(store, create_app(store, door=door), door)
    secret, _ = store.access.invite("labeler")
    answer = site.browser().post("/enter", json={"secret": secret})
    assert answer.status_code == 200 and "Secure" in answer.headers["set-cookie"]
    assert answer.headers["set-cookie"].startswith("__Host-hearken")
    assert answer.headers["strict-transport-security"]


def test_a_login_changes_the_session_and_ends_the_old_one(site: Site) -> None:
    with_password(site)
    visitor = site.enter(name="Bob")
    before = visitor.http.cookies[site.door.cookie]
    assert visitor.http.post("/login", json={"login": "ann", "password": "correct horse"}).status_code == 200
    after = visitor.http.cookies[site.door.cookie]
    assert before != after
    assert site.store.access.session(before) is None and site.store.access.session(after) is not None


def test_a_session_that_somebody_else_chose_is_not_taken(site: Site) -> None:
    browser = site.browser()
    browser.cookies.set(site.door.cookie, "chosen-by-an-attacker")
    secret, _ = site.store.access.invite("labeler")
    answer = browser.post("/enter", json={"secret": secret})
    assert site.store.access.session("chosen-by-an-attacker") is None
    assert "chosen-by-an-attacker" not in answer.headers["set-cookie"]


def test_logging_out_ends_the_session_on_the_server(site: Site) -> None:
    visitor = site.enter()
    cookie = visitor.http.cookies[site.door.cookie]
    assert visitor.http.post("/logout").status_code == 204
    assert site.store.access.session(cookie) is None
    visitor.http.cookies.set(site.door.cookie, cookie)
    assert visitor.http.post("/api/v1/claims", json={}).status_code == 401


# -- requests from elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "x" * 43},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://127.0.0.1:8765.evil.example"},
    ],
    ids=str,
)
def test_a_foreign_page_can_change_nothing(site: Site, headers: dict[str, str]) -> None:
    visitor = site.enter()
    task = visitor.claim()[0]
    visitor.http.headers.update(headers)
    answer = visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]})
    assert answer.status_code == 403 and "does not come from this page" in answer.json()["error"]
    assert site.store.last_seq() == 0


def test_without_an_origin_only_the_browsers_own_word_counts(site: Site) -> None:
    visitor = site.enter()
    del visitor.http.headers["Origin"]
    assert visitor.http.post("/api/v1/claims", json={}).status_code == 403
    assert visitor.http.post("/api/v1/claims", json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert visitor.http.post("/api/v1/claims", json={}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_nobody_can_be_logged_in_by_a_foreign_page(site: Site) -> None:
    with_password(site)
    secret, _ = site.store.access.invite("labeler")
    browser = site.browser()
    browser.headers["Origin"] = "https://evil.example"
    assert browser.post("/enter", json={"secret": secret}).status_code == 403
    assert browser.post("/login", json={"login": "ann", "password": "correct horse"}).status_code == 403
    assert site.store.access.redeem(secret) is not None  # and the link is not used up


def test_a_foreign_name_that_leads_here_is_refused(site: Site) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8765", "localhost@evil.example", ""):
        assert site.browser().get("/login", headers={"Host": host}).status_code == 400
    for host in ("127.0.0.1:8765", "localhost:8765", "[::1]:8765"):
        assert site.browser().get("/login", headers={"Host": host}).status_code == 200


def test_every_state_changing_route_of_the_api_is_guarded(site: Site) -> None:
    """Strangers get 401; people without the right, 403: nothing is left open by forgetting."""
    stranger, labeler = site.browser(), site.enter()
    spec = site.app.openapi()
    for path, methods in spec["paths"].items():
        for method in methods:
            url = re.sub(r"{what}", "prompts", re.sub(r"{(?!what)\w+}", "x", path))
            assert stranger.request(method.upper(), url, json={}).status_code in (401, 422), (method, path)
            if any(tag in ("writing", "managing", "reading") for tag in methods[method]["tags"]):
                if path.endswith("/guidelines") and method == "get":
                    continue
                answer = labeler.http.request(method.upper(), url, json={})
                assert answer.status_code in (403, 422), (method, path, answer.text)
    assert stranger.post("/api/v1/claims", json={}).status_code == 401


# -- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/label", "/api/v1/progress", "/static/label.js", "/nothing", "/enter"])
def test_every_answer_carries_the_strict_headers(site: Site, path: str) -> None:
    headers = site.browser().get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")


def test_the_policy_allows_our_own_scripts_and_nothing_else() -> None:
    for rule in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "base-uri 'none'"):
        assert rule in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY and "*" not in CONTENT_SECURITY_POLICY


def test_no_page_has_inline_scripts_or_styles(site: Site) -> None:
    site.store.access.set_settings({"chat": True})
    visitor = site.enter()
    for path in ("/login", "/enter", "/welcome", "/label", "/account"):
        html = visitor.http.get(path).text
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
        assert all('type="application/json"' in attributes or not body.strip() for attributes, body in scripts)
        assert not re.search(r"\son\w+=|\sstyle=|<style", html), path


def test_requests_that_are_too_long_are_refused(site: Site) -> None:
    visitor = site.enter()
    assert visitor.http.post("/api/v1/claims", content=b" " * 4_000_001).status_code == 413

    def slowly() -> object:
        for _ in range(5):
            yield b" " * 1_000_000

    answer = visitor.http.post("/api/v1/claims", content=slowly(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/login", "/enter", "/account", "/api/v1/claims", "/api/v1/prompts"])
def test_of_strangers_no_long_body_is_read(site: Site, path: str) -> None:
    """Neither one whose length is told before, nor one that comes piece by piece; nor with a made-up token."""

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    for headers in ({}, {"Authorization": "Bearer made-up"}, {"Cookie": f"{site.door.cookie}=made-up"}):
        kind = {"Content-Type": "application/json"} | headers
        assert site.browser().post(path, content=b" " * 64_001, headers=kind).status_code == 401
        assert site.browser().post(path, content=pieces(), headers=kind).status_code == 401
    owner = site.enter("owner")
    body = json.dumps({"prompts": [{"content": "x" * 100_000}]})
    if path == "/api/v1/prompts":
        assert owner.http.post(path, content=body, headers={"Content-Type": "application/json"}).status_code == 200


# -- tokens ------------------------------------------------------------------------------------------------------


def test_tokens_do_what_their_scopes_say_until_they_are_revoked(site: Site) -> None:
    judge, reader = site.machine("robot"), site.machine("reader", ("read",))
    assert judge.post("/api/v1/claims", json={}).status_code == 200
    assert judge.get("/api/v1/progress").status_code == 403
    assert reader.get("/api/v1/progress").status_code == 200
    assert reader.post("/api/v1/claims", json={}).status_code == 403
    assert reader.post("/api/v1/tokens", json={"name": "more", "scopes": ["manage"]}).status_code == 403
    for token in site.store.access.tokens():
        site.store.access.revoke_token(token.id)
    assert judge.post("/api/v1/claims", json={}).status_code == 401


def test_a_token_that_writes_takes_over_nobodys_labeler(site: Site) -> None:
    """Neither a person's, nor a machine's that another token or the command line has added; its own, any time."""
    ann = site.enter()
    first, second = site.machine("first", ("write",)), site.machine("second", ("write",))
    site.store.add_labeler(Labeler(id="local", name="Local", kind="ai"))
    mine = first.post("/api/v1/labelers", json={"name": "Judge", "kind": "ai", "id": "mine"})
    assert mine.status_code == 200
    assert first.post("/api/v1/labelers", json={"name": "x", "kind": "ai", "id": "mine"}).status_code == 200
    tokens = len(site.store.access.tokens())
    for client, id in ((second, "mine"), (first, "local"), (first, ann.labeler_id), (second, "first")):
        answer = client.post("/api/v1/labelers", json={"name": "x", "kind": "ai", "id": id})
        assert answer.status_code == 403 and "not yours" in answer.json()["error"], id
    assert len(site.store.access.tokens()) == tokens
    manager = site.machine("manager", ("write", "manage"))
    assert manager.post("/api/v1/labelers", json={"name": "x", "kind": "ai", "id": "local"}).status_code == 200
    assert manager.post("/api/v1/labelers", json={"name": "x", "kind": "ai", "id": ann.labeler_id}).status_code == 403


def test_a_token_that_writes_does_nothing_else(site: Site) -> None:
    writer = site.machine("writer", ("write",))
    for path, methods in site.app.openapi()["paths"].items():
        for method, operation in methods.items():
            url = path.replace("{what}", "prompts").replace("{labeler_id}", "writer")
            url = re.sub(r"{\w+}", "x", url)
            if operation["tags"] != ["writing"] and (method, path) != ("get", "/api/v1/guidelines"):
                assert writer.request(method.upper(), url, json={}).status_code in (403, 422), (method, url)


def test_what_a_token_has_made_ends_with_it(site: Site) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    access = Access(site.store._database, lambda: now[0])
    writer, token = access.add_token("writer", ["write"], days=1)
    made = access.add_machine(Labeler(name="Judge", kind="ai"), f"token:{token.id}")
    assert made is not None and made[1].expires == token.expires
    manager, top = access.add_token("manager", ["manage"])
    between, next_one = access.add_token("between", ["manage"], made_by=f"token:{top.id}")
    last, _ = access.add_token("last", ["manage"], made_by=f"token:{next_one.id}")
    access.revoke_token(token.id)
    assert access.token(writer) is None and access.token(made[0]) is None
    assert access.token(manager) and access.token(last)
    access.revoke_token(top.id)
    assert not any(access.token(secret) for secret in (manager, between, last))


def test_a_wrong_token_is_not_rescued_by_a_cookie(site: Site) -> None:
    visitor = site.enter("owner")
    answer = visitor.http.get("/api/v1/progress", headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


def test_no_secret_is_written_to_a_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret, _ = site.store.access.invite("labeler")
    browser = site.browser()
    browser.post("/enter", json={"secret": secret})
    cookie = browser.cookies[site.door.cookie]
    browser.get("/label")
    said = " ".join(record.getMessage() for record in caplog.records)
    assert secret not in said and cookie not in said


# -- what labelers must not learn --------------------------------------------------------------------------------


def test_policies_and_other_labelers_never_reach_a_labeler(store: FeedbackStore) -> None:
    """Everything a labeler's browser receives is searched for what it must not know."""
    kinds = get_args(ItemKind)
    items = fill(store, kinds, slots=2)
    store.access.set_settings({"kinds": list(kinds), "check_share": 0.0, "tags": ["clear"]})
    gold = QueueItem(
        prompt_id=items[0].prompt_id, response_ids=items[0].response_ids, is_gold=True, selection="very-secret-rule",
        expected={"kind": "comparison", "response_ids": list(items[0].response_ids), "ranks": [0, 1]}, slots=5,
        metadata={"gold": "obvious", "note": "very-secret-note"}, priority=9,
    )  # fmt: skip
    store.enqueue([gold])
    other = store.add_labeler(Labeler(id="very-secret-labeler", name="Very Secret Name"))
    pair = next(item for item in items if item.kind == "comparison")
    said = ComparisonPayload(response_ids=pair.response_ids, ranks=(0, 1))
    store.submit(
        Judgment(
            id="very-secret-judgment", prompt_id=pair.prompt_id, item_id=pair.id, labeler_id=other.id, payload=said
        )
    )
    site = Site(store, create_app(store))
    visitor = site.enter()
    received = [visitor.http.get(path) for path in ("/welcome", "/label", "/account", "/api/v1/own")]
    received.append(visitor.http.get("/api/v1/guidelines"))
    received.append(visitor.http.post("/api/v1/claims", json={"n": 50, "html": True, "practice": True}))
    tasks = received[-1].json()["tasks"]
    assert len(tasks) == 3 + len(items)
    task = next(task for task in tasks if task["kind"] == "comparison" and not task["practice"])
    received.append(visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]}))
    received.append(visitor.http.post(f"/api/v1/judgments/{'a' * 32}/withdraw?html=true"))
    received += [visitor.http.get(path) for path in ("/api/v1/progress", "/api/v1/export/judgments", "/owner")]
    everything = "".join(answer.text + str(answer.headers) + str(answer.url) for answer in received)
    assert "very-secret" not in everything.lower() and "Very Secret" not in everything
    assert SECRET_POLICY not in everything
    ids = {response.id for response in store.responses()}
    assert not [one for one in ids if one in everything]
    assert not re.search(r'"(is_gold|expected|selection|propensity|policy|repeat_of|metadata|round)"', everything)


def test_gold_items_look_like_any_other(store: FeedbackStore) -> None:
    items = fill(store)
    gold = QueueItem(
        prompt_id=items[0].prompt_id, response_ids=items[0].response_ids, is_gold=True, slots=3,
        expected={"kind": "comparison", "response_ids": list(items[0].response_ids), "ranks": [0, 1]},
    )  # fmt: skip
    store.enqueue([gold])
    site = Site(store, create_app(store))
    store.access.set_settings({"check_share": 0.5})
    visitor = site.enter()
    found: dict[str, dict[str, object]] = {}
    for _ in range(60):
        found |= {task["item_id"]: task for task in visitor.claim(4)}
    assert gold.id in found and len(found) == 4
    assert found[gold.id].keys() == found[items[0].id].keys()
    assert len(gold.id) == len(items[0].id) and found[gold.id]["practice"] is False


def test_an_item_that_was_not_given_cannot_be_answered(site: Site) -> None:
    ann, bob = site.enter(name="Ann"), site.enter(name="Bob")
    task = ann.claim()[0]
    answer = bob.submit(task, {"kind": "comparison", "ranks": [0, 1]})
    assert answer.status_code == 403 and "not given to you" in answer.json()["error"]
    forged = bob.submit(task | {"ticket": "0" * 32}, {"kind": "comparison", "ranks": [0, 1]})
    assert forged.status_code == 403 and site.store.last_seq() == 0


def test_nobody_takes_back_somebody_elses_answer(site: Site) -> None:
    ann, bob = site.enter(name="Ann"), site.enter(name="Bob")
    assert ann.submit(ann.claim()[0], {"kind": "comparison", "ranks": [0, 1]}).status_code == 200
    assert bob.http.post(f"/api/v1/judgments/{'a' * 32}/withdraw").status_code == 404
    assert len(list(site.store.judgments())) == 1


def test_the_link_of_an_invite_is_kept_from_servers_and_logs(site: Site) -> None:
    """The secret stands behind the #, which browsers do not send."""
    owner = site.enter("owner")
    path = owner.http.post("/api/v1/invites", json={"role": "labeler", "note": "Bob"}).json()["path"]
    assert path.startswith("/enter#") and "?" not in path
    listed = owner.http.get("/api/v1/invites").text
    assert path.split("#")[1] not in listed


def test_lists_never_show_secrets_again(site: Site) -> None:
    owner = site.enter("owner")
    token = owner.http.post("/api/v1/tokens", json={"name": "ci", "scopes": ["read"]}).json()["secret"]
    hook = owner.http.post("/api/v1/webhooks", json={"url": "https://example.org/", "every": 5}).json()["secret"]
    shown = "".join(owner.http.get(f"/api/v1/{path}").text for path in ("tokens", "webhooks", "audit", "people"))
    assert token not in shown and hook not in shown and "argon2" not in shown


# -- media -------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


def with_media(store: FeedbackStore, folder: Path, files: dict[str, bytes]) -> Site:
    """A server over one item whose responses are files."""
    prompt = Prompt(content="Draw.")
    store.add_prompts([prompt])
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    responses = [Response(prompt_id=prompt.id, payload=name) for name in files]
    store.add_responses(responses)
    store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=tuple(response.id for response in responses))])
    return Site(store, create_app(store, media=folder))


def test_media_have_opaque_addresses_and_their_own_type(store: FeedbackStore, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    site = with_media(store, folder, {f"media/{SECRET_POLICY}-0.png": PNG, "media/b.jpg": b"\xff\xd8\xff\xe0" + PNG})
    visitor = site.enter()
    task = visitor.claim()[0]
    kinds = set()
    for response in task["responses"]:
        assert SECRET_POLICY not in json.dumps(response)
        answer = visitor.http.get(response["media"])
        assert answer.status_code == 200 and SECRET_POLICY not in str(answer.headers)
        kinds.add(answer.headers["content-type"])
    assert kinds == {"image/png", "image/jpeg"}
    other = site.enter(name="Bob")
    assert other.http.get(task["responses"][0]["media"]).status_code == 403
    assert site.browser().get(task["responses"][0]["media"]).status_code == 401


@pytest.mark.parametrize(
    "content", [b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"<html>", b"", b"GIF88a"], ids=repr
)
def test_what_is_no_plain_image_is_not_served(store: FeedbackStore, tmp_path: Path, content: bytes) -> None:
    site = with_media(store, tmp_path, {"a.png": content, "b.png": PNG})
    visitor = site.enter()
    codes = [visitor.http.get(shown["media"]).status_code for shown in visitor.claim()[0]["responses"]]
    assert sorted(codes) == [200, 415]


def test_media_never_leave_the_project_folder(store: FeedbackStore, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "outside.png").write_bytes(PNG)
    (project / "link.png").symlink_to(tmp_path / "outside.png")
    site = with_media(store, project, {"in.png": PNG, "too.png": PNG})
    prompt = Prompt(content="Again.")
    store.add_prompts([prompt])
    bad = [Response(prompt_id=prompt.id, payload=name) for name in ("../outside.png", "link.png", "/etc/passwd", ".")]
    store.add_responses(bad)
    store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=tuple(one.id for one in bad), priority=9)])
    visitor = site.enter()
    codes = [visitor.http.get(shown["media"]).status_code for shown in visitor.claim()[0]["responses"]]
    assert codes == [404] * 4


def test_media_cannot_be_named_from_outside(site: Site) -> None:
    writer = site.machine("writer", ("write",))
    prompt = next(site.store.prompts())
    new = {"responses": [{"prompt_id": prompt.id, "payload": "../../etc/passwd"}]}
    assert writer.post("/api/v1/responses", json=new).status_code == 422


def test_the_page_of_a_stranger_is_the_login(site: Site) -> None:
    for path in ("/", "/label", "/welcome", "/account"):
        answer = site.browser().get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert HERE not in site.browser().get("/login").text
