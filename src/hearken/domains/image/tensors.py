"""Pictures between bytes and what networks read: (R, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hearken.domains.image.codec import Picture


def to_bytes(pictures: Tensor) -> list[Picture]:
    """As diffusers rounds them."""
    values = ((pictures / 2 + 0.5).clamp(0, 1) * 255).round().byte()
    return list(values.permute(0, 2, 3, 1).cpu().numpy())


def to_tensor(pictures: Sequence[Picture], size: tuple[int, int] | None = None) -> Tensor:
    """Pictures of one size, or brought to (height, width) by the mean of what a pixel covers."""
    rows = [torch.from_numpy(np.array(one)).permute(2, 0, 1).float() / 127.5 - 1 for one in pictures]
    if size is not None:
        rows = [
            one if one.shape[1:] == size else functional.interpolate(one[None], size, mode="area")[0] for one in rows
        ]
    return torch.stack(rows)
