"""Options of reward-weighted likelihood."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.image_options import PICTURE_REWARD, PIPELINE, PolicyTraining
from hearken.algorithms.stage import DATA, Stage


class RWRConfig(PolicyTraining):
    """Reward-weighted likelihood of the policy's own pictures (Lee et al. 2023; Peters and Schaal 2007)."""

    stage: ClassVar[str] = "rwr"
    reported: ClassVar[tuple[str, ...]] = ("tau", "samples")

    batch_size: int = Field(96, ge=1)
    """Pictures a step."""
    samples: int = Field(8, ge=2)
    """Pictures of each prompt, which are weighted among themselves."""
    tau: float = Field(0.5, gt=0)
    """Temperature of the weights, in standard deviations of the scores within prompts: large ones imitate all
    pictures alike, small ones only the best of each prompt."""
    trust_reward: bool = False
    """Go on although the reward model's card fails."""


STAGES = (
    Stage(
        "Reward-weighted likelihood of the policy's own pictures", RWRConfig, "hearken.algorithms.image_rwr",
        (PIPELINE, DATA, PICTURE_REWARD), domain="image", done="Imitated its own pictures, weighted by their reward",
    ),
)  # fmt: skip
