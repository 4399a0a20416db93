from __future__ import annotations

import numpy as np
import pytest

from hearken.statistics.weighting import rake


def test_one_attribute_is_post_stratification() -> None:
    found = rake({"age": ["young"] * 8 + ["old"] * 2}, {"age": {"young": 50, "old": 50}})
    assert found.weights == pytest.approx([0.625] * 8 + [2.5] * 2)
    assert found.effective == pytest.approx(100 / (8 * 0.625**2 + 2 * 2.5**2))
    assert found.missing == {}


def test_two_attributes_meet_both_margins() -> None:
    random = np.random.default_rng(0)
    rows = {"age": random.choice(["young", "old"], 60, p=[0.8, 0.2]), "place": random.choice(["n", "s"], 60)}
    counts = random.integers(1, 20, size=60)
    target = {"age": {"young": 0.5, "old": 0.5}, "place": {"n": 0.3, "s": 0.7}}
    found = rake({k: v.tolist() for k, v in rows.items()}, target, counts)
    for attribute, shares in target.items():
        for value, share in shares.items():
            used = (found.weights * counts)[rows[attribute] == value].sum() / (found.weights * counts).sum()
            assert used == pytest.approx(share, abs=1e-6)
    assert 1 < found.effective < counts.sum()


def test_the_silent_the_missing_and_the_lonely() -> None:
    found = rake({"age": ["young", "young", None, "robot"]}, {"age": {"young": 0.5, "old": 0.5}})
    assert found.missing == {"age": ("old",)} and found.weights == pytest.approx([1, 1, 1, 1])
    lonely = rake({"age": ["young"] * 99 + ["old"]}, {"age": {"young": 1, "old": 1}}, limit=5)
    assert lonely.weights == pytest.approx([95 / 99] * 99 + [5])
    assert rake({}, {"age": {"old": 1}}, counts=[3, 4]).missing == {"age": ("old",)}


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="nobody"):
        rake({"age": []}, {})
    with pytest.raises(ValueError, match="below zero"):
        rake({"age": ["a"]}, {"age": {"a": -1}})
