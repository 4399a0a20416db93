"""A finished step is taken as it is, whatever its options were called when it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from hearken.errors import UserError
from hearken.loop.project import Project
from hearken.loop.rounds import Loop
from hearken.training.artifact import MANIFEST

BEFORE = Path(__file__).parent / "loop_of_november"
"""The text files of a project of one round, made when options had other names, some of today's did not exist, and
manifests held paths in full."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "tales"
    shutil.copytree(BEFORE, root)
    (root / "snapshots").mkdir()
    for part in ("comparison-train-20.parquet", "comparison-validation-20.parquet", "prompt-train-20.parquet"):
        (root / "snapshots" / part).touch()
    (root / "snapshots" / "watch-20.jsonl").touch()
    return Project(root)


def made(project: Project) -> dict[str, str]:
    return {file.parent.name: file.read_text() for file in project.artifacts.glob(f"*/{MANIFEST}")}


@pytest.mark.filterwarnings("ignore:the option:FutureWarning")
def test_a_round_of_before_is_not_made_again(project: Project) -> None:
    before = made(project)
    options = json.loads(before["r01-ppo"])["options"] | json.loads(before["r01-samples"])["options"]
    assert {"batch", "samples", "stop_when"} <= options.keys() and "more" not in options
    done = Loop(project).run(1)
    assert done["policy"] == "r01-ppo" and done["figures"][0]["best_step"] == 0
    assert made(project) == before


@pytest.mark.filterwarnings("ignore:the option:FutureWarning")
def test_another_value_under_a_former_name_is_a_change(project: Project) -> None:
    file = project.path / "hearken.yaml"
    config = yaml.safe_load(file.read_text())
    config["stages"]["ppo"]["batch"] = 2
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"r01-ppo was made with other settings \(options\.batch_size\)"):
        Loop(Project(project.path)).run(1)
