"""Regret of comparing optimistically, uniformly, and with or without memory."""

from __future__ import annotations

import numpy as np
import pytest
from theory.duels import Arms, duel, growth, optimistic, recall_problem, uniform


def test_optimism_stops_regretting_and_uniform_comparisons_do_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    theta = np.array([1.2, -1.2, 1.0])
    arms = Arms([row[None] for row in x])
    ours, theirs = (np.mean([duel(arms, theta, 600, c, seed=s) for s in (0,)], 0) for c in (optimistic(), uniform))
    assert growth(theirs) == pytest.approx(1.0, abs=0.05)
    assert growth(ours) < 0.75
    assert ours[-1] < theirs[-1] / 4
    assert (np.diff(ours) >= -1e-12).all()


def test_without_memory_regret_is_linear_with_it_it_is_not() -> None:
    arms, theta, best = recall_problem(2, 2, memory=False)
    without = duel(arms, theta, 600, optimistic(), best=best, seed=1)
    assert np.allclose(without, 0.5 * np.arange(1, 601))  # the best memoryless policy is right half of the time
    arms, theta, best = recall_problem(2, 2, memory=True)
    runs = np.stack([duel(arms, theta, 600, optimistic(), best=best, seed=seed) for seed in range(12)])
    assert growth(runs.mean(0)) < 0.4
    assert runs[:, -1].mean() < without[-1] / 4
    assert runs[:, -1].max() < without[-1] / 2


def test_recall_problem() -> None:
    arms, theta, best = recall_problem(2, 3, memory=True)
    values = arms.features @ theta
    assert len(values) == 9 and values.max() == best == 1.0
    memoryless, _, _ = recall_problem(2, 3, memory=False)
    assert sorted(memoryless.features @ theta) == [0.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="action of its own"):
        recall_problem(3, 2, memory=True)
    with pytest.raises(ValueError, match="half time"):
        growth([0.0, 0.0])
