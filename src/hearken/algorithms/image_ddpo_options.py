"""Options of policy gradients on the steps of a pipeline."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.image_options import PICTURE_REWARD, PIPELINE, PolicyTraining
from hearken.algorithms.stage import DATA, REF, Stage


class DDPOConfig(PolicyTraining):
    """Policy gradient on the denoising steps: DDPO and Flow-GRPO with ``beta`` 0, with DPOK's exact KL above."""

    stage: ClassVar[str] = "ddpo"
    reported: ClassVar[tuple[str, ...]] = ("steps", "lr", "beta")

    steps: int = Field(80, ge=1)
    """Batches of pictures, and updates."""
    prompts: int = Field(12, ge=1)
    """A batch."""
    num_generations: int = Field(8, ge=2)
    """Pictures of each prompt; their mean score is the baseline."""
    beta: float = Field(0.05, ge=0)
    """Price of a nat of KL to the reference, in standard deviations of the reward."""
    clip: float = Field(1e-4, gt=0)
    """Bound of the log-ratio, per number of the latent."""
    advantage_clip: float = Field(5.0, gt=0)
    """Largest advantage."""
    timesteps: int = Field(4, ge=1)
    """Steps of each path that are learnt from, drawn anew for each batch."""
    epochs: int = Field(1, ge=1)
    """Passes over a batch."""
    noise: float = Field(0.7, gt=0, le=1)
    """Of the steps while it trains: a of the flow's SDE, η of DDIM."""
    trust_reward: bool = False
    """Go on although the reward model's card fails."""


STAGES = (
    Stage(
        "Policy gradient on the denoising steps, with an exact KL", DDPOConfig, "hearken.algorithms.image_ddpo",
        (PIPELINE, DATA, PICTURE_REWARD, REF.optional), domain="image",
        done="Improved by policy gradients on its denoising steps",
    ),
)  # fmt: skip
