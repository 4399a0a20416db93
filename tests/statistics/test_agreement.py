from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from hearken.statistics.agreement import (
    Level,
    cohen_kappa,
    cohen_kappa_interval,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
    value_counts,
)
from hearken.statistics.intervals import cluster_bootstrap

tables = st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=2, max_size=12)


def test_value_counts() -> None:
    assert value_counts([0, 0, 2, 2, 2], [1, 1, 0, 2, 2], 3).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 2]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_cohen_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    a, b = zip(*pairs, strict=True)
    ours = cohen_kappa(a, b)
    if len({*a, *b}) == 1:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(a, b))


@pytest.mark.slow
def test_cohens_interval_is_the_bootstrap_of_clusters() -> None:
    random = np.random.default_rng(0)
    a = random.integers(0, 3, size=240)
    b = np.where(random.random(240) < 0.6, a, random.integers(0, 3, size=240))
    clusters = np.repeat(np.arange(80), 3)
    rows = np.stack([a, b], 1)
    wanted = cluster_bootstrap(rows, clusters, lambda some: cohen_kappa_score(*some.T), n=1000)
    found = cohen_kappa_interval(a.tolist(), b.tolist(), clusters)
    assert found.estimate == pytest.approx(wanted.estimate)
    assert found == pytest.approx(wanted, abs=0.02)  # the resamples are others
    alone = cohen_kappa_interval([0, 1, 1], [0, 1, 0], ["p"] * 3)
    assert alone.estimate == cohen_kappa([0, 1, 1], [0, 1, 0]) and math.isnan(alone.low)
    assert math.isnan(cohen_kappa_interval([1, 1], [1, 1]).estimate)


def test_fleiss_published_example() -> None:
    """Fleiss's (1971) kind of table: 10 subjects, 14 raters, 5 categories; κ = .210 as commonly worked out."""
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([[2, 0], [3, 0]])


@settings(deadline=None, max_examples=60)
@given(tables, st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_krippendorffs(table: list[list[int]], level: Level) -> None:
    counts = np.array(table)
    pairable = counts[counts.sum(1) >= 2]
    ours = krippendorff_alpha(counts, level, n=2).estimate
    if len(pairable) == 0 or (pairable.sum(0) > 0).sum() < 2:
        assert math.isnan(ours)
        return
    # The oracle counts units with a single judgment in the ordinal distances; the published formula does not.
    theirs = krippendorff.alpha(value_counts=pairable, value_domain=[0, 1, 2, 3], level_of_measurement=level)
    assert ours == pytest.approx(theirs)


def test_alpha_of_krippendorffs_own_example() -> None:
    """Krippendorff (2011), example C: four observers, twelve units, missing data: .743 nominal, .815 ordinal."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    rows = [(unit, value - 1) for row in observers for unit, value in enumerate(row) if value is not None]
    counts = value_counts(*zip(*rows, strict=True), 5)
    assert krippendorff_alpha(counts, "nominal").estimate == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counts, "ordinal").estimate == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(counts, "interval").estimate == pytest.approx(0.849, abs=5e-4)


def test_what_cannot_be_said() -> None:
    for counts in ([], [[1, 0], [0, 1]]):
        assert math.isnan(krippendorff_alpha(counts).estimate)
        assert math.isnan(raw_agreement(counts).estimate)
    one = krippendorff_alpha([[2, 1]])
    assert not math.isnan(one.estimate) and math.isnan(one.low)
    with pytest.raises(ValueError, match="of 0 and 0"):
        cohen_kappa([], [])


def test_raw_agreement_counts_pairs_of_judgments() -> None:
    # Three judgments of which two agree: 1 of 3 pairs; two that agree: 1 of 1; a single one says nothing.
    assert raw_agreement([[2, 1], [0, 2], [1, 0]]).estimate == pytest.approx(2 / 4)


@pytest.mark.slow
def test_alpha_interval_covers() -> None:
    """Two to four labelers with a common truth they repeat with probability .7; the true α by a very large sample."""

    def sample(random: np.random.Generator, units: int) -> np.ndarray:
        truth = random.integers(0, 3, size=units)
        each = random.integers(2, 5, size=units)
        unit = np.repeat(np.arange(units), each)
        said = np.where(random.random(len(unit)) < 0.7, truth[unit], random.integers(0, 3, size=len(unit)))
        return value_counts(unit, said, 3)

    true = krippendorff_alpha(sample(np.random.default_rng(0), 400_000), n=2).estimate
    random = np.random.default_rng(1)
    trials = 600
    covered = sum(
        found.low <= true <= found.high
        for trial in range(trials)
        for found in [krippendorff_alpha(sample(random, 150), n=300, seed=trial)]
    )
    assert 0.92 <= covered / trials <= 0.97
