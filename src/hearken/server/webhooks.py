"""Calls the addresses that want to know when so many more judgments are stored.

Who may add a webhook chooses where this server sends requests, from inside its network. So it calls public addresses
only, and what the owner of the machine names besides. The name is looked up once: the address that was checked is the
one that is called, whatever the name says a moment later. Redirections are not followed, answers not read.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from hearken.errors import UserError
from hearken.feedback.access import Webhook
from hearken.feedback.store import FeedbackStore
from hearken.server.connections import Network

log = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two looks at the number of judgments."""
TRIES = 3
CALL_SECONDS = 15.0
"""How long one call may take, from connecting to the first line of the answer."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def signature(secret: str, body: bytes) -> str:
    """What the header ``X-Hearken-Signature`` carries: ``sha256=`` and the HMAC of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet's: no private, local, shared or reserved one, in no disguise.

    IPv6 can carry an address of IPv4 (mapped, compatible, 6to4, Teredo, NAT64): then that one counts, too.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64 or address in _COMPATIBLE:
            inside = ipaddress.IPv4Address(address.packed[-4:])
        if inside is not None:
            return is_public(inside)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def parsed(url: str) -> SplitResult:
    """The parts of a webhook's address.

    Raises:
        UserError: it is none.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            if parts.username is None and parts.password is None and url.isprintable():
                return parts
            raise UserError("a webhook's address holds no name and password", "Check X-Hearken-Signature instead")
    except ValueError:
        pass
    raise UserError("this is no address of a webhook", "Write https://host/path")


def where(url: str, allowed: Sequence[Network] = ()) -> str:
    """The address to connect to for ``url``.

    Args:
        url: of a webhook.
        allowed: networks that may be called though they are not public.

    Raises:
        UserError: it leads to an address that is not public, or is no URL.
        OSError: there is no such name (now).
    """
    parts = parsed(url)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise UserError("this is no address of a webhook", "Write https://host/path") from None
    addresses = [ipaddress.ip_address(str(one[4][0])) for one in found]
    for address in addresses:
        plain = getattr(address, "ipv4_mapped", None) or address
        if not is_public(address) and not any(plain in network for network in allowed):
            raise UserError(
                f"the webhook leads to {address}, which is not a public address",
                f"Whoever starts the server may allow it: hearken serve --webhooks-to {address}",
            )
    return str(addresses[0])


class Caller:
    """A thread beside the server. Whoever notes the new count first makes the call, so two servers call once.

    Args:
        store: the feedback database.
        allowed: see `where`.
    """

    def __init__(self, store: FeedbackStore, allowed: Sequence[Network] = ()) -> None:
        self._store, self._allowed = store, allowed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="webhooks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(CALL_SECONDS)

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            try:
                self.look()
            except Exception:  # a database that is away for a moment must not end the watch
                log.warning("webhooks: cannot look at the database", exc_info=True)

    def look(self) -> int:
        """Call whoever is due. Returns how many were."""
        due = 0
        webhooks = self._store.access.webhooks()
        count = self._store.last_seq() if webhooks else 0
        for webhook in webhooks:
            steps = (count - webhook.reached) // webhook.every
            if steps > 0:
                reached = webhook.reached + steps * webhook.every
                if self._store.access.reach(webhook, reached):
                    self._call(webhook, reached)
                    due += 1
        return due

    def _call(self, webhook: Webhook, reached: int) -> None:
        body = json.dumps({"event": "judgments", "reached": reached, "every": webhook.every}).encode()
        headers = {"Content-Type": "application/json", "X-Hearken-Signature": signature(webhook.secret, body)}
        note: dict[str, Any] = {"count": reached}
        for attempt in range(TRIES):
            try:
                address = where(webhook.url, self._allowed)
                status = asyncio.run(call(webhook.url, address, body, headers))
            except UserError as error:
                note["why"] = error.what
                break
            except OSError as error:
                note["why"] = f"{type(error).__name__}: {error}".rstrip(": ")[:200]
            else:
                if status < 500:
                    self._store.access.note("webhooks", "called", webhook.id, status=status, count=reached)
                    return
                note["why"] = f"status {status}"
            if self._stop.wait(2.0**attempt):
                break
        self._store.access.note("webhooks", "could not call", webhook.id, **note)


async def call(url: str, address: str, body: bytes, headers: dict[str, str]) -> int:
    """Post to ``url`` at this address of its host; the answer's status.

    Raises:
        OSError: no answer came, or none in time.
    """
    import httpx2 as httpx

    parts = parsed(url)
    assert parts.hostname is not None
    there = httpx.URL(url).copy_with(host=address)
    known = {"Host": parts.netloc, **headers}
    extensions = {"sni_hostname": parts.hostname}  # whose certificate it must be
    try:
        async with asyncio.timeout(CALL_SECONDS), httpx.AsyncClient(trust_env=False, timeout=CALL_SECONDS) as client:
            request = client.build_request("POST", there, content=body, headers=known, extensions=extensions)
            answer = await client.send(request, stream=True, follow_redirects=False)
            await answer.aclose()
            return answer.status_code
    except httpx.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from None
