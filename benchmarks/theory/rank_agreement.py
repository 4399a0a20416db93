"""Agreement of scores with rankings."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from hearken.statistics.intervals import Interval, cluster_bootstrap


class RankAgreement(NamedTuple):
    """What `kendall_tau` returns."""

    mean: Interval
    """Mean of τ-b over the rankings that have one, with its interval; NaN if none has."""
    per_ranking: NDArray[np.float64]
    """(N,) τ-b of each ranking, NaN where it orders nothing."""


def tau_b(scores: Sequence[float], ranks: Sequence[int | None]) -> float:
    """Kendall's τ-b of one ranking: 1 if the scores fall as the ranks rise, -1 if turned round, corrected for ties.

    Args:
        scores: K of them, higher is better.
        ranks: K of them, 0 is best, equal numbers are ties; None or negative is left out.

    Returns:
        -1..1; 0 where the scores are all equal (they say nothing), NaN where the ranking orders nothing.
    """
    if len(scores) != len(ranks):
        raise ValueError(f"{len(scores)} scores but {len(ranks)} ranks")
    kept = [(score, -rank) for score, rank in zip(scores, ranks, strict=True) if rank is not None and rank >= 0]
    if len({rank for _, rank in kept}) < 2:
        return math.nan
    if len({score for score, _ in kept}) < 2:
        return 0.0
    return float(kendalltau(*zip(*kept, strict=True)).statistic)


def kendall_tau(
    scores: Sequence[Sequence[float]],
    ranks: Sequence[Sequence[int | None]],
    prompts: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> RankAgreement:
    """τ-b of each ranking and its mean, with an interval by bootstrap over prompts.

    Args:
        scores: N rankings of 2..K scores.
        ranks: the same shape, see `tau_b`.
        prompts: the prompt of each ranking; None if every one has its own.
        n: resamples.
        seed: of the resampling.
        level: of confidence.

    Returns:
        Rankings that order nothing are NaN and left out of the mean.
    """
    taus = np.array([tau_b(s, r) for s, r in zip(scores, ranks, strict=True)])
    kept = np.flatnonzero(~np.isnan(taus)).tolist()
    if not kept:
        return RankAgreement(Interval(math.nan, math.nan, math.nan), taus)
    clusters = None if prompts is None else [prompts[i] for i in kept]
    return RankAgreement(cluster_bootstrap(taus[kept], clusters, n=n, seed=seed, level=level), taus)
