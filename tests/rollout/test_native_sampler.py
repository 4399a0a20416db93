from __future__ import annotations

import itertools
import random
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_models import FALLBACK, PACKED, V, causal
from transformers import LlamaConfig, LlamaForCausalLM

from hearken.errors import UserError
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer, probe
from hearken.rollout.native import NativeSampler, draw
from hearken.rollout.sampler import Sample, SamplingParameters

r = random.Random(2)
EOS = list(range(3, 15))
PROMPTS = [[r.randrange(V) for _ in range(n)] for n in (1, 3, 14, 5, 9)]
HOW = SamplingParameters(max_new_tokens=12, temperature=0.8)


def scorer_of(name: str) -> TokenScorer:
    scorer = TokenScorer(causal(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe(scorer)
    return scorer


def sample(scorer: TokenScorer, rows: int = 128, how: SamplingParameters = HOW, seeds: Any = range(5)) -> list[Sample]:
    return NativeSampler(scorer, EOS, rows=rows).sample(PROMPTS, 3, how, seeds)


@pytest.mark.parametrize("name", PACKED + FALLBACK)
def test_logprobs_are_those_of_the_training_path(name: str) -> None:
    scorer = scorer_of(name)
    found = sample(scorer)
    groups = [Group(p, [s.tokens for s in found[i * 3 : i * 3 + 3]]) for i, p in enumerate(PROMPTS)]
    layout = lay_out(groups)
    with torch.no_grad():
        trained = scorer(layout, temperature=HOW.temperature).logprobs[layout.mask]
    sampled = torch.tensor([x for s in found for x in s.logprobs])
    torch.testing.assert_close(sampled, trained, rtol=0, atol=1e-5 * max(trained.abs().max().item(), 1))
    for i, s in enumerate(found):
        assert s.prompt == i // 3
        ended = s.tokens[-1] in EOS
        assert s.finish_reason == ("stop" if ended else "length") and (ended or len(s.tokens) == HOW.max_new_tokens)
        assert not set(s.tokens[:-1]) & set(EOS), "nothing after the end"


def test_batching_does_not_matter_and_seeds_do() -> None:
    scorer = scorer_of("llama")
    whole = sample(scorer)
    for rows in (1, 4, 9):
        assert [s.tokens for s in sample(scorer, rows=rows)] == [s.tokens for s in whole]
    assert [s.tokens for s in sample(scorer)] == [s.tokens for s in whole]
    other = sample(scorer, seeds=[0, 1, 99, 3, 4])
    same = [a.tokens == b.tokens for a, b in zip(whole, other, strict=True)]
    assert all(same[:6]) and all(same[9:]) and not all(same[6:9]), "a seed is a prompt's own"
    assert len({tuple(s.tokens) for s in whole[6:9]}) == 3, "the samples of a prompt differ"


def test_progress_counts_every_response_once() -> None:
    done: list[int] = []
    scorer = scorer_of("gpt2")
    NativeSampler(scorer, EOS, rows=4).sample(PROMPTS, 3, HOW, range(5), done.append)
    assert sum(done) == 15


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the end token almost certain, few rows are computed after the first step."""
    scorer = scorer_of("llama")
    sampler = NativeSampler(scorer, range(V - 10))
    assert sampler.lean
    widths: list[int] = []
    inner = scorer.logits
    monkeypatch.setattr(scorer, "logits", lambda h: (widths.append(len(h)), inner(h))[1])
    found = sampler.sample(PROMPTS, 8, HOW, range(5))
    assert widths[0] == 5 and sum(widths[1:]) < 40 * 0.5 * HOW.max_new_tokens
    alive = [sum(len(s.tokens) > t for s in found) for t in range(1, HOW.max_new_tokens)]
    for width, live in zip(widths[1:], alive, strict=False):
        assert live <= width <= live / 0.8 + 1


@pytest.mark.parametrize("lean", [True, False])
def test_the_prompt_is_computed_once_for_all_samples(lean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of("llama")
    sampler = NativeSampler(scorer, [])
    assert sampler.lean
    sampler.lean = lean
    seen: list[int] = []
    inner = scorer.backbone.forward
    monkeypatch.setattr(scorer.backbone, "forward", lambda **kw: (seen.append(kw["input_ids"].numel()), inner(**kw))[1])
    sampler.sample(PROMPTS, 6, SamplingParameters(max_new_tokens=3), range(5))
    assert seen == [sum(map(len, PROMPTS)), *([] if lean else [30, 30])], "lean steps go past the model's own modules"


def tiny(v: int = 5) -> TokenScorer:
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=v, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.5, pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return TokenScorer(LlamaForCausalLM(config))


def truncated(p: torch.Tensor, top_p: float, top_k: int) -> torch.Tensor:
    """The distribution after top-k, then top-p among what is left (of the whole mass), by its definition."""
    order = sorted(range(len(p)), key=lambda i: -p[i].item())
    kept, mass = [], 0.0
    for i in order[: top_k or len(p)]:
        if mass >= top_p:
            break
        kept.append(i)
        mass += p[i].item()
    q = torch.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (0.6, 1.0, 0), (1.5, 0.7, 0), (1.0, 1.0, 3), (1.2, 0.8, 4)]
)
def test_distribution_of_sequences(temperature: float, top_p: float, top_k: int) -> None:
    """Two tokens over a vocabulary of five: frequencies against exact enumeration."""
    scorer = tiny()
    how = SamplingParameters(max_new_tokens=2, temperature=temperature, top_p=top_p, top_k=top_k)
    n = 4000
    found = NativeSampler(scorer, [], rows=n).sample([[1, 2]], n, how, [7])
    counts = dict.fromkeys(itertools.product(range(5), repeat=2), 0)
    for s in found:
        counts[tuple(s.tokens)] += 1

    scorer.use("padded")

    def after(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return torch.softmax(scorer.model(torch.tensor([ids])).logits[0, -1].float() / temperature, -1)

    want = {}
    first = after([1, 2])
    for a in range(5):
        second = after([1, 2, a])
        for b in range(5):
            want[a, b] = (truncated(first, top_p, top_k)[a] * truncated(second, top_p, top_k)[b]).item()
    assert all(counts[k] == 0 for k in want if want[k] == 0)
    likely = [k for k in want if want[k] * n >= 5]
    rest = max(1 - sum(want[k] for k in likely), 0.0)
    seen, expected = [counts[k] for k in likely], [want[k] * n for k in likely]
    if rest * n >= 5:
        seen.append(n - sum(seen))
        expected.append(rest * n)
    else:
        expected = [e * sum(seen) / sum(expected) for e in expected]
    assert chisquare(seen, expected).pvalue > 1e-3
    sharper = chisquare(seen, [sum(seen) / len(seen)] * len(seen)).pvalue
    assert sharper < 1e-6, "the test could tell it from a uniform distribution"


def test_greedy_is_transformers_greedy() -> None:
    for name in ("llama", "gpt2", "mistral"):
        scorer = scorer_of(name)
        found = sample(scorer, how=SamplingParameters(max_new_tokens=12, temperature=0))
        scorer.use("padded")
        for i, p in enumerate(PROMPTS):
            ids = torch.tensor([p])
            out = scorer.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12, eos_token_id=EOS,
                pad_token_id=0,
            )[0, len(p) :].tolist()  # fmt: skip
            assert found[i * 3].tokens == out[: len(found[i * 3].tokens)]
            assert found[i * 3].tokens == found[i * 3 + 1].tokens


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.05, 1), st.integers(0, 9))
def test_draw_never_leaves_the_nucleus(seed: int, u: float, top_p: float, top_k: int) -> None:
    logits = 3 * torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
    how = SamplingParameters(top_p=top_p, top_k=top_k)
    choice, logprob = draw(logits, torch.tensor([[u]], dtype=torch.float32).clamp_max(1 - 2**-24), how)
    p = torch.softmax(logits[0], -1)
    assert truncated(p, top_p + 1e-6, top_k)[choice[0]] > 0
    assert torch.allclose(logprob[0], p[choice[0]].log(), atol=1e-5), "log-probabilities are of all tokens"


def test_options_are_checked() -> None:
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}, {"topp": 1}):
        with pytest.raises(UserError):
            SamplingParameters.parse(wrong)
