"""Opening the database and its transactions: SQLite or PostgreSQL behind the same two context managers."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from hearken.errors import Unavailable, UserError
from hearken.feedback import migrations
from hearken.feedback.privacy import private

BUSY_SECONDS = 30
"""How long a SQLite transaction waits for another one's to end."""

CONNECT_SECONDS = 10
"""How long a PostgreSQL server may take to answer a new connection."""

WRITE_LOCK = 0x4845_4152
"""Key of the PostgreSQL advisory lock under which judgments are numbered and the database is upgraded."""


def _dumps(value: Any) -> str:
    """JSON that stays readable in any language, escaped only where text cannot be encoded (lone surrogates)."""
    try:
        plain = json.dumps(value, ensure_ascii=False, allow_nan=False)
        plain.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise UserError(f"a value cannot be stored: {error}", "Use text, finite numbers, lists and mappings") from None
    return plain


def parse_url(location: str | Path) -> URL:
    """A SQLAlchemy URL from a path, or from the URL of a SQLite or PostgreSQL database.

    Raises:
        UserError: not a URL of these two.
    """
    if isinstance(location, Path) or "://" not in location:
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError):
        raise UserError("the database URL cannot be read", "Write postgresql://user@host/name or a path") from None
    if url.get_backend_name() == "sqlite" and url.database:
        return url.set(drivername="sqlite")
    if url.get_backend_name() in ("postgresql", "postgres"):
        query = dict(url.query)
        if given := query.pop("password", None):  # libpq's other way to write it: here it is hidden like the first
            url = url.set(password=given if isinstance(given, str) else given[-1])
        return url.set(drivername="postgresql+psycopg", query=query)
    raise UserError(f"databases of kind '{url.drivername}' are not supported", "Use a path or a postgresql:// URL")


def has_password(location: str) -> bool:
    """Whether a database's URL holds one."""
    return bool("://" in location and parse_url(location).password)


def _without_secrets(url: URL) -> str:
    shown = {name: value for name, value in url.query.items() if "password" not in name}
    return url.set(query=shown).render_as_string(hide_password=True)


class Database:
    """An open database of the newest version.

    Args:
        location: a path (SQLite), or a ``sqlite://`` or ``postgresql://`` URL.
        create: make a SQLite file that does not exist yet.

    Raises:
        UserError: it cannot be opened, is not a feedback database, or is of a newer version than this code.
    """

    def __init__(self, location: str | Path, *, create: bool = True) -> None:
        self.url = parse_url(location)
        self.path = Path(self.url.database or "") if self.url.drivername == "sqlite" else None
        self.name = str(self.path) if self.path else _without_secrets(self.url)
        if self.path is not None:
            self._check_path(self.path, create)
            self._keep_private(self.path)
        self.engine = self._engine()
        # One writer at a time inside this process: threads wait here in turn instead of polling the file's lock.
        self._lock = threading.Lock()
        try:
            self._bring_up_to_date()
        except BaseException:
            self.engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction: one consistent view, which waits for nobody."""
        with self._errors(), self.engine.connect() as connection:
            if self.path is None:  # SQLite's transactions have one view anyway
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that writes, committed on leaving without an exception. Keep it short.

        Args:
            durable: after the commit, survive a power cut too. Without, only the end of the process (or its killing) is
                survived, at half the cost: enough for leases.
        """
        with self._turn(), self._errors(), self.engine.connect() as connection:
            connection = connection.execution_options(hearken_write="FULL" if durable else "NORMAL")
            with connection.begin():
                if self.path is None and not durable:
                    connection.execute(text("SET LOCAL synchronous_commit = off"))
                yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This thread's turn to write to a SQLite file; PostgreSQL takes all at once."""
        if self.path is None:
            yield
            return
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            raise Unavailable(f"{self.name}: {_LOCKED[1]}", _LOCKED[2], plain=_LOCKED[3])
        try:
            yield
        finally:
            self._lock.release()

    def lock(self, connection: Connection) -> None:
        """Wait until no other transaction holds this lock, then hold it to the end of this one.

        SQLite's write transactions exclude each other anyway.
        """
        if self.path is None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITE_LOCK})

    def copy_to(self, target: Path) -> None:
        """Copy a SQLite database, consistently, while others work with it. The copy appears whole or not at all."""
        assert self.path is not None
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with closing(sqlite3.connect(self.path)) as source, closing(sqlite3.connect(private(partial))) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, without a -wal beside it
            partial.replace(target)
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"cannot back up {self.name} to {target}: {error}", "Check the folder and its space"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    def forget(self) -> None:
        """After an erasure: empty SQLite's log of changes, which holds the old contents until then."""
        if self.path is not None:
            with self._turn(), closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- opening -------------------------------------------------------------------------------------------------

    def _check_path(self, path: Path, create: bool) -> None:
        if not path.parent.is_dir():
            raise UserError(f"{path}: the folder {path.parent} does not exist", "Create it, or give another path")
        if path.is_dir():
            raise UserError(f"{path} is a folder", "Give the path of a database file")
        if not path.exists() and not create:
            raise UserError(f"{path}: no such database", "Run 'hearken init' first, or give another path")

    @staticmethod
    def _keep_private(path: Path) -> None:
        """The file, and what SQLite puts beside it, which takes its mode."""
        private(path)
        for beside in (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal")):
            if beside.exists():
                private(beside)

    def _engine(self) -> Engine:
        if self.path is None:
            try:
                patience = {} if "connect_timeout" in self.url.query else {"connect_timeout": CONNECT_SECONDS}
                return create_engine(
                    self.url, json_serializer=_dumps, connect_args=patience, pool_pre_ping=True, pool_size=16
                )
            except ModuleNotFoundError:
                raise UserError("PostgreSQL needs the package psycopg", 'Run: pip install "psycopg[binary]"') from None
        arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(self.url, json_serializer=_dumps, connect_args=arguments, pool_size=16, max_overflow=64)

        @event.listens_for(engine, "connect")
        def configure(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None  # transactions begin where we say so, see below
            for pragma in (
                "journal_mode = WAL",
                "foreign_keys = ON",
                "secure_delete = ON",  # what is erased is overwritten in the file
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that starts as a reader and writes later fails at once when another wrote in between.
            synchronous = connection.get_execution_options().get("hearken_write")
            if synchronous and connection.info.get("synchronous") != synchronous:
                connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
                connection.info["synchronous"] = synchronous
            connection.exec_driver_sql("BEGIN IMMEDIATE" if synchronous else "BEGIN")

        return engine

    def _bring_up_to_date(self) -> None:
        with self.read() as connection:
            found = migrations.version(connection)
        if found == migrations.NEWEST:
            return
        if found is not None:
            self._refuse_newer(found)
            if self.path is not None:
                self.copy_to(self.path.with_name(f"{self.path.name}.v{found}.backup"))
        with self.write() as connection:
            self.lock(connection)
            found = migrations.version(connection)  # another process may have been faster
            if found != migrations.NEWEST:
                if found is not None:
                    self._refuse_newer(found)
                migrations.upgrade(connection)

    def _refuse_newer(self, found: str) -> None:
        if migrations.is_newer(found):
            raise UserError(
                f"{self.name} is of version {found}, newer than this Hearken knows ({migrations.NEWEST})",
                "Upgrade: pip install -U hearken",
            )

    # -- errors --------------------------------------------------------------------------------------------------

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the database's complaints that a person can mend into one line each; integrity errors stay bugs."""
        try:
            yield
        except DBAPIError as error:
            raise self._explain(error) from error
        except PoolTimeout as error:
            what = f"{self.name}: all connections are in use"
            raise Unavailable(what, "Ask for less at once", plain="the server has too much to do") from error
        except StatementError as error:
            if isinstance(error.orig, (OverflowError, UnicodeEncodeError)):
                raise UserError(*_CANNOT_BE_STORED) from error
            raise error.orig if isinstance(error.orig, UserError) else error from None  # from `_dumps`
        except (OverflowError, UnicodeEncodeError) as error:  # from SQLite, which PostgreSQL calls a DataError
            raise UserError(*_CANNOT_BE_STORED) from error

    def _explain(self, error: DBAPIError) -> Exception:
        said = str(error.orig).strip()
        if isinstance(error, DataError) and re.search("NUL|out of range", said):
            return UserError(*_CANNOT_BE_STORED)
        for pattern, what, hint, plain in _EXPLANATIONS:
            if re.search(pattern, said, re.IGNORECASE):
                return Unavailable(f"{self.name}: {what}", hint, plain=plain)
        # Of psycopg, all that is "not necessarily under the control of the programmer"; of sqlite3, wrong SQL as well.
        if self.path is None and (isinstance(error, OperationalError) or error.connection_invalidated):
            reason = said.splitlines()[0] if said else "the connection was lost"
            if re.search("connect|resolve host|shutting down|starting up", said):
                return Unavailable(f"cannot reach {self.name}: {reason}", "Check the URL and that it runs")
            return Unavailable(f"{self.name}: {reason}", "Try again")
        return error


_LOCKED = (
    "database is locked",
    f"another process kept the database locked for {BUSY_SECONDS} s",
    "End that process, or use PostgreSQL where many work at once",
    "the database is busy",
)
_AWAY = "the database does not answer"
_CANNOT_BE_STORED = (
    "a name, a number or a time cannot be stored",
    "Leave out characters that cannot be seen (U+0000), numbers beyond 64 bits, and times before the year 1",
)
_EXPLANATIONS = (
    _LOCKED,
    ("file is not a database", "the file is not a database", "Give another path, or move the file away", _AWAY),
    ("unable to open", "cannot open the database", "Check that you may read and write the file and its folder", _AWAY),
    (
        "readonly|read-only",
        "the database may not be written",
        "Check that you may write the file and its folder",
        "the database takes nothing new at the moment",
    ),
    (
        "disk is full|no space left|could not extend file",
        "the disk is full; the last step was not stored, all earlier ones are",
        "Free some space and run the same command again",
        "the server's disk is full",
    ),
    ("malformed|disk I/O error", "the database is damaged or its disk failed", "Restore the last backup", _AWAY),
    (
        "password|authentication|role .* does not exist",
        "the database refuses the user",
        "Check user and password",
        _AWAY,
    ),
    (r"database .* does not exist", "there is no such database", "Create it first: createdb NAME", _AWAY),
)
"""What a database says (pattern), what it means, what to do, and what strangers are told."""
