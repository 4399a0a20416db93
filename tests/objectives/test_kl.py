from __future__ import annotations

import pytest
import torch

from hearken.objectives.kl import adapt_kl, k1, k2, k3, sequence_kl


def policies(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log π from its logits, and a fixed log π_ref over the same five actions."""
    reference = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64).log()
    return parameters.log_softmax(-1), reference


LOGITS = torch.tensor([0.5, -0.2, 0.1, 0.9, -1.0], dtype=torch.float64)


def test_expected_values_by_enumeration() -> None:
    logprobs, reference = policies(LOGITS)
    weight = logprobs.exp()
    exact = (weight * (logprobs - reference)).sum()
    torch.testing.assert_close((weight * k1(logprobs, reference)).sum(), exact)
    torch.testing.assert_close((weight * k3(logprobs, reference)).sum(), exact)
    assert (k3(logprobs, reference) >= 0).all() and (k2(logprobs, reference) >= 0).all()
    assert (k1(logprobs, reference) < 0).any()
    turned = (weight * k3(reference, logprobs)).sum()  # samples from π, ratio the wrong way round
    assert abs(turned - exact) > 0.05


def test_only_k2_has_the_right_expected_gradient() -> None:
    parameters = LOGITS.clone().requires_grad_()
    logprobs, reference = policies(parameters)
    exact = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), parameters, retain_graph=True)[0]
    weight = logprobs.exp().detach()  # a sample enters the loss through its log-probability only
    gradients = [
        torch.autograd.grad((weight * k(logprobs, reference)).sum(), parameters, retain_graph=True)[0]
        for k in (k1, k2, k3)
    ]
    torch.testing.assert_close(gradients[1], exact)
    torch.testing.assert_close(gradients[0], torch.zeros_like(exact))
    assert (gradients[2] - exact).abs().max() > 0.01


def test_sequence_kl_is_exact_over_all_sequences() -> None:
    """Two tokens of three, the second depending on the first: the chain rule of KL."""
    torch.manual_seed(0)
    first, second = (
        torch.randn(2, 3, dtype=torch.float64).log_softmax(-1),
        torch.randn(2, 3, 3).double().log_softmax(-1),
    )
    pairs = [(a, b) for a in range(3) for b in range(3)]
    tokens = torch.stack([torch.stack([torch.stack([first[m, a], second[m, a, b]]) for a, b in pairs]) for m in (0, 1)])
    padded = torch.cat([tokens, torch.full((2, 9, 1), float("nan"), dtype=torch.float64)], -1)
    mask = torch.tensor([1, 1, 0]).expand(9, 3)
    joint = tokens[0].sum(-1).exp()
    exact = (joint * (tokens[0].sum(-1) - tokens[1].sum(-1))).sum()
    chain = (first[0].exp() * (first[0] - first[1])).sum()
    chain += (first[0].exp() * (second[0].exp() * (second[0] - second[1])).sum(-1)).sum()
    estimate = (joint * sequence_kl(padded[0], padded[1], mask)).sum()
    torch.testing.assert_close(estimate, exact)
    torch.testing.assert_close(estimate, chain)


def test_adaptive_coefficient() -> None:
    assert adapt_kl(0.1, 6.0, 6.0, 512) == 0.1
    assert adapt_kl(0.1, 60.0, 6.0, 512) == pytest.approx(0.1 * (1 + 0.2 * 512 / 10_000))
    assert adapt_kl(0.1, 0.0, 6.0, 512) == pytest.approx(0.1 * (1 - 0.2 * 512 / 10_000))
    assert adapt_kl(0.1, 6.6, 6.0, 100, horizon=1000) == pytest.approx(0.1 * 1.01)


def test_adaptive_coefficient_settles_at_the_target() -> None:
    """A policy whose KL is 1/β reaches the target: β → 1/6."""
    beta = 1.0
    for _ in range(2000):
        beta = adapt_kl(beta, 1 / beta, 6.0, 256)
    assert 1 / beta == pytest.approx(6.0, rel=1e-3)
