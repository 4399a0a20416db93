from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.training.batching import GPU, Order, budget, microbatches
from hearken.training.forward import gather, rows_of

groups = st.lists(
    st.builds(
        lambda p, rs: Group([1] * p, [[2] * n for n in rs]),
        st.integers(1, 9),
        st.lists(st.integers(1, 7), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_sees_every_row_once(size: int, batch: int, seed: int) -> None:
    order = Order(size, batch, seed)
    for epoch in (0, 1):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        assert sorted(i for s in steps for i in order.rows(s)) == list(range(size))
    again = Order(size, batch, seed)
    assert again.rows(order.steps_per_epoch) == order.rows(order.steps_per_epoch), "nothing to remember"


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50))
def test_endless_batches_are_full_and_even(size: int, batch: int) -> None:
    order = Order(size, batch, 0)
    seen = [order.endless(s) for s in range(8)]
    assert all(len(b) == batch for b in seen)
    counts = Counter(i for b in seen for i in b)
    assert max(counts.values()) - min(counts[i] for i in range(size)) <= 1


def test_seeds_and_epochs_shuffle_anew() -> None:
    assert len({tuple(Order(30, 30, seed).rows(step)) for seed in (0, 1) for step in (0, 1)}) == 4


def scorer_of(width: int) -> TokenScorer:
    shape = {"num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 8, "intermediate_size": 8}
    return TokenScorer(LlamaForCausalLM(LlamaConfig(hidden_size=width, **shape)))


def test_the_budget_follows_the_width_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [budget(0, scorer_of(width)) for width in (64, 128, 256, 512)] == [4096, 2048, 1024, 1024]
    assert budget(300, scorer_of(64)) == 300, "as asked for"
    monkeypatch.setattr(TokenScorer, "device", torch.device("cuda"))
    assert budget(0, scorer_of(64)) == GPU


@settings(max_examples=50, deadline=None)
@given(groups, st.integers(1, 60))
def test_microbatches_hold_all_and_keep_the_budget(drawn: list[Group], tokens: int) -> None:
    parts = list(microbatches(drawn, tokens, scorer_of(64)))
    assert sorted(i for p in parts for i in p) == list(range(len(drawn)))
    assert all(len(p) == 1 or sum(drawn[i].tokens for i in p) <= tokens for p in parts)


@settings(max_examples=30, deadline=None)
@given(groups, st.integers(1, 60))
def test_gathered_answers_stand_in_the_order_of_the_responses(drawn: list[Group], tokens: int) -> None:
    lengths = torch.tensor([len(r) for g in drawn for r in g.responses])
    per_row = gather(lambda layout: layout.lengths, drawn, tokens, scorer_of(64))
    assert torch.equal(per_row, lengths.float())
    per_token = gather(lambda layout: layout.mask * layout.lengths[:, None], drawn, tokens, scorer_of(64))
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    assert torch.equal(per_token, mask * lengths[:, None].float())
    both = gather(lambda layout: torch.stack([layout.mask, 2 * layout.mask], -1), drawn, tokens, scorer_of(64))
    assert torch.equal(both[..., 0], mask.float()) and torch.equal(both[..., 1], 2.0 * mask)


def test_rows_of() -> None:
    three = [Group([1], [[1]] * n) for n in (2, 1, 3)]
    assert rows_of(three, [2, 0]) == [3, 4, 5, 0, 1]
