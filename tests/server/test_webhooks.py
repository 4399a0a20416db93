"""Webhooks are called once at each step, signed; and they lead nowhere inside the network unless that is allowed."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from people_world import Site, apart, fill

from hearken.errors import UserError
from hearken.feedback.access import Webhook
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler
from hearken.feedback.store import FeedbackStore
from hearken.server import webhooks
from hearken.server.app import create_app
from hearken.server.connections import networks
from hearken.server.webhooks import Caller, is_public, signature, where

LOOPBACK = networks(["127.0.0.1"], "--webhooks-to")
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextmanager
def listening(*answer: bytes, pause: float = 0.0) -> Iterator[tuple[int, list[bytes]]]:
    """A server that notes what it is sent and says ``answer``, part by part; its port, and what came."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    request = b""
                    while b"}" not in request and (part := client.recv(65_536)):
                        request += part
                    heard.append(request)
                    try:
                        for part in answer:
                            client.sendall(part)
                            time.sleep(pause)
                    except OSError:
                        pass

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def judged(store: FeedbackStore, url: str, allowed: Any = LOOPBACK) -> tuple[Webhook, Caller]:
    """A webhook that is due: every two judgments, and there are three."""
    items = fill(store, slots=9)
    hook = store.access.add_webhook(Webhook(url=url, every=2))
    store.add_labeler(Labeler(id="ann", name="Ann"))
    for number, item in enumerate(items):
        said = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
        store.submit(
            Judgment(id=f"{number}", prompt_id=item.prompt_id, item_id=item.id, labeler_id="ann", payload=said)
        )
    return hook, Caller(store, allowed)


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TRIES", 1)


def test_a_webhook_is_called_once_at_each_step_and_signed(store: FeedbackStore) -> None:
    with listening(OK) as (port, heard):
        hook, caller = judged(store, f"http://127.0.0.1:{port}/hook?x=1")
        assert apart(caller.look) == 1 and apart(caller.look) == 0
        [request] = heard
    head, body = request.split(b"\r\n\r\n")
    assert head.startswith(b"POST /hook?x=1 HTTP/1.1\r\n") and f"Host: 127.0.0.1:{port}".encode() in head
    assert json.loads(body) == {"event": "judgments", "reached": 2, "every": 2}
    assert f"X-Hearken-Signature: {signature(hook.secret, body)}".lower().encode() in head.lower()
    assert [(one.action, one.detail["status"]) for one in store.access.audit() if one.actor == "webhooks"] == [
        ("called", 204)
    ]


def test_the_address_that_was_checked_is_the_one_that_is_called(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads elsewhere when it is asked for a second time (DNS rebinding)."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *more: Any, **named: Any) -> Any:
        if host in ("hook.example", b"hook.example"):
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with listening(OK) as (port, heard):
        apart(judged(store, f"http://hook.example:{port}/")[1].look)
        assert len(heard) == 1 and f"Host: hook.example:{port}".encode() in heard[0]
    assert asked == ["hook.example"]


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(UserError, match=r"leads to 10\.0\.0\.1, which is not a public address"):
        where("https://hook.example/")
    assert where("https://hook.example/", networks(["10.0.0.0/8"], "x")) == "93.184.216.34"


def test_redirections_are_not_followed(store: FeedbackStore) -> None:
    with (
        listening(OK) as (other, reached),
        listening(b"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % other) as (
            port,
            heard,
        ),
    ):
        apart(judged(store, f"http://127.0.0.1:{port}/")[1].look)
        assert len(heard) == 1 and reached == []


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 100_000] * 200], "called"),
        ([b"HTTP/1.1 200 OK\r\n", *[b"X: 1\r\n"] * 200], "could not call"),
        ([b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], "could not call"),
        ([b"nonsense\r\n\r\n"], "could not call"),
        ([], "could not call"),
    ],
    ids=["a long answer", "a slow head", "an error", "nonsense", "nothing"],
)
def test_an_answer_that_is_long_slow_or_none_holds_nothing_up(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch, answer: list[bytes], action: str
) -> None:
    monkeypatch.setattr(webhooks, "CALL_SECONDS", 1.0)
    start = time.monotonic()
    with listening(*answer, pause=0.05 if len(answer) > 100 else 0) as (port, _):
        apart(judged(store, f"http://127.0.0.1:{port}/")[1].look)
        assert time.monotonic() - start < 10
    assert [one.action for one in store.access.audit() if one.actor == "webhooks"] == [action]


def test_what_is_not_public_is_refused_when_it_is_called(store: FeedbackStore) -> None:
    with listening(OK) as (port, heard):
        apart(judged(store, f"http://127.0.0.1:{port}/", ())[1].look)
        assert heard == []
    [note] = [one for one in store.access.audit() if one.actor == "webhooks"]
    assert note.action == "could not call" and "127.0.0.1, which is not a public address" in note.detail["why"]


INSIDE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0.0.0.0", "localhost", "10.1.2.3",
    "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "192.0.2.1", "198.18.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",
    "[fe80::1]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2002:7f00:1::1]", "[2001:db8::1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
]  # fmt: skip


def test_addresses_inside_are_refused_when_they_are_named(site: Site) -> None:
    owner = site.enter("owner")
    for host in INSIDE:
        answer = owner.http.post("/api/v1/webhooks", json={"url": f"http://{host}/", "every": 5})
        assert answer.status_code == 400 and "not a public address" in answer.json()["error"], (host, answer.text)
        assert "--webhooks-to" in answer.json()["hint"]
    assert site.store.access.webhooks() == []


def test_addresses_of_the_internet_are_public() -> None:
    for one in ("93.184.216.34", "1.1.1.1", "2606:4700::1111", "2002:101:101::1", "64:ff9b::101:101"):
        assert is_public(ipaddress.ip_address(one)), one


NO_URL = [
    "http://[::1", "http://:80/", "http://host:99999/", "http://host:x/", "https://ann:hush@host/", "http:///x",
    "ftp://host/", "http://h\u202eost/", "http://" + "a" * 64 + "." + "b" * 300 + "/", "http://a\u0000b/",
]  # fmt: skip


def test_what_is_no_address_is_refused(site: Site) -> None:
    owner = site.enter("owner")
    for url in NO_URL:
        answer = owner.http.post("/api/v1/webhooks", json={"url": url, "every": 5})
        assert answer.status_code in (400, 422), url
    assert site.store.access.webhooks() == []


def test_what_is_allowed_may_be_named(store: FeedbackStore) -> None:
    site = Site(store, create_app(store, webhooks_to=networks(["10.0.0.0/8", "::1"], "x")))
    owner = site.enter("owner")
    urls = [
        "http://10.9.8.7/",
        "http://[::1]:8080/",
        "http://[::ffff:10.1.1.1]/",
        "http://there-is-no-such-host.invalid/",
    ]
    for url in urls:
        assert owner.http.post("/api/v1/webhooks", json={"url": url, "every": 5}).status_code == 200, url
    assert owner.http.post("/api/v1/webhooks", json={"url": "http://127.0.0.1/", "every": 5}).status_code == 400
