"""A project of the tale world with a model of random weights, small enough to go round in seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rounds_world import LOOP, STAGES

from hearken.feedback.records import Prompt
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model
from hearken.worlds.tales.world import TaleWorld


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = TinyModelSize(vocabulary=300, hidden=32, layers=1, heads=2, context=128)
    return make_tiny_model(TaleWorld().prompts(30), tmp_path_factory.mktemp("tiny") / "model", size)


@pytest.fixture
def tales(tmp_path: Path, tiny_model: Path) -> Callable[..., Project]:
    """Make a project: ``tales(prompts=3, improve="dpo")`` sets options of the loop."""

    def make(name: str = "p", world: str = "tales", stages: dict[str, Any] | None = None, **loop: Any) -> Project:
        shutil.copytree(tiny_model, tmp_path / "model", dirs_exist_ok=True)
        config = ProjectConfig.parse({
            "model": str(tmp_path / "model"), "world": world, "seed": 1, "stages": STAGES | (stages or {}),
            "sample": {"k": 3, "max_new_tokens": 5, "overlap": 2}, "loop": LOOP | loop,
        })  # fmt: skip
        project = Project.create(tmp_path / name, config)
        here = TaleWorld(1)
        with project.store() as store:
            store.add_prompts(Prompt(content=p, split="train") for p in here.prompts(16))
            store.add_prompts(Prompt(content=p, split="validation") for p in here.prompts(6, "heldout"))
        return project

    return make
