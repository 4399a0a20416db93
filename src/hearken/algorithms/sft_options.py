"""Options of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hearken.training.options import TextOptions, TrainingOptions


class SFTOptions(TrainingOptions, TextOptions):
    """Supervised fine-tuning; on plain text, pretraining."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the data (Stiennon 1; InstructGPT 16, choosing the checkpoint by the reward model)."""
    batch: int = Field(32, ge=1)
    """Responses (or pieces of plain text) per optimiser step."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the prompts held out, where no --validation is given."""
    train_on: Literal["last", "all"] = "last"
    """In a dialogue, train the last assistant turn or all of them."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls to zero after warm-up (cosine in Stiennon 2020 and InstructGPT)."""
