"""Options of KTO."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.stage import DATA, MODEL, REF, Stage, held_out
from hearken.training.options import TextOptions, TrainingOptions


class KTOConfig(TrainingOptions, TextOptions):
    """A policy from thumbs: responses that are good or bad by themselves."""

    stage: ClassVar[str] = "kto"
    reported: ClassVar[tuple[str, ...]] = ("beta",)

    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference."""
    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the thumbs."""
    batch_size: int = Field(32, ge=2)
    """Thumbs per optimiser step; the reference point is a mean over the batch, so at least two."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts held out, where no --validation is given."""
    desirable: float = Field(0.0, ge=0)
    """Weight of good responses; 0 lifts the rarer kind until both weigh the same in all."""
    undesirable: float = Field(0.0, ge=0)
    """Weight of bad responses; 0 as for desirable."""
    cache_reference: bool = True
    """Compute the reference's log-probabilities once and keep them on disk; else in every step."""


STAGES = (
    Stage(
        "KTO: a policy from thumbs, good or bad", KTOConfig, "hearken.algorithms.kto",
        (MODEL, DATA, held_out(KTOConfig), REF), ("thumb", "comparison"), likelihood=True,
    ),
)  # fmt: skip
