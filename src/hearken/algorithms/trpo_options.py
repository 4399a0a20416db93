"""Options of TRPO."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.ppo_options import CriticOptions
from hearken.algorithms.stage import DATA, MODEL, REF, REWARD, Stage


class TRPOConfig(CriticOptions):
    """Trust-region policy optimisation: a natural-gradient step of a given length in KL, checked by a line search."""

    stage: ClassVar[str] = "trpo"

    precision: Literal["fp32"] = "fp32"
    """A step's length in KL is measured by small differences, which bf16 would drown."""
    epochs: Literal[1] = 1  # type: ignore[assignment]
    """One step of the policy on each batch."""
    minibatches: Literal[1] = 1  # type: ignore[assignment]
    """On the whole of it."""
    batch_size: int = Field(128, ge=1)
    """Responses sampled per iteration."""
    max_kl: float = Field(0.01, gt=0)
    """Mean KL per token that a step may cost: the trust region."""
    cg_steps: int = Field(10, ge=1)
    """Steps of the conjugate gradient."""
    damping: float = Field(0.1, ge=0)
    """Added to the Fisher matrix's diagonal, so that directions the samples say nothing about stay small."""
    fisher_share: float = Field(0.25, gt=0, le=1)
    """Share of a batch's prompts that the Fisher matrix is measured on."""
    value_steps: int = Field(4, ge=1)
    """Steps of the value model on each batch."""
    line_search: int = Field(10, ge=1)
    """Most halvings of the step."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate of the value model (the policy's step has a length, not a rate)."""


STAGES = (
    Stage(
        "TRPO: natural-gradient steps within a trust region", TRPOConfig, "hearken.algorithms.trpo",
        (MODEL, DATA, REWARD, REF),
    ),
)  # fmt: skip
