"""Options of PPO in an environment."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from hearken.algorithms.stage import Input, Stage
from hearken.config import Options


class ControlPPOConfig(Options):
    """PPO of Stable-Baselines3, paid by a reward model of clips."""

    stage: ClassVar[str] = "ppo"
    reported: ClassVar[tuple[str, ...]] = ("steps", "lr")

    seed: int = 0
    """Of the first weights, the environments and the actions."""
    steps: int = Field(300_000, ge=1)
    """Of all environments together; whole rollouts are made, so that a few more are done."""
    environments: int = Field(8, ge=1)
    """That are stepped in turn."""
    rollout: int = Field(256, ge=2)
    """Steps of each between two updates."""
    batch_size: int = Field(256, ge=2)
    """Steps of a minibatch."""
    epochs: int = Field(10, ge=1)
    """Passes over a rollout."""
    lr: float = Field(3e-4, gt=0)
    """Adam's step size."""
    gamma: float = Field(0.99, gt=0, le=1)
    """Discount."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    clip: float = Field(0.2, gt=0)
    """Bound of the policy's probability ratio."""
    entropy: float = Field(0.0, ge=0)
    """Bonus for entropy; more explores more."""
    log_every: int = Field(2000, ge=1)
    """Steps between two rows of ``run/metrics.jsonl``."""
    trust_reward: bool = False
    """Go on although the reward model's card fails."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """A rollout holds whole minibatches."""
        if self.environments * self.rollout % self.batch_size:
            raise ValueError(
                f"environments * rollout = {self.environments * self.rollout} is no multiple of batch_size"
            )
        return self


AGENT = Input("model", "The policy to start from, or an environment's id: one that begins anew.", "model")
PAYS = Input(
    "reward", "A reward model of clips: a folder; or environment, for what the environment pays itself.", "reward"
)

STAGES = (
    Stage(
        "PPO in an environment, paid by a reward model of clips", ControlPPOConfig, "hearken.algorithms.control_ppo",
        (AGENT, PAYS), domain="control", refitted=True, done="Improved by PPO on the learned reward",
    ),
)  # fmt: skip
