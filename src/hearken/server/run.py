"""Runs the server: on this machine by default, one server per SQLite file."""

from __future__ import annotations

import asyncio
import html
import os
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hearken.errors import UserError
from hearken.feedback.access import Account, Role
from hearken.feedback.database import parse_url
from hearken.feedback.examples import Message
from hearken.feedback.privacy import private
from hearken.feedback.store import FeedbackStore
from hearken.server.connections import Bounds, Connection, Listener, networks, watch
from hearken.server.security import LOOPBACK, Door

if TYPE_CHECKING:
    from hearken.loop.labelling_target import Goal
    from hearken.loop.project import Project
    from hearken.server.chat import Policy

LINK_MINUTES = 15
_TURN = 0.0005
"""Seconds after which a thread gives way to others; Python's own value is ten times as long."""


@dataclass(frozen=True)
class Address:
    """Where a running server is reached."""

    url: str
    """``http://127.0.0.1:8765``"""
    link: str
    """A link that lets one person in, once, for a quarter of an hour; empty where nobody shall get one."""


@dataclass(frozen=True)
class Network:
    """Where a server listens, and whom it trusts.

    Args:
        host: interface to listen on. Any but this machine's own needs accounts with passwords.
        port: port; 0 takes a free one.
        public_url: how people reach it, behind a proxy: ``https://label.example.org``.
        certificate: files of the TLS certificate and its key.
        trusted_proxies: addresses and ranges of the proxies whose word about where a request comes from
            (``X-Forwarded-For``) is believed; nobody else's is.
        webhooks_to: addresses and ranges that webhooks may call though they are not public.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    public_url: str = ""
    certificate: tuple[Path, Path] | None = None
    trusted_proxies: Sequence[str] = ()
    webhooks_to: Sequence[str] = ()

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in LOOPBACK

    @property
    def secure(self) -> bool:
        """Whether it is reached by HTTPS."""
        return self.certificate is not None or self.public_url.startswith("https://")

    @property
    def hosts(self) -> frozenset[str]:
        """The names by which it may be called; empty where any will do."""
        public = urlsplit(self.public_url).hostname
        if self.local or public:
            return LOOPBACK | {self.host} | ({public} if public else set())
        return frozenset()

    def url(self, port: int) -> str:
        """Its address, once it has a port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url.rstrip("/") or f"{'https' if self.certificate else 'http'}://{host}:{port}"

    def check(self, owners: Sequence[Account]) -> None:
        """Refuse to be reached from other machines without a password or without encryption.

        Raises:
            UserError: no owner has a password, or there is neither a certificate nor an HTTPS proxy.
        """
        if self.local:
            return
        if not any(owner.password for owner in owners):
            raise UserError(
                f"{self.host} can be reached from other machines, and this project has no owner with a password",
                "Run 'hearken serve' here first, open the link, and choose a password under 'Account'",
            )
        if not self.secure:
            raise UserError(
                f"{self.host} can be reached from other machines, and passwords would travel in the clear",
                "Name a certificate (--certificate, --key), or the HTTPS address of your proxy (--public-url)",
            )


@dataclass(frozen=True)
class Invitation:
    """The link that is given out at the start.

    Args:
        role: whose: the owner's, or a labeler's (for the person at this machine).
        landing: where it leads, e.g. ``/label``; by default to where that person works.
        open_browser: open it.
    """

    role: Role = "owner"
    landing: str = ""
    open_browser: bool = False


def serve(
    project: Path | str | None = None,
    *,
    database: str | Path | None = None,
    network: Network = Network(),
    invitation: Invitation = Invitation(),
    policy: Policy | None = None,
    on_ready: Callable[[Address], None] | None = None,
    until: Callable[[], bool] | None = None,
    goal: Goal | None = None,
) -> None:
    """Serve the labelling app until ``until()`` is true, or until Ctrl-C. May run in a thread of its own.

    Args:
        project: the project folder: its database, and where media lie.
        database: another database than the project's: a path or URL.
        network: where to listen.
        invitation: what link to give out.
        policy: whom labelers may talk to, see `app.create_app`; by default the project's newest policy, when needed.
        on_ready: called with the address once the server listens.
        until: asked a few times a second whether to stop.
        goal: what a run waits for, shown to the labelers.

    Raises:
        UserError: the port is taken, another server works on the same SQLite file, or the interface is refused.
    """
    from hearken.server.app import create_app

    location, media = _where(project, database)
    callable_ = networks(network.webhooks_to, "--webhooks-to")
    bounds = Bounds(trusted=networks(network.trusted_proxies, "--trusted-proxy"), together=_most_connections())
    opened = opened_at(project) if project is not None else None
    domain = opened.domain if opened is not None else None
    if policy is None and project is not None and domain is not None and "chat" in domain.offers:
        policy = _Newest(project)
    with FeedbackStore(location) as store, alone(location), _listen(network.host, network.port) as listener:
        owners = [a for a in store.access.accounts() if a.role == "owner" and a.status == "active"]
        network.check(owners)
        port = listener.getsockname()[1]
        door = Door(port=port, secure=network.secure, hosts=network.hosts)
        address = Address(url := network.url(port), _link(store, url, invitation, owners) if network.local else "")
        app = create_app(
            store, door=door, policy=policy, media=media, goal=goal, webhooks_to=callable_, domain=domain,
            model=opened.config.model if opened is not None else "",
        )  # fmt: skip

        def ready() -> None:
            if on_ready is not None:
                on_ready(address)
            if invitation.open_browser and address.link:
                _open(address.link)

        _run(app, listener, network.certificate, bounds, ready, until)


def _where(project: Path | str | None, database: str | Path | None) -> tuple[str | Path, Path | None]:
    if project is not None:
        from hearken.loop.project import Project

        opened = Project(project)
        url = opened.config.database
        return database or (url if "://" in url else opened.path / url), opened.path
    if database is None:
        raise UserError("nothing to serve", "Name a project folder (-C) or a database (--database)")
    return database, None


def opened_at(path: Path | str) -> Project:
    """The project in a folder."""
    from hearken.loop.project import Project

    return Project(path)


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


def _most_connections() -> int:
    """As many as leave half of this process's open files for the database, the pages and the pictures."""
    try:
        import resource
    except ImportError:  # Windows
        return Bounds.together
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Bounds.together if files == resource.RLIM_INFINITY else min(Bounds.together, max(files // 2, 16))


def _link(store: FeedbackStore, url: str, invitation: Invitation, owners: Sequence[Account]) -> str:
    account = owners[0].id if owners and invitation.role == "owner" else None
    secret, _ = store.access.invite(invitation.role, account_id=account, note="You", days=LINK_MINUTES / 1440)
    return f"{url}/enter{'?to=' + invitation.landing.strip('/') if invitation.landing else ''}#{secret}"


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

    # Who is answered waits for the interpreter so long, many times over, while figures are counted in another thread.
    sys.setswitchinterval(_TURN)
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
