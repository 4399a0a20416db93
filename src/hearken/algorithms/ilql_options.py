"""Options of ILQL."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.stage import DATA, MODEL, Stage
from hearken.training.options import TextOptions, TrainingOptions


class ILQLConfig(TrainingOptions, TextOptions):
    """Implicit Q-learning on recorded responses: values for every token, which guide decoding."""

    stage: ClassVar[str] = "ilql"
    reported: ClassVar[tuple[str, ...]] = ("beta",)

    epochs: float = Field(3.0, gt=0)
    """Passes over the data."""
    batch_size: int = Field(64, ge=1)
    """Responses per optimiser step."""
    lora_faster: ClassVar[float] = 3.0
    """The heads are trained at the same rate, all of their weights."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    gamma: float = Field(0.99, gt=0, le=1)
    """Discount per token."""
    tau: float = Field(0.7, gt=0, lt=1)
    """Expectile of V: towards 1 it stands for the best action in the data, at .5 for the average one."""
    cql: float = Field(0.1, ge=0)
    """Weight of the conservative term, which keeps Q low for tokens that the data do not show."""
    awac: float = Field(1.0, ge=0)
    """Weight of imitating the data."""
    awac_beta: float = Field(0.0, ge=0)
    """How much more of tokens with an advantage: weights e^(awac_beta(Q - V)); 0 imitates all alike."""
    polyak: float = Field(0.001, gt=0, le=1)
    """How fast the lagging heads, which guide decoding, follow the trained ones each step (trlX's alpha); a run of some
    hundred steps needs more."""
    beta: float = Field(1.0, ge=0)
    """Weight of Q - V in decoding: log π + beta(Q - V). Saved with the policy, and used wherever it is sampled."""


STAGES = (
    Stage(
        "ILQL: offline, values for every token from recorded responses with scores", ILQLConfig,
        "hearken.algorithms.ilql", (MODEL, DATA), ("rating", "thumb", "comparison"),
    ),
)  # fmt: skip
