"""How far a policy has moved from its reference, estimated from its own samples, and the control of that distance."""

from __future__ import annotations

import torch
from torch import Tensor

# With samples from π and r = π_ref/π, each of k1, k2, k3 estimates KL(π ‖ π_ref) per token (Schulman 2020). They
# measure; as a loss to differentiate, k1 and k3 have the wrong expected gradient, and only k2's is right.


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """-log r = log π - log π_ref: unbiased, but of either sign. Any shape, e.g. (R, T)."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """½·(log r)²: biased, never negative, small variance; differentiated, its expected gradient is that of the KL."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(r - 1) - log r: unbiased and never negative. Any shape, e.g. (R, T)."""
    log_r = ref_logprobs - logprobs
    return torch.expm1(log_r) - log_r


def sequence_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log-ratio log π(y|x) - log π_ref(y|x) of each response: the sum of k1 over its tokens, in nats.

    Args:
        logprobs: (R, T).
        ref_logprobs: (R, T).
        mask: (R, T), bool or 0/1.

    Returns:
        (R,); its mean over responses sampled from π is an unbiased estimate of the KL per sequence.
    """
    difference = k1(logprobs, ref_logprobs)
    return torch.where(mask.bool(), difference, torch.zeros_like(difference)).sum(-1)


def adapt_kl(
    beta: float, observed_kl: float, target: float, episodes: int, horizon: float = 10_000, limit: float = 0.2
) -> float:
    """Next KL coefficient: β·(1 + clip(KL/target - 1, ±limit)·episodes/horizon) (Ziegler et al. 2019).

    Args:
        beta: the present coefficient.
        observed_kl: mean KL per *sequence* (summed over tokens), in nats.
        target: the KL per sequence that is wanted, in nats.
        episodes: responses sampled since the last adaptation.
        horizon: episodes over which β can change by about ``limit``.
        limit: bound of the proportional error.

    Returns:
        The next coefficient.
    """
    error = min(max(observed_kl / target - 1, -limit), limit)
    return beta * (1 + error * episodes / horizon)
