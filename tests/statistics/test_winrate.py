from __future__ import annotations

import numpy as np
import pytest

from hearken.statistics.winrate import outcomes, win_rate


def test_outcomes() -> None:
    assert outcomes([1, 2, 3, 3], [2, 2, 2, 2.95]).tolist() == [0, 0.5, 1, 1]
    assert outcomes([1, 2, 3, 3], [2, 2, 2, 2.95], tie=0.1).tolist() == [0, 0.5, 1, 0.5]


def test_ties_count_half_and_swapping_sides_turns_the_rate() -> None:
    won = np.array([1, 1, 0.5, 0, 0.5, 1, 1, 0])
    prompts = ["a", "a", "b", "b", "c", "c", "d", "e"]
    rate, turned = win_rate(won, prompts), win_rate(1 - won, prompts)
    assert rate.estimate == 0.625
    assert turned == pytest.approx((1 - rate.estimate, 1 - rate.high, 1 - rate.low))
    assert 0 <= rate.low < rate.estimate < rate.high <= 1


def test_impossible_outcomes_are_refused() -> None:
    for wrong in (-1.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match="outcome"):
            win_rate([0.5, wrong])
