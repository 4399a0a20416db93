"""Requests as no browser sends them: whatever stands in headers, addresses and bodies, nothing is an error of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people_world import HERE, Site, Visitor, apart, fill

from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app

ODD = [
    b"", b" ", b"\x00", b"\xff\xfe", b"\xc3\x28", "é☃".encode(), b"a" * 20_000, b"9" * 5_000, b"-1", b"1e999",
    b"null", b"[", b"http://[", b"http://[::1", b"//", b"%", b"%00%ff", b";", b",", b"=", b'"', b"\t", b"a=b=c;;d",
    b"*", b"0x10", b"\xb2", b"()", b"${x}", b"../../etc/passwd", b"<script>", b"'; --",
]  # fmt: skip
HEADERS: dict[str, list[bytes]] = {
    "host": [b"[", b"127.0.0.1:", b"127.0.0.1:99999", b"127.0.0.1:x", b"[::1", b"a@127.0.0.1", b"127.0.0.1\xe9"],
    "origin": [b"null", b"http://[", b"http://127.0.0.1:99999", b"file://", b"http://]127.0.0.1[/"],
    "cookie": [b"hearken-8765", b"hearken-8765=\xff", b'hearken-8765="', b"=;=;=", b"hearken-8765-known=.\xff"],
    "content-length": [b"-5", b"5_0", b"+5", b"0x5", b"1" * 400, b"\xb2", b"5 5"],
    "content-type": [
        b"application/json; charset=nonsense", b"application/json; charset=utf-16", b"application/json;;;", b"/",
        b"application/json; charset*=utf-8''%ff", b"multipart/form-data", b"multipart/form-data; boundary=\xff",
        b"application/x-www-form-urlencoded; charset=\x00", b"text/plain", b"application/+json", b"application/x+json",
    ],
    "range": [b"bytes=", b"bytes=-", b"bytes=9-1", b"bytes=0-0,1-1,2-", b"bytes=-99999999999999999999", b"lines=1-2",
              b"bytes=x-y", b"bytes=0-" + b"9" * 5_000, b"bytes=" + b"0-," * 3_000],
    "if-range": [b"nonsense", b'"'], "if-none-match": [b"*", b"W/", b'"', b'W/"\xff"'],
    "if-modified-since": [b"yesterday", b"Mon, 99 Foo 9999 99:99:99 GMT", b"-1"],
    "accept": [b"text/html;q=x", b"*/*" * 3_000], "accept-language": [b"\xff;q=9", b"de;q=" + b"9" * 5_000],
    "accept-encoding": [b"gzip;q=\xff"], "authorization": [b"Bearer", b"Bearer \xff", b"Bearer  ", b"Basic !", b"\xff"],
    "x-csrf-token": [b"\xff"], "sec-fetch-site": [b"\xff", b"same-origin,"], "x-forwarded-for": [b"[", b","],
    "expect": [b"200-ok"], "transfer-encoding": [b"gzip, chunked"], "te": [b"x"], "upgrade": [b"h2c"],
    "x-http-method-override": [b"DELETE"], "forwarded": [b"for=["],
}  # fmt: skip


@dataclass
class Answer:
    """What the application said."""

    status: int = 0
    body: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)


def ask(
    app: Any, method: str, path: str, headers: dict[str, bytes], body: bytes = b"", query: bytes = b""
) -> Answer:  # fmt: skip
    """Send a request to the application itself, so that no client or parser mends it before."""
    found = Answer()
    given = {"host": b"127.0.0.1:8765", "content-length": str(len(body)).encode()} | headers
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "path": path, "raw_path": path.encode("utf-8", "replace"), "query_string": query, "root_path": "",
        "scheme": "http", "server": ("127.0.0.1", 8765), "client": ("127.0.0.1", 5), "state": {},
        "headers": [(name.encode(), value) for name, value in given.items()],
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.sleep(3600, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            found.status, found.headers = message["status"], dict(message["headers"])
        found.body += message.get("body", b"")

    apart(lambda: asyncio.run(app(scope, receive, send)))  # an exception of the application comes out here
    return found


def _cookies(visitor: Visitor) -> bytes:
    return "; ".join(f"{name}={value}" for name, value in visitor.http.cookies.items()).encode()


@pytest.fixture
def owner(site: Site) -> dict[str, bytes]:
    """Headers of an owner's browser."""
    visitor = site.enter("owner")
    return {
        "cookie": _cookies(visitor), "origin": HERE.encode(), "content-type": b"application/json",
        "x-csrf-token": visitor.http.headers["X-CSRF-Token"].encode(), "accept": b"text/html",
    }  # fmt: skip


ROUTES = [
    ("GET", "/label", b"", b""),
    ("GET", "/static/label.js", b"", b""),
    ("GET", "/owner/export/file", b"", b"layout=pairs"),
    ("GET", "/api/v1/export/prompts", b"", b"since=1"),
    ("GET", "/nowhere", b"", b""),
    ("POST", "/login", b'{"login": "ann", "password": "guess guess"}', b""),
    ("POST", "/api/v1/claims", b"{}", b""),
    ("PATCH", "/api/v1/settings", b"{}", b""),
    ("DELETE", "/api/v1/tokens/x", b"", b""),
]


@pytest.mark.slow
@pytest.mark.parametrize("header", HEADERS)
def test_no_header_is_an_error_of_ours(
    site: Site, owner: dict[str, bytes], header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearken.server.security.Passwords.check", lambda *_: False)
    for number, value in enumerate([*HEADERS[header], *ODD]):
        for method, path, body, query in (ROUTES * 2)[number % len(ROUTES) :][:2]:
            answer = ask(site.app, method, path, owner | {header: value}, body, query)
            assert 200 <= answer.status < 500, (header, value[:50], method, path, answer.body[:200])
            assert b"content-security-policy" in answer.headers


PATHS = [
    "/\x00", "/static/\x00", "/static/..%2f..%2fetc/passwd", "/static/../app.py", "/static/\udcff", "/static/a\\..\\b",
    "/media/\x00/0", "/media/x/99999999999999999999", "/media/x/-1", "/api/v1/judgments/\x00/withdraw", "/label/",
    "/api/v1/items/\x00/heartbeat", "/api/v1/items/" + "x" * 200 + "/lease", "/api/v1/tokens/\x00", "/owner/%00",
    "/api/v1/people/\ud800", "/api/v1/labelers/\x00/agreement", "/api/v1/webhooks/☃", "/owner/labelers/weights.\x00",
    "/api/v1/invites/" + "é" * 199, "//", "/" + "a/" * 2_000, "/static/" + "a" * 5_000, "/api/v1/export/\x00", "*", "",
]  # fmt: skip
QUERIES = [
    b"ticket=\x00", b"ticket=%00", b"ticket=%ff", b"ticket=%ed%a0%80", b"since=9" + b"9" * 4_999, b"since=-1", b"&&&=",
    b"last=1e9", b"layout=%00&suffix=%00", b"policy=%00", b"baseline=%00", b"start=99999999999", b"split=%00",
    b"policy=%ed%a0%80", b"layout=pairs&split=%00&suffix=csv", b"layout=pairs&split=..%2f..&suffix=jsonl",
    b"round=2147483648", b"html=maybe", b"n=" + b"1" * 5_000,
]  # fmt: skip


@pytest.mark.slow
def test_no_address_is_an_error_of_ours(site: Site, owner: dict[str, bytes]) -> None:
    known = [path for path, _ in _operations(site.app)]
    for path in [*PATHS, "/owner/leaderboard", "/owner/responses", "/owner/export/file", *known]:
        for query in QUERIES if path.startswith(("/owner/", "/api")) else [b"", b"ticket=%00"]:
            for method in ("GET", "POST", "DELETE") if path in PATHS and query in (b"", QUERIES[0]) else ("GET",):
                answer = ask(site.app, method, path.replace("{", "").replace("}", ""), owner, b"{}", query)
                assert 200 <= answer.status < 500, (method, path[:50], query[:50], answer.body[:200])


def _operations(app: Any) -> Iterator[tuple[str, str]]:
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield path, method.upper()


DEEP = b"[" * 100_000
NESTED = b'{"a":' * 900 + b"1" + b"}" * 900
BODIES = [
    b"", b"\xff\xfe", b"null", b"[]", b"0", b'"x"', b"{", DEEP, NESTED, b"9" * 5_000, b'{"a": 1e999}', b"NaN",
    b'{"a": Infinity}', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}", b'{"a": "\\ud800"}', b"{}" * 2, b'{"\x00": 1}',
]  # fmt: skip


@pytest.mark.slow
def test_no_body_is_an_error_of_ours(site: Site, owner: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.server.security.Passwords.check", lambda *_: False)
    pages = [("/login", "POST"), ("/enter", "POST"), ("/welcome", "POST"), ("/account", "POST")]
    pages += [("/owner/adjudicate", "POST"), ("/owner/erase", "POST")]
    for path, method in [*pages, *_operations(site.app)]:
        for body in BODIES if method in ("POST", "PATCH") else []:
            answer = ask(site.app, method, path.replace("{", "").replace("}", ""), owner, body)
            assert 200 <= answer.status < 500, (method, path, body[:50], answer.body[:200])


STRANGE = [
    "\x00", "a\x00b", "\u202e", "\U0010ffff", "x" * 100_000, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, True,
    None,    [], {}, [[]], {"a": {"b": [None]}}, json.loads(NESTED), [1] * 10_000, "2026-13-45T00:00:00Z",
    "9999-12-31T23:59:59.999999+23:59", "0001-01-01T00:00:00-23:59", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
]  # fmt: skip


THEN = "2026-01-01T00:00:00Z"


def _whole(site: Site, owner: dict[str, bytes]) -> list[tuple[str, str, dict[str, Any]]]:
    """A good request of each kind, with all its fields."""
    prompt = next(site.store.prompts())
    pair = [response.id for response in site.store.responses() if response.prompt_id == prompt.id]
    claimed = json.loads(ask(site.app, "POST", "/api/v1/claims", owner, b"{}").body)["tasks"][0]
    return [
        ("POST", "/api/v1/claims", {"n": 1, "kinds": ["comparison"], "lease_seconds": 60, "html": True}),
        ("POST", "/api/v1/prompts", {"prompts": [
            {"content": "x", "domain": "text", "id": "p", "split": "train", "metadata": {}, "created": THEN},
        ]}),
        ("POST", "/api/v1/prompts", {"prompts": [{"content": [{"role": "user", "content": "x"}]}]}),
        ("POST", "/api/v1/responses", {"responses": [{
            "prompt_id": prompt.id, "text": "x", "messages": None, "token_ids": [1], "finish_reason": "eos", "id": "r",
            "policy": "p", "round": 1, "sampling": {}, "seed": 1, "sample": 1, "metadata": {}, "created": THEN,
        }]}),
        ("POST", "/api/v1/items", {"items": [{
            "prompt_id": prompt.id, "response_ids": pair, "kind": "comparison", "slots": 1, "priority": 1.0, "round": 1,
            "selection": "uniform", "propensity": 0.5, "is_gold": True, "expected": {}, "repeat_of": None, "id": "i",
            "metadata": {}, "filled": 0, "done": False,
        }]}),
        ("POST", "/api/v1/judgments", {
            "id": "a" * 32, "item_id": claimed["item_id"], "ticket": claimed["ticket"], "seconds": 1.0, "tags": [],
            "guideline": 1, "grounds": {"principle": "x", "log_odds": {"0,1": 1.0}, "reasoning": {"0,1": "x"}},
            "answer": {"kind": "comparison", "ranks": [0, 1], "strength": 0.5, "share": 0.5, "both_bad": False},
        }),
        ("POST", "/api/v1/judgments", {
            "id": "b" * 32, "item_id": claimed["item_id"], "ticket": claimed["ticket"],
            "answer": {"kind": "flag", "reason": "broken", "place": 0, "note": "x"},
        }),
        ("POST", "/api/v1/labelers", {"name": "x", "kind": "ai", "id": "x", "attributes": {"a": "b"}}),
        ("POST", "/api/v1/tokens", {"name": "x", "scopes": ["read"], "labeler_id": None, "days": 1.0}),
        ("POST", "/api/v1/invites", {"role": "labeler", "note": "x", "account_id": None, "days": 1.0}),
        ("POST", "/api/v1/webhooks", {"url": "https://192.0.2.1/", "every": 1}),
        ("POST", "/api/v1/guidelines", {"text": "x"}),
        ("PATCH", "/api/v1/people/x", {"role": "viewer", "status": "active", "labeling": "active"}),
        ("PATCH", "/api/v1/settings", {
            "project": "x", "kinds": ["comparison"], "question": "x", "attributes": [{"name": "x", "about": "y"}],
            "scale": [1, 5], "tags": ["x"], "flags": ["x"], "about_you": [{"name": "x", "options": ["y"]}],
            "practice": [{"prompt": "x", "responses": ["a", "b"], "best": 0, "explanation": "x"}], "hourly_cost": 1.0,
            "lease_seconds": 60, "population": {"x": {"y": 1.0}}, "undo_seconds": 1, "check_share": 0.1,
        }),
        ("POST", "/owner/adjudicate", {"id": "c" * 32, "item_id": claimed["item_id"], "ranks": [0, 1]}),
        ("POST", "/owner/erase", {"target": "prompt", "target_id": "x", "reason": "x"}),
        ("POST", "/welcome", {"name": "x", "consent": True, "about": {"x": "y"}}),
        ("POST", "/account", {"login": "xx", "password": "x" * 10}),
        ("POST", "/login", {"login": "x", "password": "x"}),
        ("POST", "/enter", {"secret": "x"}),
    ]  # fmt: skip


REFUSED = {"/api/v1/people/x", "/api/v1/webhooks", "/owner/erase", "/login", "/enter", "/account", "/welcome"}
"""Where even the good request is about nobody and nothing, or ends the session that the others need."""


def _changed(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """``value`` with one thing in it after the other replaced by something strange."""
    for strange in STRANGE if where else []:
        yield where, strange
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for place, changed in _changed(part, (*where, key)):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = changed
            yield place, copy
    if isinstance(value, dict) and where:
        for key in ("\x00", "x" * 1_000, "\u202e"):
            yield (*where, key), value | {key: "x"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_value_in_a_body_is_an_error_of_ours(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearken.server.security.Passwords.check", lambda *_: False)
    monkeypatch.setattr("hearken.server.security.Passwords.hash", lambda *_: "hash")
    where = str(tmp_path / "feedback.db") if kind == "sqlite" else request.getfixturevalue("postgres_location")
    with FeedbackStore(where) as store:
        fill(store, slots=9)
        site = Site(store, create_app(store, media=tmp_path))
        store.access.add_token("unused", ["read"])
        visitor = site.enter("owner")
        labeler = visitor.labeler_id
        secret, _ = store.access.add_token("all", ["label", "read", "write", "manage"], labeler_id=labeler)
        headers = {"authorization": f"Bearer {secret}".encode(), "content-type": b"application/json"}
        cookie = "; ".join(f"{name}={value}" for name, value in visitor.http.cookies.items()).encode()
        page = {
            "cookie": cookie, "origin": HERE.encode(), "content-type": b"application/json",
            "x-csrf-token": visitor.http.headers["X-CSRF-Token"].encode(),
        }  # fmt: skip
        store.add_guideline("Be kind.")
        wrong = []
        for method, path, whole in _whole(site, headers):
            if path not in REFUSED:
                sent = headers if "/api/" in path else page
                answer = ask(site.app, method, path, sent, json.dumps(whole).encode())
                assert answer.status == 200, (path, answer.body)
            for place, changed in _changed(whole):
                body = json.dumps(changed).encode()
                try:
                    answer = ask(site.app, method, path, headers if "/api/" in path else page, body)
                    said = f"{answer.status} {answer.body[:200]!r}"
                    bad = not 200 <= answer.status < 500
                except Exception as error:
                    bad, said = True, repr(error)[:300]
                if bad:
                    wrong.append(f"{method} {path} {place}: {body[:120]!r} -> {said}")
        again = _cookies(site.enter("owner"))
        shown = ["/owner", "/owner/people", "/owner/audit", "/owner/settings", "/owner/responses", "/label"]
        listed = ["prompts", "responses", "items", "judgments", "labelers"]
        shown += [f"/api/v1/{one}" for one in ("tokens", "invites", "people", "audit", "settings", "guidelines")]
        for path in [*shown, *(f"/api/v1/export/{one}" for one in listed)]:  # what was taken can be shown
            answer = ask(site.app, "GET", path, {"cookie": again, "accept": b"text/html"})
            if answer.status != 200:
                wrong.append(f"GET {path} -> {answer.status}")
        assert not wrong, f"{len(wrong)} errors:\n" + "\n".join(wrong[:60])


@given(
    headers=st.dictionaries(st.sampled_from(sorted(HEADERS)), st.binary(max_size=40), max_size=4),
    path=st.sampled_from([route[:2] for route in ROUTES]), body=st.binary(max_size=60), query=st.binary(max_size=40),
)  # fmt: skip
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_nothing_at_all_is_an_error_of_ours(
    site: Site, headers: dict[str, bytes], path: tuple[str, str], body: bytes, query: bytes
) -> None:
    answer = ask(site.app, *path, headers, body, query)
    assert 200 <= answer.status < 500, answer.body
