"""One decoding step of a Llama-like model as a straight line of tensor operations.

In small models a step through transformers' modules goes mostly into Python: some sixty calls a layer. Here weights
that read the same input stand in one matrix, the norms' weights and the attention's scale are folded into it, and the
tables of the rotary embedding are made once. What is computed is the same; a sampler compares the two when it is made
and keeps to the model's own code where they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearken.models.attention import KVCache
from hearken.models.head import is_plain
from hearken.models.scorers import TokenScorer

FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPES = ("default", "linear", "llama3", "yarn")  # those that do not depend on a sequence's length
LARGEST = 1 << 26  # weights; in a larger model Python is a small share, and a second copy no small matter


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's weights: (out, in) matrices with their biases."""

    qkv: tuple[Tensor, Tensor | None]
    out: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]
    norms: Tensor | None  # (heads, d) weights of the norms of queries and keys (Qwen3)


class Lean:
    """A model's decoding step, with its weights as they are now: make a new one after every update.

    Args:
        scorer: a policy for which `fits` holds.
    """

    def __init__(self, scorer: TokenScorer) -> None:
        backbone: Any = scorer.backbone
        config = scorer.model.config
        kind = scorer.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else scorer.model.dtype
        first = backbone.layers[0].self_attn
        self.dim: int = first.head_dim
        self.heads: int = config.num_attention_heads
        self.kv: int = config.num_key_value_heads
        self.embedding: Tensor = scorer.model.get_input_embeddings().weight
        self.norm: Tensor = backbone.norm.weight
        self.rotary = backbone.rotary_emb
        self.scale: float = first.scaling if hasattr(first, "q_norm") else 1.0  # else folded into the queries' weights
        self.layers = [_layer(layer, low) for layer in backbone.layers]
        self.eps = torch.tensor(backbone.norm.variance_epsilon, device=scorer.device)
        self._table = (torch.empty(0), torch.empty(0))

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine at (rows,) positions: (rows, 1, d) each."""
        end = int(positions.max()) + 1
        if end > len(self._table[0]):
            every = torch.arange(2 * end, device=positions.device)[None]
            cos, sin = (x[0] for x in self.rotary(self.norm, every))
            half = self.dim // 2
            self._table = (cos, torch.cat([-sin[:, :half], sin[:, half:]], 1))
        cos, sin = self._table
        return cos[positions][:, None], sin[positions][:, None]

    def step(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Feed (rows,) tokens; returns the last hidden states (rows, d)."""
        heads, both = self.heads, self.heads + self.kv
        cos, sin = self.angles(cache.positions[:, 0])
        x = F.embedding(tokens, self.embedding)
        for number, layer in enumerate(self.layers):
            qkv = F.linear(self.normed(x), *layer.qkv).unflatten(1, (-1, self.dim))
            qk = qkv[:, :both]
            if layer.norms is not None:
                qk = self.normed(qk) * layer.norms
            qk = torch.addcmul(qk * cos, qk.roll(self.dim // 2, -1), sin)
            seen = cache.step(
                number, qk[:, :heads, None], qk[:, heads:, None], qkv[:, both:, None], None, self.scale, None, None
            )
            x = x + F.linear(seen.flatten(1), *layer.out)
            gate, up = F.linear(self.normed(x), *layer.gate_up).chunk(2, 1)
            x = x + F.linear(F.silu(gate) * up, *layer.down)
        return self.normed(x) * self.norm

    def normed(self, x: Tensor) -> Tensor:
        """``x`` over the root mean square of its last dimension (half the time of `F.rms_norm` on a CPU)."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return x * torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()


def fits(scorer: TokenScorer) -> bool:
    """Whether a policy is of the kind `Lean` knows: small, Llama-like, no adapters, no hooks, no sliding window."""
    model, config = scorer.model, scorer.model.config
    if scorer.path != "packed" or type(model).__name__ not in FAMILY or getattr(config, "sliding_window", None):
        return False
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    weights = sum(p.numel() for p in model.parameters())
    if rope not in ROPES or config.hidden_act != "silu" or weights > LARGEST:
        return False
    if not isinstance(scorer.backbone, nn.Module):  # a policy that reads more than its own model, like NLPO's
        return False
    backbone: Any = scorer.backbone
    if any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules()):
        return False
    return all(is_plain(part) for layer in backbone.layers for part in _linears(layer))


def _linears(layer: Any) -> list[nn.Linear]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        getattr(owner, f"{name}_proj")
        for owner, names in ((attention, "qkvo"), (mlp, ("gate", "up", "down")))
        for name in names
    ]


def _layer(layer: Any, dtype: torch.dtype) -> _Layer:
    q, k, v, out, gate, up, down = _linears(layer)
    attention, before, after = layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm
    normed = hasattr(attention, "q_norm")
    scales = [1.0 if normed else attention.scaling, 1.0, 1.0]
    return _Layer(
        qkv=_join([q, k, v], scales, before.weight, dtype),
        out=_join([out], [1.0], None, dtype),
        gate_up=_join([gate, up], [1.0, 1.0], after.weight, dtype),
        down=_join([down], [1.0], None, dtype),
        norms=_head_norms(attention) if normed else None,
    )


def _head_norms(attention: Any) -> Tensor:
    config, one = attention.config, (attention.q_norm.weight, attention.k_norm.weight)
    counts = (config.num_attention_heads, config.num_key_value_heads)
    return torch.cat([weight.expand(count, -1) for weight, count in zip(one, counts, strict=True)])


def _join(
    parts: Sequence[nn.Linear], scales: Sequence[float], norm: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Linear maps of one input as one: weights times ``scales``, and ``norm`` (the input's own weights) folded in."""
    weights = [p.weight if s == 1 else p.weight * s for p, s in zip(parts, scales, strict=True)]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    if norm is not None:
        weight = weight * norm
    if parts[0].bias is None:
        return weight.to(dtype), None
    return weight.to(dtype), torch.cat([p.bias * s for p, s in zip(parts, scales, strict=True)]).to(dtype)
