"""Rankings against split pairs, which is check 4 of the papers' figures, and the next pair to compare."""

from __future__ import annotations

import numpy as np
import pytest
from theory.rankings import fit_rankings, optimistic_pair

from hearken.statistics.linear_reward import LinearFit, fit_pairs


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


def test_a_ranking_of_one_is_refused() -> None:
    with pytest.raises(ValueError):
        fit_rankings(np.zeros((3, 1, 2)))
