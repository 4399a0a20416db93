"""What the stages of pictures have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.stage import Input
from hearken.config import Options


class PictureTraining(Options):
    """AdamW and the log; the learning rate rises for 2 % of the steps and falls to a twentieth in the second half."""

    stage: ClassVar[str]
    reported: ClassVar[tuple[str, ...]] = ("steps", "lr")

    seed: int = 0
    """Of every draw."""
    steps: int = Field(300, ge=1)
    """Of the optimiser."""
    lr: float = Field(3e-4, gt=0)
    """Peak learning rate; all of the network's weights are trained."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    log_every: int = Field(10, ge=1)
    """Steps between two rows of ``run/metrics.jsonl``."""


class PolicyTraining(PictureTraining):
    """The same of a pipeline."""

    ema: float = Field(0.995, ge=0, lt=1)
    """Decay of the running mean of the weights, which is what is kept; 0 keeps the last."""
    sampling_steps: int | None = Field(None, ge=2)
    """From noise to a picture; none: the pipeline's usual."""
    guidance: float | None = Field(None, ge=1)
    """Weight of classifier-free guidance where pictures are drawn; none: the pipeline's usual."""


PIPELINE = Input("model", "The pipeline to start from: a folder that diffusers saved.", "model")
PICTURE_REWARD = Input("reward", "A reward model of pictures: a folder.", "reward")
