"""The reward-model card as it is held and as it stands in ``card.json``: read and written here alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from hearken.errors import UserError
from hearken.evaluation.compare import Calibration
from hearken.evaluation.numbers import JsonFloat, JsonInterval, percent
from hearken.evaluation.people import Discovered, Strangers
from hearken.evaluation.record import Record
from hearken.rewards.trust import CARD, Verdict
from hearken.training.artifact import write_json

SHIFTED = 0.8
"""Area under the curve from which on a shift is remarked upon."""


class Slice(Record):
    """The accuracy on a part of the held-out pairs."""

    by: str
    """What they were divided by: ``strength``, ``tag``, ``length gap``, ``labeler group``, ``labeler``, ``round``."""
    name: str
    accuracy: JsonInterval
    count: int
    """Pairs."""


class Probe(Record):
    """One question put to the model, its answer as a number, and what it means."""

    name: str
    value: JsonInterval
    says: str


class Ensemble(Record):
    """How far several scores of one response disagree, and whether that tells their errors."""

    models: int
    """How many scores."""
    disagreement: JsonFloat
    """Mean standard deviation, over models, of a pair's score difference."""
    predicts_errors: JsonInterval
    """Chance that a wrongly ordered pair is more disputed than a rightly ordered one; 0.5 tells nothing."""
    by_third: tuple[JsonInterval, ...]
    """Accuracy of the mean score on the least, middle and most disputed third of the pairs."""
    of: Literal["reward models", "heads"] = "reward models"
    """What gave them: "reward models", or "heads" of one model, fitted to bootstrap samples of its comparisons."""


class Shift(Record):
    """Responses that the model is to score now, beside those it was trained on."""

    trained_on: int
    scored_now: int
    told_apart: JsonFloat
    """Area under the curve of a linear classifier on last-layer features, cross-validated: 0.5 no shift, 1 all new."""
    wider_than_training: JsonFloat
    """Share of the new ones whose confidence is wider than that of 95 % of the training responses (.05 is no shift)."""
    length: tuple[JsonFloat, JsonFloat]
    """Mean words, then and now."""
    score: tuple[JsonFloat, JsonFloat]
    """Mean score, then and now."""
    of: Sequence[str] = ()
    """Policies that the new ones are of, where known."""
    answers: str = ""
    """Digest of the new ones."""

    @property
    def says(self) -> list[str]:
        """What to do about it, in a sentence; nothing where there is little shift."""
        if not self.told_apart > SHIFTED:
            return []
        return [
            f"The responses it scores now are not those it was trained on (a linear test tells "
            f"{percent(self.told_apart)} of them apart): label some of them before trusting its score."
        ]


class Learnt(Record):
    """One point of a learning curve."""

    labels: int
    accuracy: JsonInterval
    parameters: int | None = None


class RewardCard(Verdict, Record):
    """What `card.make_card` finds."""

    version: Literal[1] = 1
    """Of this form."""
    reward: str
    """The reward model's name."""
    pairs: int
    """Decided held-out pairs (see `feedback.pairs`)."""
    prompts: int
    accuracy: JsonInterval
    longer_wins: JsonInterval
    """Share of the votes on pairs of unequal length (in words) that went to the longer response."""
    length_baseline: float
    """See the function of this name."""
    remarks: Sequence[str]
    """What else a reader should know, in sentences."""
    agreement: JsonInterval | None
    """How often two labelers agree on the same pair; None where no pair was judged twice."""
    ceiling: tuple[float, float] | None
    """Bounds of the accuracy that anyone can reach against single labels, from that agreement."""
    calibration: Calibration
    slices: Sequence[Slice]
    probes: Sequence[Probe]
    uniform: JsonInterval | None
    """Accuracy on the untouched, uniformly drawn slice; None where the data do not say how they were drawn."""
    selected: JsonInterval | None
    """Accuracy on what a rule selected."""
    lengths: Sequence[int]
    scores: Sequence[JsonFloat]
    """Words and score of every held-out response (at most 2,000), for plots."""
    ensemble: Ensemble | None = None
    shift: Shift | None = None
    learning: Sequence[Learnt] = ()
    learning_says: str = ""
    strangers: Strangers | None = None
    """A model fitted without some labelers, on theirs; None where nobody asked for it."""
    discovered: Discovered | None = None
    """Groups among the labelers; None where groups are declared, or too little is known of each labeler."""

    def with_shift(self, shift: Shift | None) -> RewardCard:
        """The same card with another look at what the model scores now."""
        stale = self.shift.says if self.shift is not None else []
        remarks = [said for said in self.remarks if said not in stale]
        return self.but(shift=shift, remarks=[*remarks, *(shift.says if shift is not None else ())])

    def save(self, folder: Path) -> Path:
        """Write ``card.json`` into the reward model's folder, where stages look for it."""
        path = folder / CARD
        write_json(path, json.loads(self.model_dump_json()))
        return path

    @classmethod
    def load(cls, folder: Path | str) -> RewardCard | None:
        """The card of a reward model; None where it has none.

        Raises:
            UserError: the file is damaged, or another version wrote it in another form.
        """
        path = Path(folder) / CARD
        try:
            return cls.model_validate_json(path.read_bytes()) if path.is_file() else None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            hint = f"Make it anew: hearken card {folder}"
            raise UserError(f"{path} is no card of this version ({where}: {first['msg']})", hint) from None
