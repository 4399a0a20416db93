"""Clients that are slow, many or without end: what one of them may take of the server.

Of all this uvicorn offers a time for idle connections between two requests, and a number of connections beyond which
*every* request is refused. Here a connection has a time for its head, its body and its answer; a head and a body have a
size; and where there are too many connections, the one goes that has waited longest for its own client, so that others
are still answered. What a request may say is `security`'s part, and when its body is read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from hearken.errors import UserError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Bounds:
    """What one connection, one address and all together may take.

    Args:
        head_seconds: from opening, or from a request's first byte, to the end of its headers.
        body_seconds: how long a body may take beyond what it takes at ``body_rate``.
        body_rate: bytes a second at which a body comes at least.
        answer_seconds: how long a client may read less than 16 KiB of an answer that waits for it.
        head: bytes of request line and headers.
        headers: number of headers.
        body: bytes of a body as it is sent, with the marks between its chunks.
        pipelined: requests that may be sent ahead of the answers.
        per_address: connections from one address, a trusted proxy's not counted.
        together: connections in all.
        trusted: addresses of proxies, which speak for many clients.
    """

    head_seconds: float = 10.0
    body_seconds: float = 20.0
    body_rate: float = 10_000.0
    answer_seconds: float = 30.0
    head: int = 32_768
    headers: int = 100
    body: int = 10_000_000
    pipelined: int = 16
    per_address: int = 200
    together: int = 1_000
    trusted: tuple[Network, ...] = ()


TICK = 0.5
"""Seconds between two looks at all connections."""
PROGRESS = 16_384
"""Bytes of an answer; see `Bounds.answer_seconds`."""


def networks(given: Sequence[str], what: str) -> tuple[Network, ...]:
    """Networks from addresses and ranges as people write them: ``10.0.0.5``, ``10.0.0.0/8``, ``::1``.

    Args:
        given: what was written.
        what: whose they are, for the message.

    Raises:
        UserError: one is neither.
    """
    found = []
    for one in given:
        try:
            found.append(ipaddress.ip_network(one.strip(), strict=False))
        except ValueError:
            raise UserError(
                f"{what}: '{one}' is no address", "Write an address or a range: 10.0.0.5 or 10.0.0.0/8"
            ) from None
    return tuple(found)


def plain(host: str) -> str:
    """An address; one of IPv4 that is written as IPv6 (``::ffff:192.0.2.7``) as IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)


class Connection(HttpToolsProtocol):
    """A connection within `Bounds`. `watch` must run beside the server.

    Args:
        bounds: see there.
        given: what uvicorn gives a protocol.
    """

    def __init__(self, bounds: Bounds, **given: Any) -> None:
        super().__init__(**given)
        self._bounds = bounds
        self._reads: Literal["head", "body", "nothing"] = "head"
        """What is expected of the client; nothing while its answer is made, and between two requests."""
        self._since = self._until = 0.0
        """When it was first expected, and until when it must be there."""
        self._received = self._head = 0
        """Bytes of the request that is read now, and of its head."""
        self._begun = False
        """Whether something of a request is there."""
        self._refusal = 400
        self._unread: tuple[float, int] | None = None
        """Since when an answer waits in our memory for the client, and how much of it."""

    # -- opening and closing -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; another one may have to go."""
        super().connection_made(transport)
        if self.client is not None:
            self.client = (plain(self.client[0]), self.client[1])
        self._expect("head", self._bounds.head_seconds)
        others = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        mine = [one for one in others if one.address == self.address]
        if len(mine) > self._bounds.per_address and not self._is_trusted():
            self._make_room(mine)
        elif len(others) > self._bounds.together:
            greediest = Counter(one.address for one in others if one.is_waiting).most_common(1)
            self._make_room([one for one in others if greediest and one.address == greediest[0][0]])

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self.client[0] if self.client else ""

    @property
    def is_waiting(self) -> bool:
        """Whether the server waits for the client, and not the client for the server."""
        return self._reads != "nothing" or self.cycle is None or self.cycle.response_complete

    def _is_trusted(self) -> bool:
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            return False
        return any(address in network for network in self._bounds.trusted)

    def _make_room(self, among: Sequence[Connection]) -> None:
        """Close the one that has kept the server waiting longest; the newest are about to say something."""
        waiting = [one for one in among if one.is_waiting and one is not self]
        if waiting:
            min(waiting, key=lambda one: one._since).transport.abort()
        else:
            self._refuse(503, "Too many connections.")

    def look(self, now: float) -> None:
        """Close it where the time is over."""
        if self.flow.read_paused:  # by us
            self._until = max(self._until, now + self._bounds.body_seconds)
        if self._reads != "nothing" and now > self._until and not self.transport.is_closing():
            self._refuse(408, "The request did not come in time.")
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            self._unread = None
        elif self._unread is None or waiting <= self._unread[1] - PROGRESS:
            self._unread = (now, waiting)
        elif now > self._unread[0] + self._bounds.answer_seconds:
            self.transport.abort()
        else:
            self._unread = (self._unread[0], max(waiting, self._unread[1]))

    def resume_writing(self) -> None:
        """The client has read what waited for it."""
        self._unread = None
        super().resume_writing()

    def _expect(self, what: Literal["head", "body", "nothing"], seconds: float) -> None:
        self._reads, self._since = what, self.loop.time()
        self._until = self._since + seconds

    def _refuse(self, status: int, message: str) -> None:
        """Say why, where that is the answer that the client waits for, and close."""
        self._refusal = status
        answered = self._reads == "body" and self.cycle is not None and self.cycle.response_complete
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if answering or answered or not self._begun:
            self.transport.abort()
        else:
            self.send_400_response(message)

    def send_400_response(self, msg: str) -> None:
        """Refuse what was sent, with our own status, and close."""
        if self.transport.is_closing():
            return
        body = msg.encode()
        head = (
            b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n"
            b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n" % len(body)
        )
        self.transport.write(STATUS_LINE[self._refusal] + head + body)
        self.transport.close()

    # -- what the client sends -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request, or of several."""
        self._received += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._reads == "head" and self._received > self._bounds.head:
            self._refuse(431, "The headers are too long.")
        elif self._reads == "body" and self._received > self._bounds.body:
            self._refuse(413, "The request is too long.")
        elif self._reads == "nothing" and self.is_waiting and self.timeout_keep_alive_task is None:
            self._expect("head", self._bounds.head_seconds)  # empty lines end uvicorn's own time for idle connections

    def on_message_begin(self) -> None:
        """A request begins."""
        if len(self.pipeline) >= self._bounds.pipelined:
            raise ValueError("too many requests at once")  # the parser's callers answer 400
        super().on_message_begin()
        self._received, self._head, self._begun = 0, 0, True
        self._expect("head", self._bounds.head_seconds)

    def on_url(self, url: bytes) -> None:
        """A part of the request's address."""
        self._measure(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._measure(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _measure(self, more: int) -> None:
        self._head += more
        if self._head > self._bounds.head or len(self.headers) >= self._bounds.headers:
            self._refusal = 431
            raise ValueError("the headers are too long")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._expect("body", self._bounds.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body; it gives time for more."""
        self._until = min(
            self._until + len(body) / self._bounds.body_rate, self.loop.time() + self._bounds.body_seconds
        )  # fmt: skip
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._begun = False
        self._expect("nothing", 0)
        super().on_message_complete()


class Listener(socket.socket):
    """A socket that accepts connections, and drops some of those that do not go on.

    Before a connection over TLS is a `Connection`, its client has to shake hands. There may be so many that have not;
    of more, the one goes that has waited longest, of the address that has most.
    """

    connections: set[Any] | None = None
    """Those that are further; None where nobody shakes hands."""
    most = 100
    """How many may be on their way."""

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection."""
        found, address = super().accept()
        opened: list[tuple[str, socket.socket]] = [
            one for one in getattr(self, "_opened", []) if one[1].fileno() != -1
        ]  # fmt: skip
        self._opened = [*opened, (plain(str(address[0])), found)]
        if self.connections is not None and len(self._opened) > self.most:
            further = {_number(one) for one in self.connections}
            coming = [one for one in opened if one[1].fileno() not in further]
            if len(coming) >= self.most:
                greediest = Counter(place for place, _ in coming).most_common(1)[0][0]
                oldest = next(one for place, one in coming if place == greediest)
                with suppress(OSError):  # asyncio closes it, when it finds it so
                    oldest.shutdown(socket.SHUT_RDWR)
        return found, address


def _number(connection: Any) -> int:
    found = connection.transport and connection.transport.get_extra_info("socket")
    return found.fileno() if found else -1


async def watch(connections: set[Any]) -> None:
    """Close connections whose time is over, for as long as the server runs."""
    while True:
        await asyncio.sleep(TICK)
        now = asyncio.get_running_loop().time()
        for one in list(connections):
            if isinstance(one, Connection):
                one.look(now)
