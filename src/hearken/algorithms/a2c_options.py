"""Options of A2C."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.ppo_options import INPUTS, PPOConfig
from hearken.algorithms.stage import Stage


class A2CConfig(PPOConfig):
    """Advantage actor-critic: PPO with one step on each batch; the probability ratio is then 1, and nothing clipped."""

    stage: ClassVar[str] = "a2c"

    epochs: Literal[1] = 1  # type: ignore[assignment]
    """One pass: a second would not be on-policy."""
    minibatches: Literal[1] = 1  # type: ignore[assignment]
    """One step a batch, for the same reason."""
    batch_size: int = Field(128, ge=1)
    """Responses sampled per iteration; small, as each is used once."""
    lam: float = Field(1.0, ge=0, le=1)
    """GAE's lambda; 1 gives returns minus values."""
    value_clip: float = Field(0.0, ge=0)
    """Bound of the value's change; 0 for the plain squared error."""


STAGES = (
    Stage("A2C: as PPO, one unclipped step on each batch", A2CConfig, "hearken.algorithms.ppo", INPUTS, watched=True),
)
