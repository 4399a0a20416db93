"""No tensor of response tokens x vocabulary is ever alive, forward or backward: every allocation is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hearken.algorithms.sft import summed_nll
from hearken.models import head
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

PROMPTS, RESPONSES, LENGTH = 4, 2, 20
TOKENS = PROMPTS * RESPONSES * LENGTH


class Largest(TorchDispatchMode):
    """Remembers the greatest number of elements in any storage that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return out


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> TokenScorer:
    monkeypatch.setattr(head, "CHUNK", 16 * tiny_models.V)  # a batch of several chunks, as in earnest
    return TokenScorer(tiny_models.causal("llama"))


def groups() -> list[Group]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(3, tiny_models.V, (n,), generator=generator).tolist()  # noqa: E731
    return [Group(draw(5), [draw(LENGTH) for _ in range(RESPONSES)]) for _ in range(PROMPTS)]


def greatest(work: Callable[[], Any]) -> int:
    with Largest() as mode:
        work()
    return mode.elements


def test_training(scorer: TokenScorer) -> None:
    found = greatest(lambda: summed_nll(scorer, groups()).backward())
    assert 16 * tiny_models.V <= found < TOKENS * tiny_models.V * 0.75


def test_scoring_with_entropy(scorer: TokenScorer) -> None:
    layout = lay_out(groups())
    with torch.no_grad():
        found = greatest(lambda: scorer(layout, temperature=0.7, entropy=True))
    assert found < TOKENS * tiny_models.V * 0.75


def test_sampling_holds_the_logits_of_one_step(scorer: TokenScorer) -> None:
    sampler = NativeSampler(scorer, eos=[])
    how = SamplingParameters(max_new_tokens=LENGTH)
    prompts = [list(g.prompt) for g in groups()]
    found = greatest(lambda: sampler.sample(prompts, RESPONSES, how, [0] * PROMPTS))
    assert found < TOKENS * tiny_models.V * 0.75


def test_the_counter_sees_the_logits_of_a_plain_forward_pass(scorer: TokenScorer) -> None:
    ids = torch.zeros(PROMPTS * RESPONSES, LENGTH, dtype=torch.long)
    scorer.use("padded")
    assert greatest(lambda: scorer.model(input_ids=ids)) >= TOKENS * tiny_models.V
