from __future__ import annotations

import pytest
import torch

from hearken.objectives.reduce import masked_mean, masked_sum, whiten


def test_sum_and_mean_ignore_padding_even_nan() -> None:
    x = torch.tensor([[1.0, 2.0, float("nan")], [4.0, float("inf"), 9.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert masked_sum(x, mask).item() == 7
    mean = masked_mean(x, mask)
    assert mean.item() == pytest.approx(7 / 3)
    mean.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, mask / 3)


def test_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2)).item() == 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_gradient_does_not_depend_on_the_microbatch_split(size: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 6, dtype=torch.float64)
    mask = torch.arange(6) < torch.randint(1, 7, (8, 1))
    weight = torch.randn(6, dtype=torch.float64, requires_grad=True)
    (whole,) = torch.autograd.grad(masked_mean((x * weight) ** 2, mask), weight)

    count = mask.sum()
    split = torch.zeros_like(whole)
    naive = torch.zeros_like(whole)
    for rows, part in zip(x.split(size), mask.split(size), strict=True):
        split += torch.autograd.grad(masked_mean((rows * weight) ** 2, part, count), weight)[0]
        naive += torch.autograd.grad(masked_mean((rows * weight) ** 2, part), weight)[0] * len(rows) / len(x)
    torch.testing.assert_close(split, whole)
    if size < 8:  # the mean of means is something else, so the test can fail
        assert (naive - whole).abs().max() > 1e-3


@pytest.mark.parametrize("keep_mean", [False, True])
def test_whiten_against_plain_python(keep_mean: bool) -> None:
    torch.manual_seed(1)
    x = 3 + 2 * torch.randn(4, 5, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [1], [3], [2]])
    kept = [x[i, t].item() for i in range(4) for t in range(5) if mask[i, t]]
    mean = sum(kept) / len(kept)
    variance = sum((value - mean) ** 2 for value in kept) / len(kept)
    white = whiten(x, mask, keep_mean=keep_mean)
    for i in range(4):
        for t in range(5):
            expected = (x[i, t].item() - mean) / (variance + 1e-8) ** 0.5 + (mean if keep_mean else 0.0)
            assert white[i, t].item() == pytest.approx(expected if mask[i, t] else 0.0, abs=1e-12)


def test_whiten_constant_is_finite() -> None:
    assert torch.equal(whiten(torch.full((2, 3), 5.0), torch.ones(2, 3)), torch.zeros(2, 3))
