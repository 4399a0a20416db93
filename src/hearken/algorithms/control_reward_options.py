"""Options of reward models of clips."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.stage import DATA, Input, Stage
from hearken.config import Options


class ClipRewardConfig(Options):
    """A reward of single steps from comparisons of clips (Christiano et al. 2017, section 2.2)."""

    stage: ClassVar[str] = "reward"
    reported: ClassVar[tuple[str, ...]] = ("ensemble", "steps")

    seed: int = 0
    """Of the first weights, of which comparisons each member sees, and of their order."""
    ensemble: int = Field(3, ge=1)
    """Networks, each fitted to its own draw of the comparisons with replacement; policies are paid their mean."""
    hidden: int = Field(64, ge=1)
    """Units of each of the two hidden layers."""
    steps: int = Field(300, ge=1)
    """Of Adam."""
    refit_steps: int = Field(30, ge=1)
    """The same where labels arrive while a policy trains, at each refit."""
    batch_size: int = Field(64, ge=1)
    """Comparisons a step, for each network."""
    lr: float = Field(1e-3, gt=0)
    """Adam's step size."""
    weight_decay: float = Field(1e-2, ge=0)
    """At the start. It is doubled where the loss on held-out comparisons is above 1.5 times that on the others, and
    halved below 1.1 times."""
    error_rate: float = Field(0.1, ge=0, lt=1)
    """Share of the answers that are assumed to be given at random."""


ENVIRONMENT = Input("model", "The policy or environment whose clips were compared: others are refused.", "model")
HELD_OUT = Input("validation", "Held-out comparisons, on which the accuracy is measured.", required=False)

STAGES = (
    Stage(
        "Reward model of single steps, from comparisons of clips", ClipRewardConfig,
        "hearken.algorithms.control_reward",
        (ENVIRONMENT, DATA, HELD_OUT), ("comparison",), domain="control", makes="reward",
        done="Learned a reward of single steps from comparisons of clips",
    ),
)  # fmt: skip
