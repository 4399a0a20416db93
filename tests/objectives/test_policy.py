from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hearken.objectives.policy import explained_variance, gae, last_token, ppo_clip, token_rewards, value_clip
from hearken.objectives.reduce import masked_mean, whiten

LENGTHS = [5, 1, 3, 0, 4]
MASK = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(-1)


def batch(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(5, 5, generator=generator, dtype=torch.float64) for _ in range(4))


def test_token_rewards_against_plain_python() -> None:
    logprobs, reference, other, _ = batch(0)
    rewards = token_rewards(other[:, 0], logprobs, reference, MASK, beta=0.3)
    for i, length in enumerate(LENGTHS):
        for t in range(5):
            expected = -0.3 * (logprobs[i, t] - reference[i, t]).item() if t < length else 0.0
            if t == length - 1:
                expected += other[i, 0].item()
            assert rewards[i, t].item() == pytest.approx(expected, abs=1e-12)


def test_last_token_with_holes() -> None:
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert last_token(mask).int().tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_gae_against_its_double_sum(seed: int, gamma: float, lam: float) -> None:
    rewards, values, *_ = batch(seed)
    result = gae(rewards, values, MASK, gamma, lam)
    for i, length in enumerate(LENGTHS):
        r, v = rewards[i].tolist(), [*values[i, :length].tolist(), 0.0]
        for t in range(5):
            expected = 0.0
            for k in range(t, length):
                expected += (gamma * lam) ** (k - t) * (r[k] + gamma * v[k + 1] - v[k])
            assert result.advantages[i, t].item() == pytest.approx(expected, abs=1e-5)
            assert result.returns[i, t].item() == pytest.approx(expected + v[t] if t < length else 0.0, abs=1e-5)


def test_gae_monte_carlo_returns_are_sums_of_rewards() -> None:
    rewards, values, *_ = batch(3)
    returns = gae(rewards, values, MASK, gamma=1.0, lam=1.0).returns
    to_go = torch.where(MASK, rewards, 0.0).flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(returns, torch.where(MASK, to_go, 0.0))


def test_gae_of_one_token_is_the_bandit() -> None:
    rewards, values = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [0.25]])
    result = gae(rewards, values, torch.ones(2, 1), gamma=1.0, lam=1.0)
    torch.testing.assert_close(result.advantages, rewards - values)
    torch.testing.assert_close(result.returns, rewards)


def test_gae_steps_over_holes_and_keeps_no_gradient() -> None:
    rewards, values, *_ = batch(4)
    mask = torch.tensor([[1, 0, 1, 1, 0]]).expand(5, 5)
    kept = [0, 2, 3]
    dense = gae(rewards[:, kept], values[:, kept], torch.ones(5, 3), 0.9, 0.8)
    holes = gae(rewards, values.requires_grad_(), mask, 0.9, 0.8)
    torch.testing.assert_close(holes.advantages[:, kept], dense.advantages)
    assert not holes.advantages.requires_grad and not holes.returns.requires_grad


def test_ppo_clip_against_plain_numpy() -> None:
    logprobs, old, advantages, _ = batch(5)
    result = ppo_clip(logprobs, old, advantages, clip=0.2)
    for index in np.ndindex(5, 5):
        a, ratio = advantages[index].item(), np.exp((logprobs - old)[index].item())
        surrogate = min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
        assert result.loss[index].item() == pytest.approx(-surrogate, abs=1e-5)
        assert result.clipped[index].item() == ((a > 0 and ratio > 1.2) or (a < 0 and ratio < 0.8))
        assert result.approx_kl[index].item() == pytest.approx(ratio - 1 - np.log(ratio), abs=1e-5)


def test_ppo_gradient_is_the_policy_gradient_at_ratio_one_and_none_where_clipped() -> None:
    _, old, advantages, _ = batch(6)
    logprobs = old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ppo_clip(logprobs, old, advantages).loss.sum(), logprobs)
    torch.testing.assert_close(gradient, -advantages)

    logprobs = (old + 0.5 * torch.sign(advantages)).requires_grad_()
    (gradient,) = torch.autograd.grad(ppo_clip(logprobs, old, advantages).loss.sum(), logprobs)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_value_clip_against_plain_numpy() -> None:
    values, old, returns, _ = batch(7)
    result = value_clip(values, old, returns, clip=0.2)
    for index in np.ndindex(5, 5):
        v, v_old, target = values[index].item(), old[index].item(), returns[index].item()
        bounded = min(max(v, v_old - 0.2), v_old + 0.2)
        assert result.loss[index].item() == pytest.approx(
            0.5 * max((v - target) ** 2, (bounded - target) ** 2), abs=1e-5
        )
        assert result.clipped[index].item() == ((bounded - target) ** 2 > (v - target) ** 2)
    torch.testing.assert_close(value_clip(values, old, returns, clip=None).loss, 0.5 * (values - returns) ** 2)


def test_losses_by_finite_differences() -> None:
    new, old, target, _ = batch(8)
    new.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ppo_clip(x, old, target).loss, (new,))
    assert torch.autograd.gradcheck(lambda x: value_clip(x, old, target).loss, (new,))


def test_explained_variance() -> None:
    returns, noise, *_ = batch(9)
    kept = returns[MASK].numpy()
    assert explained_variance(returns, returns, MASK).item() == 1
    assert explained_variance(torch.ones_like(returns), returns, MASK).item() == pytest.approx(0, abs=1e-12)
    expected = 1 - np.var(kept - noise[MASK].numpy()) / np.var(kept)
    assert explained_variance(noise, returns, MASK).item() == pytest.approx(expected)
    assert explained_variance(noise, torch.ones_like(returns), MASK).item() == 0


def test_tabular_optimum() -> None:
    """KL-regularised PPO on a softmax bandit reaches π* ∝ π_ref·e^{r/β}: total variation below .02."""
    torch.manual_seed(0)
    beta = 0.5
    reference = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1]).log()
    reward = torch.tensor([0.0, 0.3, -0.2, 0.6, 1.0])
    optimum = torch.softmax(reference + reward / beta, -1)
    logits, value = reference.clone().requires_grad_(), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([logits, value], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=150)
    mask = torch.ones(4096, 1)
    for _ in range(150):
        with torch.no_grad():
            logprobs = logits.log_softmax(-1)
            actions = torch.multinomial(logprobs.exp(), 4096, replacement=True)
            old_logprobs, old_values = logprobs[actions, None], value.expand(4096, 1).clone()
            rewards = token_rewards(reward[actions], old_logprobs, reference[actions, None], mask, beta)
            target = gae(rewards, old_values, mask)
            advantages = whiten(target.advantages, mask)
        for _ in range(2):
            policy = ppo_clip(logits.log_softmax(-1)[actions, None], old_logprobs, advantages)
            critic = value_clip(value.expand(4096, 1), old_values, target.returns)
            loss = masked_mean(policy.loss, mask) + 0.5 * masked_mean(critic.loss, mask)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    policy_now = torch.softmax(logits.detach(), -1)
    assert 0.5 * (torch.softmax(reference, -1) - optimum).abs().sum() > 0.3  # it had a way to go
    assert 0.5 * (policy_now - optimum).abs().sum() < 0.02
    # At the optimum every action's reward is the same: β·log of the partition function.
    assert value.item() == pytest.approx(beta * torch.logsumexp(reference + reward / beta, -1).item(), abs=0.02)
