"""Gao's forms, and best-of-n under noise by exact integration (check 5)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from theory.overoptimisation import best_of_n, expected_best_of_n, fit_gao, gaussian, student_2

from hearken.statistics.bestofn import best_of_n_kl

SIZES = [2**i for i in range(11)]


def test_heavy_tailed_noise_fools_best_of_n_and_gaussian_noise_does_not() -> None:
    heavy = {n: expected_best_of_n(student_2(), n) for n in SIZES}
    gold = {n: g for n, (_, g) in heavy.items()}
    assert max(gold, key=gold.__getitem__) == 16
    assert gold[16] == pytest.approx(0.69, abs=0.005)
    assert heavy[1024] == pytest.approx((40.1, 0.118), rel=0.005)
    light = [expected_best_of_n(gaussian(), n)[1] for n in SIZES]
    assert np.all(np.diff(light) > 0)
    # Under Gaussian noise of variance 1 half of the proxy's gain is gold's.
    assert light[-1] == pytest.approx(expected_best_of_n(gaussian(), 1024)[0] / 2, rel=1e-6)


def test_the_unbiased_estimator_meets_the_integral() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        gold = rng.normal(size=256)
        found.append(best_of_n(gold + rng.standard_t(2, 256), gold, 16))
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - expected_best_of_n(student_2(), 16)[1]) < 4 * error


def test_both_forms_are_found_again() -> None:
    d = np.linspace(0, 6, 30)
    bon = fit_gao(d, d * (1.0 - 0.1 * d), "best_of_n")
    assert (bon.alpha, bon.beta) == pytest.approx((1.0, 0.1)) and bon.peak == pytest.approx(5.0)
    rl = fit_gao(d, d * (1.0 - 0.5 * np.log(np.maximum(d, 1e-9))), "rl")
    assert (rl.alpha, rl.beta) == pytest.approx((1.0, 0.5)) and rl.peak == pytest.approx(math.e)
    assert rl.value(rl.peak) >= rl.value(d).max() - 1e-9
    noisy = fit_gao(d, d * (1 - 0.1 * d) + np.random.default_rng(0).normal(0, 0.05, 30), "best_of_n")
    assert abs(noisy.alpha - 1) < 4 * noisy.alpha_error and 0.9 < noisy.r2 < 1
    assert fit_gao(d, d, "best_of_n").peak > 1e6 or fit_gao(d, d, "best_of_n").peak == math.inf


def test_check_5_is_described_by_gaos_form_up_to_its_peak() -> None:
    d = np.sqrt([best_of_n_kl(n) for n in SIZES])
    gold = [expected_best_of_n(student_2(), n)[1] for n in SIZES]
    fit = fit_gao(d, gold, "best_of_n")
    assert fit.r2 > 0.9 and 1.0 < fit.peak < 1.8  # √KL of the best of 16 is 1.35


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="two different distances"):
        fit_gao([0.0, 1.0], [0.0, 1.0], "rl")
    with pytest.raises(ValueError):
        expected_best_of_n(gaussian(), 0)


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
