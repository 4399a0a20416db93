"""The head's own backward pass against autograd's."""

import pytest
import torch
from torch import nn

from hearken.models import head as module
from hearken.models.head import is_plain, linear_logprobs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1 << 22, 16 * 50])
@pytest.mark.parametrize("entropy", [True, False])
def test_agrees_with_autograd(monkeypatch, bias, chunk, entropy):
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    head = nn.Linear(7, 50, bias=bias).double()
    hidden = torch.randn(41, 7, dtype=torch.double, requires_grad=True)
    targets, weights = torch.randint(0, 50, (41,)), torch.randn(41)

    distribution = torch.log_softmax(head(hidden) / 0.7, -1)
    expected = distribution.gather(-1, targets[:, None])[:, 0]
    (expected.float() * weights).sum().backward()
    grads = [hidden.grad.clone(), *(p.grad.clone() for p in head.parameters())]
    hidden.grad = None
    head.zero_grad()

    found, spread = linear_logprobs(hidden, head, targets, 0.7, entropy)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, expected.float(), atol=1e-6, rtol=1e-6)
    for mine, theirs in zip([hidden.grad, *(p.grad for p in head.parameters())], grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    if entropy:
        torch.testing.assert_close(spread, -(distribution.exp() * distribution).sum(-1).float(), atol=1e-5, rtol=1e-5)
    assert not spread.requires_grad


def test_a_frozen_head_gets_no_gradient():
    head = nn.Linear(5, 30).requires_grad_(False)
    hidden = torch.randn(9, 5, requires_grad=True)
    linear_logprobs(hidden, head, torch.randint(0, 30, (9,)))[0].sum().backward()
    assert hidden.grad is not None and head.weight.grad is None


def test_half_precision_keeps_to_the_full_one():
    torch.manual_seed(0)
    head, hidden = nn.Linear(16, 40), torch.randn(12, 16, requires_grad=True)
    targets = torch.randint(0, 40, (12,))
    full = linear_logprobs(hidden, head, targets)[0]
    with torch.autocast("cpu", torch.bfloat16):
        half = linear_logprobs(hidden, head, targets)[0]
    half.sum().backward()
    assert half.dtype == torch.float32 and hidden.grad.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.05, rtol=0.02)


def test_what_is_plain():
    head = nn.Linear(3, 4)
    assert is_plain(head)
    head.register_forward_hook(lambda *_: None)
    assert not is_plain(head)
    assert not is_plain(nn.Sequential(nn.Linear(3, 4)))
