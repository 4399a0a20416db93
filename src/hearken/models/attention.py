"""Attention over a `Layout` (training) or a `KVCache` (sampling), for transformers models with an attention interface.

Registered under the name ``hearken``; the model's own code does the rest. Sliding windows, soft caps and attention
sinks that a model passes along are honoured. What a model does outside its attention function cannot be seen here, so
`scorers.probe` compares every loaded model with its ordinary computation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from hearken.models.layout import Layout

NAME = "hearken"


class Unreached(Exception):
    """Attention was called without a layout."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Scaled dot-product attention: q (b, H, t, d), k and v (b, Hk, s, d), mask (b|1, 1, t, s) or None for causal."""
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    if softcap is None and sinks is None:
        if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # its backward pass is slower in bf16
            with torch.autocast("cpu", enabled=False):
                return attend(q.float(), k.float(), v.float(), mask, scale, None, None)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    scores = (q @ k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)], 3)
    return torch.softmax(scores.float(), 3).to(q.dtype)[..., : k.shape[2]] @ v


def _packed(q: Tensor, k: Tensor, v: Tensor, layout: Layout, window: int | None, *how: Any) -> Tensor:
    """q, k, v (1, heads, N, d) -> (N, heads, d)."""
    blocks = [layout.prompts, *layout.blocks] if layout.prompts is not None else layout.blocks
    sizes = [len(block.grid.flat) for block in blocks]
    outputs, shared = [], None
    for block, *parts in zip(blocks, *(x[0].transpose(0, 1).split(sizes) for x in (q, k, v)), strict=True):
        queries, keys, values = (block.grid.spread(x) for x in parts)
        if block is layout.prompts:
            shared = keys, values
        elif shared is not None:
            keys, values = (
                torch.cat([prompt[:, :, : block.reach][block.parent], own], 2)
                for prompt, own in zip(shared, (keys, values), strict=True)
            )
        outputs.append(block.grid.gather(attend(queries, keys, values, block.mask(window), *how)))
    return torch.cat(outputs)


class KVCache:
    """Preallocated keys and values of ``rows`` responses: prompt columns first (right-padded), then response columns.

    Filled by a packed pass over the prompts (each once), then one column a step. Finished rows are removed with `keep`.
    In the precision of the computation; keys (rows, heads, d, columns) stand as the product with a query wants them.
    """

    def __init__(self, layout: Layout, parent: Tensor, new_tokens: int) -> None:
        """``layout`` holds the prompts as joined sequences; ``parent`` (rows,) names the prompt of each row."""
        self.layout: Layout | None = layout
        self.parent = parent
        self.prompt_width = layout.whole.width
        self.capacity = self.prompt_width + new_tokens
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        lengths = torch.bincount(layout.whole.flat // self.prompt_width, minlength=layout.whole.rows)[parent]
        column = torch.arange(self.capacity, device=parent.device)
        self.lengths = lengths
        self.ragged = bool((lengths != self.prompt_width).any())
        self.hidden = (column[None] >= lengths[:, None]) & (column[None] < self.prompt_width)
        self.filled = self.prompt_width
        self._bias: dict[tuple[int | None, int], Tensor] = {}

    @property
    def positions(self) -> Tensor:
        """(rows, 1) position of the token now being fed."""
        return (self.lengths + self.filled - self.prompt_width)[:, None]

    def advance(self) -> None:
        """The column being fed is complete."""
        self.filled += 1
        self._bias.clear()

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows`` (indices); the memory of the others is freed."""
        for store in (self.keys, self.values):
            for layer in store:
                store[layer] = store[layer][rows]
        self.lengths, self.hidden = self.lengths[rows], self.hidden[rows]
        self._bias.clear()

    def prefill(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None, *how: Any) -> Tensor:
        """The prompts' pass: attention as in training, keys and values kept."""
        assert self.layout is not None
        grid = self.layout.whole
        kind = k.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else k.dtype
        key, value = (grid.spread(x[0].transpose(0, 1)).to(low)[self.parent] for x in (k, v))
        rows, heads, _, d = key.shape
        self.keys[layer] = key.new_zeros(rows, heads, d, self.capacity)
        self.keys[layer][..., : self.prompt_width] = key.transpose(2, 3)
        self.values[layer] = value.new_zeros(rows, heads, self.capacity, value.shape[3])
        self.values[layer][:, :, : self.prompt_width] = value
        return _packed(q, k, v, self.layout, window, *how)[None]

    def bias(self, heads: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """(rows * heads, 1, filled + 1) added to the scores: the padding, and what lies outside the window.

        None where there is neither.
        """
        if not self.ragged and not (window and window < self.capacity):
            return None
        key = (window, heads)
        if key not in self._bias:
            end = self.filled + 1
            hidden = self.hidden[:, :end]
            if window and window < self.capacity:
                column = torch.arange(end, device=hidden.device)[None]
                at = torch.where(column < self.prompt_width, column, self.lengths[:, None] + column - self.prompt_width)
                hidden = hidden | (self.positions - at >= window)
            bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            bias = bias.masked_fill(hidden, torch.finfo(dtype).min)
            self._bias[key] = bias[:, None].expand(-1, heads, -1).reshape(-1, 1, end)
        return self._bias[key]

    def step(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None,
        scale: float | None, softcap: float | None, sinks: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """One new token a row: q (rows, H, 1, d) -> (rows, 1, H, d)."""
        rows, heads, _, d = q.shape
        keys, values, end = self.keys[layer], self.values[layer], self.filled + 1
        keys[..., self.filled] = k[:, :, 0]
        values[:, :, self.filled] = v[:, :, 0]
        kv = keys.shape[1]
        keys = keys.view(rows * kv, d, self.capacity)[..., :end]
        values = values.view(rows * kv, self.capacity, -1)[:, :end]
        scale = d**-0.5 if scale is None else scale
        query, bias = q.reshape(rows * kv, heads // kv, d), self.bias(kv, window, keys.dtype)
        if scale != 1:
            query = query * scale
        scores = torch.bmm(query, keys)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            scores = scores.add_(bias)
        if sinks is not None:
            extra = sinks.view(1, kv, heads // kv, 1).expand(rows, -1, -1, 1).reshape(rows * kv, heads // kv, 1)
            scores = torch.cat([scores, extra.to(scores.dtype)], 2)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
        if sinks is not None:
            weights = weights[..., :end]
        return torch.bmm(weights, values).view(rows, 1, heads, -1)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, *,
    layout: Layout | None = None, cache: KVCache | None = None, **more: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """What transformers calls; ``more`` is what the model says of its attention."""
    how = [more.get(name) for name in ("sliding_window", "scaling", "softcap", "s_aux")]
    if cache is not None:
        layer: int = module.layer_idx  # type: ignore[assignment]
        feed = cache.prefill if cache.layout is not None else cache.step
        return feed(layer, query, key, value, *how), None
    if layout is None:
        raise Unreached("the model does not hand keyword arguments on to its attention")
    return _packed(query, key, value, layout, *how)[None], None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
