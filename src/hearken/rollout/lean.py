"""One decoding step of a Llama-like model as a straight line of tensor operations.

In small models a step through transformers' modules goes mostly into Python, in larger ones into casts of weights and
products of a few rows. Here weights that read the same input stand in one matrix, an adapter's first factors below
them, in the precision of the computation and in the order that the processor's products want; the tables of the rotary
embedding are made once. What is computed is the same; a sampler compares the two when it is made and keeps to the
model's own code where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hearken.models.attention import KVCache
from hearken.models.head import forbid, is_plain
from hearken.models.scorers import TokenScorer

FAMILY = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPES = ("default", "linear", "llama3", "yarn")  # those that do not depend on a sequence's length
LARGEST = 1 << 30  # weights; a second copy of a larger model is no small matter

Map = Callable[[Tensor], Tensor]
"""A linear map of (rows, in) to (rows, out)."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's linear maps, and the weights of its norms where they are not folded into them."""

    qkv: Map
    out: Map
    gate_up: Map
    down: Map
    before: Tensor | None
    after: Tensor | None
    heads: Tensor | None
    """(heads, d) weights of the norms of queries and keys (Qwen3)."""


class Lean:
    """A model's decoding step, with its weights as they are now: make a new one after every update.

    Args:
        scorer: a policy for which `fits` holds.
    """

    def __init__(self, scorer: TokenScorer) -> None:
        backbone: Any = scorer.backbone
        config = scorer.model.config
        kind = scorer.device.type
        self.scorer = scorer
        self.low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else scorer.model.dtype
        first = backbone.layers[0].self_attn
        self.dim: int = first.head_dim
        self.heads: int = config.num_attention_heads
        self.kv: int = config.num_key_value_heads
        self.embedding: Tensor = scorer.model.get_input_embeddings().weight
        self.norm: Tensor = backbone.norm.weight
        self.rotary = backbone.rotary_emb
        folds = self.low == torch.float32  # rounding a folded weight once more would be another model
        self.scale: float = 1.0 if folds and not hasattr(first, "q_norm") else first.scaling
        self.layers = [_layer(layer, self.low, folds) for layer in backbone.layers]
        self.head = _map([scorer.model.get_output_embeddings()], self.low) if scorer.plain_head else None
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
        """Feed (rows,) tokens; returns the logits (rows, V)."""
        with torch.autocast(tokens.device.type, enabled=False):  # what is to be cast is cast here
            angles = self.angles(cache.positions[:, 0])
            x = F.embedding(tokens, self.embedding)
            for number in range(len(self.layers)):
                x = self.block(number, x, angles, cache)
            return self.logits(x)

    def block(self, number: int, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache) -> Tensor:
        """Layer ``number``: (rows, d) to (rows, d)."""
        layer, heads, both = self.layers[number], self.heads, self.heads + self.kv
        cos, sin = angles
        qkv = layer.qkv(self.normed(x, layer.before)).unflatten(1, (-1, self.dim))
        qk = qkv[:, :both]
        if layer.heads is not None:
            qk = self.normed(qk, layer.heads)
        qk = torch.addcmul(qk * cos, qk.roll(self.dim // 2, -1), sin).to(self.low)
        seen = cache.step(
            number, qk[:, :heads, None], qk[:, heads:, None], qkv[:, both:, None], None, self.scale, None, None
        )
        x = x + layer.out(seen.flatten(1))
        gate, up = layer.gate_up(self.normed(x, layer.after)).chunk(2, 1)
        return x + layer.down(F.silu(gate) * up)

    def logits(self, x: Tensor) -> Tensor:
        """(rows, d) after the last layer to (rows, V)."""
        states = self.normed(x, self.norm)
        return forbid(self.head(states), self.scorer.forbidden) if self.head else self.scorer.logits(states)

    def normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """``x`` over the root mean square of its last dimension (half the time of `F.rms_norm` on a CPU)."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        x = x * torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (x if weight is None else x * weight).to(self.low)


def fits(scorer: TokenScorer) -> bool:
    """Whether a policy is of the kind `Lean` knows: Llama-like, no hooks, no sliding window, at most a LoRA adapter."""
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
    return all(is_plain(_base(part)) and _known(part) for layer in backbone.layers for part in _linears(layer))


def _linears(layer: Any) -> list[Any]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        getattr(owner, f"{name}_proj")
        for owner, names in ((attention, "qkvo"), (mlp, ("gate", "up", "down")))
        for name in names
    ]


def _base(part: Any) -> Any:
    """A linear layer below its adapters."""
    return part.get_base_layer() if hasattr(part, "get_base_layer") else part


def _known(part: Any) -> bool:
    """Whether what an adapter adds is (alpha / r) B A x, of one adapter and nothing else."""
    if part is _base(part) or part.disable_adapters:
        return True
    from peft.tuners.lora import Linear

    names = part.active_adapters
    if type(part) is not Linear or len(names) > 1 or part.merged or getattr(part, "lora_variant", {}):
        return False
    return all(part.lora_A[n].bias is None and part.lora_B[n].bias is None for n in names if n in part.lora_A)


def _factors(part: Any) -> tuple[Tensor, Tensor] | None:
    """A (r, in) and (alpha / r) B (out, r) of the adapter that is on."""
    if part is _base(part) or part.disable_adapters:
        return None
    name = next((n for n in part.active_adapters if n in part.lora_A), None)
    return None if name is None else (part.lora_A[name].weight, part.scaling[name] * part.lora_B[name].weight)


def _layer(layer: Any, dtype: torch.dtype, folds: bool) -> _Layer:
    q, k, v, out, gate, up, down = _linears(layer)
    attention = layer.self_attn
    before, after = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    normed = hasattr(attention, "q_norm")
    scales = [attention.scaling if folds and not normed else 1.0, 1.0, 1.0]
    return _Layer(
        qkv=_map([q, k, v], dtype, scales, before if folds else None),
        out=_map([out], dtype),
        gate_up=_map([gate, up], dtype, norm=after if folds else None),
        down=_map([down], dtype),
        before=None if folds else before,
        after=None if folds else after,
        heads=_head_norms(attention) if normed else None,
    )


def _head_norms(attention: Any) -> Tensor:
    config, one = attention.config, (attention.q_norm.weight, attention.k_norm.weight)
    counts = (config.num_attention_heads, config.num_key_value_heads)
    return torch.cat([weight.expand(count, -1) for weight, count in zip(one, counts, strict=True)])


def _map(
    parts: Sequence[Any], dtype: torch.dtype, scales: Sequence[float] | None = None, norm: Tensor | None = None
) -> Map:
    """Linear layers of one input as one map: times ``scales``, and ``norm`` (the input's own weights) folded in."""
    scales = scales or [1.0] * len(parts)
    bases, factors = [_base(p) for p in parts], [_factors(p) for p in parts]
    weights = [b.weight if s == 1 else b.weight * s for b, s in zip(bases, scales, strict=True)]
    weights += [f[0] for f in factors if f]
    if norm is not None:
        weights = [w * norm for w in weights]
    bias = None
    if bases[0].bias is not None:
        bias = torch.cat([b.bias * s for b, s in zip(bases, scales, strict=True)]).to(dtype)
    if not any(factors):
        return _product([w.to(dtype) for w in weights], bias)
    whole = sum(len(b.weight) for b in bases)
    pieces = [
        b.weight.new_zeros(len(b.weight), 0, dtype=torch.float32) if f is None else s * f[1]
        for b, f, s in zip(bases, factors, scales, strict=True)
    ]
    again = torch.block_diag(*pieces).T.to(dtype).contiguous()  # (all ranks, all outputs)
    first = _product([w.to(dtype) for w in weights], None)

    def adapted(x: Tensor) -> Tensor:
        found = first(x)
        made = torch.addmm(found[:, :whole], found[:, whole:], again)
        return made if bias is None else made + bias

    return adapted


def _product(weights: Sequence[Tensor], bias: Tensor | None) -> Map:
    """X to x Wᵀ + b. In bf16 on a CPU the weights are laid as oneDNN's products want them: fewer rows profit most."""
    weight = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, laid, bias, "none", [], "")
    return lambda x: F.linear(x, weight, bias)
