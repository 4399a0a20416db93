"""How many comparisons it takes to tell two policies apart, before any is asked for; and seeds with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from hearken.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison of two policies takes."""

    win_rate: float
    """Of the better policy, ties counting half."""
    comparisons: int
    """Judgments to ask for."""
    prompts: int
    """Prompts they are spread over."""
    half_width: float
    """Of the 95 % interval of the win rate they will give."""


def comparisons_needed(
    win_rate: float,
    *,
    ties: float = 0.0,
    power: float = 0.8,
    level: float = 0.95,
    per_prompt: int = 1,
    correlation: float = 0.0,
) -> Plan:
    """Comparisons after which a policy that truly wins ``win_rate`` is found better than 50 % with chance ``power``.

    The two-sided test of a mean of outcomes 1, ½, 0 against ½, by the normal approximation:
    n = ((z_{1-α/2} σ₀ + z_{power} σ₁) / (w − ½))², with σ₀² = (1 − t)/4 where both are alike and
    σ₁² = w − t/4 − w² where they are not, t being the share of ties. Several judgments on one prompt count for less, by
    the design effect 1 + (m − 1)ρ (Kish 1965).

    Args:
        win_rate: w, in (0, 1), not ½; .45 takes as many as .55.
        ties: t, in [0, 1); at most 2·min(w, 1 − w).
        power: chance of finding the difference.
        level: of confidence.
        per_prompt: m, judgments on the responses to one prompt.
        correlation: ρ, of the outcomes of one prompt.

    Raises:
        ValueError: a number outside its range, or a win rate that so many ties do not allow.
    """
    if not (0 < win_rate < 1 and win_rate != 0.5):
        raise ValueError(f"a win rate between 0 and 1 other than .5, not {win_rate}")
    if not (0 <= ties < 1 and 0 < power < 1 and 0 < level < 1 and per_prompt >= 1 and 0 <= correlation <= 1):
        raise ValueError("ties, power, level and correlation are shares, per_prompt is 1 or more")
    if ties / 2 > min(win_rate, 1 - win_rate):
        raise ValueError(f"with {ties:.0%} of ties a win rate lies in {ties / 2:.2f} to {1 - ties / 2:.2f}")
    same, other = _spread(0.5, ties), _spread(win_rate, ties)
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2)
    plain = ((reach * same + normal.inv_cdf(power) * other) / (win_rate - 0.5)) ** 2
    effect = 1 + (per_prompt - 1) * correlation
    prompts = max(math.ceil(plain * effect / per_prompt), 2)
    comparisons = prompts * per_prompt
    return Plan(win_rate, comparisons, prompts, reach * other * math.sqrt(effect / comparisons))


def detectable(comparisons: int, *, ties: float = 0.0, power: float = 0.8, level: float = 0.95) -> float:
    """The smallest win rate above ½ that so many comparisons (each on a prompt of its own) find; 1 where none does.

    Raises:
        ValueError: no comparisons, or see `comparisons_needed`.
    """
    if comparisons < 1:
        raise ValueError("at least one comparison")
    low, high = 0.5, 1 - ties / 2
    if comparisons_needed(high - 1e-9, ties=ties, power=power, level=level).comparisons > comparisons:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if comparisons_needed(middle, ties=ties, power=power, level=level).comparisons > comparisons:
            low = middle
        else:
            high = middle
    return high


def _spread(win_rate: float, ties: float) -> float:
    """Standard deviation of an outcome 1, ½ or 0 with this mean and share of ties."""
    return math.sqrt(max(win_rate - ties / 4 - win_rate**2, 0.0))


@dataclass(frozen=True, slots=True)
class Spread:
    """The same training with several seeds."""

    mean: Interval
    """Over seeds, by Student's t: it holds for a further seed, as an interval over one policy's prompts does not."""
    deviation: float
    """Standard deviation between seeds, the noise of measuring included; NaN for one seed."""
    lowest: float
    highest: float
    seeds: int


def over_seeds(values: ArrayLike | Sequence[float], level: float = 0.95) -> Spread:
    """Mean, interval and spread of one figure over training seeds (Colas et al. 2018; Agarwal et al. 2021).

    Args:
        values: (S,) the figure of each seed.
        level: of confidence.

    Raises:
        ValueError: no values.
    """
    from scipy.stats import t

    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or not rows.size:
        raise ValueError("one figure for each seed, and at least one seed")
    mean, count = float(rows.mean()), len(rows)
    if count == 1:
        return Spread(Interval(mean, math.nan, math.nan), math.nan, mean, mean, 1)
    deviation = float(rows.std(ddof=1))
    half = float(t.ppf((1 + level) / 2, count - 1)) * deviation / math.sqrt(count)
    return Spread(Interval(mean, mean - half, mean + half), deviation, float(rows.min()), float(rows.max()), count)
