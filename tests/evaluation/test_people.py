"""Labelers that a model never saw, and groups that nobody declared."""

from __future__ import annotations

import numpy as np
import pytest

from hearken.evaluation.people import discover, strangers


def judged(tastes: list[list[float]], labelers: int = 9, each: int = 40, seed: int = 0):
    """Every third labeler has the last of the tastes, in 12 features of which two matter."""
    rng = np.random.default_rng(seed)
    rows, who, prompts = [], [], []
    for labeler in range(labelers):
        x = rng.normal(size=(each, 12))
        taste = np.array(tastes[-1 if labeler % 3 == 0 else 0])
        p = 1 / (1 + np.exp(-x[:, :2] @ taste))
        rows.append(np.where(rng.random(each) < p, 1, -1)[:, None] * x)
        who += [f"l{labeler}"] * each
        prompts += [f"p{i}" for i in range(each)]
    x = np.concatenate(rows)
    x[:, :2] *= 3  # what matters varies most
    return x, who, prompts


def test_groups_that_want_different_things_are_found() -> None:
    found = discover(*judged([[2.0, 0.0], [-1.0, 2.0]]))
    assert found is not None and found.real
    assert found.groups == (("l1", "l2", "l4", "l5", "l7", "l8"), ("l0", "l3", "l6"))
    assert found.two.estimate - found.one.estimate == pytest.approx(found.gain.estimate)
    assert "want different things" in found.says and "l0, l3, l6" in found.says and found.share == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(2))
def test_one_taste_is_not_taken_for_two(seed: int) -> None:
    found = discover(*judged([[2.0, 1.0]], seed=seed))
    assert found is not None and not found.real and "no groups can be told from chance" in found.says


def test_too_few_labelers_or_comparisons_say_nothing() -> None:
    assert discover(*judged([[1.0, 1.0]], labelers=3)) is None
    assert discover(*judged([[1.0, 1.0]], each=9)) is None
    x, who, prompts = judged([[1.0, 1.0]])
    assert discover(x, who, ["p"] * len(prompts)) is None


def test_strangers_are_harder() -> None:
    labelers = ["new", "old"] * 100 + [None]
    prompts = [f"p{i // 2}" for i in range(201)]
    without = [0.0 if who == "new" and i % 4 == 0 else 1.0 for i, who in enumerate(labelers)]
    found = strangers(labelers, without, [1.0] * 201, prompts, {"new"})
    assert found is not None and found.labelers == ("new",) and found.pairs == (100, 100)
    assert (found.theirs.estimate, found.others.estimate, found.known.estimate) == (0.5, 1.0, 1.0)
    assert found.gap.estimate == 0.5 and 0.3 < found.gap.low < found.gap.high < 0.7
    assert found.cost.estimate == 0.5 and found.cost.low > 0.3 and "ask more of them" in found.says
    level = strangers(labelers, [1.0] * 201, [1.0] * 201, prompts, {"new"})
    assert level is not None and "cannot be told" in level.says
    assert strangers(labelers, without, without, prompts, {"nobody"}) is None
    assert strangers(["new"], [1.0], [1.0], ["p"], {"new"}) is None
