"""Runs the server: on this machine by default, one server per SQLite file."""

from __future__ import annotations

import asyncio
import html
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.errors import UserError
from hearken.feedback.access import Role
from hearken.feedback.database import parse_url
from hearken.feedback.examples import Message
from hearken.feedback.privacy import private
from hearken.feedback.store import FeedbackStore
from hearken.server.connections import Bounds, Connection, Listener, networks, watch
from hearken.server.security import LOOPBACK, Door

if TYPE_CHECKING:
    from hearken.domains.base import Domain
    from hearken.loop.labelling_target import Goal
    from hearken.server.chat import Policy

LINK_MINUTES = 15


@dataclass(frozen=True)
class Address:
    """Where a running server is reached."""

    url: str
    """``http://127.0.0.1:8765``"""
    link: str
    """A link that lets one person in, once, for a quarter of an hour; empty where nobody shall get one."""


def serve(
    project: Path | str | None = None,
    *,
    database: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8765,
    public_url: str = "",
    certificate: tuple[Path, Path] | None = None,
    trusted_proxies: Sequence[str] = (),
    webhooks_to: Sequence[str] = (),
    role: Role = "owner",
    landing: str = "",
    policy: Policy | None = None,
    open_browser: bool = False,
    on_ready: Callable[[Address], None] | None = None,
    until: Callable[[], bool] | None = None,
    goal: Goal | None = None,
) -> None:
    """Serve the labelling app until ``until()`` is true, or until Ctrl-C. May run in a thread of its own.

    Args:
        project: the project folder: its database, and where media lie.
        database: another database than the project's: a path or URL.
        host: interface to listen on. Any but this machine's own needs accounts with passwords.
        port: port; 0 takes a free one.
        public_url: how people reach it, behind a proxy: ``https://label.example.org``.
        certificate: files of the TLS certificate and its key.
        trusted_proxies: addresses and ranges of the proxies whose word about where a request comes from
            (``X-Forwarded-For``) is believed; nobody else's is.
        webhooks_to: addresses and ranges that webhooks may call though they are not public.
        role: whose link is given out: the owner's, or a labeler's (for the person at this machine).
        landing: where that link leads, e.g. ``/label``; by default to where that person works.
        policy: whom labelers may talk to, see `app.create_app`; by default the project's newest policy, when needed.
        open_browser: open the link.
        on_ready: called with the address once the server listens.
        until: asked a few times a second whether to stop.
        goal: what a run waits for, shown to the labelers.

    Raises:
        UserError: the port is taken, another server works on the same SQLite file, or the interface is refused.
    """
    from hearken.server.app import create_app

    location, media = _where(project, database)
    callable_ = networks(webhooks_to, "--webhooks-to")
    bounds = Bounds(trusted=networks(trusted_proxies, "--trusted-proxy"), together=_most_connections())
    domain = domain_at(project) if project is not None else None
    if policy is None and project is not None and domain is not None and "chat" in domain.offers:
        policy = _Newest(project)
    local = host in LOOPBACK
    with FeedbackStore(location) as store, alone(location), _listen(host, port) as listener:
        owners = [a for a in store.access.accounts() if a.role == "owner" and a.status == "active"]
        if not local and not any(owner.password for owner in owners):
            raise UserError(
                f"{host} can be reached from other machines, and this project has no owner with a password",
                "Run 'hearken serve' here first, open the link, and choose a password under 'Account'",
            )
        port = listener.getsockname()[1]
        secure = certificate is not None or public_url.startswith("https://")
        if not local and not secure:
            raise UserError(
                f"{host} can be reached from other machines, and passwords would travel in the clear",
                "Name a certificate (--certificate, --key), or the HTTPS address of your proxy (--public-url)",
            )
        door = Door(port=port, secure=secure, hosts=_hosts(host, public_url))
        base = public_url.rstrip("/") or f"{'https' if certificate else 'http'}://{_bracket(host)}:{port}"
        link = _link(store, base, role, landing, owners[0].id if owners and role == "owner" else None) if local else ""
        app = create_app(store, door=door, policy=policy, media=media, goal=goal, webhooks_to=callable_, domain=domain)

        def ready() -> None:
            if on_ready is not None:
                on_ready(Address(base, link))
            if open_browser and link:
                _open(link)

        _run(app, listener, certificate, bounds, ready, until)


def _where(project: Path | str | None, database: str | Path | None) -> tuple[str | Path, Path | None]:
    if project is not None:
        from hearken.loop.project import Project

        opened = Project(project)
        url = opened.config.database
        return database or (url if "://" in url else opened.path / url), opened.path
    if database is None:
        raise UserError("nothing to serve", "Name a project folder (-C) or a database (--database)")
    return database, None


def domain_at(project: Path | str) -> Domain:
    """What responses are in a project."""
    from hearken.loop.project import Project

    return Project(project).domain


class _Newest:
    """The project's newest policy, loaded when somebody talks to it (and torch with it)."""

    def __init__(self, project: Path | str) -> None:
        from hearken.loop.project import Project

        self._project = Project(project)

    @property
    def name(self) -> str:
        return Path(self._project.policy()).name

    @cached_property
    def _talker(self) -> Any:
        return self._project.domain.talker(self._project.policy)

    def stream(self, messages: Sequence[Message], n: int, seed: int) -> Iterator[tuple[int, str]]:
        found: Iterator[tuple[int, str]] = self._talker.stream(messages, n, seed)
        return found


def _hosts(host: str, public_url: str) -> frozenset[str]:
    from urllib.parse import urlsplit

    public = urlsplit(public_url).hostname
    if host in LOOPBACK or public:
        return LOOPBACK | {host} | ({public} if public else set())
    return frozenset()


def _most_connections() -> int:
    """As many as leave half of this process's open files for the database, the pages and the pictures."""
    try:
        import resource
    except ImportError:  # Windows
        return Bounds.together
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Bounds.together if files == resource.RLIM_INFINITY else min(Bounds.together, max(files // 2, 16))


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _link(store: FeedbackStore, base: str, role: Role, landing: str, account: str | None) -> str:
    secret, _ = store.access.invite(role, account_id=account, note="You", days=LINK_MINUTES / 1440)
    return f"{base}/enter{'?to=' + landing.strip('/') if landing else ''}#{secret}"


@contextmanager
def _listen(host: str, port: int) -> Iterator[Listener]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            hint = "Choose another one: --port 8766" if port else "Check the name of the interface"
            raise UserError(f"cannot listen on {host}, port {port} ({error.strerror})", hint) from None
        yield listener
    finally:
        listener.close()


@contextmanager
def alone(location: str | Path) -> Iterator[None]:
    """Only one server on a SQLite file. The lock ends with the process, however it ends; PostgreSQL needs none."""
    url = parse_url(location)
    if url.drivername != "sqlite":
        yield
        return
    path = Path(url.database or "")
    lock = path.with_name(f"{path.name}.server")
    file = private(lock).open("a+", encoding="utf-8")
    try:
        if not _lock(file.fileno()):
            file.seek(0)
            pid = file.read().strip() or "?"
            raise UserError(
                f"another server (process {pid}) works on {path} already",
                "Use that one, or PostgreSQL where several servers share a database",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)  # the file stays: who removes it may remove the next server's lock
    finally:
        file.close()


def _lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open(link: str) -> None:
    """Open the link by way of a private file: a command line, where the secret would stand, can be read by all."""
    descriptor, name = tempfile.mkstemp(prefix="hearken-", suffix=".html")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={html.escape(link)}">')
    with suppress(Exception):
        webbrowser.open(Path(name).as_uri())
    remover = threading.Timer(60, lambda: Path(name).unlink(missing_ok=True))
    remover.daemon = True
    remover.start()


def _run(
    app: Any, listener: Listener, certificate: tuple[Path, Path] | None, bounds: Bounds,
    ready: Callable[[], None], until: Callable[[], bool] | None,
) -> None:  # fmt: skip
    import uvicorn

    key, chain = (None, None) if certificate is None else (str(certificate[1]), str(certificate[0]))
    protocol: Any = partial(Connection, bounds)
    config = uvicorn.Config(
        app, http=protocol, ws="none", log_level="error", access_log=False, server_header=False,
        timeout_graceful_shutdown=5, backlog=max(bounds.together // 2, 16), proxy_headers=bool(bounds.trusted),
        forwarded_allow_ips=[str(one) for one in bounds.trusted], ssl_keyfile=key, ssl_certfile=chain,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def wait() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(ready)
        while until is not None:
            await asyncio.sleep(0.2)
            if until():
                server.should_exit = True
                return

    async def main() -> None:
        if certificate is not None:
            listener.connections, listener.most = server.server_state.connections, max(bounds.together // 4, 8)
        waiting = asyncio.create_task(wait())
        watching = asyncio.create_task(watch(server.server_state.connections))
        try:
            await server.serve(sockets=[listener])
        finally:
            waiting.cancel()
            watching.cancel()
        for task in (waiting, watching):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    asyncio.run(main())
