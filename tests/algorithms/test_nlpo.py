from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_policy_gradient import improve, metrics, module  # noqa: F401

import hearken.algorithms.nlpo as nlpo
from hearken.algorithms.nlpo_options import NLPOConfig
from hearken.algorithms.stage import Inputs
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_policy
from hearken.models.masked import FORBIDDEN, MaskedScorer
from hearken.models.scorers import TokenScorer
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

GROUPS = [Group([5, 6, 7], [[8, 9, 10], [11, 12]]), Group([9, 4], [[3], [20, 21]])]


def test_the_mask_is_the_nucleus_of_the_copy(world) -> None:
    model = load_policy(str(world.sft))
    scorer = MaskedScorer(model, top_p=0.6)
    layout = lay_out(GROUPS)
    plain = TokenScorer(load_policy(str(world.sft)))
    states = plain.hidden(layout)[layout.state[layout.mask]]
    logits = plain.logits(states)
    got = scorer.logits(scorer.hidden(layout)[layout.state[layout.mask]])
    for want, found in zip(logits, got, strict=True):
        ranked = torch.softmax(want, -1).sort(descending=True)
        count = int((ranked.values.cumsum(-1) < 0.6).sum()) + 1
        allowed = set(ranked.indices[:count].tolist())
        assert {i for i, x in enumerate(found.tolist()) if x > FORBIDDEN / 2} == allowed
        torch.testing.assert_close(found[ranked.indices[:count]], want[ranked.indices[:count]], rtol=0, atol=1e-5)
    limited = MaskedScorer(model, top_p=1.0, top_k=3)
    assert (limited.logits(limited.hidden(layout)) > FORBIDDEN / 2).sum(-1).eq(3).all()


def test_a_mask_of_everything_is_no_mask_and_a_response_token_is_always_allowed(world) -> None:
    layout = lay_out(GROUPS)
    plain = TokenScorer(load_policy(str(world.sft)))(layout).logprobs
    torch.testing.assert_close(
        MaskedScorer(load_policy(str(world.sft)), 1.0)(layout).logprobs, plain, atol=1e-5, rtol=0
    )
    narrow = MaskedScorer(load_policy(str(world.sft)), 0.01)(layout).logprobs
    assert (narrow >= plain - 1e-5).all() and (narrow > -50).all()


def test_the_sampler_keeps_to_the_mask_with_one_cache(world) -> None:
    """Sampled log-probabilities are those of the training path, and change with the mask policy alone."""
    model = load_policy(str(world.sft))
    scorer = MaskedScorer(model, top_p=0.7)
    prompts = [[5, 6, 7], [9, 4], [3, 8, 2, 6]]
    samples = NativeSampler(scorer, [1]).sample(prompts, 3, SamplingParameters(max_new_tokens=6), [1, 2, 3])
    groups = [Group(p, [s.tokens for s in samples[3 * i : 3 * i + 3]]) for i, p in enumerate(prompts)]
    layout = lay_out(groups)
    found = scorer(layout).logprobs
    for row, sample in enumerate(samples):
        assert found[row, : len(sample.tokens)].tolist() == pytest.approx(sample.logprobs, abs=1e-5)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.3 * torch.randn_like(model.get_input_embeddings().weight))
    stale = scorer.logits(scorer.hidden(layout)) > FORBIDDEN / 2
    scorer.refresh()
    fresh = scorer.logits(scorer.hidden(layout)) > FORBIDDEN / 2
    assert (stale != fresh).any()


@pytest.mark.slow
def test_a_run(world, tmp_path: Path) -> None:
    more = {"num_generations": 2, "batch_size": 8, "episodes": 24, "epochs": 2, "refresh": 2, "mask_top_p": 0.8}
    artifact = improve(world, tmp_path / "out", "nlpo", **more)
    rows = metrics(artifact.path)
    assert artifact.kind == "nlpo" and len(rows) == 3
    assert all(row["first_ratio_gap"] < 1e-4 and row["sampler_gap"] < 1e-4 for row in rows)
    assert rows[0]["kl"] > 0, "the mask alone has moved the policy from its reference"
    lora = improve(world, tmp_path / "lora", "nlpo", lora=2, **more)
    assert (lora.path / "adapter_config.json").exists()


@pytest.mark.slow
def test_the_mask_is_refreshed_on_time(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(MaskedScorer, "refresh", lambda self: steps.append(1))
    improve(world, tmp_path / "out", "nlpo", episodes=16 * 5, refresh=2)
    assert len(steps) == 2
    ready = nlpo.load(
        Inputs(model=str(world.sft), data=(str(world.prompts),), reward=str(world.reward)),
        NLPOConfig(batch_size=8, max_new_tokens=8),
    )
    names = {n for n, p in ready.scorer.named_parameters() if p.requires_grad}
    assert names and not any("mask_model" in n for n in names)
