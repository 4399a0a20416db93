"""A PostgreSQL started for the run of the tests and thrown away.

``HEARKEN_POSTGRES_URL`` names a running server to use instead; its user must be allowed to create databases.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


def _postgres_programs() -> Path | None:
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _as_unprivileged(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@dataclass
class Postgres:
    """A server of our own, which can be stopped and started again."""

    location: str
    """The URL of its maintenance database."""
    _control: Callable[..., None]

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._control("start")

    def stop(self) -> None:
        """Stop it at once, as when the machine is switched off."""
        self._control("-m", "immediate", "stop")


@contextmanager
def _own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server in a folder of its own, running; skips the test where none can run."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL programs found (initdb); install them or set HEARKEN_POSTGRES_URL")
    if os.geteuid() == 0 and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root and runuser is not there; set HEARKEN_POSTGRES_URL")
    folder = Path(tempfile.mkdtemp(prefix="hearken-postgres-"))
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root and there is no user 'postgres'; set HEARKEN_POSTGRES_URL")
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder} -c fsync=off"

    def run(program: str, *arguments: str) -> None:
        command = _as_unprivileged([str(programs / program), *arguments])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)

    def control(*arguments: str) -> None:
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, *arguments)

    run("initdb", "-D", data, "-U", "hearken", "--auth=trust", "--no-sync", "--encoding=UTF8")
    control("start")
    try:
        yield Postgres(f"postgresql://hearken@127.0.0.1:{port}/postgres", control)
    finally:
        with suppress(subprocess.CalledProcessError):  # stopped already
            control("-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server's maintenance database."""
    given = os.environ.get("HEARKEN_POSTGRES_URL")
    if given:
        yield given
        return
    with _own_postgres() as server:
        yield server.location


@pytest.fixture
def stoppable_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server that this test alone uses, and may stop."""
    with _own_postgres() as server:
        yield server


@contextmanager
def empty_database(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, which is dropped at the end."""
    name = f"hearken_{uuid.uuid4().hex}"
    engine = create_engine(make_url(postgres_server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def postgres_location(postgres_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with empty_database(postgres_server) as location:
        yield location


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is: the same test runs on both."""
    if request.param == "sqlite":
        return str(tmp_path / "feedback.db")
    return str(request.getfixturevalue("postgres_location"))
