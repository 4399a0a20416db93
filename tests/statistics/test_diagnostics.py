from __future__ import annotations

import math

import numpy as np

from hearken.statistics.diagnostics import consistency, diagnose
from hearken.statistics.intervals import wilson


def test_by_hand() -> None:
    found = diagnose([1, 1, 0.5, 0], [10, 10, 10, 30], [20, 5, 10, 5])
    assert found.pairs == 4
    assert found.tie == wilson(1, 4)
    assert found.first_side == wilson(2, 3)
    # Longer won: no (20 lost to 10), yes, -, no (30 lost to 5).
    assert found.longer == wilson(1, 3)


def test_nothing_to_measure_on() -> None:
    for found in (diagnose([], [], []), diagnose([0.5], [1], [2])):
        assert math.isnan(found.first_side.estimate) and math.isnan(found.longer.estimate)
    assert math.isnan(consistency([], []).estimate)


def test_a_biased_labeler_is_found_and_a_fair_one_is_not() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(20, 60, size=(2, 400))
    for bias in (0.0, 1.2):
        left = random.random(400) < 1 / (1 + np.exp(-bias))
        found = diagnose(left.astype(float), *lengths)
        assert (found.first_side.low > 0.5) == (bias > 0)
        assert found.longer.low < 0.5 < found.longer.high


def test_consistency() -> None:
    found = consistency([1, 0, 0.5, 1], [1, 0, 1, 1])
    assert found == wilson(3, 4)
    clustered = consistency([1, 0, 1, 0], [1, 0, 0, 1], ["a", "a", "b", "b"])
    assert clustered.estimate == 0.5 and clustered.high - clustered.low > wilson(2, 4).high - wilson(2, 4).low


def test_first_side_covers() -> None:
    """Side bias from rankings of four, whose six pairs hang together: intervals cover 92 to 97 %."""
    random = np.random.default_rng(1)
    first, second = np.triu_indices(4, 1)

    def sample(rankings: int) -> np.ndarray:
        scores = random.gumbel(size=(rankings, 4)) - 0.8 * np.arange(4) / 3
        return (scores[:, first] > scores[:, second]).astype(float).ravel()

    true = sample(300_000).mean()
    trials, covered, naive = 1500, 0, 0
    for _ in range(trials):
        y = sample(80)
        found = diagnose(y, np.zeros(len(y)), np.zeros(len(y)), np.repeat(np.arange(80), 6).tolist()).first_side
        covered += found.low <= true <= found.high
        rows = wilson(float(y.sum()), len(y))
        naive += rows.low <= true <= rows.high
    assert 0.92 <= covered / trials <= 0.97
    assert naive / trials < 0.92


def test_unknown_order_says_nothing_of_sides_and_a_share_counts_what_it_is() -> None:
    found = diagnose(
        [1, 0.55, 0.2, 0.52], [10, 10, 10, 10], [20, 5, 10, 20], shown_first=[-1, 0, 1, 0], tied=[0, 0, 0, 1]
    )
    assert found.first_side.estimate == np.mean([1 - 0.55, 0.2])  # the fourth was tied
    assert found.longer.estimate == np.mean([0, 0.55])  # the third is of equal length
    assert found.tie == wilson(1, 4)
