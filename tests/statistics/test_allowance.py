from __future__ import annotations

import math

import numpy as np
import pytest

from hearken.statistics.allowance import Allowance, allowance, share_reached


def test_a_gaussian_reward_allows_its_variance_over_twice_beta() -> None:
    """β·log E[exp(r/β)] = μ + σ²/(2β), the moment-generating function; the tilted mean is μ + σ²/β, at KL σ²/(2β²)."""
    rewards = np.random.default_rng(0).normal(0.3, 0.5, (4, 400_000))
    allowed = allowance(rewards, 0.5)
    assert allowed.start.mean() == pytest.approx(0.3, abs=2e-3)
    assert allowed.best.mean() == pytest.approx(0.3 + 0.25, abs=5e-3)
    assert allowed.reward.mean() == pytest.approx(0.3 + 0.5, abs=1e-2)
    assert allowed.kl.mean() == pytest.approx(0.5, abs=2e-2)


def test_no_policy_over_the_pool_is_better() -> None:
    """Against ten thousand other distributions over the same responses, and their exact KL to the uniform one."""
    random = np.random.default_rng(1)
    rewards, beta = random.normal(size=(1, 8)), 0.4
    allowed = allowance(rewards, beta)
    others = random.dirichlet(np.ones(8), 10_000)
    values = others @ rewards[0] - beta * (others * np.log(others * 8)).sum(1)
    assert values.max() <= allowed.best[0] and values.max() > allowed.best[0] - 0.05


@pytest.mark.parametrize(("beta", "reward", "kl"), [(0.0, 2.0, math.log(4)), (1e-4, 2.0, math.log(4)), (1e6, 0.5, 0.0)])
def test_the_ends(beta: float, reward: float, kl: float) -> None:
    allowed = allowance([[0.0, 0.0, 0.0, 2.0]], beta)
    assert allowed.reward[0] == pytest.approx(reward, abs=1e-5) and allowed.kl[0] == pytest.approx(kl, abs=1e-5)


def test_equal_best_responses_share() -> None:
    assert allowance([[1.0, 1.0, 0.0, 0.0]], 0.0).kl[0] == pytest.approx(math.log(2))


def test_shares() -> None:
    allowed = Allowance(np.zeros(3), np.full(3, 2.0), np.zeros(3), np.zeros(3))
    assert share_reached(np.ones(3), allowed) == (0.5, 0.5, 0.5)
    assert share_reached(np.zeros(3), allowed).estimate == 0
    wide = share_reached([0.0, 1.0, 2.0], allowed)
    assert wide.estimate == 0.5 and wide.low < 0.5 < wide.high


def test_a_reward_that_prefers_nothing_has_no_share() -> None:
    assert math.isnan(share_reached([1.0, 1.0], allowance([[1.0, 1.0], [1.0, 1.0]], 0.1)).estimate)


def test_what_makes_no_sense_is_refused() -> None:
    for rewards, beta in [([[]], 0.1), ([[math.nan, 0.0]], 0.1), ([[1.0]], -1.0), ([1.0], 0.1)]:
        with pytest.raises(ValueError, match="no allowance"):
            allowance(rewards, beta)
