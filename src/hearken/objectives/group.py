"""Advantages without a critic: what a response is worth beside the others sampled for the same prompt.

Scores are (B, n): B prompts, n responses each. The estimators compare within a row, so they refuse n = 1, where every
advantage would silently be 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hearken.objectives.reduce import masked_sum


def _several(scores: Tensor) -> int:
    n = scores.shape[-1]
    if n < 2:
        raise ValueError("a group estimator needs two or more responses to a prompt")
    return n


def informative(scores: Tensor) -> Tensor:
    """Which groups can teach anything: (B, n) scores to (B,) bool; false where all are equal."""
    return (scores != scores[:, :1]).any(-1)


def rloo(scores: Tensor) -> Tensor:
    """r_i - mean of the other n - 1 scores: leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024, eq. 8).

    Unbiased, as the baseline does not depend on response i; equals n/(n-1) times the distance from the mean.

    Args:
        scores: (B, n).

    Returns:
        (B, n) advantages.

    Raises:
        ValueError: n = 1.
    """
    n = _several(scores)
    return (scores - scores.mean(-1, keepdim=True)) * (n / (n - 1))


def grpo(scores: Tensor, epsilon: float = 1e-4) -> Tensor:
    """(r_i - mean) / (std + ε) within each group (Shao et al. 2024, GRPO); std is the sample's (n - 1).

    Args:
        scores: (B, n).
        epsilon: keeps groups of nearly equal scores from exploding; where all are equal the advantages are 0.

    Returns:
        (B, n) advantages.

    Raises:
        ValueError: n = 1.
    """
    _several(scores)
    return (scores - scores.mean(-1, keepdim=True)) / (scores.std(-1, keepdim=True) + epsilon)


def dr_grpo(scores: Tensor) -> Tensor:
    """r_i - mean of its group (Liu et al. 2025, Dr. GRPO): GRPO without the std, which favours prompts of one outcome.

    (B, n) scores to (B, n) advantages; its loss divides by a constant, not by each response's length.

    Raises:
        ValueError: n = 1.
    """
    _several(scores)
    return scores - scores.mean(-1, keepdim=True)


@torch.no_grad()
def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Σ_{s≥t} γ^(s-t)·r_s: the return from each token on, (R, T) rewards and mask to (R, T), 0 outside the mask.

    REINFORCE++ (Hu 2025) whitens it over the whole batch (`reduce.whiten`) and needs no group.
    """
    mask = mask.bool()
    found = torch.zeros_like(rewards)
    ahead = torch.zeros_like(rewards[..., 0])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        here = mask[..., t]
        ahead = torch.where(here, rewards[..., t] + gamma * ahead, ahead)
        found[..., t] = torch.where(here, ahead, torch.zeros_like(ahead))
    return found


Scale = Literal["token", "sequence", "response", "constant"]


def aggregate(loss: Tensor, mask: Tensor, scale: Scale, *, responses: int, tokens: int, longest: int) -> Tensor:
    """The scalar loss of a microbatch; over all microbatches of a step they add up to the batch's.

    ``token``: the mean over all tokens (REINFORCE++, DAPO). ``sequence``: each response's mean, then the mean over
    responses (GRPO: long bad answers are punished less). ``response``: each response's sum, then the mean over
    responses (RLOO: the response is one action). ``constant``: as that, over the longest length allowed (Dr. GRPO).

    Args:
        loss: (R, T) of the microbatch.
        mask: (R, T).
        scale: see above.
        responses: how many there are in the whole step, over microbatches and ranks.
        tokens: how many real tokens.
        longest: tokens a response may have.

    Returns:
        A scalar.
    """
    if scale == "token":
        return masked_sum(loss, mask) / tokens
    if scale == "sequence":
        lengths = mask.sum(-1, keepdim=True).clamp(min=1)
        return masked_sum(loss / lengths, mask) / responses
    total = masked_sum(loss, mask) / responses
    return total / longest if scale == "constant" else total
