from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from hearken.feedback.records import Labeler
from hearken.loop.project import Project, ProjectConfig
from hearken.server.run import alone

Run = Callable[..., Result]


@pytest.fixture
def project(hearken: Run, tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "p", ProjectConfig(model="m"))
    with made.store() as store:
        store.add_labeler(Labeler(id="ana", name="Ana"))
    return made


def test_backup_erase_restore(hearken: Run, project: Project) -> None:
    saved = json.loads(hearken("backup", "-C", "p", "--json").stdout)["backup"]
    erased = hearken("erase", "labeler", "ana", "--reason", "asked for it", "-C", "p", "--json")
    assert json.loads(erased.stdout) == {"rows": 1, "judgments": 0, "snapshots": [], "artifacts": []}
    done = hearken("restore", saved, "-C", "p", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["erased_again"] == 1
    with project.store() as store:
        assert store.labelers() == []


def test_nothing_is_restored_under_a_running_server(hearken: Run, project: Project) -> None:
    assert hearken("backup", "saved.db", "-C", "p").exit_code == 0
    with alone(project.path / "feedback.db"):
        done = hearken("restore", "saved.db", "-C", "p")
    assert done.exit_code == 2 and "another server" in done.stderr


def test_mistakes_are_one_line(hearken: Run, project: Project) -> None:
    for words in (("erase", "labeler", "nobody", "--reason", "x"), ("restore", "none.db"), ("backup", "p/feedback.db")):
        done = hearken(*words, "-C", "p")
        assert done.exit_code == 2 and done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
