"""Options of the critic-free policy gradients."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import DATA, MODEL, REF, REWARD, Stage
from hearken.errors import UserError

Estimator = Literal["rloo", "grpo", "dr_grpo", "reinforce++"]
Scale = Literal["token", "sequence", "response", "constant"]
Place = Literal["reward", "k2", "k3"]
_AUTO: dict[str, tuple[Scale, Place]] = {
    "rloo": ("response", "reward"), "grpo": ("sequence", "k3"), "dr_grpo": ("constant", "k3"),
    "reinforce++": ("token", "reward"),
}  # fmt: skip
"""By estimator: what the loss divides by, and where the KL acts."""


class PolicyGradientOptions(RolloutOptions):
    """What RLOO, GRPO and REINFORCE++ share: several responses to a prompt take the critic's place."""

    stage: ClassVar[str]
    reported: ClassVar[tuple[str, ...]] = ("clip", "estimator")

    estimator: Estimator
    """Advantages: leave-one-out mean (rloo), group mean and std (grpo), group mean (dr_grpo), batch (reinforce++)."""
    lr: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    num_generations: int = Field(4, ge=1)
    """Responses per prompt; the group estimators compare them with each other and refuse 1."""
    clip: float = Field(0.2, gt=0)
    """Bound of the probability ratio, for the updates after the first on a batch."""
    scale: Literal["auto"] | Scale = "auto"
    """Loss of a response: its mean (grpo), sum (rloo) or sum over the longest length (dr_grpo); token: all alike."""
    kl: Literal["auto"] | Place = "auto"
    """Where beta acts: in the reward (rloo, reinforce++), or as a loss: k3 (GRPO's paper) or k2 (unbiased gradient)."""

    @property
    def divisor(self) -> Scale:
        """``scale``, with ``auto`` made plain."""
        return _AUTO[self.estimator][0] if self.scale == "auto" else self.scale

    @property
    def place_of_kl(self) -> Place:
        """``kl``, with ``auto`` made plain."""
        return _AUTO[self.estimator][1] if self.kl == "auto" else self.kl

    def check(self) -> None:
        """Refuse a group estimator with one response to a prompt.

        Raises:
            UserError: it is one.
        """
        if self.num_generations < 2 and self.estimator != "reinforce++":
            raise UserError(
                f"{self.estimator} with num_generations=1: every advantage would be 0",
                "Set num_generations to 2 or more, or train: hearken train reinforce",
            )


class RLOOConfig(PolicyGradientOptions):
    """RLOO: REINFORCE with a leave-one-out baseline."""

    stage: ClassVar[str] = "rloo"

    estimator: Estimator = "rloo"
    """See above."""


class GRPOConfig(PolicyGradientOptions):
    """GRPO: advantages normalised within each prompt's group."""

    stage: ClassVar[str] = "grpo"

    estimator: Estimator = "grpo"
    """grpo, or dr_grpo (Dr. GRPO) without its biases for length and for easy or hard prompts."""
    num_generations: int = Field(8, ge=1)
    """Responses per prompt; the group estimators compare them with each other and refuse 1."""


class ReinforceConfig(PolicyGradientOptions):
    """REINFORCE++: returns of each token, normalised over the whole batch; one response a prompt will do."""

    stage: ClassVar[str] = "reinforce"

    estimator: Estimator = "reinforce++"
    """See above."""
    num_generations: int = Field(1, ge=1)
    """Responses per prompt."""


def _stage(summary: str, options: type[PolicyGradientOptions]) -> Stage:
    return Stage(summary, options, "hearken.algorithms.policy_gradient", (MODEL, DATA, REWARD, REF))


STAGES = (
    _stage("RLOO: critic-free, a response against the others of its prompt", RLOOConfig),
    _stage("GRPO and Dr. GRPO: critic-free, normalised within each prompt", GRPOConfig),
    _stage("REINFORCE++: critic-free, normalised over the batch", ReinforceConfig),
)
