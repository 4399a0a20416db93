"""Options of PPO, and what it shares with other methods that train a value model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import DATA, MODEL, PTX, REF, REWARD, Stage
from hearken.algorithms.watch_options import HELD_OUT, WatchOptions


class CriticOptions(RolloutOptions):
    """Advantages from a value model, and a KL coefficient that may adapt."""

    reported: ClassVar[tuple[str, ...]] = ("kl_target",)

    beta: float = Field(0.05, ge=0)
    """KL coefficient (at the start, where it adapts)."""
    kl_target: float = Field(0.0, ge=0)
    """Adapt beta to this KL in nats per response, summed over its tokens (Ziegler 2019); 0 keeps beta fixed."""
    kl_horizon: float = Field(10_000, gt=0)
    """Episodes over which an adapting beta can change by about a fifth."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    value_clip: float = Field(0.2, ge=0)
    """Bound of the value's change; 0 for the plain squared error."""
    value_warmup: int = Field(4, ge=0)
    """Passes of the value model alone over the first batch, before the policy's first update."""
    whiten_rewards: bool = False
    """Scale the per-token rewards of a batch to unit variance, keeping their mean."""
    whiten_advantages: bool = True
    """Scale the advantages of a batch to mean 0 and variance 1."""

    @property
    def value_scale(self) -> float:
        """The value model's learning rate over ``lr``."""
        return 1.0


class PPOConfig(WatchOptions, CriticOptions):
    """PPO with a KL penalty against a reference policy."""

    stage: ClassVar[str] = "ppo"
    reported: ClassVar[tuple[str, ...]] = ("ptx_coef", "clip")

    lr: float = Field(3e-6, gt=0)
    """Peak learning rate of the policy."""
    value_lr: float = Field(0.0, ge=0)
    """Peak learning rate of the value model; 0 takes the policy's."""
    epochs: int = Field(4, ge=1)
    """Passes over each batch."""
    clip: float = Field(0.2, gt=0)
    """Bound of the policy's probability ratio."""
    vf_coef: float = Field(0.1, ge=0)
    """Weight of the value loss."""
    ptx_coef: float = Field(1.0, ge=0)
    """Weight of the pretraining loss where --ptx is given; both are means per token (InstructGPT's 27.8 is not)."""
    ptx_batch: int = Field(0, ge=0)
    """Pieces of pretraining text per optimiser step; 0 takes as many as responses."""
    ptx_format: str = "auto"
    """Layout of --ptx, which need not be that of the data; as --format."""

    @property
    def value_scale(self) -> float:
        return self.value_lr / self.lr if self.value_lr else 1.0


INPUTS = (MODEL, DATA, HELD_OUT, REWARD, REF, PTX)


def _done(options: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    return "Improved by PPO under a KL penalty" + (" with a pretraining term" if data.get("ptx_pieces") else "")


STAGES = (
    Stage(
        "PPO with a KL penalty against a reference policy, optionally with a pretraining term (PPO-ptx)", PPOConfig,
        "hearken.algorithms.ppo", INPUTS, watched=True, refitted=True, done=_done,
    ),
)  # fmt: skip
