"""Where proxy and gold reward part during a run: the sign of over-optimisation that can be seen while it happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_NORMAL = NormalDist()
FEWEST = 5
"""Rows below which nothing can be said."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Proxy and gold reward over a run, smoothed, and whether they part (over-optimisation, Gao et al. 2022)."""

    steps: list[float]
    proxy: list[float]
    gold: list[float]
    fooled: bool
    """Gold fell from its peak, beyond noise, while the proxy went on rising."""
    peak: float
    """The step at which gold was highest."""
    gold_fall: float
    """Gold at its peak minus gold at the end, in gold's units; ≥ 0."""
    proxy_rise: float
    """Proxy at the end minus proxy at gold's peak, in the proxy's units."""


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average over ``window`` values, shorter at both ends; same length as ``values``."""
    y = np.asarray(values, dtype=float)
    total = np.concatenate([[0.0], np.cumsum(y)])
    start, end = _bounds(np.arange(len(y)), window, len(y))
    return [float(v) for v in (total[end] - total[start]) / (end - start)]


def _bounds(at: NDArray[np.int64], window: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and one past the last of the windows around the rows ``at``."""
    half = max(window, 1) // 2
    return np.maximum(at - half, 0), np.minimum(at + half + 1, rows)


def _spread(one: int, other: int, window: int, rows: int) -> float:
    """Standard deviation of the difference of two smoothed points, where that of a single row is 1.

    At both ends a window holds fewer rows than inside, and rows that both windows share do not count.
    """
    (start, other_start), (end, other_end) = _bounds(np.array([one, other]), window, rows)
    index = np.arange(rows)
    weight = ((index >= start) & (index < end)) / (end - start)
    weight -= ((index >= other_start) & (index < other_end)) / (other_end - other_start)
    return float(np.linalg.norm(weight))


def find_divergence(steps: Sequence[float], proxy: Sequence[float], gold: Sequence[float]) -> Divergence | None:
    """Is the reward model being fooled: does gold fall while the proxy rises?

    Both are smoothed over a tenth of the run. From gold's peak to the end, gold must fall and the proxy rise by more
    than a tenth of its own range over the run and more than three standard errors of the difference of these two
    smoothed points, the noise being judged from differences of neighbouring rows. As the peak is the highest of many
    points, gold's fall must be as unlikely for all of them together as three standard errors are for one (Bonferroni).

    Args:
        steps: (N,).
        proxy: (N,) mean score of the reward model.
        gold: (N,) mean true reward of the same responses.

    Returns:
        None for fewer than `FEWEST` rows.
    """
    if len(steps) < FEWEST:
        return None
    window = max(3, len(steps) // 10) | 1
    smoothed = {"proxy": smooth(proxy, window), "gold": smooth(gold, window)}
    top = int(np.argmax(smoothed["gold"]))
    spread = _spread(top, len(steps) - 1, window, len(steps))

    highest_of = -_NORMAL.inv_cdf(_NORMAL.cdf(-3) / len(steps))  # standard errors

    def beyond(change: float, raw: Sequence[float], level: list[float], errors: float) -> bool:
        noise = float(np.std(np.diff(np.asarray(raw, dtype=float)))) / math.sqrt(2)
        return change > max(0.1 * (max(level) - min(level)), errors * noise * spread)

    fall = smoothed["gold"][top] - smoothed["gold"][-1]
    rise = smoothed["proxy"][-1] - smoothed["proxy"][top]
    return Divergence(
        steps=[float(s) for s in steps],
        proxy=smoothed["proxy"],
        gold=smoothed["gold"],
        fooled=fall > 0
        and rise > 0
        and beyond(fall, gold, smoothed["gold"], highest_of)
        and beyond(rise, proxy, smoothed["proxy"], 3.0),
        peak=float(steps[top]),
        gold_fall=fall,
        proxy_rise=rise,
    )
