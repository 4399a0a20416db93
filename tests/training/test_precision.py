from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_models import causal

from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
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
        run = Run(tmp_path, TrainingOptions(device="cpu"), {}, "x")
        run.choose_precision(scorer, GROUPS)
        assert run.precision == "bf16"
    assert scorer.precision == "bf16"
    assert len(calls) == 1 and json.loads((tmp_path / "run/precision.json").read_text())["precision"] == "bf16"
    with run.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    fixed = Run(tmp_path, TrainingOptions(device="cpu", precision="fp32"), {}, "x")
    fixed.choose_precision(TokenScorer(causal("llama")), GROUPS)
    with fixed.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
