"""Log-probabilities through a language model's head, without the logits.

What autograd would do of itself keeps several tensors of tokens x vocabulary and scatters into another. Here the
logits live for one chunk, and the gradient

    d log p(y) / d logits = onehot(y) - softmax(logits)

is written over them. A batch that is one chunk keeps its probabilities for the backward pass, a larger one computes
them again.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 1 << 24
"""Logits alive at once (numbers, not bytes). Adding up a wide head's gradient is worth fewer, larger pieces."""
FORBIDDEN = -1e9
"""Logit of a token that has no probability: finite, so that 0·log 0 is 0."""


def chunk_rows(vocabulary: int) -> int:
    """How many tokens' logits are alive at once."""
    return max(CHUNK // vocabulary, 16)


def is_plain(head: nn.Module) -> bool:
    """Whether a head is a linear map and nothing else: no adapter, no hook, no sharded weight."""
    hooks = head._forward_hooks or head._forward_pre_hooks
    return type(head) is nn.Linear and not hooks and type(head.weight) is nn.Parameter


def linear_logprobs(
    hidden: Tensor, head: nn.Linear, targets: Tensor, temperature: float = 1.0, entropy: bool = False,
    forbidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Log-probabilities of ``targets`` under softmax(head(hidden) / temperature). Differentiable once.

    Args:
        hidden: (n, d).
        head: a linear map to V logits.
        targets: (n,) token ids.
        temperature: divides the logits.
        entropy: also compute the entropy of each distribution, in nats and without a gradient (else zeros).
        forbidden: ids that have no probability (see `loading.fit`).

    Returns:
        (n,) log-probabilities and (n,) entropies, in float32.
    """
    return _LinearLogprobs.apply(  # type: ignore[no-any-return, no-untyped-call]
        hidden, head.weight, head.bias, targets, temperature, entropy, forbidden
    )


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float,
        entropy: bool, forbidden: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        low, head = hidden.to(dtype), weight.to(dtype)
        size = chunk_rows(weight.shape[0])
        logprobs = torch.empty(len(targets), device=hidden.device)
        spread, normaliser = torch.zeros_like(logprobs), torch.empty_like(logprobs)
        kept = None
        for at in range(0, len(targets), size):
            part = slice(at, at + size)
            logits = _logits(low[part], head, bias, temperature, forbidden)
            norm = normaliser[part] = logits.logsumexp(-1)
            logprobs[part] = logits.gather(-1, targets[part, None])[:, 0] - norm
            if entropy or len(targets) <= size:
                if entropy:
                    probabilities = torch.exp(logits - norm[:, None])
                    spread[part] = norm - torch.linalg.vecdot(probabilities, logits)
                else:
                    probabilities = logits.sub_(norm[:, None]).exp_()
                kept = probabilities if len(targets) <= size else None
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(low, head, bias, targets, normaliser, kept)
            ctx.temperature, ctx.size, ctx.dtypes = temperature, size, (hidden.dtype, weight.dtype)
            ctx.forbidden = forbidden
        ctx.mark_non_differentiable(spread)
        return logprobs, spread

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        low, head, bias, targets, normaliser, kept = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(low) if wants_hidden else None
        to_weight = torch.zeros_like(head, dtype=torch.float32) if wants_weight else None
        to_bias = torch.zeros_like(bias) if wants_bias else None
        for at in range(0, len(targets), ctx.size):
            part = slice(at, at + ctx.size)
            scale = grad[part, None] / ctx.temperature
            if kept is None:
                p = _logits(low[part], head, bias, ctx.temperature, ctx.forbidden).sub_(normaliser[part, None]).exp_()
                p.mul_(-scale)
            else:
                p = kept * -scale  # another backward pass may want them
            p.scatter_add_(1, targets[part, None], scale)
            if to_bias is not None:
                to_bias += p.sum(0)
            p = p.to(head.dtype)
            if to_hidden is not None:
                to_hidden[part] = p @ head
            if to_weight is not None:
                to_weight += p.T @ low[part]
        of_hidden, of_weight = ctx.dtypes
        return (
            None if to_hidden is None else to_hidden.to(of_hidden),
            None if to_weight is None else to_weight.to(of_weight),
            to_bias, None, None, None, None,
        )  # fmt: skip


def forbid(logits: Tensor, ids: Tensor | None) -> Tensor:
    """Take the probability of some ids away, in place: (..., V)."""
    return logits if ids is None else logits.index_fill_(-1, ids, FORBIDDEN)


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, forbidden: Tensor | None
) -> Tensor:
    logits = forbid(F.linear(hidden, weight, None if bias is None else bias.to(weight.dtype)).float(), forbidden)
    return logits if temperature == 1 else logits.div_(temperature)
