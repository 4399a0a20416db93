"""Widths of a reward model's last layer, and what optimises a reward with and without them."""

from __future__ import annotations

import pytest
import torch
from tiny_models import classifier

from hearken.models.layout import Group
from hearken.models.scorers import RewardScorer
from hearken.rewards.confidence import Confidence, EnsembleReward, PessimisticReward, fit_confidence, last_layer
from hearken.rewards.learned import LearnedReward

GROUPS = [Group([5, 6, i], [[10 + i, 3, 1], [20 + i, 1], [30, 31, 1]]) for i in range(12)]
PAIRS = [(3 * i, 3 * i + 1, i) for i in range(12)]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_the_score_is_the_head_on_the_last_layer(pooling: str) -> None:
    scorer = RewardScorer(classifier("llama"))
    scorer.pooling = pooling
    scorer.calibrate(1.5, -0.2)
    reward = LearnedReward(scorer, 40)
    features = last_layer(reward, GROUPS)
    assert torch.allclose(scorer.head(features)[:, 0] * 1.5 - 0.2, reward(GROUPS), atol=1e-5)


def test_widths_grow_away_from_the_comparisons_and_survive_saving(tmp_path) -> None:
    reward = LearnedReward(RewardScorer(classifier("llama")), 200)
    found = fit_confidence(reward, GROUPS, PAIRS)
    features = last_layer(reward, GROUPS)
    far = found.centre + 10 * (features[2] - found.centre)
    for width in (found.linear, found.spread):
        assert (width(features) >= 0).all()
        assert width(far[None]).item() == pytest.approx(10 * width(features[2:3]).item(), rel=1e-3)
    assert found.linear(found.centre[None]).item() == pytest.approx(0, abs=1e-6)
    more = fit_confidence(reward, GROUPS, PAIRS * 4)  # the same comparisons four times: half as wide
    assert torch.allclose(more.linear(features) * 2, found.linear(features), rtol=1e-3)
    found.save(tmp_path)
    again = Confidence.load(tmp_path)
    assert again is not None and torch.equal(again.linear(features), found.linear(features))
    assert Confidence.load(tmp_path / "none") is None


def test_pessimistic_scores() -> None:
    reward = LearnedReward(RewardScorer(classifier("llama")), 200)
    found = fit_confidence(reward, GROUPS, PAIRS)
    features = last_layer(reward, GROUPS)
    for kind, width in (("linear", found.linear), ("heads", found.spread)):
        scores = PessimisticReward(reward, found, 2.0, kind)(GROUPS)
        assert torch.allclose(scores, reward(GROUPS) - 2 * width(features), atol=1e-4)
    other = LearnedReward(RewardScorer(classifier("llama", seed=1)), 200)
    both = torch.stack([reward(GROUPS), other(GROUPS)])
    assert torch.allclose(EnsembleReward([reward, other], 0.5)(GROUPS), both.mean(0) - 0.5 * both.std(0))
    with pytest.raises(ValueError, match="comparisons"):
        fit_confidence(reward, GROUPS, [])
