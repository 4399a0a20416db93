"""What a ranking costs: the prompt once, every response once, whatever the number of pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hearken.algorithms.reward_losses import losses
from hearken.algorithms.reward_options import RewardConfig
from hearken.domains.text.data import Judged
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model
from hearken.models.layout import Group
from hearken.models.loading import new_reward
from hearken.models.scorers import RewardScorer, probe


@pytest.mark.parametrize("k", [2, 5, 9])
def test_a_ranking_of_k_is_one_prompt_pass_and_k_response_passes(k: int, tmp_path: Path) -> None:
    size = TinyModelSize(vocabulary=280, hidden=16, layers=1, heads=2, context=64)
    model, _ = new_reward(str(make_tiny_model(["some text"], tmp_path / "m", size)), 0, device=torch.device("cpu"))
    scorer = RewardScorer(model)
    assert probe(scorer, 64) == "packed"
    seen: list[int] = []
    scorer.backbone.layers[0].register_forward_pre_hook(  # type: ignore[union-attr,index]
        lambda module, inputs, more: seen.append((inputs or (more["hidden_states"],))[0].shape[1]), with_kwargs=True
    )
    prompt, responses = list(range(3, 23)), [[30 + i] * (i + 1) for i in range(k)]
    judged = Judged(Group(prompt, responses), "comparison", tuple(range(k)))
    losses(scorer, [judged], RewardConfig()).sum().backward()
    assert seen == [20 + sum(len(r) for r in responses)]
