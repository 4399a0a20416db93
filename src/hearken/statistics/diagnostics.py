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
    """Share of decided pairs in which the response shown first (left) won; 0.5 is no bias, as sides are random."""
    longer: Interval
    """Share of decided pairs of unequal length in which the longer one won. Longer ones may be better: read it beside
    everyone's."""
    tie: Interval
    """Share of pairs that were tied."""
    pairs: int
    """Pairs that were judged."""


def diagnose(
    outcomes: ArrayLike,
    first_length: ArrayLike,
    second_length: ArrayLike,
    judgments: Sequence[Hashable] | NDArray[np.generic] | None = None,
    level: float = 0.95,
) -> LabelerDiagnostics:
    """Diagnostics of pairs in the order they were shown; pairs of one ranking are one cluster.

    Args:
        outcomes: (N,) 1 the response shown first was preferred, 0.5 a tie, 0 the other one.
        first_length: (N,) length of the response shown first.
        second_length: (N,) of the other.
        judgments: the judgment of each pair; None if every one has its own.
        level: of confidence.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    lead = np.asarray(first_length, dtype=np.float64) - np.asarray(second_length, dtype=np.float64)
    owner = cluster_index(judgments, len(y))
    decided, unequal = y != 0.5, (y != 0.5) & (lead != 0)

    def rate(hits: ArrayLike, where: ArrayLike) -> Interval:
        kept = np.asarray(where, dtype=bool)
        return clustered_wilson(np.asarray(hits)[kept], owner[kept], level) if kept.any() else UNKNOWN

    return LabelerDiagnostics(
        first_side=rate(y > 0.5, decided),
        longer=rate((y > 0.5) == (lead > 0), unequal),
        tie=rate(y == 0.5, np.ones(len(y), dtype=bool)),
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
