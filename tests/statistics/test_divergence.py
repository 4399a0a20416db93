"""When the proxy and gold part: how often noise alone is taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from hearken.statistics.divergence import _spread, find_divergence, smooth


@pytest.mark.parametrize(("one", "other"), [(50, 99), (0, 99), (97, 99), (93, 99), (99, 99)])
def test_the_standard_error_is_that_of_the_windows_as_they_are(one: int, other: int) -> None:
    """Eleven rows inside, six at either end, and rows that both windows share tell nothing of a difference."""
    rng = np.random.default_rng(0)
    smoothed = np.array([smooth(row, 11) for row in rng.normal(size=(4000, 100))])
    assert np.std(smoothed[:, one] - smoothed[:, other]) == pytest.approx(_spread(one, other, 11, 100), rel=0.05)
    assert _spread(50, 99, 11, 100) == pytest.approx(np.sqrt(1 / 11 + 1 / 6))


@pytest.mark.parametrize("rows", [20, 100])
def test_a_level_gold_beside_a_rising_proxy_is_hardly_ever_taken_for_a_fall(rows: int) -> None:
    """Three standard errors are passed by chance in .13 % of cases, though gold's peak is the highest of all points."""
    rng = np.random.default_rng(1)
    steps, rising = np.arange(float(rows)), np.linspace(0, 5, rows)
    alarms = 0
    for _ in range(2000):
        found = find_divergence(steps, rising + 0.1 * rng.normal(size=rows), rng.normal(size=rows))
        assert found is not None and found.proxy_rise >= -0.5
        alarms += found.fooled
    assert alarms / 2000 < 0.005
