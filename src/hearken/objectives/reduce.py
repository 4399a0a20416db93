"""Sums, means and whitening over the real entries of padded tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Sum of ``x`` where ``mask`` is true; what stands in the padding (even NaN) has no effect.

    Args:
        x: any shape.
        mask: same shape, bool or 0/1.

    Returns:
        A scalar.
    """
    return torch.where(mask.bool(), x, torch.zeros_like(x)).sum()


def masked_mean(x: Tensor, mask: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Mean of ``x`` where ``mask`` is true, 0 where it is true nowhere.

    Args:
        x: any shape.
        mask: same shape, bool or 0/1.
        count: the divisor, by default the number of true entries. Pass the *global* count (over all microbatches and
            ranks of an optimiser step): then the microbatches' losses, and their gradients, add up to the same thing
            however the batch is split.

    Returns:
        A scalar.
    """
    if count is None:
        count = mask.bool().sum().clamp(min=1)
    return masked_sum(x, mask) / count


def whiten(
    x: Tensor, mask: Tensor, *, keep_mean: bool = False, total: Callable[[Tensor], Tensor] = lambda share: share
) -> Tensor:
    """Scale ``x`` to unit variance over the mask: (x - mean) · rsqrt(var + 1e-8), plus the mean if it is to be kept.

    The variance is the population's (divided by the count). Advantages lose their mean; rewards keep it, since
    shifting them would change what is optimal (Ziegler et al. 2019).

    Args:
        x: (R, T), the whole batch: whitening is not additive over microbatches.
        mask: (R, T), bool or 0/1.
        keep_mean: add the mean back after scaling.
        total: sums a scalar over the processes that hold the batch's parts.

    Returns:
        (R, T), 0 outside the mask.
    """
    count = total(mask.bool().sum()).clamp(min=1)
    mean = total(masked_sum(x, mask)) / count
    scale = torch.rsqrt(total(masked_sum((x - mean) ** 2, mask)) / count + 1e-8)
    white = (x - mean) * scale + (mean if keep_mean else 0.0)
    return torch.where(mask.bool(), white, torch.zeros_like(x))
