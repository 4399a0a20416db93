from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene as Oracle

from hearken.statistics.dawid_skene import dawid_skene


def crowd(seed: int, units: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Five labelers of known reliability, three of whom judge each unit."""
    random = np.random.default_rng(seed)
    reliability = np.array([0.95, 0.85, 0.75, 0.6, 0.4])
    truth = random.choice(3, size=units, p=[0.5, 0.2, 0.3])
    unit = np.repeat(np.arange(units), 3)
    who = np.concatenate([random.permutation(5)[:3] for _ in range(units)])
    right = random.random(len(unit)) < reliability[who]
    other = (truth[unit] + random.integers(1, 3, size=len(unit))) % 3
    return unit, who, np.where(right, truth[unit], other), truth, reliability


@pytest.mark.slow
def test_it_is_crowd_kit() -> None:
    unit, who, said, _, _ = crowd(0)
    ours = dawid_skene(unit, who, said, 3, smoothing=0, steps=3000, tolerance=1e-10)
    oracle = Oracle(n_iter=3000, tol=1e-12).fit(pd.DataFrame({"task": unit, "worker": who, "label": said}))
    assert ours.truth == pytest.approx(oracle.probas_.sort_index()[[0, 1, 2]].to_numpy(), abs=1e-3)
    assert ours.prior == pytest.approx(oracle.priors_.sort_index().to_numpy(), abs=1e-3)
    for labeler in range(5):
        theirs = (
            oracle.errors_.loc[labeler].reindex(index=range(3), columns=range(3)).fillna(0).to_numpy()
        )  # rows said, columns true
        assert pytest.approx(theirs, abs=1e-3) == ours.confusion[labeler].T


def test_it_finds_who_is_reliable_and_beats_the_vote() -> None:
    unit, who, said, truth, reliability = crowd(1, units=1500)
    found = dawid_skene(unit, who, said, 3)
    assert found.reliability == pytest.approx(reliability, abs=0.06)
    votes = np.zeros((1500, 3))
    np.add.at(votes, (unit, said), 1)
    ours, majority = (np.mean(table.argmax(1) == truth) for table in (found.truth, votes))
    assert ours > majority + 0.02


def test_weights_are_repetitions() -> None:
    unit, who, said, _, _ = crowd(2, units=60)
    times = np.random.default_rng(3).integers(0, 3, size=60)
    once = np.repeat(unit, times[unit])
    copies = np.concatenate([np.arange(times[u]) for u in unit])
    new, index = np.unique(once * 10 + copies, return_inverse=True)
    repeated = dawid_skene(index, np.repeat(who, times[unit]), np.repeat(said, times[unit]), 3, steps=20, tolerance=0)
    weighted = dawid_skene(unit, who, said, 3, weights=times, steps=20, tolerance=0)
    assert len(new) == times.sum()
    assert weighted.confusion == pytest.approx(repeated.confusion) and weighted.prior == pytest.approx(repeated.prior)


def test_wrong_input() -> None:
    for said in ([], [3], [-1]):
        with pytest.raises(ValueError, match=r"0\.\.2"):
            dawid_skene([0] * len(said), [0] * len(said), said, 3)


def test_symmetric_is_every_judgment_both_ways_round() -> None:
    unit, who, said, _, _ = crowd(5, units=60)
    once = dawid_skene(unit, who, said, 3, smoothing=1.0, symmetric=True, steps=30, tolerance=0)
    twice = dawid_skene(
        np.concatenate([unit, unit + 60]), np.tile(who, 2), np.concatenate([said, 2 - said]), 3, smoothing=2.0,
        steps=30, tolerance=0,
    )  # fmt: skip
    assert once.truth == pytest.approx(twice.truth[:60]) and once.confusion == pytest.approx(twice.confusion)
    assert once.prior == pytest.approx(twice.prior) and once.prior[0] == pytest.approx(once.prior[2])
