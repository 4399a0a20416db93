"""Options of NLPO."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.ppo_options import INPUTS, PPOConfig
from hearken.algorithms.stage import Stage


class NLPOConfig(PPOConfig):
    """PPO among the tokens that a lagging copy of the policy finds likely."""

    stage: ClassVar[str] = "nlpo"

    mask_top_p: float = Field(0.9, gt=0, le=1)
    """Probability of the mask policy's nucleus, to which sampling and learning are limited."""
    mask_top_k: int = Field(0, ge=0)
    """At most so many of its tokens; 0 for no limit."""
    refresh: int = Field(5, ge=1)
    """Iterations after which the mask policy becomes a copy of the policy as it is then."""


STAGES = (
    Stage(
        "NLPO: PPO among the tokens that a lagging copy of the policy finds likely", NLPOConfig,
        "hearken.algorithms.nlpo", INPUTS,
    ),
)  # fmt: skip
