"""Where proxy and gold reward part during a run: the sign of over-optimisation that can be seen while it happens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    half = max(window, 1) // 2
    index = np.arange(len(y))
    start, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
    return [float(v) for v in (total[end] - total[start]) / (end - start)]


def find_divergence(steps: Sequence[float], proxy: Sequence[float], gold: Sequence[float]) -> Divergence | None:
    """Is the reward model being fooled: does gold fall while the proxy rises?

    Both are smoothed over a tenth of the run. From gold's peak to the end, gold must fall and the proxy rise by more
    than a tenth of its own range over the run and more than three standard errors of a difference of smoothed points,
    the noise being judged from differences of neighbouring rows.

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

    def beyond(change: float, raw: Sequence[float], level: list[float]) -> bool:
        noise = float(np.std(np.diff(np.asarray(raw, dtype=float)))) / math.sqrt(2)
        return change > max(0.1 * (max(level) - min(level)), 3 * noise * math.sqrt(2 / window))

    top = int(np.argmax(smoothed["gold"]))
    fall = smoothed["gold"][top] - smoothed["gold"][-1]
    rise = smoothed["proxy"][-1] - smoothed["proxy"][top]
    return Divergence(
        steps=[float(s) for s in steps],
        proxy=smoothed["proxy"],
        gold=smoothed["gold"],
        fooled=fall > 0
        and rise > 0
        and beyond(fall, gold, smoothed["gold"])
        and beyond(rise, proxy, smoothed["proxy"]),
        peak=float(steps[top]),
        gold_fall=fall,
        proxy_rise=rise,
    )
