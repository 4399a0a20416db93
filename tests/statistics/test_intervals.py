from __future__ import annotations

import math

import numpy as np
import pytest

from hearken.statistics import intervals
from hearken.statistics.intervals import (
    Interval,
    cluster_bootstrap,
    clustered_wilson,
    paired_difference,
    percentile,
    resampled_counts,
    wilson,
)


def test_rows_as_clusters_give_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    interval = cluster_bootstrap(values, n=4000)
    half = 1.96 * values.std() / 20
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_repeated_rows_are_no_new_information() -> None:
    """Every prompt's row copied nine times: the clustered interval stays, the row interval shrinks threefold."""
    values = np.random.default_rng(1).normal(size=100)
    once = cluster_bootstrap(values, seed=3)
    copies = cluster_bootstrap(np.repeat(values, 9), np.repeat(np.arange(100), 9), seed=3)
    rows = cluster_bootstrap(np.repeat(values, 9), seed=3)
    assert copies == pytest.approx(once)
    assert (rows.high - rows.low) / (once.high - once.low) == pytest.approx(1 / 3, rel=0.1)


def test_coverage_of_clustered_rows() -> None:
    """A rate with prompts of unequal size and a prompt effect: prompts cover about 95 %, rows much less."""
    random = np.random.default_rng(2)
    covered = np.zeros(2)
    trials = 300
    for trial in range(trials):
        prompts = np.repeat(np.arange(60), random.integers(2, 10, size=60))
        chance = random.beta(2.4, 1.6, size=60)[prompts]  # mean .6
        values = (random.random(len(prompts)) < chance).astype(float)
        for i, clusters in enumerate((prompts, None)):
            interval = cluster_bootstrap(values, clusters, n=400, seed=trial)
            covered[i] += interval.low <= 0.6 <= interval.high
    assert 0.91 <= covered[0] / trials <= 0.98
    assert covered[1] / trials < 0.88


def test_a_statistic_is_resampled_like_the_mean() -> None:
    random = np.random.default_rng(4)
    values, clusters = 3 + random.normal(size=200), random.integers(0, 40, size=200)  # clusters of unequal size
    fast = cluster_bootstrap(values, clusters, n=2000)
    slow = cluster_bootstrap(values, clusters, statistic=lambda x: float(np.mean(x)), n=2000)
    assert slow == pytest.approx(fast, abs=0.02)
    rows = np.stack([values, 2 * values + 1], axis=1)
    slope = cluster_bootstrap(rows, clusters, statistic=lambda x: float(np.polyfit(x[:, 0], x[:, 1], 1)[0]), n=50)
    assert slope == pytest.approx((2, 2, 2))


def test_resamples_without_the_needed_rows_are_left_out() -> None:
    """A mean among the rows of one kind, of which there are few: some resamples hold none."""
    rows = np.stack([np.arange(12.0), np.arange(12) % 4 == 0], axis=1)

    def among(some: np.ndarray) -> float:
        kept = some[some[:, 1] > 0, 0]
        return float(kept.mean()) if len(kept) else math.nan

    draws = np.random.default_rng(0).integers(12, size=(500, 12))
    share = np.mean([math.isnan(among(rows[draw])) for draw in draws])
    assert 0 < share < 0.1
    found = cluster_bootstrap(rows, statistic=among, n=500)
    assert found.estimate == 4 and 0 <= found.low < 4 < found.high <= 8
    rows[4:, 1] = 0  # one row of the kind: a third of the resamples say nothing
    hardly = cluster_bootstrap(rows, statistic=among, n=500)
    assert hardly.estimate == 0 and math.isnan(hardly.low) and math.isnan(hardly.high)


def test_clusters_may_be_any_labels_and_seeds_repeat() -> None:
    values, names = [1.0, 0.0, 1.0, 1.0], [("a", 1), ("a", 1), ("b", 2), ("c", 3)]
    assert cluster_bootstrap(values, names) == cluster_bootstrap(values, ["x", "x", "y", "z"])
    assert cluster_bootstrap(values, np.array([5, 5, 6, 7]), seed=1) == cluster_bootstrap(values, names, seed=1)


def test_one_cluster_has_an_estimate_but_no_interval() -> None:
    interval = cluster_bootstrap([1.0, 0.0], ["same", "same"])
    assert interval.estimate == 0.5 and math.isnan(interval.low) and math.isnan(interval.high)


def test_paired_difference_is_narrower_than_either() -> None:
    random = np.random.default_rng(5)
    common = random.normal(size=300)
    ours, theirs = common + 0.1 + 0.1 * random.normal(size=300), common + 0.1 * random.normal(size=300)
    difference, alone = paired_difference(ours, theirs), cluster_bootstrap(ours)
    assert difference.low < 0.1 < difference.high and difference.low > 0
    assert difference.high - difference.low < 0.3 * (alone.high - alone.low)


def test_wilson_closed_forms() -> None:
    z2 = 1.959963984540054**2
    assert wilson(0, 10) == pytest.approx((0.0, 0.0, z2 / (10 + z2)))
    assert wilson(10, 10) == pytest.approx((1.0, 10 / (10 + z2), 1.0))
    half = 0.5 * math.sqrt(z2 / (40 + z2))
    assert wilson(20, 40) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="no values"):
        cluster_bootstrap([])
    with pytest.raises(ValueError, match="2 values but 1 clusters"):
        cluster_bootstrap([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="differ"):
        paired_difference([1.0, 2.0], [1.0])
    for successes, n in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no rate"):
            wilson(successes, n)


def test_weights_count_as_copies_would() -> None:
    once = cluster_bootstrap([1.0, 0.0, 1.0], ["a", "b", "c"], weights=[2, 1, 1])
    assert once == cluster_bootstrap([1.0, 1.0, 0.0, 1.0], ["a", "a", "b", "c"])
    with pytest.raises(ValueError, match="another statistic"):
        cluster_bootstrap([1.0], statistic=lambda x: float(x.max()), weights=[1.0])
    rows = np.array([1.0, 0, 1, 1, 0, 1])
    assert clustered_wilson(rows, weights=np.full(6, 3.0)) == pytest.approx(clustered_wilson(rows))
    found = clustered_wilson(rows, weights=[5, 1, 1, 1, 1, 1])
    assert found == pytest.approx(wilson(0.8 * 100 / 30, 100 / 30)), "of (Σw)²/Σw² trials"
    pairs = np.repeat(np.arange(3), 2)
    assert clustered_wilson(rows, pairs, weights=np.full(6, 0.5)) == pytest.approx(clustered_wilson(rows, pairs))


def test_reads_well() -> None:
    assert str(Interval(0.8123, 0.77, 0.8512)) == "0.812 [0.77, 0.851]"


def test_clustered_wilson_is_wilson_of_the_effective_number() -> None:
    rows = np.array([1.0, 0, 1, 1, 0, 1])
    assert clustered_wilson(rows) == pytest.approx(wilson(4, 6))
    assert clustered_wilson(np.repeat(rows, 5), np.repeat(np.arange(6), 5)) == pytest.approx(wilson(4, 6), abs=0.03)
    assert clustered_wilson([1, 1, 1, 1], ["a", "a", "b", "b"]) == wilson(2, 2)  # as if each ranking were one vote
    assert clustered_wilson([1, 0, 1], ["a", "a", "a"]) == pytest.approx(wilson(2 / 3, 1))
    with pytest.raises(ValueError, match="no trials"):
        clustered_wilson([])


def test_resampled_counts_and_percentiles() -> None:
    drawn = resampled_counts(7, 100)
    assert drawn.shape == (100, 7) and np.all(drawn.sum(1) == 7)
    assert percentile(np.arange(101.0), 50) == pytest.approx((50, 2.5, 97.5))
    assert math.isnan(percentile(np.array([1.0, math.nan]), 1.0).low)


def test_resamples_are_those_of_one_draw_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.random.default_rng(7).multinomial(40, np.full(40, 1 / 40), size=30)
    monkeypatch.setattr(intervals, "_CHUNK", 8 * 40 * 4)
    parts = list(intervals.resamples(40, 30, seed=7))
    assert [len(part) for part in parts] == [4] * 7 + [2]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(intervals.resampled_counts(40, 30, seed=7), whole)


def test_many_clusters_are_drawn_one_by_one_from_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_MANY", 2)
    drawn = intervals.resampled_counts(20, 4_000, seed=1)
    assert (drawn.sum(1) == 20).all()
    assert drawn.mean() == pytest.approx(1)
    # A multinomial number has variance n p (1 - p) and covariance -n p².
    covariance = np.cov(drawn.T)
    assert np.diag(covariance).mean() == pytest.approx(0.95, abs=0.02)
    assert covariance[~np.eye(20, dtype=bool)].mean() == pytest.approx(-0.05, abs=0.005)


def test_clusters_by_number_are_those_by_name() -> None:
    names = ["c", "a", "c", "b", "a", "d"]
    numbers = np.array([ord(name) for name in names])
    wanted = [0, 1, 0, 2, 1, 3]
    assert intervals.cluster_index(numbers, 6).tolist() == intervals.cluster_index(names, 6).tolist() == wanted
    assert intervals.cluster_index(np.array([], dtype=np.int64), 0).tolist() == []
