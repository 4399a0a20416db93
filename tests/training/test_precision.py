"""One seed, one model: the precision of a run is a rule of device and width, recorded and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_models import causal

from hearken.algorithms.stage import Inputs
from hearken.models.scorers import TokenScorer
from hearken.training import precision
from hearken.training.options import TrainingOptions
from hearken.training.run import Run


def opened(folder: Path, **options: object) -> Run:
    return Run(Inputs(), TrainingOptions(device="cpu", **options), folder, {}, label="x")  # type: ignore[arg-type]


@pytest.mark.parametrize(("wide", "instructions"), [(True, True), (True, False), (False, True)])
def test_bf16_for_wide_networks_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch, wide: bool, instructions: bool
) -> None:
    scorer = TokenScorer(causal("llama"))
    width = scorer.model.config.hidden_size
    monkeypatch.setattr(precision, "WIDTH", width if wide else width + 1)
    monkeypatch.setattr(precision, "has_bf16", lambda _: instructions)
    assert precision.by_width(scorer) == ("bf16" if wide and instructions else "fp32")


def test_chosen_once_recorded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = TokenScorer(causal("llama"))
    monkeypatch.setattr(precision, "by_width", lambda _: "bf16")
    run = opened(tmp_path)
    run.choose_precision(scorer)
    assert run.precision == scorer.precision == "bf16"
    assert json.loads((tmp_path / "run/precision.json").read_text())["precision"] == "bf16"
    with scorer.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    monkeypatch.setattr(precision, "by_width", lambda _: "fp32")
    again = opened(tmp_path)
    again.choose_precision(TokenScorer(causal("llama")))
    assert again.precision == "bf16", "a run that goes on keeps to its own, also on another machine"


def test_what_is_asked_for_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "by_width", lambda _: "bf16")
    scorer, run = TokenScorer(causal("llama")), opened(tmp_path, precision="fp32")
    run.choose_precision(scorer)
    assert scorer.precision == run.precision == "fp32"
