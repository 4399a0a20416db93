"""A stage that trains nothing, and a runner of command lines."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field
from typer.testing import CliRunner, Result

from hearken.algorithms import stage as stages
from hearken.algorithms.stage import Input, Inputs, Stage
from hearken.cli.main import app
from hearken.config import Options
from hearken.training.artifact import Artifact, finish


class SharedOptions(Options):
    """What toy stages share."""

    seed: int = 0
    """Fixes [every] draw."""


class ToyOptions(SharedOptions):
    """Options of the toy stage."""

    stage: ClassVar[str] = "toy"

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How it falls."""
    whiten: bool = True
    """Whiten."""
    merge: bool = False
    """Merge."""
    floor: float | None = -1.0
    """Lowest score."""
    layers: list[int] = Field(default_factory=lambda: [1, 2])
    """Which layers."""


INPUTS = (
    Input("model", "What only this stage knows.", "name"), Input("data", "Several of it.", "names"),
    Input("validation", "More of them.", "names", required=False), Input("ref", "Another.", "name", required=False),
)  # fmt: skip


class Toy:
    """What the toy stage was called with, and what it shall do."""

    def __init__(self) -> None:
        self.calls: list[tuple[Inputs, ToyOptions, Path]] = []
        self.act: Callable[[], None] = lambda: None

    def run(self, inputs: Inputs, options: ToyOptions, out: Path) -> Artifact:
        self.calls.append((inputs, options, out))
        print("a library chatters on stdout")
        self.act()
        return finish(out, "toy", inputs=inputs, options=options, data={}, metrics={"loss": 0.5}, seconds=1.0)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    module: Any = types.ModuleType("toy_stage")
    module.ToyOptions, module.run = ToyOptions, toy.run
    monkeypatch.setitem(sys.modules, "toy_stage", module)
    made = Stage("A stage for tests", ToyOptions, "toy_stage", INPUTS)
    monkeypatch.setitem(stages._registered, "toy", made)
    return toy


@pytest.fixture
def hearken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run ``hearken WORDS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *words: CliRunner().invoke(app, [*map(str, words)], prog_name="hearken")
