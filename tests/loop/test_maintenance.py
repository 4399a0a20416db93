from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from hearken.errors import UserError
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, Response
from hearken.feedback.store import FeedbackStore
from hearken.loop.maintenance import backup, erase, restore
from hearken.loop.project import CONFIG, Project, ProjectConfig
from hearken.training.artifact import MANIFEST, write_json


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "p", ProjectConfig(model="m"))
    with made.store() as store:
        for who in ("ana", "bo"):
            store.add_labeler(Labeler(id=who, name=who.title()))
            _judge(store, f"prompt of {who}", who)
    return made


def _judge(store: FeedbackStore, prompt: str, who: str) -> str:
    made = Prompt(content=prompt)
    pair = [Response(prompt_id=made.id, text=f"{prompt}, {n}") for n in range(2)]
    store.add_prompts([made])
    store.add_responses(pair)
    payload = ComparisonPayload(response_ids=tuple(response.id for response in pair), ranks=(0, 1))
    return store.submit(Judgment(prompt_id=made.id, labeler_id=who, payload=payload)).id


def _finish(project: Project, name: str, parents: dict[str, str], **inputs: Any) -> None:
    manifest = {"kind": "reward", "inputs": inputs, "parents": parents, "metrics": {}}
    write_json(project.artifacts / name / MANIFEST, manifest)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_project_and_its_backups_are_the_owners_alone(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "new", ProjectConfig(model="none"))
    saved = backup(project)
    for path, mode in [(project.path, 0o700), (saved.parent, 0o700), (saved, 0o600), (project.path / CONFIG, 0o600)]:
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    with project.store() as store:
        store.add_prompts([Prompt(content="later")])
    kept = restore(project, saved)
    assert kept.kept is not None
    for path in (kept.kept, kept.database):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_configuration_that_holds_a_password_is_the_owners_alone(tmp_path: Path) -> None:
    for number, url in enumerate(["postgresql://ann:hush@h/d", "postgresql://ann@h/d", "feedback.db"]):
        made = Project.create(tmp_path / f"{number}", ProjectConfig(model="none", database=url))
        (made.path / CONFIG).chmod(0o644)
        Project(made.path)
        assert stat.S_IMODE((made.path / CONFIG).stat().st_mode) == (0o644 if number else 0o600)


def test_backup_and_restore(project: Project) -> None:
    saved = backup(project)
    assert saved.parent == project.path / "backups"
    with project.store() as store:
        _judge(store, "later", "ana")
    done = restore(project, saved)
    assert done.judgments == 2 and done.kept is not None and done.erased_again == 0
    with project.store() as store:
        assert store.last_seq() == 2 and store.verify() == []
    with FeedbackStore(done.kept, create=False) as old:
        assert old.last_seq() == 3
    left = sorted(path.name for path in project.path.iterdir() if path.is_file())
    assert not [name for name in left if "restor" in name]


def test_a_backup_brings_nothing_back_that_was_erased(project: Project) -> None:
    saved = backup(project, project.path / "before.db")
    erase(project, "labeler", "ana", "asked for it")
    assert restore(project, saved).erased_again == 1
    with project.store() as store:
        assert [one.id for one in store.labelers()] == ["bo"]
        assert [one.labeler_id for one in store.judgments()] == ["bo"]
        assert [one.reason for one in store.tombstones()] == ["asked for it"]
    assert b"Ana" not in (project.path / "feedback.db").read_bytes()


def test_a_restore_that_cannot_be_changes_nothing(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        restore(project, tmp_path / "none.db")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(UserError, match="not a feedback database"):
        restore(project, other)
    with project.store() as store:
        assert store.last_seq() == 2


def test_postgresql_has_its_own_tools(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", ProjectConfig(model="m", database="postgresql://nobody@nowhere/db"))
    with pytest.raises(UserError, match="PostgreSQL") as caught:
        restore(project, tmp_path)
    assert "pg_restore" in caught.value.hint


def test_erasing_lists_who_learned_from_it(project: Project) -> None:
    snapshot = project.snapshot("train")
    with project.store() as store:
        mine = next(store.judgments(labeler_id="ana")).id
        _judge(store, "after the snapshot", "bo")
        late = list(store.judgments())[-1].id
    _finish(project, "r01-reward", {}, model="m", data=[snapshot])
    _finish(project, "r01-ppo", {"reward": str(project.artifacts / "r01-reward")}, model="m", data=[])
    _finish(project, "r00-sft", {}, model="m", data=["elsewhere.jsonl"])
    done = erase(project, "judgment", late, "a slip")
    assert done.judgments == 1 and done.snapshots == [] and done.artifacts == []
    done = erase(project, "judgment", mine, "asked for it")
    assert done.rows == 1 and done.snapshots == [f"snapshots/{Path(snapshot).name}"]
    assert done.artifacts == ["r01-reward", "r01-ppo"]
    with project.store() as store:
        entry = store.access.audit()[0]
    assert (entry.action, entry.target) == ("erased", mine)


def test_erasing_a_prompt_or_a_response_or_nobody(project: Project) -> None:
    prompts = project.snapshot("train", kinds=("prompt",))
    with project.store() as store:
        prompt = next(store.prompts())
        response = next(store.responses(prompt_id=prompt.id))
    done = erase(project, "response", response.id, "private")
    assert done.judgments == 1 and done.rows == 2 and done.snapshots == []
    done = erase(project, "prompt", prompt.id, "private")
    assert done.snapshots == [f"snapshots/{Path(prompts).name}"]
    assert erase(project, "prompt", prompt.id, "private").rows == 0
    with pytest.raises(UserError, match="no labeler"):
        erase(project, "labeler", "carl", "never was")
