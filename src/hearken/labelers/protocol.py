"""What every labeler that is not a person offers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hearken.feedback.examples import Content
from hearken.feedback.records import ComparisonPayload, LabelerKind


@dataclass(frozen=True, slots=True)
class Ranking:
    """A labeler's ranking of responses, and how they lay before it.

    ``ranks[i]`` is the rank of response i: 0 is best, equal numbers are ties, None was not ranked. ``order[place]`` is
    the index of the response shown at that place, None where every pair was shown both ways round.
    """

    ranks: tuple[int | None, ...]
    order: tuple[int, ...] | None

    def payload(self, response_ids: Sequence[str]) -> ComparisonPayload:
        """What the feedback database keeps of it, with the ids of the responses in the order they were given."""
        return ComparisonPayload(response_ids=tuple(response_ids), ranks=self.ranks)


@runtime_checkable
class Labeler(Protocol):
    """Whoever ranks responses without being a person."""

    @property
    def name(self) -> str:
        """A name that is its own in the panel."""
        ...

    @property
    def id(self) -> str:
        """Its id in feedback databases: another one for whoever might judge otherwise."""
        ...

    @property
    def kind(self) -> LabelerKind:
        """``"simulated"`` or ``"ai"``."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What is known about it, e.g. ``{"group": "hearth"}``."""
        ...

    def judge(self, prompt: Content, responses: Sequence[str], seed: int) -> Ranking:
        """Rank the responses to a prompt; the same seed gives the same ranking."""
        ...


def ranks_with_ties(scores: Sequence[float], tie: float) -> tuple[int, ...]:
    """Dense ranks, highest score first; a score less than ``tie`` below the best of a rank shares it."""
    ranks = [0] * len(scores)
    rank, best = -1, math.inf
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if best - scores[i] >= tie:
            rank, best = rank + 1, scores[i]
        ranks[i] = rank
    return tuple(ranks)
