from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.evaluation.compare import calibration, find_divergence, head_to_head, smooth


def length(_prompt: object, response: str) -> float:
    return float(len(response))


def test_head_to_head_counts_ties_half() -> None:
    prompts = ["p", "q", "r", "s"]
    found = head_to_head(prompts, ["aa", "aa", "a", "aaa"], ["a", "aa", "aa", "a"], length)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.win_rate.estimate == pytest.approx(2.5 / 4)
    assert found.win_rate.low <= found.win_rate.estimate <= found.win_rate.high


def test_head_to_head_asks_each_group_by_its_own_taste() -> None:
    found = head_to_head(
        ["p", "q"], ["aa", "aa"], ["b", "b"], length, {"long": length, "short": lambda p, r: -length(p, r)}
    )
    assert found.by_group["long"].estimate == 1
    assert found.by_group["short"].estimate == 0


def test_head_to_head_resamples_prompts_not_rows() -> None:
    rng = random.Random(0)
    wins = [rng.random() < 0.5 for _ in range(40)]
    alone = head_to_head([f"p{i}" for i in range(40)], ["aa" if w else "a" for w in wins], ["a"] * 40, length)
    copies = 10
    prompts = [f"p{i}" for i in range(40) for _ in range(copies)]
    many = head_to_head(prompts, ["aa" if w else "a" for w in wins for _ in range(copies)], ["a"] * 400, length)
    # Ten copies of the same outcome know no more than one.
    assert many.win_rate.high - many.win_rate.low == pytest.approx(alone.win_rate.high - alone.win_rate.low, rel=0.15)


def test_head_to_head_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(UserError, match="cannot compare 1 responses with 2"):
        head_to_head(["p"], ["a"], ["b", "c"], length)
    with pytest.raises(UserError, match="no responses"):
        head_to_head([], [], [], length)
    with pytest.raises(UserError, match="row 1"):
        head_to_head(["p", "q"], ["a", "b"], ["a", "b"], lambda _p, r: math.nan if r == "b" else 0.0)


def test_calibration_by_hand() -> None:
    found = calibration([0.1, 0.1, 0.9, 0.9, 1.0], [0, 1, 1, 1, 0], bins=2)
    assert [(b.start, b.end, b.count) for b in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 3)]
    assert [b.observed.estimate for b in found.bins] == pytest.approx([0.5, 2 / 3])
    assert [b.predicted for b in found.bins] == pytest.approx([0.1, 2.8 / 3])
    assert found.error == pytest.approx(2 / 5 * 0.4 + 3 / 5 * (2.8 / 3 - 2 / 3))
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01 + 1.0) / 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=60), st.integers(1, 20)
)
def test_calibration_covers_every_row_once(rows: list[tuple[float, float]], bins: int) -> None:
    found = calibration([p for p, _ in rows], [y for _, y in rows], bins)
    assert sum(b.count for b in found.bins) == len(rows)
    assert 0 <= found.error <= 1
    for b in found.bins:
        assert b.start - 1e-9 <= b.predicted <= b.end + 1e-9


def test_calibration_of_honest_probabilities_is_near_zero_and_of_boasts_is_not() -> None:
    rng = random.Random(1)
    honest = [rng.random() for _ in range(20_000)]
    happened = [float(rng.random() < p) for p in honest]
    boasts = [min(max(2 * (p - 0.5) + 0.5, 0.0), 1.0) for p in honest]
    assert calibration(honest, happened).error < 0.02
    assert calibration(boasts, happened).error > 0.1


@pytest.mark.parametrize(("p", "y"), [([], []), ([0.5], [1, 0]), ([1.2], [1]), ([0.5], [2]), ([math.nan], [1])])
def test_calibration_refuses_nonsense(p: list[float], y: list[float]) -> None:
    with pytest.raises(UserError):
        calibration(p, y)


def test_smooth_keeps_constants_and_means() -> None:
    assert smooth([2.0] * 7, 3) == pytest.approx([2.0] * 7)
    assert smooth([0, 3, 6], 3) == pytest.approx([1.5, 3, 4.5])
    assert smooth([1, 5, 2], 1) == pytest.approx([1, 5, 2])


def run(
    seed: int, peak: float | None, noise: float = 0.1, n: int = 100
) -> tuple[list[float], list[float], list[float]]:
    rng = random.Random(seed)
    share = [i / (n - 1) for i in range(n)]
    proxy = [2 * t + rng.gauss(0, noise) for t in share]
    gold = [(t if peak is None or t < peak else 2 * peak - t) + rng.gauss(0, noise) for t in share]
    return [float(i) for i in range(n)], proxy, gold


def test_divergence_is_found_where_gold_turns() -> None:
    for seed in range(10):
        found = find_divergence(*run(seed, peak=0.5))
        assert found is not None and found.fooled
        assert 35 <= found.peak <= 65
        assert 0.3 <= found.gold_fall <= 0.65 and found.proxy_rise > 0.6


def test_noise_alone_is_no_divergence() -> None:
    flags = 0
    for seed in range(100):
        found = find_divergence(*run(seed, peak=None, noise=0.3))
        assert found is not None
        flags += found.fooled
    assert flags <= 2
    assert find_divergence([1, 2], [0, 1], [1, 0]) is None


def test_a_run_in_which_both_fall_is_not_fooled() -> None:
    steps, _proxy, gold = run(0, peak=0.5)
    found = find_divergence(steps, gold, gold)
    assert found is not None and not found.fooled
