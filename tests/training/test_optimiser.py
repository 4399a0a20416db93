from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hearken.training.optimiser import NonFiniteGradient, Optimiser, learning_rate
from hearken.training.options import TrainingOptions


def rates(total: int, **options) -> list[float]:
    return [learning_rate(s, total, TrainingOptions(lr=1.0, **options)) for s in range(total)]


def test_schedules() -> None:
    assert rates(4, schedule="constant") == [1, 1, 1, 1]
    assert rates(4, schedule="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(4, schedule="cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)])
    assert rates(10, schedule="linear", warmup=0.4) == pytest.approx(
        [0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 0.5, 2 / 6, 1 / 6]
    )


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_decay_on_matrices_only_and_shared_weights_once() -> None:
    one = network()
    optimiser = Optimiser([one, one], TrainingOptions(lr=0.1, weight_decay=0.5, schedule="constant"), 10)
    assert len(optimiser.parameters) == 2
    before = {n: p.detach().clone() for n, p in one.named_parameters()}
    for p in one.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step(0)
    assert torch.allclose(one.weight, before["weight"] * (1 - 0.1 * 0.5)) and torch.equal(one.bias, before["bias"])


def test_clipping_and_the_norm_before_it() -> None:
    one = network()
    optimiser = Optimiser([one], TrainingOptions(max_grad_norm=1.0), 10)
    for p in one.parameters():
        p.grad = torch.full_like(p, 2.0)
    assert optimiser.clip() == pytest.approx(2 * math.sqrt(8))
    assert math.hypot(*(p.grad.norm().item() for p in one.parameters())) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_changes_on_a_bad_gradient(value: float) -> None:
    one = network()
    optimiser = Optimiser([one], TrainingOptions(), 10)
    before = [p.detach().clone() for p in one.parameters()]
    for p in one.parameters():
        p.grad = torch.ones_like(p)
    one.bias.grad[0] = value
    with pytest.raises(NonFiniteGradient):
        optimiser.step(0)
    assert all(map(torch.equal, before, one.parameters())) and one.weight.grad is None
    assert not optimiser.adam.state


def test_state_comes_back_to_the_bit() -> None:
    def steps(one: nn.Linear, optimiser: Optimiser, some: range) -> None:
        for s in some:
            one(torch.full((1, 3), float(s))).square().sum().backward()
            optimiser.step(s)

    options = TrainingOptions(lr=0.1)
    whole = network()
    steps(whole, Optimiser([whole], options, 6), range(6))
    half, rest = network(), nn.Linear(3, 2)
    first = Optimiser([half], options, 6)
    steps(half, first, range(3))
    second = Optimiser([rest], options, 6)
    second.load_state_dict(first.state_dict())
    steps(rest, second, range(3, 6))
    assert torch.equal(rest.weight, whole.weight) and torch.equal(rest.bias, whole.bias)


def test_a_scale_of_the_rate() -> None:
    one = network()
    for p in one.parameters():
        p.grad = torch.ones_like(p)
    assert Optimiser([one], TrainingOptions(lr=0.5, schedule="constant"), 4, scale=3.0).step(0)["lr"] == 1.5
