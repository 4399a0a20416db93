from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hearken.statistics.bestofn import best_of_n, best_of_n_kl


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_kl_by_integration(n: int) -> None:
    """The quantile of the best of n has density n·u^(n-1), that of the policy 1."""
    u = (np.arange(200_000) + 0.5) / 200_000
    density = n * u ** (n - 1)
    assert best_of_n_kl(n) == pytest.approx(float(np.mean(density * np.log(density))), abs=1e-4)


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.parametrize("tied", [False, True])
def test_estimate_is_the_mean_over_all_subsets(n: int, tied: bool) -> None:
    random = np.random.default_rng(n)
    proxy = random.integers(0, 3, size=7).astype(float) if tied else random.normal(size=7)
    gold = random.normal(size=7)
    expected = []
    for subset in itertools.combinations(range(7), n):
        best = max(proxy[i] for i in subset)
        expected.append(np.mean([gold[i] for i in subset if proxy[i] == best]))
    assert best_of_n(proxy, gold, n) == pytest.approx(float(np.mean(expected)))


def test_large_pools_do_not_overflow() -> None:
    uniform = (np.arange(20_000) + 0.5) / 20_000
    assert best_of_n(uniform, uniform, 1000) == pytest.approx(1000 / 1001, abs=1e-3)
    assert best_of_n(uniform, np.ones(20_000), 20_000) == 1


def test_wrong_n_is_refused() -> None:
    for n in (0, 4):
        with pytest.raises(ValueError, match="cannot be estimated"):
            best_of_n([1, 2, 3], [1, 2, 3], n)
    with pytest.raises(ValueError, match="none"):
        best_of_n_kl(0)
    assert best_of_n_kl(1) == 0 and math.isclose(best_of_n_kl(4), math.log(4) - 0.75)
