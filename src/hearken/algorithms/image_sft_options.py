"""Options of fine-tuning a pipeline on captioned pictures."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.image_options import PIPELINE, PolicyTraining
from hearken.algorithms.stage import DATA, Stage


class PictureSFTConfig(PolicyTraining):
    """The denoising loss on captioned pictures; of random weights, pretraining."""

    stage: ClassVar[str] = "sft"

    steps: int = Field(1000, ge=1)
    """Of the optimiser."""
    batch_size: int = Field(96, ge=1)
    """Pictures a step."""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of the pictures that are shown without their caption, which guidance needs."""
    train_text: bool = False
    """Train the text encoder, too."""


STAGES = (
    Stage(
        "The denoising loss on captioned pictures; of random weights: pretraining", PictureSFTConfig,
        "hearken.algorithms.image_sft", (PIPELINE, DATA), ("demonstration",), domain="image", first=True,
        done="Learned to imitate captioned pictures",
    ),
)  # fmt: skip
