"""The lean decoding step against the models' own code."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from hearken.models.loading import add_adapter
from hearken.models.scorers import TokenScorer
from hearken.rollout import native
from hearken.rollout.lean import Lean, fits
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

LEAN = ["llama", "qwen2", "qwen3"]
PROMPTS = [[5, 6, 7, 8], [9], [10, 11, 12]]


@pytest.mark.parametrize("name", LEAN)
def test_logits_are_the_models_own(name: str) -> None:
    scorer = TokenScorer(tiny_models.causal(name))
    own, lean = (native._Packed(scorer, PROMPTS, 2, 6, step) for step in (None, Lean(scorer)))
    with torch.no_grad():
        torch.testing.assert_close(own.start(), lean.start())
        generator = torch.Generator().manual_seed(0)
        for step in range(5):
            tokens = torch.randint(3, tiny_models.V, (len(own.parent),), generator=generator)
            if step == 2:  # finished rows leave
                for stepper in (own, lean):
                    stepper.keep(torch.tensor([0, 2, 5]))
            if step >= 2:
                tokens = tokens[:3]
            torch.testing.assert_close(lean.step(tokens), own.step(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", "q_proj,down_proj"])
@pytest.mark.parametrize("name", LEAN)
def test_an_adapter_counts_where_it_is_on(name: str, targets: str) -> None:
    model = tiny_models.causal(name)
    add_adapter(model, "policy", 3, targets=targets)
    with torch.no_grad():
        for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
            parameter.normal_(std=0.3)
    how = SamplingParameters(max_new_tokens=8)
    found = {}
    for adapter in ("policy", None):
        sampler = NativeSampler(TokenScorer(model, adapter=adapter), eos=[3])
        assert sampler.lean
        quick = sampler.sample(PROMPTS, 2, how, [1, 2, 3])
        sampler.lean = False
        slow = sampler.sample(PROMPTS, 2, how, [1, 2, 3])
        assert [s.tokens for s in quick] == [s.tokens for s in slow]
        found[adapter] = [s.logprobs for s in quick]
        for a, b in zip(quick, slow, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert found["policy"] != found[None]


@pytest.mark.parametrize("name", LEAN)
def test_frozen_weights_in_bf16_are_the_models_own(name: str) -> None:
    """Nothing is rounded twice: so the gap is that of additions in another order."""
    model = tiny_models.causal(name)
    add_adapter(model, "policy", 3)
    with torch.no_grad():
        for parameter in (p for n, p in model.named_parameters() if "lora_B" in n):
            parameter.normal_(std=0.1)
    scorer = TokenScorer(model)
    scorer.compute_in("bf16")
    assert NativeSampler(scorer, eos=[3]).lean
    with torch.no_grad(), scorer.autocast():
        own, lean = (native._Packed(scorer, PROMPTS, 1, 3, step) for step in (None, Lean(scorer)))
        torch.testing.assert_close(own.start(), lean.start(), rtol=0, atol=0)
        tokens = torch.tensor([3, 4, 5])
        truth, found = own.step(tokens).float(), lean.step(tokens).float()
    assert native._apart(found, truth) < 0.02


@pytest.mark.parametrize("name", LEAN)
def test_the_sampler_draws_the_same(name: str) -> None:
    sampler = NativeSampler(TokenScorer(tiny_models.causal(name)), eos=[3])
    assert sampler.lean
    how = SamplingParameters(max_new_tokens=12)
    quick = sampler.sample(PROMPTS, 3, how, [1, 2, 3])
    sampler.lean = False
    slow = sampler.sample(PROMPTS, 3, how, [1, 2, 3])
    assert [s.tokens for s in quick] == [s.tokens for s in slow]
    for a, b in zip(quick, slow, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2", "phi3"])
def test_other_models_keep_their_own_step(name: str) -> None:
    assert not fits(TokenScorer(tiny_models.causal(name)))  # mistral: a sliding window


def test_a_model_that_computes_something_else_is_found_out() -> None:
    model = tiny_models.causal("llama")
    layer = model.model.layers[0].mlp
    own = type(layer).forward
    layer.forward = lambda x: 1.1 * own(layer, x)
    scorer = TokenScorer(model)
    assert fits(scorer)
    assert not NativeSampler(scorer, eos=[3]).lean


def test_it_follows_the_weights_between_calls() -> None:
    scorer = TokenScorer(tiny_models.causal("llama"))
    sampler = NativeSampler(scorer, eos=[3])
    how = SamplingParameters(max_new_tokens=8, temperature=0)
    sampler.sample(PROMPTS, 1, how, [1, 2, 3])
    with torch.no_grad():
        for parameter in scorer.model.parameters():
            parameter.mul_(1.3)
    quick = sampler.sample(PROMPTS, 1, how, [1, 2, 3])
    sampler.lean = False
    assert [s.tokens for s in quick] == [s.tokens for s in sampler.sample(PROMPTS, 1, how, [1, 2, 3])]


def test_bfloat16_is_close() -> None:
    scorer = TokenScorer(tiny_models.causal("llama"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own, lean = (native._Packed(scorer, PROMPTS, 1, 3, step) for step in (None, Lean(scorer)))
        torch.testing.assert_close(own.start(), lean.start())
        tokens = torch.tensor([3, 4, 5])
        truth, found = own.step(tokens).float(), lean.step(tokens).float()
    assert (truth - found).abs().max() < 0.1 * truth.std()
