from __future__ import annotations

import math

import pytest
import torch

from hearken.objectives.trust_region import (
    backtrack,
    categorical_fisher,
    conjugate_gradient,
    flatten,
    step_scale,
    surrogate,
)


def test_conjugate_gradient_solves() -> None:
    torch.manual_seed(0)
    a = torch.randn(8, 8, dtype=torch.float64)
    matrix = a @ a.T + torch.eye(8)
    b = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, b, 20), torch.linalg.solve(matrix, b))
    assert (conjugate_gradient(lambda v: matrix @ v, torch.zeros_like(b)) == 0).all()
    few = conjugate_gradient(lambda v: matrix @ v, b, 3)
    assert (matrix @ few - b).norm() < b.norm()


def test_fisher_is_the_hessian_of_the_kl() -> None:
    logits = torch.randn(5, dtype=torch.float64)
    fixed = torch.log_softmax(logits, -1)

    def kl(x: torch.Tensor) -> torch.Tensor:
        return (fixed.exp() * (fixed - torch.log_softmax(x, -1))).sum()

    hessian = torch.autograd.functional.hessian(kl, logits)
    tangent = torch.randn(5, dtype=torch.float64)
    torch.testing.assert_close(categorical_fisher(tangent, fixed), hessian @ tangent)


def test_the_step_has_the_length_asked_for() -> None:
    matrix = torch.diag(torch.tensor([1.0, 4.0]))
    step = torch.tensor([1.0, 2.0])
    scaled = step_scale(step, matrix @ step, 0.01) * step
    assert (0.5 * scaled @ matrix @ scaled).item() == pytest.approx(0.01)


def test_backtracking() -> None:
    seen: list[float] = []

    def attempt(fraction: float) -> tuple[float, float]:
        seen.append(fraction)
        return 1 - fraction, 0.08 * fraction**2

    found = backtrack(attempt, loss=1.0, max_kl=0.01)
    assert found == (0.25, 3) and seen == [1, 0.5, 0.25]
    assert backtrack(lambda _: (2.0, 0.0), loss=1.0, max_kl=0.01, tries=4) == (0.0, 4)
    assert backtrack(lambda _: (math.nan, 0.0), loss=1.0, max_kl=0.01).fraction == 0


def test_surrogate_and_flatten() -> None:
    old = torch.tensor([-1.0, -2.0])
    new = old.clone().requires_grad_()
    advantages = torch.tensor([2.0, -1.0])
    surrogate(new, old, advantages).sum().backward()
    torch.testing.assert_close(new.grad, -advantages)
    assert flatten([torch.ones(2, 2), torch.zeros(1)]).tolist() == [1, 1, 1, 1, 0]
