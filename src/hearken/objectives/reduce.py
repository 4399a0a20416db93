"""Sums, means and whitening over the real entries of padded tensors, and over ranks."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


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


@torch.no_grad()
def mean_over_ranks(x: Tensor) -> Tensor:
    """Mean of ``x`` over all entries of all ranks, without gradient; of this process alone where there are no ranks.

    Every rank must call it (it waits for the others where `torch.distributed` is initialised, as by torchrun).

    Args:
        x: any shape, whose size may differ between ranks.

    Returns:
        A scalar, the same on every rank.
    """
    total = torch.stack([x.sum(), x.new_tensor(x.numel())])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
    return total[0] / total[1]


def whiten(x: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """Scale ``x`` to unit variance over the mask: (x - mean) · rsqrt(var + 1e-8), plus the mean if it is to be kept.

    The variance is the population's (divided by the count). Advantages lose their mean; rewards keep it, since
    shifting them would change what is optimal (Ziegler et al. 2019).

    Args:
        x: (R, T), the whole batch: whitening is not additive over microbatches.
        mask: (R, T), bool or 0/1.
        keep_mean: add the mean back after scaling.

    Returns:
        (R, T), 0 outside the mask.
    """
    mean = masked_mean(x, mask)
    scale = torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8)
    white = (x - mean) * scale + (mean if keep_mean else 0.0)
    return torch.where(mask.bool(), white, torch.zeros_like(x))
