"""A method from another package, as docs/own-stage.md has it: an algorithm, its options and an entry point.

It has an input and an option that no other stage has, and is seen wherever stages are.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import write_base, write_rows
from typer.testing import CliRunner

from hearken.algorithms import stage as stages
from hearken.algorithms.stage import DATA, MODEL, Input, Stage, find_stage, outside, register, train
from hearken.cli.main import app
from hearken.errors import UserError
from hearken.feedback.records import Prompt
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop
from hearken.loop.rounds_options import LoopOptions
from hearken.loop.trace import trace
from hearken.report.contents import Step
from hearken.worlds.tales.world import TaleWorld

PAGE = (Path(__file__).parents[2] / "docs" / "own-stage.md").read_text("utf-8")
OPTIONS, ALGORITHM = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILES = {
    "exposure_options.py": OPTIONS,
    "exposure.py": ALGORITHM,
    "exposure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: exposure\nVersion: 1.0\n",
    "exposure-1.0.dist-info/entry_points.txt": "[hearken.stages]\nexposure = exposure_options:STAGE\n",
}
SPLITS = {"train": "train", "heldout": "validation"}
FAST: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-4}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    outside.cache_clear()
    yield folder
    outside.cache_clear()


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_it_trains_like_a_built_in_one(world, package: Path, tmp_path: Path) -> None:
    given = {"model": world.sft, "data": world.pairs, "teacher": world.sft, "lexicon": [world.text]}
    done = train("exposure", out=tmp_path / "out", epochs=4, batch_size=24, strength=2.0, **given, **FAST)
    found = losses(done.path)
    assert done.kind == "exposure" and len(found) == 4 and found[-1] < found[0]
    manifest = done.manifest
    assert manifest["inputs"]["teacher"] == str(world.sft) and manifest["inputs"]["lexicon"] == [str(world.text)]
    assert manifest["options"]["strength"] == 2.0
    assert manifest["parents"] == {"model": str(world.sft), "teacher": str(world.sft)}, "what was trained before it"
    request = json.loads((done.path / "run/request.json").read_text())
    assert str(world.text) in request["files"], "a run goes on with the same files only"


def test_its_inputs_are_checked_like_others(world, package: Path, tmp_path: Path) -> None:
    given = {"model": world.sft, "data": world.pairs, "out": tmp_path / "out"}
    wrong = [
        ({}, "train exposure needs --teacher"),
        ({"teacher": tmp_path / "none"}, "--teacher .*none does not exist"),
        ({"teacher": world.sft, "lexicon": tmp_path / "no.txt"}, "no.txt: no such file"),
        ({"teacher": world.sft, "reward": world.reward}, "train exposure does not read --reward"),
        ({"teacher": world.sft, "strenght": 2}, "Did you mean 'strength'"),
    ]
    for more, said in wrong:
        with pytest.raises(UserError) as error:
            train("exposure", **given, **more, **FAST)
        assert re.search(said, str(error.value)), error.value


def test_the_command_line_has_it(world, package: Path, tmp_path: Path) -> None:
    def hearken(*words: Any) -> str:
        done = CliRunner().invoke(app, list(map(str, words)), prog_name="hearken")
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "exposure" in hearken("train", "--help")
    text = " ".join(hearken("train", "exposure", "--help").split())
    assert "Unlikelihood of rejected responses" in text and "--teacher MODEL The policy to stay near. (req" in text
    assert "--strength" in text and "--teacher my-teacher" in text and "--reward" not in text
    named = ("--model", world.sft, "--data", world.pairs, "--teacher", world.sft, "--strength", "3")
    dry = hearken("train", "exposure", *named, "--dry-run", "--precision", "fp32", "--out", tmp_path / "out")
    read = yaml.safe_load(dry)
    assert read["teacher"] == str(world.sft) and read["strength"] == 3.0
    assert "# memory.weights_of_teacher" in dry and "# steps: 3" in dry
    assert not (tmp_path / "out").exists()
    (tmp_path / "dry.yaml").write_text(dry)
    hearken("train", "exposure", "--config", tmp_path / "dry.yaml", "--trackers", "none", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["inputs"]["teacher"] == str(world.sft)


def project_of(model: Path, folder: Path, stages: dict[str, Any], **loop: Any) -> Project:
    """A project of the tale world, whose policy is the tiny model."""
    how: dict[str, Any] = {"labelers": "simulated", "held_out": 2, "evaluate": 4, **loop}
    config = ProjectConfig(
        model=str(model), world="tales", stages=stages, sample=SampleConfig(k=2, max_new_tokens=4),
        loop=LoopOptions.parse(how),
    )  # fmt: skip
    project = Project.create(folder, config)
    tales = TaleWorld(seed=0)
    with project.store() as store:
        for side, count in (("train", 8), ("heldout", 4)):
            store.add_prompts([Prompt(content=t, split=SPLITS[side]) for t in tales.prompts(count, side)])
    return project


@pytest.mark.slow
def test_the_loop_the_report_and_the_trace_know_it(package: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", context=400)
    section = {"teacher": "teacher", "strength": 2.0, "epochs": 2, **FAST}
    project = project_of(base, tmp_path / "project", {"exposure": section}, improve="exposure")
    teacher = project.path / "teacher"
    shutil.copytree(base, teacher)
    done = Loop(project).run(1)
    assert done["policy"] == "r01-exposure"
    made = project.artifact("r01-exposure")
    assert made is not None and made.manifest["inputs"]["teacher"] == str(teacher)
    assert project.policy() == str(made.path), "the newest policy"
    step = next(s for s in compose(project).steps if s.name == "r01-exposure")
    assert isinstance(step, Step) and step.done == "Unlearnt what was rejected" and step.settings["strength"] == 2.0
    roles = {role for role, _ in trace("r01-exposure", project).parents}
    assert {"model", "teacher", "data"} <= roles
    assert Loop(project).run(1)["policy"] == "r01-exposure", "what is made is not made again"


def test_the_loop_says_what_it_lacks(world, package: Path, tmp_path: Path) -> None:
    project = project_of(world.sft, tmp_path / "project", {"exposure": FAST}, improve="exposure")
    with pytest.raises(UserError, match=r"loop\.improve: train exposure needs --teacher") as error:
        Loop(project).run(1)
    assert "stages: {exposure: {teacher: ...}}" in (error.value.hint or "")


def test_a_program_registers_one(world, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exposure_options import ExposureConfig  # type: ignore[import-not-found]

    class Quick(ExposureConfig):
        """Of the same algorithm."""

        stage = "quick"

    monkeypatch.setattr(stages, "_registered", {})
    register(Stage("The same, quicker", Quick, "exposure", (MODEL, DATA, Input("teacher", "Who.", "model"))))
    assert find_stage("quick").options is Quick
    some = write_rows(tmp_path / "few.jsonl", [{"prompt": "tell", "chosen": " the fox", "rejected": " a bear"}])
    torch.manual_seed(0)
    assert train("quick", model=world.sft, data=some, teacher=world.sft, out=tmp_path / "out", **FAST).metrics["loss"]
