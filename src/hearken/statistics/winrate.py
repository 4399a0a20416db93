"""How often one policy's responses beat another's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.statistics.intervals import Interval, cluster_bootstrap

TIE = 1e-9
"""Scores no further apart are equal, but for rounding."""


def outcomes(ours: ArrayLike, theirs: ArrayLike, tie: float = TIE) -> NDArray[np.float64]:
    """1 where ours scores higher, 0 where theirs does, 0.5 where they are within ``tie`` of each other."""
    lead = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return np.where(np.abs(lead) <= tie, 0.5, (lead > 0).astype(np.float64))


def win_rate(
    outcomes: ArrayLike,
    prompts: Sequence[Hashable] | NDArray[np.generic] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    weights: ArrayLike | None = None,
) -> Interval:
    """Share of comparisons won, ties counting half, with an interval by bootstrap over prompts.

    Args:
        outcomes: (N,) 1 won, 0.5 tied, 0 lost (or a share of votes between).
        prompts: the prompt of each comparison; None if every one has its own.
        n: resamples.
        seed: of the resampling.
        level: of confidence.
        weights: (N,) above 0, of the comparisons; None is 1 each.

    Returns:
        The rate over all comparisons.

    Raises:
        ValueError: an outcome outside 0..1, or see `cluster_bootstrap`.
    """
    won = np.asarray(outcomes, dtype=np.float64)
    if not np.all((won >= 0) & (won <= 1)):
        raise ValueError("an outcome is a number from 0 (lost) to 1 (won)")
    return cluster_bootstrap(won, prompts, n=n, seed=seed, level=level, weights=weights)
