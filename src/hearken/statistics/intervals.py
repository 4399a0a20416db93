"""Estimates with their intervals. Rows that share a prompt are not independent, so prompts are what is resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 4_000_000  # draws held in memory at once
_MANY = 5_000  # clusters from which on they are drawn one by one


class Interval(NamedTuple):
    """An estimate and its confidence interval; bounds are NaN where the data cannot give one (a single cluster)."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        """Three significant digits: ``0.812 [0.77, 0.851]``."""
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def cluster_bootstrap(
    values: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    weights: ArrayLike | None = None,
) -> Interval:
    """Percentile interval of a statistic, by resampling whole clusters with replacement (Efron and Tibshirani 1993).

    Where every value is the same the interval has no width: for a rate at 0 or 1 over independent rows use `wilson`.

    Args:
        values: (N,) numbers, or (N, ...) rows that the statistic understands.
        clusters: N labels, e.g. the prompt of each value; None treats each value as its own cluster.
        statistic: of the resampled values; None is the mean, computed without copying any. It may be NaN where a
            resample lacks the rows it needs (see `percentile`).
        n: resamples.
        seed: of the resampling.
        level: of confidence.
        weights: (N,) above 0, of the values in their mean; None is 1 each.

    Returns:
        The statistic of the values themselves, and the interval.

    Raises:
        ValueError: no values, another number of clusters than of values, or weights beside a statistic.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape[0] == 0:
        raise ValueError("no values to bootstrap")
    if weights is not None and statistic is not None:
        raise ValueError("weights are of the mean; another statistic weighs its rows itself")
    index = cluster_index(clusters, rows.shape[0])
    size = np.bincount(index)
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    estimate = float(np.average(rows, weights=weight) if statistic is None else statistic(rows))
    if len(size) == 1:
        return Interval(estimate, math.nan, math.nan)

    random = np.random.default_rng(seed)
    if statistic is None:
        total, counted = np.zeros(len(size)), np.zeros(len(size))
        np.add.at(total, index, weight * rows)
        np.add.at(counted, index, weight)
        resampled = _resampled_means(total, counted, n, random)
    else:
        members = np.split(np.argsort(index, kind="stable"), np.cumsum(size)[:-1])
        draws = (random.integers(len(size), size=len(size)) for _ in range(n))
        resampled = np.array([statistic(rows[np.concatenate([members[c] for c in draw])]) for draw in draws])
    return percentile(resampled, estimate, level)


def _resampled_means(
    total: NDArray[np.float64], size: NDArray[np.float64], n: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Means of ``n`` resamples, from each cluster's weighted sum and its weight: (C,), (C,) to (n,)."""
    clusters = len(size)
    means = []
    for start in range(0, n, step := max(1, _CHUNK // clusters)):
        draws = random.integers(clusters, size=(min(step, n - start), clusters))
        means.append(total[draws].sum(1) / size[draws].sum(1))
    return np.concatenate(means)


def paired_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of ours minus theirs on the same rows, e.g. the correctness of two models, with its clustered interval.

    Raises:
        ValueError: the two differ in length, or see `cluster_bootstrap`.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired rows differ in number: {a.shape} and {b.shape}")
    return cluster_bootstrap(a - b, clusters, n=n, seed=seed, level=level)


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's (1927) score interval of a rate over ``n`` independent trials; ties may count half a success.

    ``n`` need not be whole: an effective number of trials is one too.

    Raises:
        ValueError: no trials, or successes outside 0..n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials make no rate")
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return Interval(rate, max(0.0, centre - half), min(1.0, centre + half))


def clustered_wilson(
    hits: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    level: float = 0.95,
    weights: ArrayLike | None = None,
) -> Interval:
    """`wilson` for trials that come in clusters, e.g. the pairs of one ranking: it counts n over the design effect.

    The design effect is the variance of the rate with whole clusters as the unit, over that of independent trials,
    and never below 1 (Korn and Graubard 1998). Where every trial is the same it cannot be known: each cluster counts
    as one trial. With clusters of one trial this is `wilson`; unlike a bootstrap it holds with few clusters, and at 0
    and 1. Weighted trials are worth (Σw)²/Σw² (Kish 1965).

    Args:
        hits: (N,) 1 or 0, or between.
        clusters: N labels; None treats each trial as its own cluster.
        level: of confidence.
        weights: (N,) above 0; None is 1 each.

    Raises:
        ValueError: no trials, or another number of clusters than of trials.
    """
    rows = np.asarray(hits, dtype=np.float64)
    index = cluster_index(clusters, len(rows))
    if len(rows) == 0:
        raise ValueError("no trials make no rate")
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    total, size = np.bincount(index, weights=weight * rows), np.bincount(index, weights=weight)
    every, count = float(size.sum()), len(size)
    rate, worth = float(total.sum()) / every, every**2 / float(np.sum(weight**2))
    independent = rate * (1 - rate) / worth
    if len(rows) == count:
        trials = worth
    elif independent == 0 or count == 1:
        trials = min(float(count), worth)
    else:
        between = count / (count - 1) * float(np.sum((total - rate * size) ** 2)) / every**2
        trials = max(worth / max(between / independent, 1.0), 1.0)
    return wilson(rate * trials, trials, level)


def cluster_index(clusters: Sequence[Hashable] | NDArray[np.generic] | None, rows: int) -> NDArray[np.int64]:
    """(rows,) number of each row's cluster, 0, 1, ... in order of appearance; None gives each row its own.

    Raises:
        ValueError: another number of clusters than of rows.
    """
    if clusters is None:
        return np.arange(rows)
    if len(clusters) != rows:
        raise ValueError(f"{rows} values but {len(clusters)} clusters")
    if isinstance(clusters, np.ndarray) and clusters.dtype.kind in "iu":
        _, first, found = np.unique(clusters, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[found]
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(cluster, len(number)) for cluster in clusters], dtype=np.int64)


def resampled_counts(clusters: int, n: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each cluster is drawn in each of ``n`` bootstrap resamples: (n, clusters).

    For statistics that are functions of weighted sums over clusters, and so need no copy of any row.
    """
    return np.concatenate(list(resamples(clusters, n, seed)))


def resamples(clusters: int, n: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """The rows of `resampled_counts`, some at a time, so that memory does not grow with their product."""
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // (8 * clusters))
    for start in range(0, n, step):
        rows = min(step, n - start)
        if clusters <= _MANY:
            found = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows)
        else:  # the same distribution, a tenth of the time: a multinomial number is a chain of binomial ones
            draws = (random.integers(clusters, size=clusters) for _ in range(rows))
            found = np.stack([np.bincount(draw, minlength=clusters) for draw in draws])
        yield found.astype(np.float64)


def percentile(draws: NDArray[np.float64], estimate: float, level: float = 0.95) -> Interval:
    """The percentile interval of bootstrap draws; those that are NaN (a resample without the needed rows) are left out.

    Bounds are NaN where more than a tenth of the draws are.
    """
    kept = draws[~np.isnan(draws)]
    if len(kept) < 0.9 * len(draws) or len(kept) == 0:
        return Interval(estimate, math.nan, math.nan)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
