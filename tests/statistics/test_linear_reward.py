"""The theory of linear rewards against what it proves: check 3 and check 4 of the papers' figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from hearken.statistics.linear_reward import LinearFit, confidence_radius, fit_pairs, fit_rankings, optimistic_pair

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
    assert many.optimistic(seen, 1.0) - many.pessimistic(seen, 1.0) == pytest.approx(2 * many.width(seen))


def rankings(n: int, k: int, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(n, k, len(theta)))
    order = np.argsort(-(x @ theta + rng.gumbel(size=(n, k))), axis=1)
    return np.take_along_axis(x, order[:, :, None], axis=1)


def test_rankings_teach_more_than_their_split_pairs_and_those_more_than_one_pair() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        theta = rng.normal(size=5)
        theta *= 2 / np.linalg.norm(theta)
        x = rankings(200, 9, theta, rng)
        pair = rankings(200, 2, theta, rng)
        fits = (fit_rankings(x), fit_rankings(x, split=True), fit_pairs(pair[:, 0] - pair[:, 1]))
        errors.append([np.linalg.norm(fit.theta - theta) for fit in fits])
    whole, split, single = np.sqrt(np.mean(np.square(errors), axis=0))
    assert whole == pytest.approx(0.092, abs=0.02)
    assert split == pytest.approx(0.106, abs=0.025)
    assert single == pytest.approx(0.45, abs=0.12)
    assert 1.0 < split / whole < 1.3


@pytest.mark.parametrize(
    ("k", "least", "most", "means"),
    [(4, 1.02, 1.07, {}), (9, 1.09, 1.15, {50: (0.176, 0.199), 200: (0.088, 0.102), 800: (0.045, 0.049)})],
)
def test_check_4_without_its_noise(k: int, least: float, most: float, means: dict[int, tuple[float, float]]) -> None:
    """The covariance of one large sample tells the mean error |θ̂ - θ| at every n, and the two likelihoods' ratio."""
    rng = np.random.default_rng(4)
    x = rankings(2000, k, np.array([2.0, 0, 0, 0, 0]), rng)
    whole, split = (fit_rankings(x, split=halves).covariance * 2000 for halves in (False, True))
    assert least < np.sqrt(np.trace(split) / np.trace(whole)) < most
    normal = rng.normal(size=(20_000, 5))
    of_one = [float(np.linalg.norm(normal @ np.linalg.cholesky(c).T, axis=1).mean()) for c in (whole, split)]
    for n, expected in means.items():
        assert [one / np.sqrt(n) for one in of_one] == pytest.approx(expected, rel=0.07)


def test_the_covariance_foretells_the_error_of_split_pairs_too() -> None:
    rng = np.random.default_rng(2)
    theta = np.array([1.0, -1.0, 0.5])
    for split in (False, True):
        fits = [fit_rankings(rankings(100, 4, theta, rng), split=split) for _ in range(30)]
        seen = np.std([fit.theta for fit in fits], axis=0)
        said = np.mean([np.sqrt(np.diag(fit.covariance)) for fit in fits], axis=0)
        assert np.allclose(said, seen, rtol=0.35)


def test_a_ranking_of_two_is_a_pair_and_weights_are_repetitions() -> None:
    rng = np.random.default_rng(3)
    x = rankings(40, 2, np.array([1.0, 0.3]), rng)
    pair = fit_pairs(x[:, 0] - x[:, 1])
    assert np.allclose(fit_rankings(x).theta, pair.theta, atol=1e-6)
    weights = rng.integers(1, 4, 40)
    repeated = np.repeat(x, weights, axis=0)
    weighted = fit_rankings(x, weights.astype(float))
    again = fit_rankings(repeated)
    assert np.allclose(weighted.theta, again.theta, atol=1e-6)
    assert np.allclose(weighted.covariance, again.covariance, atol=1e-6)


def test_ties_and_votes_are_shares() -> None:
    assert fit_pairs([[1.0]], [0.75]).theta[0] == pytest.approx(np.log(3), abs=1e-6)
    assert fit_pairs([[1.0]], [0.5]).theta[0] == pytest.approx(0.0, abs=1e-6)


def test_shares_of_many_comparisons_are_as_uncertain_as_the_comparisons() -> None:
    """Of 100 comparisons 75 won: a logit's standard error is 1/√(n p (1 - p)), whether they are told one by one."""
    together = fit_pairs([[1.0]], [0.75], [100])
    assert np.sqrt(together.covariance[0, 0]) == pytest.approx(1 / np.sqrt(100 * 0.75 * 0.25), rel=1e-6)
    apart = fit_pairs(np.ones((100, 1)), [1.0] * 75 + [0.0] * 25)
    assert apart.covariance[0, 0] == pytest.approx(together.covariance[0, 0], rel=1e-6)
    assert together.standard_error([[2.0]])[0] == pytest.approx(2 / np.sqrt(18.75), rel=1e-6)


def test_separable_data_meet_the_bound_or_the_prior() -> None:
    assert np.linalg.norm(fit_pairs([[1.0, 0.5]], norm=2.0).theta) == pytest.approx(2.0, abs=1e-5)
    around = fit_pairs([[1.0, 0.0]], [0.5], ridge=1.0, centre=[0.0, 3.0])
    assert np.allclose(around.theta, [0.0, 3.0], atol=1e-6)


def test_the_next_pair_is_the_least_known_one_that_may_still_be_best() -> None:
    arms = np.eye(3)
    # Arms 0 and 1 were compared often and are level; arm 2 is far worse than both.
    fit = fit_pairs([[1, -1, 0], [1, 0, -1], [0, 1, -1]], [0.5, 0.999, 0.999], [50, 4000, 4000], ridge=0.1)
    assert set(optimistic_pair(fit, arms, 2.0)) == {0, 1}
    settled = fit_pairs([[1, -1, 0], [1, 0, -1]], [0.9, 0.9], [4000, 4000], ridge=0.1)
    assert optimistic_pair(settled, arms, 2.0) == (0, 0)


def test_of_pairs_as_little_known_the_first_is_compared_whatever_the_rounding() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        spread = np.eye(4) + random.uniform(0, 1e-12, (4, 4))  # what another order of summing may make of a tie
        fit = LinearFit(np.zeros(4), np.eye(4), spread + spread.T, np.eye(4), 1.0, 0.1)
        assert optimistic_pair(fit, np.eye(4), 1.0) == (0, 1)


def test_the_radius_falls_with_comparisons_and_wrong_input_is_refused() -> None:
    assert confidence_radius(5, 400, 0.05, 1.0) == pytest.approx(confidence_radius(5, 100, 0.05, 1.0) / 2, rel=1e-3)
    for call in (
        lambda: fit_pairs(np.zeros((0, 2))),
        lambda: fit_pairs([[1.0]], [2.0]),
        lambda: fit_rankings(np.zeros((3, 1, 2))),
        lambda: confidence_radius(0, 1, 0.1, 1.0),
    ):
        with pytest.raises(ValueError):
            call()
