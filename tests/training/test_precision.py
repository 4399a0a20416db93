from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import causal

from hearken.algorithms.stage import Inputs
from hearken.models.layout import Group, Layout
from hearken.models.scorers import TokenScorer, TokenScores
from hearken.training import precision
from hearken.training.options import TrainingOptions
from hearken.training.run import Run

GROUPS = [Group([5, 6, 7], [[8, 9]])] * 3


def test_bf16_only_where_it_pays() -> None:
    assert precision.faster({"fp32": 1.0, "bf16": 0.85}) == "bf16"
    assert precision.faster({"fp32": 1.0, "bf16": 0.95}) == "fp32"


@pytest.mark.parametrize("instructions", [True, False])
def test_a_step_is_timed_only_where_a_plain_product_gains(monkeypatch: pytest.MonkeyPatch, instructions: bool) -> None:
    steps: list[int] = []

    def seconds(work: Callable[[], object], name: str, _: torch.device) -> float:
        work()
        return 1.0 if name == "fp32" else 0.5 if instructions else 2.0

    monkeypatch.setattr(precision, "_time", seconds)
    found = precision.measure(lambda: steps.append(1), torch.device("cpu"))
    assert precision.faster(found) == ("bf16" if instructions else "fp32")
    assert len(steps) == (2 if instructions else 0)


def test_measured_once_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(precision, "measure", lambda *_: calls.append(1) or {"fp32": 1.0, "bf16": 0.1})
    scorer = TokenScorer(causal("llama"))
    for _ in range(2):
        run = Run(Inputs(), TrainingOptions(device="cpu"), tmp_path, {}, label="x")
        run.choose_precision(scorer, GROUPS)
        assert run.precision == "bf16"
    assert scorer.precision == "bf16"
    assert len(calls) == 1 and json.loads((tmp_path / "run/precision.json").read_text())["precision"] == "bf16"
    with scorer.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    fixed = Run(Inputs(), TrainingOptions(device="cpu", precision="fp32"), tmp_path, {}, label="x")
    full = TokenScorer(causal("llama"))
    fixed.choose_precision(full, GROUPS)
    assert len(calls) == 1 and full.precision == fixed.precision == "fp32"


def test_a_trial_is_short_whatever_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few beginnings, and no further pass once the time is up; the trained weights have no gradient afterwards."""
    passes: list[int] = []
    long = [Group([5] * 700, [[6] * 900] * 4)] * 50
    scorer = TokenScorer(causal("llama"))
    whole = scorer.forward

    def forward(layout: Layout) -> TokenScores:
        passes.append(len(layout.ids))
        return whole(layout)

    monkeypatch.setattr(scorer, "forward", forward)
    monkeypatch.setattr(precision, "SECONDS", 0.0)
    precision.choose(scorer, long)
    assert len(passes) <= 2 and max(passes, default=0) <= 256
    assert all(p.grad is None for p in scorer.model.parameters())
