"""Options of reward models of pictures."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.image_options import PictureTraining
from hearken.algorithms.stage import DATA, Input, Stage


class PictureRewardConfig(PictureTraining):
    """A reward model of pictures from comparisons and rankings."""

    stage: ClassVar[str] = "reward"

    steps: int = Field(400, ge=1)
    """Of the optimiser."""
    batch_size: int = Field(64, ge=1)
    """Comparisons a step."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate."""
    hidden: int = Field(64, ge=1)
    """Units of the head."""


READER = Input("model", "The pipeline whose network is read: a folder.", "model")
HELD_OUT = Input("validation", "Held-out comparisons, on which the accuracy is measured.", required=False)

STAGES = (
    Stage(
        "Reward model of pictures, from comparisons and rankings", PictureRewardConfig,
        "hearken.algorithms.image_reward", (READER, DATA, HELD_OUT), ("comparison",), domain="image", makes="reward",
        done="Learned a reward of pictures from comparisons",
    ),
)  # fmt: skip
