"""Clients that are slow, many or without end, on a real server: they are cut off, and others are answered meanwhile."""

from __future__ import annotations

import http.client
import json
import logging
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from people_world import Running, fill

from hearken.errors import UserError
from hearken.feedback.access import Account
from hearken.feedback.store import FeedbackStore
from hearken.server import run
from hearken.server.connections import Bounds, networks, plain
from hearken.server.security import Passwords

QUICK = partial(
    Bounds, head_seconds=1.0, body_seconds=1.0, answer_seconds=1.5, per_address=20, together=30, body=300_000
)
"""The bounds with short times, so that the tests are short too."""

HEAD = b"GET /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(run_server: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> Running:
    """A server with `QUICK` bounds."""
    monkeypatch.setattr(run, "Bounds", QUICK)
    monkeypatch.setattr(run, "_most_connections", lambda: 30)
    return run_server(fill)


def place(running: Running) -> tuple[str, int]:
    url = urlsplit(running.url)
    return url.hostname or "", url.port or 0


@contextmanager
def connected(running: Running, *said: bytes, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(place(running), timeout=20, source_address=(source, 0)) as client:
        for part in said:
            client.sendall(part)
        yield client


def everything(client: socket.socket) -> bytes:
    """What comes until the server closes the connection; a reset is an end, too."""
    found = b""
    try:
        while part := client.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


def answered(running: Running, within: float = 5.0, source: str = "127.0.0.1") -> None:
    """A client that behaves is answered. (A second on a quiet machine; the tests' machine may not be one.)"""
    start = time.monotonic()
    client = http.client.HTTPConnection(*place(running), timeout=within, source_address=(source, 0))
    client.request("GET", "/login")
    assert client.getresponse().status == 200
    client.close()
    assert time.monotonic() - start < within


# -- slow --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([], b""),
        ([b"\r\n"], b""),
        ([b"G"], b"HTTP/1.1 408 "),
        ([HEAD], b"HTTP/1.1 408 "),
        ([HEAD + b"X-Long: "], b"HTTP/1.1 408 "),
        ([POST + b"Content-Length: 100\r\n\r\n{"], b"HTTP/1.1 408 "),
        ([POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n"], b"HTTP/1.1 408 "),
        (
            [POST + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n"],
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ",
        ),
    ],
    ids=["silence", "an empty line", "a letter", "a head", "a header", "a body", "chunks", "expect"],
)
def test_a_request_that_does_not_end_is_ended(server: Running, said: list[bytes], answer: bytes) -> None:
    start = time.monotonic()
    with connected(server, *said) as client:
        assert everything(client)[: len(answer) or None] == answer
    assert time.monotonic() - start < 15
    answered(server)


def test_a_byte_now_and_then_does_not_buy_time(server: Running) -> None:
    for beginning in (HEAD + b"X: ", POST + b"Content-Length: 1000\r\n\r\n", b"\r\n"):
        with connected(server, beginning) as client:
            start = time.monotonic()
            with pytest.raises(OSError):
                while time.monotonic() - start < 15:
                    client.sendall(b"\r\n" if beginning == b"\r\n" else b"a")
                    time.sleep(0.2)
        assert time.monotonic() - start < 15


def test_an_empty_line_between_two_requests_does_not_keep_a_connection(server: Running) -> None:
    with connected(server, HEAD + b"\r\n") as client:
        while b"</html>" not in client.recv(65_536):
            pass
        client.sendall(b"\r\n")
        start = time.monotonic()
        assert everything(client) == b""
        assert time.monotonic() - start < 15


def test_a_slow_body_that_comes_all_the_same_is_taken(server: Running) -> None:
    """Longer in all than the time for a body, but at a fair rate."""
    body = b'{"login": "ann", "password": "' + b"x" * 60_000 + b'"}'
    origin = b"Origin: %s\r\n" % server.url.encode()
    with connected(server, POST + origin + b"Content-Length: %d\r\n\r\n" % len(body)) as client:
        for start in range(0, len(body), 6_000):
            client.sendall(body[start : start + 6_000])
            time.sleep(0.25)
        assert client.recv(100).startswith(b"HTTP/1.1 422 ")


def test_who_does_not_read_their_answers_is_cut_off(server: Running) -> None:
    """Requests without end, and no answer is read: the server keeps neither the connection nor the answers."""
    with connected(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(0.5)
        start = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() - start < 60:
                try:
                    client.sendall(HEAD + b"\r\n")
                except TimeoutError:
                    continue
    answered(server)


# -- many --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("said", [HEAD, POST + b"Content-Length: 100\r\n\r\n{", b""], ids=["heads", "bodies", "silent"])
def test_more_connections_than_an_address_may_have_do_not_keep_it_out(server: Running, said: bytes) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server, said)) for _ in range(60)]
        answered(server)
        answered(server, source="127.0.0.2")
        gone = 0
        for client in slow[:40]:  # the oldest went first, and at once
            client.settimeout(1)
            try:
                gone += not everything(client)
            except TimeoutError:
                break
        assert gone >= 30


def test_all_addresses_together_do_not_keep_others_out(server: Running) -> None:
    with ExitStack() as stack:
        for n in range(80):
            stack.enter_context(connected(server, HEAD, source=f"127.0.1.{n % 5}"))
        answered(server, source="127.0.0.9")


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_clients_that_never_shake_hands_keep_nobody_out(
    run_server: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS: connections on which nothing is said, and requests that do not end."""
    monkeypatch.setattr(run, "Bounds", QUICK)
    monkeypatch.setattr(run, "_most_connections", lambda: 32)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*make, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    running = run_server(fill, certificate=(certificate, key))
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(running)) for _ in range(60)]
        for _ in range(40):
            stack.enter_context(trust.wrap_socket(stack.enter_context(connected(running)))).sendall(HEAD)
        client = http.client.HTTPSConnection(*place(running), timeout=5, context=trust)
        client.request("GET", "/login")
        assert client.getresponse().status == 200
        client.close()
        for one in silent[:40]:  # the oldest are gone
            one.settimeout(1)
            assert everything(one) == b""


@contextmanager
def started(folder: Path, files: int | None = None) -> Iterator[tuple[Any, int]]:
    """``hearken serve`` as people run it, perhaps with few open files; its address and its process."""
    command = [sys.executable, "-c", "from hearken.cli.main import main; main()", "serve", "--no-open", "--json"]
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files)) if files else None
    place = ["--port", "0", "--database", str(folder / "feedback.db")]
    with subprocess.Popen([*command, *place], stdout=subprocess.PIPE, text=True, preexec_fn=limit) as process:
        try:
            assert process.stdout is not None
            yield SimpleNamespace(url=json.loads(process.stdout.readline())["address"]), process.pid
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("said", [HEAD, POST + b"Content-Length: 100\r\n\r\n{"], ids=["heads", "bodies"])
def test_three_hundred_half_requests_with_few_open_files(tmp_path: Path, said: bytes) -> None:
    """Bounds as they are, in a process that may open 256 files."""
    with started(tmp_path, files=256) as (running, _), ExitStack() as stack:
        answered(running)
        for _ in range(300):
            stack.enter_context(connected(running, said))
        for _ in range(5):
            answered(running)


@pytest.mark.slow
def test_a_hundred_and_twenty_logins_at_once(tmp_path: Path) -> None:
    """Memory stays where it was, others are answered meanwhile, and who is not checked is told at once."""
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.access.add_account(
            Account(name="Ann", role="owner", login="ann", password=Passwords().hash("correct horse"))
        )
    with started(tmp_path) as (running, process):
        answered(running)
        before, codes = peak(process), []

        def log_in(n: int) -> None:
            client = http.client.HTTPConnection(*place(running), timeout=60)
            headers = {"Content-Type": "application/json", "Origin": running.url}
            client.request("POST", "/login", json.dumps({"login": f"name {n}", "password": "wrong horse"}), headers)
            codes.append(client.getresponse().status)
            client.close()

        with ThreadPoolExecutor(120) as pool:
            work = [pool.submit(log_in, n) for n in range(120)]
            while not all(one.done() for one in work):
                answered(running)
        assert set(codes) == {403, 503} and len(codes) == 120
        assert peak(process) - before < 250_000_000


def peak(process: int) -> int:
    """The most memory that a process has had, in bytes."""
    [line] = [one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


# -- without end -------------------------------------------------------------------------------------------------


def send_on(client: socket.socket, part: bytes, most: int) -> int:
    """Send until the server has enough; how many bytes that took."""
    sent = 0
    try:
        while sent < most:
            client.sendall(part)
            sent += len(part)
    except OSError:
        pass
    return sent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beginning", "part"),
    [
        (HEAD + b"X-Long: ", b"x" * 8_192),
        (HEAD, b"X-Many: 1\r\n" * 500),
        (b"GET /", b"x" * 8_192),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4_096 + b"\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 8_192),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b" " * 4_096 + b"\r\n"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n" * 500),
        (POST + b"Content-Length: 99999999999\r\n\r\n", b" " * 8_192),
    ],
    ids=[
        "a header",
        "headers",
        "an address",
        "chunks",
        "a chunk's mark",
        "chunks to a page",
        "trailers",
        "a long body",
    ],
)
def test_what_has_no_end_is_ended(server: Running, beginning: bytes, part: bytes) -> None:
    with connected(server, beginning) as client:
        assert send_on(client, part, 80_000_000) < 40_000_000  # what lies in the sockets' buffers counts, too
    answered(server)


def test_a_head_that_is_too_long_is_said(server: Running) -> None:
    for long in (b"X-Long: " + b"x" * 40_000 + b"\r\n\r\n", b"X: 1\r\n" * 200 + b"\r\n"):
        with connected(server, HEAD + long) as client:
            assert everything(client).startswith(b"HTTP/1.1 431 ")


def test_a_body_that_is_too_long_is_refused_before_it_is_read(server: Running) -> None:
    with connected(server, POST + b"Content-Length: 4000001\r\n\r\n") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_thousand_requests_in_one_breath_are_refused(server: Running) -> None:
    with connected(server, (HEAD + b"\r\n") * 1_000) as client:
        assert everything(client).count(b"HTTP/1.1 200 ") <= 17
    answered(server)


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=repr,
)
def test_what_is_no_request_makes_no_error_here(server: Running, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with connected(server, said) as client:
        answer = client.recv(100)
    assert not answer.startswith(b"HTTP/1.1 5")
    answered(server)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_slow_clients_leave_nothing_in_the_log(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    for path in (b"/login", b"/api/v1/claims"):
        with connected(server, POST.replace(b"/login", path) + b"Content-Length: 100\r\n\r\n{") as client:
            everything(client)
        with connected(server, POST.replace(b"/login", path) + b"Content-Length: 100\r\n\r\n{"):
            pass
    answered(server)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- proxies -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trusted", "forwarded", "counted"),
    [
        ([], "192.0.2.7", "127.0.0.1"),
        (["10.0.0.0/8"], "192.0.2.7", "127.0.0.1"),
        (["127.0.0.1"], "192.0.2.7", "192.0.2.7"),
        (["127.0.0.0/8", "10.0.0.0/8"], "198.51.100.1, 192.0.2.7, 10.1.2.3", "192.0.2.7"),
        (["127.0.0.1"], "198.51.100.1, 192.0.2.7", "192.0.2.7"),
        (["127.0.0.1"], "192.0.2.7, nonsense", "?"),
    ],
    ids=str,
)
def test_only_trusted_proxies_say_where_a_request_comes_from(
    run_server: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
    trusted: list[str],
    forwarded: str,
    counted: str,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("hearken.server.labeler._attempts", lambda _: Seen(seen))
    running = run_server(lambda store: None, trusted_proxies=trusted)
    client = http.client.HTTPConnection(*place(running), timeout=20)
    headers = {"Content-Type": "application/json", "Origin": running.url, "X-Forwarded-For": forwarded}
    client.request("POST", "/enter", '{"secret": "wrong"}', headers)
    assert client.getresponse().status == 403
    client.close()
    assert seen == [counted]


class Seen:
    """Notes addresses."""

    def __init__(self, seen: list[str]) -> None:
        self.wrong_link = seen.append


def test_addresses_of_proxies_are_checked() -> None:
    assert [str(one) for one in networks(["10.1.2.3/8", " ::1 "], "x")] == ["10.0.0.0/8", "::1/128"]
    with pytest.raises(UserError, match=r"--trusted-proxy: 'nginx' is no address"):
        networks(["nginx"], "--trusted-proxy")
    assert plain("::ffff:192.0.2.7") == "192.0.2.7" and plain("::1") == "::1" and plain("x") == "x"
