"""Options of rejection-sampling fine-tuning."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import DATA, MODEL, REWARD, Stage


class RFTConfig(RolloutOptions):
    """Fine-tuning on the best of the policy's own responses, again and again."""

    stage: ClassVar[str] = "rft"
    reported: ClassVar[tuple[str, ...]] = ("select",)

    select: Literal["best", "percentile"] = "best"
    """The best response of each prompt (expert iteration), or those at or above a percentile of its scores (trlX)."""
    percentile: float = Field(0.7, ge=0, le=1)
    """Where the percentile starts."""
    last_percentile: float = Field(0.95, ge=0, le=1)
    """Where it ends, rising evenly over the iterations."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    num_generations: int = Field(8, ge=2)
    """Responses per prompt to choose from."""
    beta: float = Field(0.0, ge=0, le=0)
    """Not used: what keeps the policy near its start is that it imitates itself."""


STAGES = (
    Stage(
        "Rejection sampling: fine-tuning on the best of the policy's own responses; expert iteration", RFTConfig,
        "hearken.algorithms.rft", (MODEL, DATA, REWARD),
    ),
)  # fmt: skip
