"""Estimates with their intervals. Rows that share a prompt are not independent, so prompts are what is resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 4_000_000  # draws held in memory at once


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
) -> Interval:
    """Percentile interval of a statistic, by resampling whole clusters with replacement (Efron and Tibshirani 1993).

    Where every value is the same the interval has no width: for a rate at 0 or 1 over independent rows use `wilson`.

    Args:
        values: (N,) numbers, or (N, ...) rows that the statistic understands.
        clusters: N labels, e.g. the prompt of each value; None treats each value as its own cluster.
        statistic: of the resampled values; None is the mean, computed without copying any.
        n: resamples.
        seed: of the resampling.
        level: of confidence.

    Returns:
        The statistic of the values themselves, and the interval.

    Raises:
        ValueError: no values, or another number of clusters than of values.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape[0] == 0:
        raise ValueError("no values to bootstrap")
    if clusters is None:
        index = np.arange(rows.shape[0])
    else:
        if len(clusters) != rows.shape[0]:
            raise ValueError(f"{rows.shape[0]} values but {len(clusters)} clusters")
        number: dict[Hashable, int] = {}
        index = np.array([number.setdefault(cluster, len(number)) for cluster in clusters])
    size = np.bincount(index)
    estimate = float(rows.mean() if statistic is None else statistic(rows))
    if len(size) == 1:
        return Interval(estimate, math.nan, math.nan)

    random = np.random.default_rng(seed)
    if statistic is None:
        total = np.zeros(len(size))
        np.add.at(total, index, rows)
        resampled = _resampled_means(total, size, n, random)
    else:
        members = np.split(np.argsort(index, kind="stable"), np.cumsum(size)[:-1])
        draws = (random.integers(len(size), size=len(size)) for _ in range(n))
        resampled = np.array([statistic(rows[np.concatenate([members[c] for c in draw])]) for draw in draws])
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def _resampled_means(
    total: NDArray[np.float64], size: NDArray[np.int64], n: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Means of ``n`` resamples, from each cluster's sum and size: (C,), (C,) to (n,)."""
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


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's (1927) score interval of a rate over ``n`` independent trials; ties may count half a success.

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
