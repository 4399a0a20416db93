"""Policy optimisation: per-token rewards, advantages, and the losses of PPO (Schulman et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hearken.objectives.kl import k1, k3
from hearken.objectives.reduce import masked_mean


class Advantages(NamedTuple):
    """What `gae` returns; constants to the losses, 0 outside the mask."""

    advantages: Tensor
    """(R, T)"""
    returns: Tensor
    """(R, T), advantages + values: the value model's target."""


class PolicyLoss(NamedTuple):
    """What `ppo_clip` returns. Only the loss carries a gradient."""

    loss: Tensor
    """(R, T)"""
    ratio: Tensor
    """(R, T), π/π_old."""
    clipped: Tensor
    """(R, T) bool, where the clip took the gradient away."""
    approx_kl: Tensor
    """(R, T), k3 estimate of KL(π_old ‖ π)."""


class ValueLoss(NamedTuple):
    """What `value_clip` returns."""

    loss: Tensor
    """(R, T)"""
    clipped: Tensor
    """(R, T) bool, where the clipped error was the larger."""


def last_token(mask: Tensor) -> Tensor:
    """Mask of each row's last true entry: (R, T) to (R, T) bool; an empty row stays empty."""
    mask = mask.bool()
    after = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (after == 1)


def token_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float) -> Tensor:
    """-β·(log π - log π_ref) on every token, plus the score on the last (Ziegler et al. 2019).

    Args:
        scores: (R,) of the whole responses.
        logprobs: (R, T) of the policy that sampled, at the sampling temperature.
        ref_logprobs: (R, T) of the reference policy, at the same temperature.
        mask: (R, T), bool or 0/1.
        beta: KL coefficient.

    Returns:
        (R, T) rewards, 0 outside the mask.
    """
    rewards = -beta * k1(logprobs, ref_logprobs) + scores.unsqueeze(-1) * last_token(mask)
    return torch.where(mask.bool(), rewards, torch.zeros_like(rewards))


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> Advantages:
    """Generalised advantage estimation (Schulman et al. 2016): A_t = Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ·V_{t+1} - V_t.

    The value after the last response token is 0, whether the response ended by EOS or was cut. Entries outside the mask
    are stepped over. With γ = λ = 1 and one token, A = r - V: the bandit.

    Args:
        rewards: (R, T).
        values: (R, T), V_t before token t is emitted.
        mask: (R, T), bool or 0/1.
        gamma: discount.
        lam: λ, from one-step (0) to Monte-Carlo (1) advantages.

    Returns:
        Advantages and returns, without gradient.
    """
    mask = mask.bool()
    advantages = torch.zeros_like(values)
    ahead = next_value = torch.zeros_like(values[..., 0])
    for t in range(values.shape[-1] - 1, -1, -1):
        here, value = mask[..., t], values[..., t]
        advantage = rewards[..., t] + gamma * next_value - value + gamma * lam * ahead
        ahead = torch.where(here, advantage, ahead)
        next_value = torch.where(here, value, next_value)
        advantages[..., t] = torch.where(here, advantage, torch.zeros_like(advantage))
    return Advantages(advantages, torch.where(mask, advantages + values, torch.zeros_like(values)))


def ppo_clip(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float = 0.2) -> PolicyLoss:
    """max(-A·ρ, -A·clip(ρ, 1±ε)) with ρ = π/π_old (Schulman et al. 2017, eq. 7).

    Args:
        logprobs: (R, T) under the policy being trained.
        old_logprobs: (R, T) under the policy that sampled, computed by the same path.
        advantages: (R, T).
        clip: ε.

    Returns:
        Unreduced loss and what to log. Entries outside the mask mean nothing, but give finite ones (0) there.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    free, bounded = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    kl = k3(old_logprobs, logprobs)
    return PolicyLoss(torch.maximum(free, bounded), ratio.detach(), bounded > free, kl.detach())


def value_clip(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = 0.2) -> ValueLoss:
    """½·max((V - R)², (clip(V, V_old±ε) - R)²), as in the baselines that InstructGPT's PPO descends from.

    Args:
        values: (R, T) being trained.
        old_values: (R, T) at the time of sampling.
        returns: (R, T) targets.
        clip: ε; None for the plain squared error.

    Returns:
        Unreduced loss and where the clip was active.
    """
    free = (values - returns) ** 2
    if clip is None:
        return ValueLoss(0.5 * free, torch.zeros_like(free, dtype=torch.bool))
    bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns) ** 2
    return ValueLoss(0.5 * torch.maximum(free, bounded), bounded > free)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(R - V)/Var(R) over the mask: 1 is a perfect value model, 0 a constant one, below 0 worse than none.

    (R, T) values, returns and mask to a scalar; 0 where the returns do not vary.
    """

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask)) ** 2, mask)

    total = variance(returns)
    rest = variance(returns - values)
    return torch.where(total > 0, 1 - rest / total, torch.zeros_like(total)).detach()
