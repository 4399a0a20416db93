"""Options of SAC in an environment."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.control_ppo_options import AGENT, PAYS
from hearken.algorithms.stage import Stage
from hearken.config import Options


class ControlSACConfig(Options):
    """SAC of Stable-Baselines3, paid by a reward model of clips."""

    stage: ClassVar[str] = "sac"
    reported: ClassVar[tuple[str, ...]] = ("steps", "lr")

    seed: int = 0
    """Of the first weights, the environments and the actions."""
    steps: int = Field(60_000, ge=1)
    """Of all environments together."""
    environments: int = Field(4, ge=1)
    """That are stepped in turn."""
    rollout: int = Field(64, ge=1)
    """Steps of each between two groups of updates."""
    updates: int = Field(64, ge=1)
    """In such a group."""
    batch_size: int = Field(256, ge=2)
    """Steps of an update, drawn from all that was done."""
    width: int = Field(128, ge=1)
    """Units of each of the two hidden layers of policy and critics."""
    lr: float = Field(1e-3, gt=0)
    """Adam's step size."""
    gamma: float = Field(0.99, gt=0, lt=1)
    """Discount."""
    tau: float = Field(0.01, gt=0, le=1)
    """Share by which the target critics follow at each update."""
    start: int = Field(1000, ge=0)
    """Steps at random before the first update."""
    log_every: int = Field(2000, ge=1)
    """Steps between two rows of ``run/metrics.jsonl``."""
    trust_reward: bool = False
    """Go on although the reward model's card fails."""


STAGE = Stage(
    "SAC in an environment, paid by a reward model of clips", ControlSACConfig, "hearken.algorithms.control_sac",
    (AGENT, PAYS), domain="control", done="Improved by SAC on the learned reward",
)  # fmt: skip
