from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FALLBACK, PACKED, V, causal, classifier
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hearken.models import layout as layout_module
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import RewardScorer, TokenScorer, ValueScorer, probe

r = random.Random(1)


def tokens(n: int) -> list[int]:
    return [r.randrange(3, V) for _ in range(n)]


JOINED = [Group(tokens(11), [tokens(7)]), Group(tokens(1), [tokens(4)]), Group(tokens(5), [tokens(1)])]
SHARED = [Group(tokens(9), [tokens(7), tokens(2), tokens(12)]), Group(tokens(1), [tokens(4)]),
          Group(tokens(4), [tokens(1), tokens(6)])]  # fmt: skip


def plain_logprobs(model: Any, groups: list[Group], temperature: float = 1.0) -> Tensor:
    """One sequence at a time, by the model's own forward pass: all response tokens in a row."""
    found = []
    for g in groups:
        for response in g.responses:
            ids = torch.tensor([[*g.prompt, *response]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(g.prompt) - 1 : -1].float() / temperature
            found.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return torch.cat(found)


def scorer_of(model: Any) -> TokenScorer:
    scorer = TokenScorer(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe(scorer)
    return scorer


def gradients(model: Any) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("worth", [1, layout_module.WORTH], ids=["many blocks", "one block"])
@pytest.mark.parametrize("groups", [JOINED, SHARED], ids=["joined", "shared"])
@pytest.mark.parametrize("name", PACKED + FALLBACK)
def test_equal_to_one_sequence_at_a_time(
    name: str, groups: list[Group], worth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "WORTH", worth)
    model = causal(name)
    own = copy.deepcopy(model)
    scorer = TokenScorer(model)
    if name in FALLBACK:
        with pytest.warns(UserWarning, match="cannot be packed"):
            assert probe(scorer) != "packed"
    else:
        assert probe(scorer) == "packed"

    truth = plain_logprobs(own, groups)
    layout = lay_out(groups)
    assert (len(layout.blocks) > 1) == (worth == 1)
    mine = scorer(layout).logprobs
    assert mine[~layout.mask].abs().sum() == 0
    scale = truth.abs().max().item()
    torch.testing.assert_close(mine[layout.mask], truth, rtol=0, atol=1e-5 * max(scale, 1))

    weights = torch.randn(len(truth), generator=torch.Generator().manual_seed(3))
    (truth * weights).sum().backward()
    (mine[layout.mask] * weights).sum().backward()
    want, have = gradients(own), gradients(model)
    assert want.keys() == have.keys()
    largest = max(g.abs().max().item() for g in want.values())
    for parameter, gradient in want.items():
        torch.testing.assert_close(have[parameter], gradient, rtol=0, atol=1e-5 * largest, msg=parameter)


def test_these_models_look_at_what_is_far_away() -> None:
    """Else the test above would show nothing: the first token of a prompt must matter to the last of a response."""
    for name in PACKED:
        model = causal(name)
        ids = torch.tensor([tokens(16)])
        other = ids.clone()
        window = getattr(model.config, "sliding_window", None)
        at = 12 if window else 0
        other[0, at] = (other[0, at] + 1) % V
        with torch.no_grad():
            gap = (model(input_ids=ids).logits - model(input_ids=other).logits)[0, -1].abs().max()
        assert gap > 1e-2, name


@pytest.mark.parametrize("worth", [1, layout_module.WORTH])
def test_a_window_is_respected(worth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers with window 5 see 8 tokens back, in the joined and in the shared form."""
    monkeypatch.setattr(layout_module, "WORTH", worth)
    scorer = scorer_of(causal("mistral"))
    far = tokens(12)
    near = [far[0] ^ 1, *far[1:]]
    tail = [tokens(6)]
    for extra in ([], [tokens(3)]):
        with torch.no_grad():
            a, b = (scorer(lay_out([Group(p, tail + extra)])).logprobs[0, 2:] for p in (far, near))
        assert torch.equal(a, b)


def test_attention_does_not_leak_between_responses_or_groups() -> None:
    scorer = scorer_of(causal("llama"))
    with torch.no_grad():
        alone = scorer(lay_out(SHARED[:1])).logprobs[1]
        changed = [
            Group(SHARED[0].prompt, [tokens(7), SHARED[0].responses[1], tokens(3)]),
            Group(tokens(8), [tokens(9)]),
        ]
        beside = scorer(lay_out(changed)).logprobs[1]
    torch.testing.assert_close(alone[:2], beside[:2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_rewards_and_values_equal_the_models_own(name: str) -> None:
    model = classifier(name)
    own = copy.deepcopy(model)
    reward = RewardScorer(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = probe(reward)
    value = ValueScorer(model, path)
    layout = lay_out(SHARED)
    with torch.no_grad():
        scores, values = reward(layout), value(layout)
        at = 0
        for g in SHARED:
            for response in g.responses:
                ids = torch.tensor([[*g.prompt, *response]])
                logit = own(input_ids=ids).logits[0, 0]
                hidden = getattr(own, own.base_model_prefix)(input_ids=ids).last_hidden_state
                each = own.score(hidden)[0, len(g.prompt) - 1 : -1, 0]
                assert abs(scores[at] - logit) < 1e-5
                torch.testing.assert_close(values[at, : len(response)], each, rtol=0, atol=1e-5)
                at += 1


class Shapes(TorchDispatchMode):
    """Remembers the largest tensor made by any operation, and how many rows went through the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.embedded = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, Tensor) and V in one.shape[-1:]:
                self.largest = max(self.largest, one.numel())
        if func is torch.ops.aten.embedding.default:
            self.embedded += args[1].numel()
        return found


def test_no_tensor_of_tokens_times_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.models.head.CHUNK", 16 * V)
    scorer = scorer_of(causal("llama"))
    groups = [Group(tokens(20), [tokens(40), tokens(40)])]
    with Shapes() as seen:
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.numel() if x.shape[-1] == V else 0) or x, lambda x: x
        ):
            loss = scorer(lay_out(groups)).logprobs.sum()
        loss.backward()
    assert 0 < seen.largest <= max(16 * V, scorer.model.lm_head.weight.numel())
    assert max(saved) <= scorer.model.lm_head.weight.numel(), "logits are recomputed, not kept"


@pytest.mark.parametrize("kind", [TokenScorer, RewardScorer, ValueScorer])
def test_k_responses_cost_k_response_passes_and_one_prompt_pass(kind: Any) -> None:
    scorer = kind(causal("llama") if kind is TokenScorer else classifier("llama"))
    groups = [Group(tokens(30), [tokens(n) for n in (3, 5, 2, 4)]), Group(tokens(7), [tokens(6), tokens(1)])]
    with torch.no_grad(), Shapes() as seen:
        scorer(lay_out(groups))
    assert seen.embedded == 30 + (3 + 5 + 2 + 4) + 7 + (6 + 1) == sum(g.tokens for g in groups)


def test_entropy_and_temperature() -> None:
    model = causal("qwen2")
    scorer = scorer_of(model)
    layout = lay_out(JOINED)
    with torch.no_grad():
        found = scorer(layout, temperature=0.7, entropy=True)
        model.set_attn_implementation("eager")
        torch.testing.assert_close(found.logprobs[layout.mask], plain_logprobs(model, JOINED, 0.7), rtol=0, atol=1e-4)
        g = JOINED[0]
        logits = model(input_ids=torch.tensor([[*g.prompt, *g.responses[0]]])).logits[0, len(g.prompt) - 1 : -1] / 0.7
    want = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(found.entropy[0, :7], want, rtol=0, atol=1e-4)


sequences = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(sequences, st.lists(sequences, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_a_layout_holds_every_token_in_its_place(drawn: list[tuple[list[int], list[list[int]]]]) -> None:
    groups = [Group(p, rs) for p, rs in drawn]
    layout = lay_out(groups)
    assert len(layout.ids) == sum(g.tokens for g in groups)
    row = 0
    for number, g in enumerate(groups):
        for response in g.responses:
            n, p = len(response), len(g.prompt)
            assert layout.parent[row] == number and layout.lengths[row] == n and layout.prompt_lengths[row] == p
            assert layout.targets[row, :n].tolist() == list(response)
            assert layout.ids[layout.token[row, :n]].tolist() == list(response)
            assert layout.positions[layout.token[row, :n]].tolist() == list(range(p, p + n))
            assert layout.ids[layout.state[row, 0]] == g.prompt[-1]
            assert layout.positions[layout.state[row, :n]].tolist() == list(range(p - 1, p + n - 1))
            assert layout.ids[layout.last[row]] == response[-1]
            row += 1
    ids, keep, source = layout.padded()
    whole = [[*g.prompt, *response] for g in groups for response in g.responses]
    assert [i[k.bool()].tolist() for i, k in zip(ids, keep, strict=True)] == whole
    assert torch.equal(ids.flatten()[source], layout.ids)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 90), min_size=1, max_size=3)), min_size=1))
def test_blocks_hold_every_sequence_once_and_are_of_alike_length(drawn: list[tuple[int, list[int]]]) -> None:
    layout = lay_out([Group([1] * p, [[2] * n for n in ns]) for p, ns in drawn])
    shared = layout.prompts is not None
    before = len(layout.prompts.grid.flat) if layout.prompts else 0
    assert before + sum(len(b.grid.flat) for b in layout.blocks) == len(layout.ids)
    lengths = layout.lengths if shared else layout.lengths + layout.prompt_lengths
    found = []
    for block in layout.blocks:
        own = torch.bincount(block.grid.flat // block.grid.width, minlength=block.grid.rows)
        assert own.max() == block.grid.width
        # what is shorter is there only where the block would else be too small
        worth = int((own >= layout_module.ALIKE * own.max()).sum()) * block.grid.width >= layout_module.WORTH
        assert not worth or own.min() >= layout_module.ALIKE * own.max()
        if block.parent is not None:
            assert torch.equal(block.context, torch.tensor([drawn[i][0] for i in block.parent.tolist()]))
            assert block.reach == block.context.max()
        found += own.tolist()
    assert found == sorted(lengths.tolist(), reverse=True)


def test_prompts_alone_and_what_is_refused() -> None:
    layout = lay_out([Group([5, 6, 7], [()]), Group([8], [()])])
    assert layout.ids.tolist() == [5, 6, 7, 8] and not layout.mask.any()
    assert layout.state[:, 0].tolist() == [2, 3]
    for wrong in ([], [Group([], [[1]])], [Group([1], [[2]]), Group([1], [[]])], [Group([1], [[], [2]])]):
        with pytest.raises(ValueError, match="at least one token"):
            lay_out(wrong)


def test_masks_leave_holes() -> None:
    layout = lay_out([Group([1], [[2, 3, 4]], [[True, False, True]]), Group([1], [[2]])])
    assert layout.trained.tolist() == [[True, False, True], [True, False, False]]
    assert layout.mask.sum() == 4
