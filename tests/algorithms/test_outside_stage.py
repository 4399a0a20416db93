"""A method from another package: an algorithm file, its options and an entry point; nothing in here.

It has an input and an option that no other stage has, and is seen wherever stages are.
"""

from __future__ import annotations

import json
import re
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
from hearken.evaluation.report import Step
from hearken.feedback.records import Prompt
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop
from hearken.loop.rounds_options import LoopOptions
from hearken.loop.trace import trace
from hearken.worlds.tales.world import TaleWorld

FILES = {
    "exposure_options.py": '''
from typing import ClassVar
from pydantic import Field
from hearken.algorithms.stage import DATA, MODEL, Input, Stage
from hearken.training.options import TextOptions, TrainingOptions

class ExposureOptions(TrainingOptions, TextOptions):
    """Unlikelihood of the rejected response."""

    stage: ClassVar[str] = "exposure"
    reported: ClassVar[tuple[str, ...]] = ("strength",)

    batch: int = Field(8, ge=1)
    """Responses a step."""
    epochs: int = Field(1, ge=1)
    """Passes."""
    strength: float = Field(1.0, gt=0)
    """Weight of what is to be unlearnt against the teacher."""

STAGE = Stage(
    "Unlikelihood of rejected responses", ExposureOptions, "exposure",
    (MODEL, DATA, Input("teacher", "The policy to stay near.", "model"),
     Input("lexicon", "Words to leave out.", required=False)),
    ("comparison",), done="Unlearnt what was rejected",
)
''',
    "exposure.py": '''
"""Unlikelihood training (Welleck et al. 2020) on rejected responses, as another package would write it."""
import torch
from hearken.algorithms.estimate import recorded
from hearken.domains.text.data import Reader, judgments
from hearken.domains.text.loading import open_policy, open_reference
from hearken.models.layout import Group, lay_out
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

class Ready:
    def __init__(self, inputs, options):
        self.policy = open_policy(inputs.model, options, options)
        self.teacher = open_reference(inputs.model, inputs["teacher"], self.policy)
        rows = Reader(options).rows(inputs.data, (), 0.0, options.seed)
        self.bad = [Group(j.group.prompt, [j.group.responses[j.ranks.index(max(j.ranks))]])
                    for j in judgments(rows.train, self.policy.encoder)]
        self.facts = rows.facts

def loss(ready, groups, options):
    layout = lay_out(groups, ready.policy.scorer.device)
    mine = ready.policy.scorer(layout).logprobs
    with torch.no_grad():
        theirs = ready.teacher(layout).logprobs
    unlikely = -torch.log1p(-mine.exp().clamp(max=1 - 1e-6))
    return ((options.strength * unlikely + (mine - theirs) ** 2) * layout.mask).sum() / layout.mask.sum()

def estimate(dry, inputs, options):
    ready = Ready(inputs, options)
    modules = {"policy": ready.policy.scorer, "teacher": ready.teacher}
    return recorded(dry, ready, modules, ready.bad, lambda some: loss(ready, [ready.bad[i] for i in some], options),
                    options)

def run(inputs, options, out):
    ready = Ready(inputs, options)
    scorer = ready.policy.scorer
    optimiser = Optimiser([scorer], options, options.epochs)
    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        for step in run.steps(options.epochs):
            total = 0.0
            for part in run.microbatches(ready.bad, scorer):
                value = loss(ready, [ready.bad[i] for i in part], options)
                run.backward(value)
                total += value.item()
            run.log(loss=total, **optimiser.step(step))
        return run.finish(ready.policy.save, data=ready.facts, metrics=run.last("loss"))
''',
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
    given = {"model": world.sft, "data": world.pairs, "teacher": world.sft}
    done = train("exposure", out=tmp_path / "out", epochs=4, strength=2.0, lexicon=[world.text], **given, **FAST)
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


def test_the_loop_the_report_and_the_trace_know_it(package: Path, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", context=400)
    section = {"teacher": str(base), "strength": 2.0, "epochs": 2, **FAST}
    project = project_of(base, tmp_path / "project", {"exposure": section}, improve="exposure")
    done = Loop(project).run(1)
    assert done["policy"] == "r01-exposure"
    made = project.artifact("r01-exposure")
    assert made is not None and made.manifest["inputs"]["teacher"] == str(base)
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
    from exposure_options import ExposureOptions  # type: ignore[import-not-found]

    class Quick(ExposureOptions):
        """Of the same algorithm."""

        stage = "quick"

    monkeypatch.setattr(stages, "_registered", {})
    register(Stage("The same, quicker", Quick, "exposure", (MODEL, DATA, Input("teacher", "Who.", "model"))))
    assert find_stage("quick").options is Quick
    some = write_rows(tmp_path / "few.jsonl", [{"prompt": "tell", "chosen": " the fox", "rejected": " a bear"}])
    torch.manual_seed(0)
    assert train("quick", model=world.sft, data=some, teacher=world.sft, out=tmp_path / "out", **FAST).metrics["loss"]
