"""Versions of the feedback database: made fresh, brought up to date after a backup, refused when newer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from hearken.errors import UserError
from hearken.feedback import migrations
from hearken.feedback.records import Prompt
from hearken.feedback.schema import Base
from hearken.feedback.store import FeedbackStore

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{previous}"


def upgrade() -> None:
    op.add_column("prompts", sa.Column("mood", sa.String(), nullable=True))
    {more}
"""


def newer_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> pytest.MonkeyPatch:
    """Pretend to be a later Hearken whose database has one version more."""
    folder = tmp_path / "code"
    shutil.copytree(migrations.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "v9999_next.py").write_text(NEXT.format(previous=migrations.NEWEST, more=more))
    monkeypatch.setattr(migrations, "FOLDER", folder)
    monkeypatch.setattr(migrations, "NEWEST", "9999")
    return monkeypatch


def test_the_migrations_make_exactly_the_tables_of_the_schema(store: FeedbackStore) -> None:
    options = {**migrations.context_options(), "compare_type": True, "compare_server_default": False}
    with store._database.read() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        indexes = {index["name"] for table in Base.metadata.tables for index in _indexes(connection, table)}
    assert {"ix_queue_items_open", "ix_judgments_live"} <= indexes


def _indexes(connection: Any, table: str) -> Any:
    from sqlalchemy import inspect

    return inspect(connection).get_indexes(table)


def test_newest_is_the_last_migration_and_there_is_one_line_of_them() -> None:
    assert ScriptDirectory(str(migrations.FOLDER)).get_heads() == [migrations.NEWEST]


def test_an_older_database_is_upgraded_and_keeps_what_it_holds(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeedbackStore(location) as store:
        store.add_prompts([Prompt(content="kept")])
        sqlite = store._database.path is not None
    old = migrations.NEWEST
    newer_code(tmp_path, monkeypatch)
    with FeedbackStore(location) as store, store._database.read() as connection:
        assert migrations.version(connection) == "9999"
        assert [prompt.content for prompt in store.prompts()] == ["kept"]
    backup = Path(f"{location}.v{old}.backup")
    assert backup.exists() == sqlite
    if sqlite:
        monkeypatch.undo()
        with FeedbackStore(backup) as store:
            assert [prompt.content for prompt in store.prompts()] == ["kept"]


def test_a_newer_database_is_refused_in_one_line_and_left_alone(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeedbackStore(location).close()
    with newer_code(tmp_path, monkeypatch).context():
        FeedbackStore(location).close()
    monkeypatch.undo()
    with pytest.raises(
        UserError, match=f"of version 9999, newer than this Hearken knows \\({migrations.NEWEST}\\)"
    ) as e:
        FeedbackStore(location)
    assert "pip install -U hearken" in e.value.hint
    newer_code(tmp_path / "again", monkeypatch)
    FeedbackStore(location).close()


def test_an_upgrade_that_fails_changes_nothing(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FeedbackStore(location) as store:
        store.add_prompts([Prompt(content="kept")])
    newer_code(tmp_path, monkeypatch, more='raise RuntimeError("half way")')
    with pytest.raises(RuntimeError, match="half way"):
        FeedbackStore(location)
    monkeypatch.undo()
    with FeedbackStore(location) as store:
        assert [prompt.content for prompt in store.prompts()] == ["kept"]
        assert store.verify() == []


@pytest.mark.slow
def test_four_processes_open_a_fresh_database_at_once(location: str) -> None:
    code = "import sys; from hearken.feedback.store import FeedbackStore; FeedbackStore(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, location]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [""] * 4
    with FeedbackStore(location) as store:
        assert store.verify() == []


@pytest.mark.slow
def test_opening_an_up_to_date_database_does_not_load_alembic(location: str) -> None:
    FeedbackStore(location).close()
    code = (
        "import sys; from hearken.feedback.store import FeedbackStore; FeedbackStore(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, location], check=True)
