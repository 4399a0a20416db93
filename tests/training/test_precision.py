from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hearken.training import precision
from hearken.training.options import TrainingOptions
from hearken.training.run import Run


def test_bf16_only_where_it_pays() -> None:
    assert precision.faster({"fp32": 1.0, "bf16": 0.85}) == "bf16"
    assert precision.faster({"fp32": 1.0, "bf16": 0.95}) == "fp32"
    assert precision.faster({"fp32": 1.0}) == "fp32", "not tried, because even a plain product was slower"


def test_measured_once_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(precision, "measure", lambda *_: calls.append(1) or {"fp32": 1.0, "bf16": 0.1})
    for _ in range(2):
        run = Run(tmp_path, TrainingOptions(device="cpu"), {}, "x")
        run.choose_precision(lambda: None)
        assert run.precision == "bf16"
    assert len(calls) == 1 and json.loads((tmp_path / "run/precision.json").read_text())["precision"] == "bf16"
    with run.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    fixed = Run(tmp_path, TrainingOptions(device="cpu", precision="fp32"), {}, "x")
    fixed.choose_precision(lambda: pytest.fail("measured"))
    with fixed.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
