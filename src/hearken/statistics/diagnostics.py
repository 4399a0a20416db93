"""What a labeler's comparisons give away: a lean to one side or to length, ties, not agreeing with oneself."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.statistics.intervals import Interval, cluster_index, clustered_wilson

UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class LabelerDiagnostics:
    """Rates with their intervals; NaN where there was nothing to measure them on."""

    first_side: Interval
    """Share of decided pairs of known order in which the response shown first (left) won; 0.5 is no bias, as sides are
    random."""
    longer: Interval
    """Share of decided pairs of unequal length in which the longer one won. Longer ones may be better: read it beside
    everyone's."""
    tie: Interval
    """Share of pairs that were tied."""
    pairs: int
    """Pairs that were judged."""


NOTHING = LabelerDiagnostics(UNKNOWN, UNKNOWN, UNKNOWN, 0)
"""Of a labeler who compared nothing."""


def diagnose(
    outcomes: ArrayLike,
    first_length: ArrayLike,
    second_length: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    level: float = 0.95,
    *,
    shown_first: ArrayLike | None = None,
    tied: ArrayLike | None = None,
) -> LabelerDiagnostics:
    """Diagnostics of pairs of responses. A share of votes counts as much as it is.

    Args:
        outcomes: (N,) of the first response: 1 it was preferred, 0.5 a tie, 0 the other one, or a share of votes.
        first_length: (N,) length of the first response.
        second_length: (N,) of the other.
        clusters: N labels, e.g. the prompt of each pair; None if every pair has its own.
        level: of confidence.
        shown_first: (N,) 1 where the first response was shown first, 0 the other one, -1 where that is unknown; None is
            1 everywhere.
        tied: (N,) which pairs were tied; None is those with an outcome of 0.5.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    lead = np.asarray(first_length, dtype=np.float64) - np.asarray(second_length, dtype=np.float64)
    shown = np.ones(len(y)) if shown_first is None else np.asarray(shown_first)
    tie = y == 0.5 if tied is None else np.asarray(tied, dtype=bool)
    owner = cluster_index(clusters, len(y))

    def rate(hits: NDArray[np.float64], where: NDArray[np.bool_]) -> Interval:
        return clustered_wilson(hits[where], owner[where], level) if where.any() else UNKNOWN

    return LabelerDiagnostics(
        first_side=rate(np.where(shown == 1, y, 1 - y), ~tie & (shown >= 0)),
        longer=rate(np.where(lead > 0, y, 1 - y), ~tie & (lead != 0)),
        tie=rate(tie.astype(np.float64), np.ones(len(y), dtype=bool)),
        pairs=len(y),
    )


def consistency(
    first: Sequence[Hashable], again: Sequence[Hashable], clusters: Sequence[Hashable] | None = None
) -> Interval:
    """How often a labeler who is asked the same thing again says the same; NaN where nothing was asked twice.

    Args:
        first: (N,) what was said.
        again: (N,) what was said of the same pairs later.
        clusters: the judgment of each pair; None if every one has its own.
    """
    same = [a == b for a, b in zip(first, again, strict=True)]
    return clustered_wilson(same, clusters) if same else UNKNOWN
