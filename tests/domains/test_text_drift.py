"""Texts beside the reference's, and the likelihood of what people preferred."""

from __future__ import annotations

import math

import pytest
from tiny_models import write_base
from transformers import AutoModelForCausalLM

from hearken.domains.text.drift import drift, entropy, likelihood_change
from hearken.domains.text.measuring import measure
from hearken.feedback.examples import Comparison
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval


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
    assert found.entropy is None
    given = (Interval(2.0, 1.9, 2.1), Interval(0.1, 0.0, 0.2))
    assert drift(prompts, after, before, entropies=given).entropy == given
    with pytest.raises(ValueError, match="for 6 prompts"):
        drift(prompts, after[:2], before)


def test_a_policy_has_not_moved_from_itself(tmp_path) -> None:
    base = str(write_base(tmp_path / "base"))
    rows = [Comparison(f"tell {i} the", (" fox", " owl sings"), (0, 1)) for i in range(4)]
    better, worse = likelihood_change(base, base, [*rows, Comparison("p", (" a", " b"), (0, 0))])
    assert better.estimate == worse.estimate == 0.0


def test_entropy_counts_tokens_alike() -> None:
    found = entropy([1.0, 8.0], [1, 9], ["p", "q"])
    assert found.estimate == pytest.approx(0.9) and (found.low, found.high) == pytest.approx((8 / 9, 1.0))
    assert math.isnan(entropy([0.0], [0], ["p"]).estimate)


def test_a_policy_that_knows_nothing_has_all_entropy(tmp_path) -> None:
    """With a head of zeros every token is as likely as any other: log V nats, at whatever temperature."""
    base = write_base(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.get_output_embeddings().weight.data.zero_()
    model.save_pretrained(base)
    prompts = ["tell the fox", "tell the owl"]
    seen = measure(str(base), None, prompts, SamplingParameters(temperature=0.7, max_new_tokens=5), seed=0)
    assert sum(seen.lengths) > 1
    found = entropy(seen.entropy, seen.lengths, prompts)
    assert found.estimate == pytest.approx(math.log(model.config.vocab_size), rel=1e-5)
