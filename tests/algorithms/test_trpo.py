from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_policy_gradient import improve, metrics, module  # noqa: F401
from torch import nn

from hearken.algorithms.natural_gradient import Fisher, Weights
from hearken.algorithms.trpo_options import TRPOConfig
from hearken.errors import UserError
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_policy
from hearken.models.scorers import TokenScorer
from hearken.objectives.kl import adapt_kl
from hearken.objectives.trust_region import flatten


def test_the_fisher_product_is_the_hessian_of_the_kl(world) -> None:
    """Against a second derivative by autograd, through attention that can be differentiated twice."""
    model = load_policy(str(world.sft))
    scorer = TokenScorer(model)
    groups = [Group([5, 6, 7], [[8, 9, 10], [11, 12]])]
    for name, p in model.named_parameters():
        p.requires_grad_("mlp" in name or "norm" in name)
    weights = Weights(scorer)
    torch.manual_seed(0)
    vector = torch.randn(len(weights.get()))
    fisher = Fisher(scorer, weights, groups, TRPOConfig(damping=0.0))
    got = fisher(vector)

    model.set_attn_implementation("eager")
    rows = [(torch.tensor([[*groups[0].prompt, *r]]), len(r)) for r in groups[0].responses]
    logits = torch.cat([model(ids).logits[0, -n - 1 : -1] for ids, n in rows])
    fixed = torch.log_softmax(logits.detach(), -1)
    kl = (fixed.exp() * (fixed - torch.log_softmax(logits, -1))).sum() / 5
    first = torch.autograd.grad(kl, weights.parameters, create_graph=True)
    second = torch.autograd.grad(flatten(first) @ vector, weights.parameters)
    want = flatten(second)
    assert (got - want).norm() < 0.01 * want.norm()
    assert lay_out(groups).mask.sum() == fisher.tokens == 5


def test_weights_come_and_go() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    weights = Weights(layer)
    vector = weights.get()
    assert vector.shape == (6,)
    weights.set(vector + 1)
    torch.testing.assert_close(weights.get(), vector + 1)
    layer(torch.ones(1, 3)).sum().backward()
    assert weights.gradient().tolist() == [1.0] * 6 and layer.weight.grad is None


@pytest.mark.slow
def test_a_simple_reward_is_learnt_within_the_trust_region(world, tmp_path: Path, module) -> None:  # noqa: F811
    name = module(
        "def fox(prompts, responses, metadata):\n    return [float('fox' in r) for r in responses]\n", "fox_trpo"
    )
    more = {"batch_size": 64, "episodes": 64 * 12, "beta": 0.0, "missing_eos": None, "max_kl": 0.1, "damping": 0.01}
    rows = metrics(improve(world, tmp_path / "out", "trpo", reward=f"{name}:fox", **more).path)
    first, last = (sum(r["score"] for r in part) / len(part) for part in (rows[:2], rows[-2:]))
    assert last > first + 0.3, (first, last)
    assert all(r["step_kl"] <= 0.15 + 1e-6 for r in rows)
    assert all(r["gain"] > 0 for r in rows if r["step_fraction"] > 0) and any(r["step_fraction"] > 0 for r in rows)


@pytest.mark.slow
def test_lora_and_one_step_only(world, tmp_path: Path) -> None:
    artifact = improve(world, tmp_path / "out", "trpo", lora=2, max_kl=0.05)
    assert (artifact.path / "adapter_config.json").exists()
    with pytest.raises(Exception, match="epochs"):
        improve(world, tmp_path / "no", "trpo", epochs=2)


@pytest.mark.slow
def test_beta_adapts_to_the_target(world, tmp_path: Path) -> None:
    more = {"episodes": 48, "kl_target": 0.01, "kl_horizon": 50, "max_kl": 0.1}
    rows = metrics(improve(world, tmp_path / "out", "trpo", **more).path)
    assert rows[0]["beta"] == 0.05 and len(rows) == 3
    for before, after in pairwise(rows):
        assert after["beta"] == pytest.approx(adapt_kl(before["beta"], before["kl"], 0.01, 16, 50), abs=1e-5)


@pytest.mark.parametrize("option", ["clip", "vf_coef", "ptx_coef", "ptx_batch", "value_lr", "judge_every"])
def test_what_it_cannot_use_is_not_offered(option: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{option}'"):
        TRPOConfig.parse({option: 1})


def test_models_whose_logits_are_not_a_heads_are_refused(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("hearken.domains.text.loading.probe", lambda scorer, _: scorer.use("full"))
    with pytest.raises(UserError, match="TRPO cannot measure the step of a LlamaForCausalLM"):
        improve(world, tmp_path / "out", "trpo")
