"""Options of direct preference optimisation and its relatives."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.stage import DATA, MODEL, REF, Input, Stage, held_out
from hearken.config import Options
from hearken.training.options import TextOptions, TrainingOptions

PairLoss = Literal["dpo", "cdpo", "robust", "ipo", "hinge", "simpo", "orpo"]


class PairOptions(Options):
    """The objective on comparisons."""

    reported: ClassVar[tuple[str, ...]] = ("beta", "loss")

    loss: PairLoss = "dpo"
    """dpo; cdpo and robust for noisy labels; ipo; hinge (SLiC); simpo and orpo do without a reference policy."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull to the reference (IPO's tau; SimPO's scale; ORPO's weight of the odds ratio)."""
    log_ratio: Literal["sum", "mean"] = "sum"
    """Over a response's tokens: their sum, as the papers write it, or their mean, as IPO's authors advised later."""
    rankings: Literal["plackett_luce", "pairs"] = "plackett_luce"
    """Of more than two responses, with loss=dpo: the likelihood of the whole ranking, or the mean over its pairs."""
    ties: Literal["half", "drop"] = "half"
    """A tied pair is half a vote for either, or is left out. Not where rankings=plackett_luce reads more than two
    responses: its ties are Efron's, and stay."""
    margin: float = Field(0.0, ge=0)
    """With loss=dpo: lead in implicit reward asked of the better of a pair, times its strength (ODPO)."""
    epsilon: float = Field(0.1, ge=0, lt=0.5)
    """With cdpo and robust: the chance that a label is wrong."""
    gamma: float = Field(1.0, ge=0)
    """With simpo: lead asked of the better response; half of beta is a good start."""
    sft_coef: float | None = Field(None, ge=0)
    """Weight of the best response's mean negative log-likelihood per token (of several tied ones, their mean); none: 1
    with orpo, whose loss it is a part of, else 0."""

    @property
    def imitation(self) -> float:
        """``sft_coef``, or what the loss has of its own."""
        return float(self.loss == "orpo") if self.sft_coef is None else self.sft_coef


class DPOConfig(PairOptions, TrainingOptions, TextOptions):
    """A policy from comparisons and rankings, without a reward model."""

    stage: ClassVar[str] = "dpo"

    lr: float = Field(1e-6, gt=0)
    """Peak learning rate: ten times lower than in SFT, as likelihoods move fast."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the judgments."""
    batch_size: int = Field(32, ge=1)
    """Judgments per optimiser step: a ranking of K responses is one, its prompt computed once."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts held out, where no --validation is given."""
    cache_reference: bool = True
    """Compute the reference's log-probabilities once and keep them on disk; else in every step."""


class IPOConfig(DPOConfig):
    """IPO: DPO's data, with a loss that deterministic preferences cannot push without end."""

    stage: ClassVar[str] = "ipo"

    loss: PairLoss = "ipo"
    """See `hearken train dpo --help`."""


class SimPOConfig(DPOConfig):
    """SimPO: the length-normalised likelihood itself as the reward."""

    stage: ClassVar[str] = "simpo"

    loss: PairLoss = "simpo"
    """See `hearken train dpo --help`."""
    beta: float = Field(2.0, gt=0)
    """Scale of the reward, the mean log-probability per token."""


class ORPOConfig(DPOConfig):
    """ORPO: fine-tuning on the better response and an odds ratio against the worse, in one step from a base model."""

    stage: ClassVar[str] = "orpo"

    loss: PairLoss = "orpo"
    """See `hearken train dpo --help`."""
    lr: float = Field(8e-6, gt=0)
    """Peak learning rate."""


def _stage(summary: str, options: type[DPOConfig], *more: Input) -> Stage:
    inputs = (MODEL, DATA, held_out(options), *more)
    return Stage(summary, options, "hearken.algorithms.dpo", inputs, ("comparison",), likelihood=True)


STAGES = (
    _stage("DPO: a policy from comparisons and rankings, without a reward model", DPOConfig, REF),
    _stage("IPO: as DPO, for preferences that are nearly certain", IPOConfig, REF),
    _stage("SimPO: as DPO, without a reference policy", SimPOConfig),
    _stage("ORPO: fine-tuning and preference in one step, without a reference policy", ORPOConfig),
)
