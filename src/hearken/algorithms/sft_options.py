"""Options of supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from hearken.algorithms.stage import DATA, MODEL, Stage, held_out
from hearken.training.options import TextOptions, TrainingOptions


class SFTConfig(TrainingOptions, TextOptions):
    """Supervised fine-tuning; on plain text, pretraining."""

    stage: ClassVar[str] = "sft"

    epochs: float = Field(1.0, gt=0)
    """Passes over the data (Stiennon 1; InstructGPT 16, choosing the checkpoint by the reward model)."""
    batch_size: int = Field(32, ge=1)
    """Responses (or pieces of plain text) per optimiser step."""
    validation: float = Field(0.05, ge=0, lt=1)
    """Share of the prompts held out, where no --validation is given."""
    train_on: Literal["last", "all"] = "last"
    """In a dialogue, train the last assistant turn or all of them."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls to zero after warm-up (cosine in Stiennon 2020 and InstructGPT)."""


def _done(options: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    epochs = options.get("epochs")
    passes = "" if not epochs else ", one pass" if epochs == 1 else f", {epochs:g} passes"
    return f"Learned to imitate its data{passes}"


STAGES = (
    Stage(
        "Supervised fine-tuning on demonstrations; on plain text: pretraining", SFTConfig, "hearken.algorithms.sft",
        (MODEL, DATA, held_out(SFTConfig)), ("demonstration",), first=True, done=_done,
    ),
)  # fmt: skip
