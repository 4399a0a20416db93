from __future__ import annotations

import choix
import numpy as np
import pytest

from hearken.statistics.bradley_terry import fit_davidson
from hearken.statistics.plackett_luce import plackett_luce


def rankings(random: np.random.Generator, true: np.ndarray, n: int) -> list[list[int]]:
    """Drawn from the model, of 2 to all of the responses."""
    found = []
    for _ in range(n):
        some = random.permutation(len(true))[: random.integers(2, len(true) + 1)]
        found.append(some[np.argsort(-(true[some] + random.gumbel(size=len(some))))].tolist())
    return found


def test_it_is_choix() -> None:
    true = np.array([1.0, 0.5, 0.0, -0.5, -1.0])
    drawn = rankings(np.random.default_rng(0), true, 300)
    ours = plackett_luce(drawn, 5, ridge=1e-9)
    assert ours == pytest.approx(choix.ilsr_rankings(5, drawn, tol=1e-10), abs=1e-3)
    assert ours == pytest.approx(true, abs=0.4) and ours.mean() == pytest.approx(0)


def test_of_two_it_is_bradley_terry() -> None:
    drawn = [[0, 1], [1, 0], [0, 1], [0, 2], [2, 1], [1, 2], [0, 2]]
    a, b = np.array(drawn).T
    games = fit_davidson(np.eye(3)[a] - np.eye(3)[b], np.ones(len(drawn)), ridge=0.01)[0]
    assert plackett_luce(drawn, 3) == pytest.approx(games[:3], abs=1e-5)


def test_always_first_stays_finite_and_unranked_is_average() -> None:
    theta = plackett_luce([[0, 1]] * 20, 3)
    assert theta[0] > 2 and theta[2] == pytest.approx(0, abs=1e-6)
    assert plackett_luce([], 2).tolist() == [0, 0]


def test_not_a_ranking() -> None:
    for wrong in ([0, 0], [0, 3]):
        with pytest.raises(ValueError, match="not a ranking"):
            plackett_luce([wrong], 3)
