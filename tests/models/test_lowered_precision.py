"""Frozen weights kept in bf16 compute what autocast computes from full ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import FALLBACK, PACKED, causal, classifier
from transformers import LlamaConfig, LlamaForCausalLM

from hearken.models import precision
from hearken.models.layout import Group, lay_out
from hearken.models.loading import add_adapter, merge_adapter
from hearken.models.scorers import RewardScorer, TokenScorer

GROUPS = [Group([5, 6, 7, 8], [[9, 10], [11, 12, 13]]), Group([4], [[3, 3]])]


def under_autocast(scorer: TokenScorer) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return scorer(lay_out(GROUPS)).logprobs


@pytest.mark.parametrize("name", PACKED + FALLBACK)
def test_lowered_weights_give_the_same_bits(name: str) -> None:
    scorer = TokenScorer(causal(name).requires_grad_(False), path="padded")
    before = under_autocast(scorer)
    full = sum(p.nbytes for p in scorer.model.parameters())
    scorer.compute_in("bf16")
    with torch.no_grad():
        torch.testing.assert_close(scorer(lay_out(GROUPS)).logprobs, before, rtol=0, atol=0)
    assert sum(p.nbytes for p in scorer.model.parameters()) < full or scorer.model.config.tie_word_embeddings


def test_what_is_trained_stays_full_and_learns_the_same() -> None:
    gradients = []
    for low in (False, True):
        model = causal("llama")
        add_adapter(model, "policy", 2)
        scorer = TokenScorer(model)
        if low:
            scorer.compute_in("bf16")
        with torch.autocast("cpu", torch.bfloat16):
            scorer(lay_out(GROUPS)).logprobs.sum().backward()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert trained and all(p.dtype == torch.float32 for p in trained.values())
        gradients.append({n: p.grad for n, p in trained.items()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_a_tied_head_gets_weights_of_its_own_and_the_embeddings_stay() -> None:
    config: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**config, tie_word_embeddings=True)).eval().requires_grad_(False)
    scorer = TokenScorer(model)
    before = under_autocast(scorer)
    embedding = model.get_input_embeddings().weight.clone()
    scorer.compute_in("bf16")
    assert model.lm_head.weight.dtype == torch.bfloat16
    torch.testing.assert_close(model.get_input_embeddings().weight, embedding, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(scorer(lay_out(GROUPS)).logprobs, before, rtol=0, atol=0)


def test_a_merge_is_with_the_full_weights() -> None:
    """An adapter of less than half a unit in bf16's last place would vanish in lowered weights."""
    model, original = causal("llama"), causal("llama")
    add_adapter(model, "policy", 2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=1e-5)
    precision.lower(model)
    precision.restore(model, original)
    merged = merge_adapter(model)
    layer, before = merged.model.layers[0].self_attn.q_proj.weight, original.model.layers[0].self_attn.q_proj.weight
    assert layer.dtype == torch.float32
    assert 0 < (layer - before).abs().max() < 1e-4


def test_followers_compute_like_their_leader_and_scores_stay_full() -> None:
    leader = TokenScorer(causal("llama"))
    early, late = (RewardScorer(classifier("llama").requires_grad_(False)) for _ in range(2))
    early.compute_like(leader)
    leader.compute_in("bf16")
    late.compute_like(leader)
    for scorer in (early, late):
        assert scorer.precision == "bf16" and scorer.output.weight.dtype == torch.float32
        with torch.no_grad():
            scores = scorer(lay_out(GROUPS))
        assert scores.dtype == torch.float32
        assert (scores != scores.bfloat16().float()).any(), "not rounded to bf16"
    assert all(p.dtype == torch.float32 for p in leader.model.parameters()), "the leader is trained in full"


def test_how_a_model_that_is_only_read_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal("llama")
    monkeypatch.setattr(precision, "has_bf16", lambda _: True)
    assert precision.to_read(model, None) == "fp32", "small"
    assert precision.to_read(model, "bf16") == "bf16", "as it was trained"
    monkeypatch.setattr(precision, "WORTH_BF16", 1)
    assert precision.to_read(model, None) == "bf16"
    assert precision.to_read(model, "fp32") == "fp32"
    monkeypatch.setattr(precision, "has_bf16", lambda _: False)
    assert precision.to_read(model, "bf16") == "fp32", "this machine is slow at it"
