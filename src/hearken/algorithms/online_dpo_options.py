"""Options of online DPO."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.dpo_options import PairOptions
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import DATA, MODEL, REF, REWARD, Stage


class OnlineDPOConfig(PairOptions, RolloutOptions):
    """DPO on the policy's own responses, ranked by a reward as they come."""

    stage: ClassVar[str] = "online_dpo"

    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference."""
    num_generations: int = Field(2, ge=2)
    """Responses per prompt: a pair, or a ranking (Plackett-Luce)."""
    batch_size: int = Field(128, ge=2)
    """Responses sampled per iteration."""


STAGES = (
    Stage(
        "Online DPO: the policy's own responses, ranked by the reward", OnlineDPOConfig,
        "hearken.algorithms.online_dpo", (MODEL, DATA, REWARD, REF),
    ),
)  # fmt: skip
