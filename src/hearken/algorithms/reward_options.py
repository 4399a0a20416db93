"""Options of reward modelling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from hearken.algorithms.stage import DATA, MODEL, REFERENCES, Stage, held_out
from hearken.training.options import TextOptions, TrainingOptions


class RewardConfig(TrainingOptions, TextOptions):
    """A reward model from comparisons, rankings, ratings or thumbs."""

    stage: ClassVar[str] = "reward"
    reported: ClassVar[tuple[str, ...]] = ("loss", "only", "weights")

    epochs: float = Field(1.0, gt=0)
    """Passes over the judgments (more than one overfits soon: InstructGPT section C.2)."""
    batch_size: int = Field(32, ge=1)
    """Prompts per optimiser step: a ranking of K responses is one element, not K(K-1)/2."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts held out, where no --validation is given."""
    loss: Literal["kwise", "plackett_luce"] = "kwise"
    """Of rankings: all pairs of a prompt as one element (InstructGPT), or Plackett-Luce. The same for pairs."""
    ties: Literal["half", "drop"] = "half"
    """A tied pair is evidence for equality (label 0.5), or is left out as in InstructGPT."""
    label_smoothing: float = Field(0.0, ge=0, le=0.5)
    """Chance that a label is wrong."""
    margin: float = Field(0.0, ge=0)
    """Lead asked of the better response of a pair, times its strength (Llama 2)."""
    pooling: Literal["last", "mean"] = "last"
    """Read the score at the last response token (as AutoModelForSequenceClassification does), or average over all."""
    head_only: bool = False
    """Leave the network as it is and fit its head alone, to the optimum, on features computed once: one pass over the
    data instead of training, and less to overfit with. Epochs, batch_size, lr and the like then have no part in it."""
    ridge: float = Field(0.0, ge=0)
    """With --head-only: ridge/2 |v|^2 is added to the mean loss, v in units of the features' standard deviations; 0
    takes the one of 0.03 to 10 with the lowest held-out loss in five folds of the training prompts."""
    weights: dict[str, float] = {}
    """Of ratings on several attributes: what each counts in the score, e.g. {helpful: 1, honest: 0.5}; else alike.
    With --by: what each group counts in it; else as much as it judged."""
    by: str = ""
    """What labelers say about themselves (group, or any attribute), or labeler: a head for each, on one network."""
    shrink: float = Field(1.0, ge=0)
    """With --by: how strongly the heads are drawn together; at 1 they may differ by about as much as a fresh head."""
    normalise: Literal["mean", "unit", "none"] = "mean"
    """After training: reference responses score 0 on average (mean), and with standard deviation 1 (unit)."""
    calibrate_on: int = Field(256, ge=0)
    """For that, so many prompts' responses are scored, drawn at random; 0: all of them."""
    references_format: str = "auto"
    """Layout of --references, which need not be that of the data; as --format."""
    labeler_weights: str = ""
    """Weight judgments by labeler: reliability (from pairs that several judged), or a file (labeler, weight)."""
    population: dict[str, dict[str, Annotated[float, Field(ge=0)]]] = {}
    """Weight labelers so that they stand for these shares, e.g. {group: {hearth: 1, quest: 1}}."""
    only: str = ""
    """KEY=VALUE: only judgments of these labelers, e.g. group=quest (a declared attribute) or labeler=ID."""

    @model_validator(mode="after")
    def _head_alone(self) -> Self:
        """Refuse what has no meaning where the head alone is fitted."""
        if self.head_only and self.lora:
            raise ValueError("head_only and lora: adapters would not be trained; leave one of the two out")
        if self.head_only and self.by:
            raise ValueError(f"head_only and by={self.by}: heads by group are trained with the network; leave one out")
        if self.ridge and not self.head_only:
            raise ValueError("ridge belongs to head_only; without it, use weight_decay")
        return self


STAGES = (
    Stage(
        "Reward model from comparisons, rankings, ratings or thumbs", RewardConfig, "hearken.algorithms.reward",
        (MODEL, DATA, held_out(RewardConfig), REFERENCES), ("comparison", "rating", "thumb"), makes="reward",
        done="Learned to predict the judgments",
    ),
)  # fmt: skip
