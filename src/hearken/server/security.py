"""Who is asking, and may they: passwords, sessions, tokens, cross-site requests, headers, limits.

* Passwords are hashed with Argon2id. Sessions live in the database; the cookie holds a random secret and nothing else.
* A request that changes something with a cookie must carry the session's CSRF token and come from our own origin.
* API tokens come in a header, which no foreign page can set, and need neither.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as HTTPScope

from hearken.errors import Unavailable, UserError
from hearken.feedback.access import SESSION_DAYS, Access, Account, Role, Scope, Session
from hearken.feedback.media import LARGEST
from hearken.feedback.store import FeedbackStore

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LONGEST_BODY = 4_000_000
"""Bytes of a request's body, other than of one that brings a file."""
FILES = re.compile(r"/api/v1/prompts/[^/]+/files")
"""Where files are brought."""
RETRY_AFTER = "5"
"""Seconds after which a fault that passes may be over."""
LONGEST_OF_STRANGERS = 64_000
"""Bytes of a body that are read before it is known who sends it."""
_A_STRANGERS = f"nobody is logged in, and the request is longer than {LONGEST_OF_STRANGERS:,} bytes"
SHORTEST_PASSWORD = 10
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

SCOPES: dict[Role, frozenset[Scope]] = {
    "owner": frozenset({"label", "read", "write", "manage"}),
    "viewer": frozenset({"read"}),
    "labeler": frozenset({"label"}),
}


class ApiError(Exception):
    """An answer other than success, in one line, with what to do about it.

    Args:
        status: HTTP status.
        what: what is wrong.
        hint: what to do.
        headers: more headers, e.g. ``Retry-After``.
        final: the same request can never succeed: whoever keeps it to send it again may give up.
    """

    def __init__(
        self, status: int, what: str, hint: str = "", headers: dict[str, str] | None = None, *, final: bool = False
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.hint, self.headers, self.final = status, what, hint, headers, final


class Passwords:
    """Argon2id with the library's defaults (RFC 9106, low memory), a few at a time.

    Each hash takes 64 MiB and a processor for some hundredths of a second, so strangers who send many passwords at once
    would take all of both. Beyond a short queue they are told to come again; a browser that has logged in here before
    has places of its own in the queue.

    Args:
        at_once: hashes that are computed at the same time.
        waiting: how many more may wait, of strangers and of known browsers each.
    """

    def __init__(self, at_once: int = 2, waiting: int = 8) -> None:
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())
        self._turn = threading.BoundedSemaphore(at_once)
        self._places = {known: threading.BoundedSemaphore(at_once + waiting) for known in (False, True)}

    def hash(self, password: str) -> str:
        """What is stored.

        Raises:
            UserError: too short, or absurdly long.
            ApiError: 503, see `check`.
        """
        if not SHORTEST_PASSWORD <= len(password) <= 1_000:
            raise UserError(f"a password has {SHORTEST_PASSWORD} characters or more", "Some words make a good one")
        with self._place(known=True):
            return self._hasher.hash(_bytes(password))

    def check(self, stored: str | None, given: str, known: bool = False) -> bool:
        """Whether it is the right one; takes as long where there is no such account.

        Args:
            stored: what `hash` made; None for nobody.
            given: the password to be checked.
            known: asked from a browser that has logged in here before.

        Raises:
            ApiError: 503 at once where too many wait already; nothing was checked.
        """
        with self._place(known):
            try:
                return self._hasher.verify(stored or self._nobody, _bytes(given)) and stored is not None
            except (VerifyMismatchError, InvalidHashError):
                return False

    @contextmanager
    def _place(self, known: bool) -> Iterator[None]:
        places = self._places[known]
        if not places.acquire(blocking=False):
            raise ApiError(
                503, "too many passwords are being checked", "Try again in a few seconds", {"Retry-After": "3"}
            )
        try:
            with self._turn:
                yield
        finally:
            places.release()


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


COUNTED = 900.0
"""Seconds for which an attempt counts."""
MOST_TRIES = 10
"""Passwords for one name from one address, or from one known browser, and wrong links from one address."""
TRIES_OF_NEW = 3
"""Passwords from a browser that is new here, of its own, before those of its address count."""
MOST_NEW = 20
"""New browsers at one address that get tries of their own."""
MOST_OF_ADDRESS = 300
"""Passwords from one address for all names together: an office may share one."""


class Attempts:
    """Lets people try passwords so often and no more. Counted first, tried then, in the database: for all servers.

    Whoever guesses uses up their own attempts, by name and address, and those of their address in all. A browser that
    has logged in before carries a mark that nobody else can make: it has attempts of its own, so that others' guesses
    lock nobody out there. (After OWASP's "device cookies".) A new browser gets a few tries of its own with the login
    page, so that who guesses a name behind the same address does not keep its owner out on a new machine.

    Args:
        access: counts them.
        salt: the database's secret, from which marks are made.
    """

    def __init__(self, access: Access, salt: str) -> None:
        self._access, self._salt = access, salt

    def mark(self, account_id: str) -> str:
        """For a browser on which this account has just come in."""
        nonce = secrets.token_urlsafe(12)
        return f"{nonce}.{self._sign(account_id, nonce)}"

    def welcome(self, address: str) -> str:
        """A mark for a browser that is new here; empty where its address had many."""
        return "" if self._access.attempt({f"new:{address}": MOST_NEW}, COUNTED) else self.mark("")

    def knows(self, account_id: str, mark: str) -> bool:
        """Whether this account came in with that mark before; of no account (""), whether it is a new browser's."""
        nonce, _, signature = mark.partition(".")
        return hmac.compare_digest(self._sign(account_id, nonce).encode(), signature.encode("utf-8", "replace"))

    def _sign(self, account_id: str, nonce: str) -> str:
        said = json.dumps(["known browser", account_id, nonce]).encode()
        return hmac.digest(self._salt.encode(), said, "sha256").hex()

    @contextmanager
    def password(self, address: str, login: str, mark: str, *, known: bool) -> Iterator[None]:
        """Around the check of a password: counted before; forgotten after it, unless it ends with ApiError 403.

        Args:
            address: where it comes from.
            login: the name that is tried.
            mark: of the browser.
            known: whether it is that account's.

        Raises:
            ApiError: 429 where it may not be tried.
        """
        whole = {f"address:{address}": MOST_OF_ADDRESS}
        ways = [{f"login:{mark}:{login}": MOST_TRIES}] if known else [{f"login:{address}:{login}": MOST_TRIES} | whole]
        if not known and self.knows("", mark):
            ways.insert(0, {f"new:{mark}": TRIES_OF_NEW} | whole)
        most = self._count(*ways, also=", or ask for a new link")
        try:
            yield
        except ApiError as error:
            if error.status != 403:
                self._access.forgive(one=most)  # nothing was tried
            raise
        self._access.forgive(one=most.keys() & whole.keys(), all=most.keys() - whole.keys())

    def wrong_link(self, address: str) -> None:
        """Count a link that opens nothing; ApiError 429 after too many. A right one is never kept waiting: a link has
        192 random bits, so nobody guesses one.
        """
        self._count({f"link:{address}": MOST_TRIES})

    def _count(self, *ways: dict[str, int], also: str = "") -> dict[str, int]:
        """Count an attempt in the first way that is not used up; which one that was."""
        wait = 0.0
        for most in ways:
            wait = self._access.attempt(most, COUNTED)
            if not wait:
                return most
        seconds = str(int(wait) + 1)
        hint = f"Try again in {seconds} seconds{also}"
        raise ApiError(429, "too many attempts", hint, {"Retry-After": seconds})


@dataclass(frozen=True)
class Door:
    """How this server is reached.

    Args:
        port: distinguishes the cookies of several servers on one machine (browsers do not).
        secure: reached over HTTPS: cookies are sent over nothing else.
        hosts: names it answers to; empty for all. A foreign name that leads to this machine is refused.
    """

    port: int = 8765
    secure: bool = False
    hosts: frozenset[str] = LOOPBACK

    @property
    def cookie(self) -> str:
        """The session cookie's name."""
        return f"__Host-hearken-{self.port}" if self.secure else f"hearken-{self.port}"

    def give(self, response: Response, secret: str) -> None:
        """Set the session cookie."""
        response.set_cookie(
            self.cookie, secret, max_age=SESSION_DAYS * 86_400, httponly=True, secure=self.secure, samesite="lax"
        )

    @property
    def mark(self) -> str:
        """Name of the cookie by which a browser is known that has logged in before."""
        return f"{self.cookie}-known"

    def remember(self, response: Response, mark: str) -> None:
        """Set it."""
        response.set_cookie(self.mark, mark, max_age=365 * 86_400, httponly=True, secure=self.secure, samesite="lax")

    def take(self, response: Response) -> None:
        """Remove the session cookie."""
        response.delete_cookie(self.cookie, httponly=True, secure=self.secure, samesite="lax")


@dataclass(frozen=True)
class Who:
    """Who is asking."""

    actor: str
    """For the audit trail: ``account:ID`` or ``token:ID``."""
    scopes: frozenset[Scope]
    labeler_id: str | None = None
    account: Account | None = None
    session: Session | None = None
    kind: str = field(default="page")
    """``page`` for browsers, ``api`` for tokens."""

    @property
    def labeler(self) -> str:
        """Whose judgments these are; ApiError 403 where they judge nothing."""
        if self.labeler_id is None:
            raise ApiError(403, "nobody judges here", "Use an account or a token of a labeler")
        return self.labeler_id


def store_of(request: Request) -> FeedbackStore:
    """The feedback database."""
    store: FeedbackStore = request.app.state.store
    return store


def door_of(request: Request) -> Door:
    """How this server is reached."""
    door: Door = request.app.state.door
    return door


def same_origin(request: Request) -> bool:
    """Whether a browser sent this from one of our own pages."""
    origin = request.headers.get("origin")
    if origin is not None:
        try:
            return bool(origin != "null" and urlsplit(origin).netloc == request.headers.get("host"))
        except ValueError:
            return False
    return request.headers.get("sec-fetch-site") == "same-origin"


def visitor(request: Request) -> Who | None:
    """Who is asking, by token or by cookie; None for a stranger. A wrong token is an error."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    access = store_of(request).access
    if scheme.lower() == "bearer":
        token = access.token(secret.strip())
        if token is None:
            raise ApiError(401, "the token is not valid (any more)", headers={"WWW-Authenticate": "Bearer"})
        return Who(f"token:{token.id}", frozenset(token.scopes), token.labeler_id, kind="api")
    cookie = request.cookies.get(door_of(request).cookie)
    found = access.session(cookie) if cookie else None
    if found is None:
        return None
    session, account = found
    return Who(f"account:{account.id}", SCOPES[account.role], account.labeler_id, account, session)


def who(request: Request) -> Who:
    """Who is asking. ApiError 401 for a stranger, 403 for a request that a foreign page may have sent."""
    found = visitor(request)
    if found is None:
        raise ApiError(401, "nobody is logged in", "Log in, or send a token", {"WWW-Authenticate": "Bearer"})
    if found.session is not None and request.method not in SAFE:
        given = request.headers.get("x-csrf-token", "")
        if not same_origin(request) or not secrets.compare_digest(given.encode(), found.session.csrf.encode()):
            raise ApiError(403, "this request does not come from this page", "Load the page again")
    return found


def needs(scope: Scope) -> Any:
    """A dependency: who is asking, who must have this scope."""

    def allowed(request: Request) -> Who:  # not a dependency upon `who`: each one costs a change of threads
        found = who(request)
        if scope not in found.scopes:
            raise ApiError(403, f"this needs the right to {scope}", "Ask the owner of this project")
        return found

    return Depends(allowed)


bearer = HTTPBearer(auto_error=False, description="An API token; pages use their session's cookie instead.")

Reader = Annotated[Who, needs("read")]
Judge = Annotated[Who, needs("label")]
Writer = Annotated[Who, needs("write")]
Manager = Annotated[Who, needs("manage")]


_ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Around every request: the host's name, the body's size, and the headers that make browsers careful."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door
        always = _ALWAYS | ({"strict-transport-security": "max-age=31536000"} if door.secure else {})
        self._always = [(name.encode(), value.encode()) for name, value in always.items()]
        self._ours = {name for name, _ in self._always} | {b"cache-control"}

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """Handle one request; see the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers, scope["query_string"], _longest(scope))
        seen, asked, longest = 0, False, _longest(scope)

        async def measured() -> Message:
            nonlocal seen, asked
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > longest:
                raise HTTPException(413, _too_long(longest))
            if seen > LONGEST_OF_STRANGERS and not asked:
                asked = True
                if found := await run_in_threadpool(_stranger, Request(scope)):
                    raise found
            return message

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._harden(message.get("headers", ()), scope["path"])
            await send(message)

        if refusal is None and int(headers.get("content-length", "0")) > LONGEST_OF_STRANGERS:
            asked = True
            if found := await run_in_threadpool(_stranger, Request(scope)):
                refusal = _problem(found.status_code, found.detail, "", dict(found.headers or {}))
        with suppress(ClientDisconnect):  # it went before its request was there: nobody is left to be answered
            await (refusal or self._app)(scope, measured, careful)

    def _refusal(self, headers: Headers, query: bytes, longest: int) -> JSONResponse | None:
        name = _host(headers.get("host", ""))
        if name is None or (self._door.hosts and name not in self._door.hosts):
            return _problem(400, "this server does not answer to that name")
        if not query.isascii():
            return _problem(400, "the address holds characters that are not encoded")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return _problem(400, "Content-Length is no number")
        if len(length) > 15 or int(length) > longest:
            return _problem(413, _too_long(longest))
        return None

    def _harden(self, headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
        # Static files are asked after each time (an upgrade shows at once); what people see is kept nowhere.
        keep = b"no-cache" if path.startswith("/static/") else b"no-store"
        others = [header for header in headers if header[0].lower() not in self._ours]
        return [*others, *self._always, (b"cache-control", keep)]


def _longest(scope: HTTPScope) -> int:
    """Bytes of a request's body: of one that brings a file, those of the largest file that is shown."""
    return LARGEST if scope["method"] == "POST" and FILES.fullmatch(scope["path"]) else LONGEST_BODY


def _too_long(longest: int) -> str:
    return f"the request is longer than {longest:,} bytes"


def _host(written: str) -> str | None:
    """The name in a ``Host`` header; None where it is none."""
    try:
        return None if set(written) & set("/@\\?# ") else urlsplit(f"//{written}").hostname
    except ValueError:
        return None


def _stranger(request: Request) -> HTTPException | None:
    """Why a long body is not read; None where it is known who sends it."""
    try:
        if visitor(request) is not None:
            return None
    except Unavailable as error:
        return HTTPException(503, error.plain, {"Retry-After": RETRY_AFTER})
    except ApiError:
        pass
    return HTTPException(401, _A_STRANGERS)


def _problem(
    status: int, what: str, hint: str = "", headers: dict[str, str] | None = None, *, final: bool = False
) -> JSONResponse:
    return JSONResponse({"error": what, "hint": hint} | ({"final": True} if final else {}), status, headers)


def _warn(words: str) -> None:
    """Write it into the log, the same words once a minute at most: every waiting browser asks again and again."""
    now = time.monotonic()
    if now - _warned.get(words, -math.inf) > 60:
        _warned.clear()
        _warned[words] = now
        log.warning("%s", words)


_warned: dict[str, float] = {}


def explain(request: Request, error: Exception) -> JSONResponse:
    """An ApiError or a UserError as an answer, in which the database has no name.

    A fault that passes (`Unavailable`) is a 503, said in words for those who judge; the log has it for the owner.
    """
    if isinstance(error, Unavailable):
        _warn(str(error))
        return _problem(503, error.plain, "Try again in a moment", {"Retry-After": RETRY_AFTER})
    assert isinstance(error, ApiError | UserError)
    what, hint = (words.replace(store_of(request).name, "the database") for words in (error.what, error.hint))
    if isinstance(error, ApiError):
        return _problem(error.status, what, hint, error.headers, final=error.final)
    return _problem(400, what, hint)


def address_of(request: Request) -> str:
    """Where a request comes from, as attempts are counted: of IPv6 the network, as each house has one of its own."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return "?"
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
