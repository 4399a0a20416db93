"""Who is asking, and may they: passwords, sessions, tokens, cross-site requests, headers, limits.

* Passwords are hashed with Argon2id. Sessions live in the database; the cookie holds a random secret and nothing else.
* A request that changes something with a cookie must carry the session's CSRF token and come from our own origin.
* API tokens come in a header, which no foreign page can set, and need neither.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as HTTPScope

from hearken.errors import Unavailable, UserError
from hearken.feedback.access import SESSION_DAYS, Account, Role, Scope, Session
from hearken.feedback.store import FeedbackStore

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
LONGEST_BODY = 4_000_000
"""Bytes of a request's body."""
_TOO_LONG = f"the request is longer than {LONGEST_BODY:,} bytes"
RETRY_AFTER = "5"
"""Seconds after which a fault that passes may be over."""
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
    """Argon2id with the library's defaults (RFC 9106, low memory)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_hex())

    def hash(self, password: str) -> str:
        """What is stored.

        Raises:
            UserError: too short, or absurdly long.
        """
        if not SHORTEST_PASSWORD <= len(password) <= 1_000:
            raise UserError(f"a password has {SHORTEST_PASSWORD} characters or more", "Some words make a good one")
        return self._hasher.hash(password)

    def check(self, stored: str | None, given: str) -> bool:
        """Whether it is the right one; takes as long where there is no such account."""
        try:
            return self._hasher.verify(stored or self._nobody, given) and stored is not None
        except (VerifyMismatchError, InvalidHashError):
            return False


class Limit:
    """At most ``most`` failures in ``seconds`` for each key; counted in this process.

    Args:
        most: failures allowed.
        seconds: for how long one counts.
        clock: seconds from some point on, never back.
    """

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._failures: defaultdict[str, deque[float]] = defaultdict(deque)

    def check(self, *keys: str) -> None:
        """Raise ApiError 429 where one of the keys has used its failures up."""
        now = self._clock()
        for key in keys:
            failures = self._failures.get(key)
            while failures and failures[0] <= now - self._seconds:
                failures.popleft()
            if failures and len(failures) >= self._most:
                wait = str(int(failures[0] + self._seconds - now) + 1)
                raise ApiError(429, "too many attempts", f"Try again in {wait} seconds", {"Retry-After": wait})
            if failures is not None and not failures:
                del self._failures[key]

    def fail(self, *keys: str) -> None:
        """Count a failure."""
        for key in keys:
            self._failures[key].append(self._clock())

    def forget(self, *keys: str) -> None:
        """Success: start anew."""
        for key in keys:
            self._failures.pop(key, None)


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

    def take(self, response: Response) -> None:
        """Remove it."""
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
        return bool(origin != "null" and urlsplit(origin).netloc == request.headers.get("host"))
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
        refusal = self._refusal(headers)
        seen = 0

        async def measured() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > LONGEST_BODY:
                raise HTTPException(413, _TOO_LONG)
            return message

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._harden(message.get("headers", ()), scope["path"])
            await send(message)

        await (refusal or self._app)(scope, measured, careful)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        name = urlsplit(f"//{host}").hostname if _plain(host) else None
        if self._door.hosts and name not in self._door.hosts:
            return _problem(400, "this server does not answer to that name")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > LONGEST_BODY:
            return _problem(413, _TOO_LONG)
        return None

    def _harden(self, headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
        # Static files are asked after each time (an upgrade shows at once); what people see is kept nowhere.
        keep = b"no-cache" if path.startswith("/static/") else b"no-store"
        others = [header for header in headers if header[0].lower() not in self._ours]
        return [*others, *self._always, (b"cache-control", keep)]


def _plain(host: str) -> bool:
    return not set(host) & set("/@\\?# ")


def _problem(
    status: int, what: str, hint: str = "", headers: dict[str, str] | None = None, *, final: bool = False
) -> JSONResponse:
    return JSONResponse({"error": what, "hint": hint} | ({"final": True} if final else {}), status, headers)


def explain(request: Request, error: Exception) -> JSONResponse:
    """An ApiError or a UserError as an answer, in which the database has no name.

    A fault that passes (`Unavailable`) is a 503, said in words for those who judge; the log has it for the owner.
    """
    if isinstance(error, Unavailable):
        log.warning("%s", error)
        return _problem(503, error.plain, "It is tried again by itself", {"Retry-After": RETRY_AFTER})
    assert isinstance(error, ApiError | UserError)
    what, hint = (words.replace(store_of(request).name, "the database") for words in (error.what, error.hint))
    if isinstance(error, ApiError):
        return _problem(error.status, what, hint, error.headers, final=error.final)
    return _problem(400, what, hint)


def client_keys(request: Request, login: Iterable[str] = ()) -> list[str]:
    """What attempts are counted by: the address they come from, and the name they try."""
    address = request.client.host if request.client else "?"
    return [f"from:{address}", *(f"login:{name}" for name in login)]
