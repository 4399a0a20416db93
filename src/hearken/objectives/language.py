"""Language modelling: the loss of pretraining, supervised fine-tuning and the ptx term."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def nll(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of each row, (R, T) log-probabilities and mask to (R,), in nats.

    Divide the sum by the global token count (`reduce.masked_mean` with ``count``) for the training loss; PPO-ptx adds
    γ times the same of pretraining text.
    """
    return -torch.where(mask.bool(), logprobs, torch.zeros_like(logprobs)).sum(-1)


def perplexity(total_nll: float, tokens: float) -> float:
    """exp(nats per token) from a summed NLL; infinity where it overflows, NaN for no tokens."""
    if tokens == 0:
        return math.nan
    try:
        return math.exp(total_nll / tokens)
    except OverflowError:
        return math.inf
