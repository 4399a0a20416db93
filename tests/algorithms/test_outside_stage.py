"""A method from another package: an objective, an algorithm file, its options and an entry point; nothing in here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearken.algorithms.stage import outside, train

FILES = {
    "exposure_options.py": '''
from pydantic import Field
from hearken.training.options import TextOptions, TrainingOptions

class ExposureOptions(TrainingOptions, TextOptions):
    """Unlikelihood of the rejected response."""

    epochs: int = Field(1, ge=1)
    """Passes."""
''',
    "exposure.py": '''
"""Unlikelihood training (Welleck et al. 2020) on rejected responses, as another package would write it."""
import torch
from hearken.domains.text.data import Reader, judgments
from hearken.domains.text.loading import open_policy
from hearken.models.layout import Group, lay_out
from hearken.models.loading import save
from hearken.training.artifact import finish
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

def unlikelihood(logprobs, mask):
    return -(torch.log1p(-logprobs.exp().clamp(max=1 - 1e-6)) * mask).sum() / mask.sum()

def run(inputs, options, out):
    policy = open_policy(inputs.model, options, options)
    reader = Reader(options)
    rows = reader.rows(inputs.data, (), 0.0, options.seed)
    bad = [Group(j.group.prompt, [j.group.responses[j.ranks.index(max(j.ranks))]])
           for j in judgments(rows.train, policy.encoder)]
    optimiser = Optimiser([policy.scorer], options, options.epochs)
    run = Run(out, options, {"optimiser": optimiser}, label="Exposure")
    for step in run.steps(options.epochs):
        run.batch = bad
        with run.guard():
            layout = lay_out(bad, policy.scorer.device)
            loss = unlikelihood(policy.scorer(layout).logprobs, layout.mask)
            run.backward(loss)
            stats = optimiser.step(step)
        run.log(loss=loss.item(), **stats)
    save(policy.scorer.model, policy.tokenizer, out)
    return finish(out, "exposure", inputs=inputs, options=options, data=rows.facts,
                  metrics={"loss": run.history[-1]["loss"]}, seconds=run.seconds)
''',
    "exposure_stage.py": """
from hearken.algorithms.stage import Stage
STAGE = Stage("exposure", "Unlikelihood of rejected responses", "exposure_options:ExposureOptions", "exposure:run",
              reads=("comparison",))
""",
    "exposure-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: exposure\nVersion: 1.0\n",
    "exposure-1.0.dist-info/entry_points.txt": "[hearken.stages]\nexposure = exposure_stage:STAGE\n",
}


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


def test_it_trains_like_a_built_in_one(world, package: Path, tmp_path: Path) -> None:
    more = {"trackers": "none", "precision": "fp32", "lr": 3e-3}
    done = train("exposure", model=world.sft, data=world.pairs, out=tmp_path / "out", epochs=4, **more)
    rows = (done.path / "run/metrics.jsonl").read_text().splitlines()
    assert done.kind == "exposure" and len(rows) == 4 and done.metrics["loss"] > 0


def test_the_command_line_finds_it(package: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hearken.cli.main import main; main()"
    words = [sys.executable, "-c", code, str(package), "train", "exposure", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=None)
    assert done.returncode == 0, done.stderr
    assert "Unlikelihood of rejected responses" in done.stdout and "--epochs" in done.stdout
