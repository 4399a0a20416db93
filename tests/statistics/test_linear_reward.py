"""The theory of linear rewards against what it proves: check 3 of the papers' figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from hearken.statistics.linear_reward import LinearFit, fit_pairs

PHI = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])
THETA = np.array([-1.0, 0.1, 0.9])
SUM_ZERO = np.linalg.svd(np.eye(3) - 1 / 3)[0][:, :2]
"""An orthonormal basis of Σθ = 0."""


DIFFERENCES = np.stack([PHI[0] - PHI[1], PHI[1] - PHI[2]])
"""One row is compared n - 1 times, the other once."""
CHANCE = 1 / (1 + np.exp(-DIFFERENCES @ THETA))
CAUTIONS = (0.0, 1.0, 2.0, 4.0, 16.0)


def pessimism_problem(n: int, won: float, won_once: float) -> LinearFit:
    """The fit where a1 won ``won`` of n - 1 comparisons with a2, and a2 its only one with a3; Σθ = 0 and ‖θ‖ ≤ 2."""
    counts = np.array([n - 1, 1])
    found = fit_pairs(DIFFERENCES @ SUM_ZERO, np.array([won, won_once]) / counts, counts, norm=2.0)
    design = (DIFFERENCES * counts[:, None]).T @ DIFFERENCES / n
    return LinearFit(SUM_ZERO @ found.theta, design, design, design, n, found.ridge)


def expected(n: int, points: int = 8) -> tuple[dict[float, float], float]:
    """Value lost by each caution, and the error of θ in Σ's norm: means over what may happen, without drawing it.

    The comparison made once has two outcomes; those of the other pair are taken at quantiles of their number.
    """
    values = PHI @ THETA
    lost, error = np.zeros(len(CAUTIONS)), 0.0
    quantiles = binom.ppf((np.arange(points) + 0.5) / points, n - 1, CHANCE[0])
    for won, times in zip(*np.unique(quantiles, return_counts=True), strict=True):
        for won_once, chance in ((1, CHANCE[1]), (0, 1 - CHANCE[1])):
            fit = pessimism_problem(n, won, won_once)
            away = fit.theta - THETA
            share = times / points * chance
            chosen = [np.argmax(fit.pessimistic(PHI, c, PHI[2])) for c in CAUTIONS]
            lost += share * (values.max() - values[chosen])
            error += share * float(np.sqrt(away @ fit.design @ away))
    return dict(zip(CAUTIONS, lost, strict=True)), error


def test_check_3_maximum_likelihood_does_not_improve_where_pessimism_does() -> None:
    """Zhu, Jordan and Jiao's example; the figures beside n are those of repeated simulation."""
    believed = {20: 0.312, 100: 0.280, 500: 0.298, 1000: 0.280, 5000: 0.285}
    doubted = {20: 0.078, 100: 0.070, 500: 0.040, 1000: 0.031, 5000: 0.000}
    rates = []
    for n in believed:
        lost, error = expected(n)
        assert lost[0.0] == pytest.approx(believed[n], abs=0.05), "it stays bad, whatever the data"
        assert lost[2.0] == pytest.approx(doubted[n], abs=0.02), "and caution becomes good"
        assert lost[1.0] > 0.85 * lost[0.0], "too little caution hardly helps"
        assert lost[16.0] == pytest.approx(0.1), "too much of it chooses a3, of which nothing is doubted, for ever"
        assert lost[2.0] <= lost[4.0] <= lost[16.0]
        rates.append(error * np.sqrt(n))
    assert rates == pytest.approx([np.mean(rates)] * 5, rel=0.1), "and yet θ is learned, at the rate 1/√n, in Σ's norm"
    assert rates[0] / np.sqrt(20) == pytest.approx(0.46, abs=0.04)
    assert rates[-1] / np.sqrt(5000) == pytest.approx(0.030, abs=0.003)


def test_the_width_of_an_unseen_direction_stays() -> None:
    seen, unseen = np.array([0.0, 1, 0]), np.array([1.0, 0, 0])
    few, many = (pessimism_problem(n, round((n - 1) * CHANCE[0]), 0) for n in (100, 10_000))
    assert many.width(seen) == pytest.approx(few.width(seen) / 10, rel=0.05)
    assert many.width(unseen) == pytest.approx(few.width(unseen), rel=0.05)
    assert many.values(seen) - many.pessimistic(seen, 1.0) == pytest.approx(many.width(seen))


def test_ties_and_votes_are_shares() -> None:
    assert fit_pairs([[1.0]], [0.75]).theta[0] == pytest.approx(np.log(3), abs=1e-6)
    assert fit_pairs([[1.0]], [0.5]).theta[0] == pytest.approx(0.0, abs=1e-6)


def test_shares_of_many_comparisons_are_as_uncertain_as_the_comparisons() -> None:
    """Of 100 comparisons 75 won: a logit's standard error is 1/√(n p (1 - p)), whether they are told one by one."""
    together = fit_pairs([[1.0]], [0.75], [100])
    assert np.sqrt(together.covariance[0, 0]) == pytest.approx(1 / np.sqrt(100 * 0.75 * 0.25), rel=1e-6)
    apart = fit_pairs(np.ones((100, 1)), [1.0] * 75 + [0.0] * 25)
    assert apart.covariance[0, 0] == pytest.approx(together.covariance[0, 0], rel=1e-6)


def test_separable_data_meet_the_bound_or_the_prior() -> None:
    assert np.linalg.norm(fit_pairs([[1.0, 0.5]], norm=2.0).theta) == pytest.approx(2.0, abs=1e-5)
    around = fit_pairs([[1.0, 0.0]], [0.5], ridge=1.0, centre=[0.0, 3.0])
    assert np.allclose(around.theta, [0.0, 3.0], atol=1e-6)


def test_wrong_input_is_refused() -> None:
    for differences, outcomes in ((np.zeros((0, 2)), None), ([[1.0]], [2.0])):
        with pytest.raises(ValueError):
            fit_pairs(differences, outcomes)
