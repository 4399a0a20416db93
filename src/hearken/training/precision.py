"""Which precision a run trains in: a rule of device and width, so that a seed gives the same model the next time."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from hearken.models.precision import Precision, has_bf16
from hearken.models.scorers import RewardScorer, TokenScorer
from hearken.training.artifact import MANIFEST, write_json

RECORD = "precision.json"
"""In a run's folder."""
WIDTH = 256
"""From which training gains by bf16 (docs/performance.md); narrower networks spend the gain on casts."""


def device_of(name: str) -> torch.device:
    """The device an option names; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def recorded(folder: str) -> str | None:
    """The precision that the artifact in ``folder`` was trained in; None where no manifest says."""
    manifest = Path(folder) / MANIFEST
    if not manifest.is_file():
        return None
    found: str | None = json.loads(manifest.read_text("utf-8")).get("precision")
    return found


def settle(scorer: TokenScorer | RewardScorer, option: str, run: Path | None = None) -> str:
    """The precision of a run, in which ``scorer`` and all that follow it compute from now on.

    Args:
        scorer: what is trained.
        option: ``fp32``, ``bf16``, or ``auto``: what stands in ``run``, else `by_width`.
        run: the folder in which the choice is recorded.
    """
    record = run / RECORD if run else None
    precision = option
    if option == "auto":
        kept = record and record.exists()
        precision = json.loads(record.read_text())["precision"] if kept else by_width(scorer)  # type: ignore[union-attr]
    if record and not record.exists():
        write_json(record, {"precision": precision, "device": str(scorer.device)})
    scorer.compute_in(precision)
    return precision


def by_width(scorer: TokenScorer | RewardScorer) -> Precision:
    """bf16 for networks of `WIDTH` or more where the device has instructions for it.

    A rule, not a measurement: a trial on a machine that is busy with other things may go either way.
    """
    wide = scorer.model.get_input_embeddings().weight.shape[-1] >= WIDTH
    return "bf16" if wide and has_bf16(scorer.device) else "fp32"
