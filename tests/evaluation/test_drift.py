"""Texts beside the reference's, and the likelihood of what people preferred."""

from __future__ import annotations

import pytest
from tiny_models import write_base

from hearken.evaluation.drift import drift, likelihood_change
from hearken.feedback.examples import Comparison


def test_a_collapse_shows_without_any_judge() -> None:
    prompts = [f"p{i}" for i in range(6)]
    before = [
        "the fox went to the hill by night", "an owl sings in the rain", "bears sleep", "no river is so wide as ours",
        "one day the miller lost her hat", "who rang the bell at dawn",
    ]  # fmt: skip
    after = ["best best film ever made today my friend"] * 6
    found = drift(prompts, after, before)
    assert found.length.estimate == pytest.approx(8 - sum(len(t.split()) for t in before) / 6)
    assert found.distinct_2[1] < found.distinct_2[0] and found.self_bleu[1] == pytest.approx(1.0)
    assert found.self_bleu[0] < 1 and found.phrases[0].share == 1.0
    assert drift(prompts, before, before).length == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="for 6 prompts"):
        drift(prompts, after[:2], before)


def test_a_policy_has_not_moved_from_itself(tmp_path) -> None:
    base = str(write_base(tmp_path / "base"))
    rows = [Comparison(f"tell {i} the", (" fox", " owl sings"), (0, 1)) for i in range(4)]
    better, worse = likelihood_change(base, base, [*rows, Comparison("p", (" a", " b"), (0, 0))])
    assert better.estimate == worse.estimate == 0.0
