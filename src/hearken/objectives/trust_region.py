"""Natural gradients and their line search: the pieces of TRPO (Schulman et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class LineSearch(NamedTuple):
    """What `backtrack` found."""

    fraction: float
    """Of the full step; 0 where none was good."""
    tries: int


def surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A·π/π_old, unreduced: what a trust region makes safe to minimise (eq. 14). Any shape, e.g. (R, T)."""
    return -advantages * torch.exp(logprobs - old_logprobs)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, steps: int = 10, tolerance: float = 1e-10
) -> Tensor:
    """Solve F·x = b for a symmetric positive definite F that is known only by its products.

    Args:
        product: v to F·v, (P,) to (P,).
        b: (P,).
        steps: most products; in exact arithmetic P of them give the solution.
        tolerance: stop once the squared residual, relative to b's, is below this.

    Returns:
        (P,), the best x found.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction = residual.clone()
    square = residual.dot(residual)
    limit = tolerance * square
    for _ in range(steps):
        if square <= limit or square == 0:
            break
        image = product(direction)
        curvature = direction.dot(image)
        if curvature <= 0:  # rounding has taken over
            break
        alpha = square / curvature
        x = x + alpha * direction
        residual = residual - alpha * image
        fresh = residual.dot(residual)
        direction = residual + (fresh / square) * direction
        square = fresh
    return x


def step_scale(step: Tensor, curved: Tensor, max_kl: float) -> Tensor:
    """β = √(2δ / sᵀFs): the length at which the quadratic model of the KL is δ (section C). (P,), (P,) to a scalar."""
    return torch.sqrt(2 * max_kl / step.dot(curved).clamp(min=1e-12))


def backtrack(
    attempt: Callable[[float], tuple[float, float]], loss: float, max_kl: float, *, shrink: float = 0.5, tries: int = 10
) -> LineSearch:
    """The longest of the steps 1, s, s², ... that lowers the loss and stays within the trust region.

    Args:
        attempt: a fraction of the full step to (surrogate loss, mean KL) there.
        loss: the surrogate before the step.
        max_kl: δ; 1.5 times as much is let through, as the KL is measured on the same samples.
        shrink: s.
        tries: most attempts.
    """
    fraction = 1.0
    for number in range(1, tries + 1):
        found, kl = attempt(fraction)
        if found < loss and kl <= 1.5 * max_kl:
            return LineSearch(fraction, number)
        fraction *= shrink
    return LineSearch(0.0, tries)


def categorical_fisher(tangent: Tensor, logprobs: Tensor) -> Tensor:
    """Fisher metric of a softmax applied to a tangent of its logits: p ⊙ (u - Σ p·u). (n, V), (n, V) to (n, V).

    F·v over all parameters is Jᵀ·(this of J·v): a product with the network's Jacobian, this, one with its transpose. No
    second derivative is needed.
    """
    p = logprobs.exp()
    return p * (tangent - (p * tangent).sum(-1, keepdim=True))


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors of any shapes as one vector (P,)."""
    return torch.cat([x.reshape(-1) for x in tensors])
