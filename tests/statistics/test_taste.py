"""Groups of labelers, found again from their comparisons, and what one answer for all costs them."""

from __future__ import annotations

import numpy as np
import pytest

from hearken.statistics.taste import discover_groups, price_of_averaging


def judged(labelers: int = 12, each: int = 40, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Two thirds of the labelers want the first feature, one third the second and less of the first."""
    rng = np.random.default_rng(seed)
    tastes = np.array([[2.0, 0.0], [-1.0, 2.0]])
    rows, who = [], []
    for labeler in range(labelers):
        x = rng.normal(size=(each, 2))
        p = 1 / (1 + np.exp(-x @ tastes[int(labeler % 3 == 0)]))
        rows.append(np.where(rng.random(each) < p, 1, -1)[:, None] * x)
        who += [f"l{labeler}"] * each
    return np.concatenate(rows), who, tastes


def test_two_tastes_are_found_and_preferred_to_one() -> None:
    x, who, tastes = judged()
    one, two = (discover_groups(x, who, g, ridge=0.1) for g in (1, 2))
    assert two.bic < one.bic
    assert two.share == pytest.approx([2 / 3, 1 / 3], abs=0.01)
    for labeler in range(12):
        assert two.group(f"l{labeler}") == int(labeler % 3 == 0)
    assert np.allclose(two.theta, tastes, atol=0.7)
    assert np.allclose(two.membership.sum(1), 1)


def test_one_taste_is_not_split() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 3))
    x *= np.where(rng.random(400) < 1 / (1 + np.exp(-x[:, 0])), 1, -1)[:, None]
    who = [f"l{i % 8}" for i in range(400)]
    assert discover_groups(x, who, 1).bic < discover_groups(x, who, 2).bic
    with pytest.raises(ValueError, match="groups of 8 labelers"):
        discover_groups(x, who, 9)


def test_the_price_of_averaging() -> None:
    # One response for each group, and one that both can live with.
    values = np.array([[[1.0, -1.0], [-1.0, 0.9], [0.3, 0.3]]] * 4)
    found = price_of_averaging(values)
    assert found.own == pytest.approx([1.0, 0.9])
    assert found.average == pytest.approx([0.3, 0.3]) and found.worst_off == pytest.approx([0.3, 0.3])
    majority = price_of_averaging(values, [0.9, 0.1])
    assert majority.average == pytest.approx([1.0, -1.0]) and majority.price == pytest.approx([0.0, 1.9])
    with pytest.raises(ValueError, match="weights"):
        price_of_averaging(values, [1.0])
