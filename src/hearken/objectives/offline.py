"""Offline RL on language (ILQL, Snell et al. 2022): Q and V heads fitted to recorded responses, used at decoding.

Actions are tokens: Q(s_t, a) for every token of the vocabulary, V(s_t), with s_t the prompt and the tokens before t.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hearken.objectives.policy import last_token
from hearken.objectives.reduce import masked_mean


class Estimates(NamedTuple):
    """What is known of tokens, e.g. (n,) real ones or (R, T): Q by each head and by the lagging ones, V, the policy.

    ``q`` and ``target_q`` are heads of (..., V), ``values`` (...), ``logits`` (..., V): the language model's alone.
    """

    q: tuple[Tensor, ...]
    target_q: tuple[Tensor, ...]
    values: Tensor
    logits: Tensor


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
    estimates: Estimates, actions: Tensor, goals: Tensor, weights: Tensor, *, tau: float = 0.7, cql: float = 0.1,
    awac: float = 1.0, beta: float = 0.0, count: float | None = None,
) -> ILQLLoss:  # fmt: skip
    """Q by squared Bellman error, V by expectile regression on the target Q, CQL and AWAC beside (Snell et al. 2022).

    The target Q is the least of the lagging heads.

    Args:
        estimates: the leading shape is any, the same for all.
        actions: (...) tokens taken.
        goals: (...) of `bellman_targets`.
        weights: (...) what each token counts in every term, 0 outside the response.
        tau: expectile.
        cql: weight of the conservative term, the cross-entropy of softmax(Q) with the action taken.
        awac: weight of behaviour cloning.
        beta: temperature of its advantage weights e^(β(Q - V)), at most 20; 0 weighs all tokens alike.
        count: the divisor, by default the sum of the weights; pass the whole batch's for a microbatch.

    Returns:
        Scalars.
    """
    divisor = weights.sum().clamp(min=1e-12) if count is None else count

    def mean(x: Tensor) -> Tensor:
        return masked_mean(weights * x, weights, divisor)

    def taken(head: Tensor) -> Tensor:
        return head.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def surprise(scores: Tensor) -> Tensor:
        flat = cross_entropy(scores.flatten(0, -2), actions.flatten(), reduction="none")
        return flat.view_as(actions)

    q, target_q, values, logits = estimates
    advantage = torch.stack([taken(head) for head in target_q]).amin(0).detach() - values
    q_loss = torch.stack([mean((taken(head) - goals) ** 2) for head in q]).sum()
    v_loss = mean(expectile(advantage, tau))
    cql_loss = torch.stack([mean(surprise(head)) for head in q]).sum()
    awac_loss = mean(torch.exp(beta * advantage).detach().clamp(max=20) * surprise(logits))
    return ILQLLoss(q_loss + v_loss + cql * cql_loss + awac * awac_loss, q_loss, v_loss, cql_loss, awac_loss)


def guided_logits(logits: Tensor, q: Tensor, values: Tensor, beta: float) -> Tensor:
    """Log π + β·(Q - V): what ILQL decodes from. (n, V), (n, V), (n,) to (n, V)."""
    return torch.log_softmax(logits, -1) + beta * (q - values.unsqueeze(-1))


@torch.no_grad()
def polyak(target: Tensor, online: Tensor, rate: float) -> None:
    """Target ← (1-rate)·target + rate·online, in place."""
    target.lerp_(online, rate)
