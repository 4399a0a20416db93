from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from hearken.statistics.power import comparisons_needed, detectable, over_seeds


@pytest.mark.parametrize(("rate", "ties"), [(0.55, 0.0), (0.6, 0.2), (0.4, 0.1)])
def test_so_many_comparisons_find_the_difference_as_often_as_promised(rate: float, ties: float) -> None:
    plan = comparisons_needed(rate, ties=ties)
    rng = np.random.default_rng(0)
    drawn = rng.choice([1.0, 0.5, 0.0], size=(4000, plan.comparisons), p=[rate - ties / 2, ties, 1 - rate - ties / 2])
    error = drawn.std(axis=1) / math.sqrt(plan.comparisons)
    found = np.abs(drawn.mean(axis=1) - 0.5) > 1.959964 * error
    assert abs(found.mean() - 0.8) < 0.03
    assert abs(plan.half_width - 1.959964 * error.mean()) < 0.002


def test_against_the_exact_binomial() -> None:
    """Without ties the number is that of the sign test: its exact power is near .8."""
    n = comparisons_needed(0.6).comparisons
    assert n == 194
    critical = binom.ppf(0.975, n, 0.5)
    assert abs((1 - binom.cdf(critical, n, 0.6)) - 0.8) < 0.04  # discrete: a little on the safe side
    assert comparisons_needed(0.55).comparisons == 783 == comparisons_needed(0.45).comparisons


def test_ties_save_comparisons_and_shared_prompts_cost_them() -> None:
    assert comparisons_needed(0.55, ties=0.4).comparisons < comparisons_needed(0.55).comparisons
    shared = comparisons_needed(0.55, per_prompt=5, correlation=0.3)
    assert shared.comparisons == 5 * shared.prompts
    assert abs(shared.comparisons / comparisons_needed(0.55).comparisons - 2.2) < 0.02


def test_detectable_is_the_inverse() -> None:
    for n in (50, 200, 1000):
        rate = detectable(n, ties=0.1)
        assert comparisons_needed(rate, ties=0.1).comparisons <= n
        assert comparisons_needed(rate - 0.005, ties=0.1).comparisons > n
    assert detectable(2) == 1.0


@pytest.mark.parametrize(("rate", "more"), [(0.5, {}), (1.0, {}), (0.95, {"ties": 0.2}), (0.6, {"power": 1.0})])
def test_what_cannot_be_is_refused(rate: float, more: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        comparisons_needed(rate, **more)  # type: ignore[arg-type]


def test_over_seeds_covers_a_further_mean() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(500):
        found = over_seeds(rng.normal(0.6, 0.05, 4)).mean
        inside += found.low <= 0.6 <= found.high
    assert 0.92 < inside / 500 < 0.98
    one = over_seeds([0.6])
    assert one.seeds == 1 and math.isnan(one.deviation) and math.isnan(one.mean.low)
    with pytest.raises(ValueError):
        over_seeds([])
