"""Scorers wrapped by FSDP2 and DDP compute what they do alone, whatever is asked of them, before and after learning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from hearken.models.guided import GuidedScorer
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import RewardScorer, Scorer, TokenScorer, ValueScorer
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

LAYOUT = lay_out([Group([5, 6, 7], [[8, 9, 10], [11, 12]]), Group([4], [[20, 21]])])
Asked = Callable[[Any], Tensor]
TOKENS: list[Asked] = [lambda s: s(LAYOUT).logprobs, lambda s: s(lambda net: net.response_logits(LAYOUT))]
REWARDS: list[Asked] = [
    lambda s: s(LAYOUT), lambda s: s(lambda net: net.heads(LAYOUT)), lambda s: s(lambda net: net.features(LAYOUT)),
]  # fmt: skip
GUIDES: list[Asked] = [lambda s: sum(x.sum() for x in s(lambda net: net.estimates(LAYOUT))[0]) * torch.ones(1)]
KINDS: dict[str, tuple[Callable[[], Scorer], list[Asked]]] = {
    "policy": (lambda: TokenScorer(tiny_models.causal("llama")), TOKENS),
    "another head": (lambda: TokenScorer(tiny_models.causal("gemma2")), TOKENS),
    "reward": (lambda: RewardScorer(tiny_models.classifier("llama")), REWARDS),
    "value": (lambda: ValueScorer(tiny_models.classifier("llama")), [lambda s: s(LAYOUT)]),
    "guided": (lambda: GuidedScorer(tiny_models.causal("llama"), 1.0), GUIDES),
}
HOW = SamplingParameters(max_new_tokens=6)


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    """A process group of one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def made(kind: str) -> tuple[Scorer, list[Asked], list[Tensor], dict[str, Tensor]]:
    """A scorer, what is asked of it, and what it says and learns alone."""
    torch.manual_seed(0)
    make, asked = KINDS[kind]
    scorer = make()
    with torch.no_grad():
        said = [ask(scorer) for ask in asked]
    asked[0](scorer).sum().backward()
    gradients = {name: p.grad.clone() for name, p in scorer.named_parameters() if p.grad is not None}
    scorer.zero_grad()
    return scorer, asked, said, gradients


@pytest.mark.parametrize("kind", KINDS)
def test_sharded(kind: str) -> None:
    scorer, asked, said, gradients = made(kind)
    samples = isinstance(scorer, TokenScorer) and NativeSampler(scorer, [1]).sample([[5, 6, 7], [4]], 2, HOW, [0, 1])
    fully_shard(scorer, mesh=init_device_mesh("cpu", (1,)))
    scorer.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    scorer.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]
    for _ in range(2):  # after a backward pass the weights lie in shards
        assert all(isinstance(p, DTensor) for p in scorer.parameters())
        with torch.no_grad():
            for ask, want in zip(asked, said, strict=True):
                torch.testing.assert_close(ask(scorer), want)
            if samples:
                again = NativeSampler(scorer, [1]).sample([[5, 6, 7], [4]], 2, HOW, [0, 1])  # type: ignore[arg-type]
                assert [s.tokens for s in again] == [s.tokens for s in samples]
        asked[0](scorer).sum().backward()
        found = {name: p.grad.full_tensor() for name, p in scorer.named_parameters() if p.grad is not None}
        assert found.keys() >= gradients.keys()
        for name, want in gradients.items():
            torch.testing.assert_close(found[name], want, msg=name)
        scorer.zero_grad()


@pytest.mark.parametrize("kind", ["policy", "reward", "value"])
def test_replicated(kind: str) -> None:
    scorer, asked, said, gradients = made(kind)
    wrapped = DistributedDataParallel(scorer, find_unused_parameters=True)
    with torch.no_grad():
        for ask, want in zip(asked, said, strict=True):
            torch.testing.assert_close(ask(wrapped), want)
    asked[0](wrapped).sum().backward()
    for name, want in gradients.items():
        torch.testing.assert_close(dict(scorer.named_parameters())[name].grad, want, msg=name)
