"""Numbers over all processes of a run: each count and mean that a loss or a decision hangs on goes through here.

One process, which is all that trains today, is the whole: each function gives back what it is given. Where
`torch.distributed` is initialised every process must call them, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, distributed

from hearken.objectives.reduce import masked_sum

Number = TypeVar("Number", Tensor, float, int)


def alone() -> bool:
    """Whether this process is the only one."""
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)


def total(share: Number) -> Number:
    """The sum of every process's share, without gradient."""
    if alone():
        return share
    found = share.detach().clone() if isinstance(share, Tensor) else torch.tensor(share, dtype=torch.float64)
    distributed.all_reduce(found)
    return found if isinstance(share, Tensor) else type(share)(found.item())


def totals(shares: Mapping[str, float]) -> dict[str, float]:
    """The same of several by name, in one go."""
    if alone():
        return dict(shares)
    return dict(zip(shares, total(torch.tensor(list(shares.values()), dtype=torch.float64)).tolist(), strict=True))


def mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of ``x`` over all entries (where ``mask`` is true) of all processes, which may hold parts of any size.

    A scalar without gradient.
    """
    x = x.detach()
    if mask is not None:
        return total(masked_sum(x, mask)) / total(mask.bool().sum()).clamp(min=1)
    if alone():
        return x.mean()
    whole = total(torch.stack([x.sum(), x.new_tensor(x.numel())]))
    return whole[0] / whole[1]
