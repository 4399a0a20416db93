"""A learned reward model as a scorer of responses, and the protocol of everything that scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from hearken.models.layout import Group
from hearken.models.scorers import RewardScorer
from hearken.training.forward import gather


class Reward(Protocol):
    """Scores responses, higher is better."""

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        ...


class LearnedReward:
    """A `RewardScorer` over any number of groups, microbatched by tokens, without gradient.

    With a ``label`` a bar says how far it is.
    """

    def __init__(self, scorer: RewardScorer, tokens: int, label: str = "") -> None:
        self.scorer, self.tokens, self.label = scorer, tokens, label

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        return gather(self.scorer, groups, self.tokens, self.scorer, self.label)
