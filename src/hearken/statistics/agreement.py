"""How far labelers agree, beyond what chance would give. A unit is what several labelers judged, e.g. one pair."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.statistics.intervals import Interval, cluster_index, percentile, resamples

Level = Literal["nominal", "ordinal", "interval"]
"""How far apart two values are: all alike, by the ranks between them, by their difference."""


def value_counts(units: ArrayLike, values: ArrayLike, number_of_values: int) -> NDArray[np.int64]:
    """(U, V) how many labelers gave each unit each value, from one row a judgment.

    Args:
        units: (N,) number of the judged unit, 0..U-1.
        values: (N,) number of the value, 0..V-1, in order where they have one.
        number_of_values: V.
    """
    unit, value = np.asarray(units, dtype=np.int64), np.asarray(values, dtype=np.int64)
    rows = int(unit.max()) + 1 if len(unit) else 0
    cells = np.bincount(unit * number_of_values + value, minlength=rows * number_of_values)
    return cells.reshape(rows, number_of_values)


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Cohen's (1960) κ = (p_o - p_e)/(1 - p_e) of two labelers who judged the same N units.

    p_o is the share of units on which they agree, p_e the share on which they would if each gave values at random with
    their own frequencies.

    Returns:
        At most 1; 0 is chance; NaN where both gave one and the same value only (chance alone explains all).

    Raises:
        ValueError: no units, or different numbers of them.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"Cohen's kappa of {len(a)} and {len(b)} judgments")
    return float(_kappa(_crossed(a, b, np.zeros(len(a), dtype=np.int64)))[0])


def cohen_kappa_interval(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """`cohen_kappa` with its interval by bootstrap over ``clusters``, e.g. the prompt of each unit."""
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"Cohen's kappa of {len(a)} and {len(b)} judgments")
    tables = _crossed(a, b, cluster_index(clusters, len(a)))
    estimate = float(_kappa(tables.sum(0)[None])[0])
    if len(tables) == 1:
        return Interval(estimate, math.nan, math.nan)
    flat = tables.reshape(len(tables), -1)
    drawn = np.concatenate([_kappa((c @ flat).reshape(-1, *tables.shape[1:])) for c in resamples(len(flat), n, seed)])
    return percentile(drawn, estimate, confidence)


def _crossed(a: Sequence[Hashable], b: Sequence[Hashable], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C, V, V) how often the one said v where the other said w, in each cluster."""
    values = {value: i for i, value in enumerate(dict.fromkeys([*a, *b]))}
    tables = np.zeros((int(cluster.max()) + 1, len(values), len(values)))
    np.add.at(tables, (cluster, np.array([values[x] for x in a]), np.array([values[y] for y in b])), 1.0)
    return tables


def _kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """κ of B tables, (B, V, V) to (B,); NaN where chance alone explains all."""
    size = tables.sum((1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / size
    expected = (tables.sum(1) * tables.sum(2)).sum(1) / size**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), math.nan)


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' (1971) κ over units that each have the same number n ≥ 2 of judgments, whoever gave them.

    κ = (P - P_e)/(1 - P_e), P the mean over units of Σ_v n_uv (n_uv - 1)/(n(n - 1)), P_e = Σ_v p_v².

    Args:
        counts: (U, V) judgments of each value; see `value_counts`.

    Raises:
        ValueError: no units, or units with different numbers of judgments (`krippendorff_alpha` takes them).
    """
    table = np.asarray(counts, dtype=np.float64)
    each = table.sum(1)
    if len(table) == 0 or each.min() != each.max() or each[0] < 2:
        raise ValueError("Fleiss' kappa needs units with the same number of judgments, two or more")
    n = each[0]
    agreed = float(np.mean((table * (table - 1)).sum(1) / (n * (n - 1))))
    expected = float(np.sum((table.sum(0) / table.sum()) ** 2))
    return math.nan if expected == 1 else (agreed - expected) / (1 - expected)


def krippendorff_alpha(
    counts: ArrayLike,
    level: Level = "nominal",
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    values: Sequence[float] | None = None,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Krippendorff's (2011) α = 1 - D_o/D_e, with an interval by bootstrap over units (Zapf et al. 2016).

    Any number of labelers, any of them missing anywhere. With o_ck = Σ_u n_uc (n_uk - [c = k])/(m_u - 1) over units of
    m_u ≥ 2 judgments, n_c = Σ_k o_ck and N = Σ_c n_c: D_o = Σ o_ck δ²_ck / N and D_e = Σ n_c n_k δ²_ck / (N(N - 1)).
    δ² is [c ≠ k] (nominal), (Σ_{g=c..k} n_g - (n_c + n_k)/2)² (ordinal) or (v_c - v_k)² (interval). Units with a
    single judgment say nothing and are left out.

    Args:
        counts: (U, V) judgments of each value, values in order; see `value_counts`.
        level: of measurement.
        clusters: U labels, e.g. the prompt of each unit, resampled whole; None if units are independent.
        values: (V,) what the values are worth, for level "interval"; by default 0, 1, ...
        n: resamples.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        1 is perfect, 0 is chance. NaN where all values are the same, or no unit has two judgments.
    """
    table = np.asarray(counts, dtype=np.float64)
    each = table.sum(1) if len(table) else np.zeros(0)
    shared = each >= 2
    if not shared.any():
        return Interval(math.nan, math.nan, math.nan)
    owner = cluster_index(clusters, len(table))[shared]
    table, each = table[shared], each[shared]
    size = table.shape[1]
    _, owner = np.unique(owner, return_inverse=True)
    by_cluster = np.empty((int(owner.max()) + 1, size, size))
    for c, k in np.ndindex(size, size):  # one cell at a time: all of all units would be V² times as large
        by_cluster[:, c, k] = np.bincount(owner, table[:, c] * (table[:, k] - (c == k)) / (each - 1))
    worth = np.arange(size, dtype=np.float64) if values is None else np.asarray(values, dtype=np.float64)
    estimate = float(_alpha(by_cluster.sum(0)[None], level, worth)[0])
    if len(by_cluster) == 1:
        return Interval(estimate, math.nan, math.nan)
    flat = by_cluster.reshape(len(by_cluster), -1)
    drawn = np.concatenate([counts @ flat for counts in resamples(len(flat), n, seed)])
    return percentile(_alpha(drawn.reshape(n, size, size), level, worth), estimate, confidence)


def _alpha(observed: NDArray[np.float64], level: Level, worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """α of B coincidence matrices, (B, V, V) to (B,)."""
    n = observed.sum(2)
    size = n.shape[1]
    if level == "nominal":
        distance = np.broadcast_to(1 - np.eye(size), observed.shape)
    elif level == "interval":
        distance = np.broadcast_to((worth[:, None] - worth[None, :]) ** 2, observed.shape)
    else:
        middle = np.cumsum(n, 1) - n / 2  # how many lie below the middle of a value
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    total = n.sum(1)
    found = (observed * distance).sum((1, 2))
    expected = (n[:, :, None] * n[:, None, :] * distance).sum((1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = 1 - (total - 1) * found / expected
    return np.where(expected > 0, alpha, math.nan)


def raw_agreement(
    counts: ArrayLike,
    clusters: Sequence[Hashable] | NDArray[np.generic] | None = None,
    n: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """How often two judgments of one unit are the same: the share over all such pairs of judgments.

    Args:
        counts: (U, V) judgments of each value; see `value_counts`.
        clusters: U labels that are resampled whole; None if units are independent.
        n: resamples.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        NaN where no unit has two judgments.
    """
    table = np.asarray(counts, dtype=np.float64)
    each = table.sum(1) if len(table) else np.zeros(0)
    owner = cluster_index(clusters, len(table))[each >= 2]
    table, each = table[each >= 2], each[each >= 2]
    if len(table) == 0:
        return Interval(math.nan, math.nan, math.nan)
    _, owner = np.unique(owner, return_inverse=True)
    same = np.bincount(owner, weights=(table * (table - 1)).sum(1))
    all_pairs = np.bincount(owner, weights=each * (each - 1))
    estimate = float(same.sum() / all_pairs.sum())
    if len(same) == 1:
        return Interval(estimate, math.nan, math.nan)
    both = np.stack([same, all_pairs], axis=1)
    drawn = np.concatenate([counts @ both for counts in resamples(len(same), n, seed)])
    return percentile(drawn[:, 0] / drawn[:, 1], estimate, confidence)
