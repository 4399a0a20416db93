"""What the database and its exports leave on disk is its owner's alone; passwords are shown nowhere."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.feedback.database import Database, has_password, parse_url
from hearken.feedback.formats.files import write_rows
from hearken.feedback.privacy import private
from hearken.feedback.records import Prompt
from hearken.feedback.store import FeedbackStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")


@pytest.fixture(autouse=True)
def careless() -> Iterator[None]:
    """A user whose files everybody may read, as on most machines; here, and write, too."""
    old = os.umask(0)
    yield
    os.umask(old)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in sorted(folder.iterdir())}


def test_a_database_and_what_lies_beside_it_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        store.add_prompts([Prompt(content="secret")])
        assert modes(tmp_path) == dict.fromkeys(["feedback.db", "feedback.db-shm", "feedback.db-wal"], "0o600")
        store.backup(tmp_path / "copy.db")
    assert modes(tmp_path) == {"copy.db": "0o600", "feedback.db": "0o600"}


def test_one_that_others_could_read_is_closed_to_them_while_it_is_open_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        store.add_prompts([Prompt(content="secret")])
        for one in tmp_path.iterdir():
            one.chmod(0o644)
        with store._database.write() as connection:  # no lock is lost by it
            FeedbackStore(path).close()
            assert set(modes(tmp_path).values()) == {"0o600"}
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                _write_now(path)
            assert connection.in_transaction()


def _write_now(path: Path) -> None:
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
    finally:
        other.close()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_exports_are_the_owners_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / f".{name}.partial").touch()  # left over from a crash
    write_rows([{"prompt": "secret"}], tmp_path / name)
    assert modes(tmp_path) == {name: "0o600"}
    (tmp_path / name).chmod(0o644)
    write_rows([{"prompt": "secret"}], tmp_path / name, overwrite=True)
    assert modes(tmp_path) == {name: "0o600"}


def test_what_cannot_be_made_private_is_left_to_whoever_writes_it(tmp_path: Path) -> None:
    assert private(tmp_path / "no" / "folder") == tmp_path / "no" / "folder"
    read_only = tmp_path / "read-only"
    read_only.touch()
    read_only.chmod(0o444)
    private(read_only)
    assert modes(tmp_path) == {"read-only": "0o400"}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hush%2Fhush@127.0.0.1:1/hearken",
        "postgresql://ann@127.0.0.1:1/hearken?password=hush%2Fhush",
        "postgres://ann:hush%2Fhush@127.0.0.1:1/hearken?sslpassword=hush%2Fhush&sslmode=disable",
    ],
)
def test_a_password_is_in_no_message(url: str) -> None:
    assert has_password(url) and parse_url(url).password == "hush/hush"
    with pytest.raises(UserError) as error:
        Database(url)
    shown = f"{error.value} {error.value.what} {error.value.hint} {error.value!r}"
    assert "ann" in shown and "127.0.0.1" in shown and "hush" not in shown


def test_without_one_there_is_none() -> None:
    for location in ("feedback.db", "postgresql://ann@h/d", "postgresql:///d?passfile=/home/ann/pass", "sqlite:///a"):
        assert not has_password(location)
