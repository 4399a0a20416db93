"""Offline RL on language (ILQL, Snell et al. 2022): Q and V heads fitted to recorded responses, used at decoding.

Actions are tokens: Q(s_t, a) for every token of the vocabulary, V(s_t), with s_t the prompt and the tokens before t.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hearken.objectives.policy import last_token
from hearken.objectives.reduce import masked_mean, masked_sum


class ILQLLoss(NamedTuple):
    """What `ilql` returns, scalars; `total` is the one to minimise."""

    total: Tensor
    q: Tensor
    v: Tensor
    cql: Tensor
    awac: Tensor


def expectile(difference: Tensor, tau: float = 0.7) -> Tensor:
    """|τ - 1(u < 0)|·u²: squared error whose minimum is the τ-expectile (Newey and Powell 1987). Any shape.

    With u = Q - V and τ towards 1, V goes towards the best action that the data hold.
    """
    weight = torch.where(difference < 0, 1 - tau, tau)
    return weight * difference**2


def terminal_rewards(scores: Tensor, mask: Tensor) -> Tensor:
    """A score on each response's last token, 0 elsewhere: (R,), (R, T) to (R, T)."""
    return scores.unsqueeze(-1) * last_token(mask)


def bellman_targets(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 0.99) -> Tensor:
    """r_t + γ·V(s_{t+1}), with V = 0 after the last token; without gradient. (R, T) each to (R, T), 0 outside."""
    following = torch.zeros_like(values)
    following[:, :-1] = torch.where(mask.bool()[:, 1:], values[:, 1:], torch.zeros_like(values[:, 1:]))
    target = rewards + gamma * following
    return torch.where(mask.bool(), target, torch.zeros_like(target)).detach()


def ilql(
    q: tuple[Tensor, ...], target_q: Tensor, values: Tensor, logits: Tensor, actions: Tensor, goals: Tensor,
    mask: Tensor, *, tau: float = 0.7, cql: float = 0.1, awac: float = 1.0, beta: float = 0.0,
    weights: Tensor | None = None, count: float | None = None,
) -> ILQLLoss:  # fmt: skip
    """Q by squared Bellman error, V by expectile regression on the target Q, CQL and AWAC beside (Snell et al. 2022).

    Args:
        q: one or two heads, (..., V); the leading shape is any, the same for all, e.g. (R, T) or (N,) real tokens.
        target_q: (...), min over the lagging heads, at the actions.
        values: (...).
        logits: (..., V) of the policy.
        actions: (...) tokens taken.
        goals: (...) of `bellman_targets`.
        mask: (...).
        tau: expectile.
        cql: weight of the conservative term, the cross-entropy of softmax(Q) with the action taken.
        awac: weight of behaviour cloning.
        beta: temperature of its advantage weights e^(β(Q - V)), at most 20; 0 weighs all tokens alike.
        weights: (...) what each token counts in every term; by default 1.
        count: the divisor, by default the sum of the mask's weights; pass the whole batch's for a microbatch.

    Returns:
        Scalars.
    """
    weights = torch.ones_like(values) if weights is None else weights
    divisor = masked_sum(weights, mask).clamp(min=1e-12) if count is None else count
    taken = [head.gather(-1, actions.unsqueeze(-1)).squeeze(-1) for head in q]

    def mean(x: Tensor) -> Tensor:
        return masked_mean(weights * x, mask, divisor)

    q_loss = torch.stack([mean((x - goals) ** 2) for x in taken]).sum()
    v_loss = mean(expectile(target_q.detach() - values, tau))

    def surprise(scores: Tensor) -> Tensor:
        flat = cross_entropy(scores.flatten(0, -2), actions.flatten(), reduction="none")
        return flat.view_as(actions)

    cql_loss = torch.stack([mean(surprise(head)) for head in q]).sum()
    lead = torch.exp(beta * (target_q - values)).detach().clamp(max=20)
    awac_loss = mean(lead * surprise(logits))
    return ILQLLoss(q_loss + v_loss + cql * cql_loss + awac * awac_loss, q_loss, v_loss, cql_loss, awac_loss)


def guided_logits(logits: Tensor, q: Tensor, values: Tensor, beta: float) -> Tensor:
    """Log π + β·(Q - V): what ILQL decodes from. (n, V), (n, V), (n,) to (n, V)."""
    return torch.log_softmax(logits, -1) + beta * (q - values.unsqueeze(-1))


@torch.no_grad()
def polyak(target: Tensor, online: Tensor, rate: float) -> None:
    """Target ← (1-rate)·target + rate·online, in place."""
    target.lerp_(online, rate)
