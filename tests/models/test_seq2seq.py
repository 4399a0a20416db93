from __future__ import annotations

import pytest
import torch
from tiny_models import V, seq2seq, seq2seq_config
from transformers import AutoModelForSequenceClassification

from hearken.models.layout import Group, lay_out
from hearken.models.scorers import RewardScorer, TokenScorer, ValueScorer, probe
from hearken.models.seq2seq import network, read, start_token
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

KINDS = ["t5", "t5v1_1", "bart"]
SHARED = [Group([5, 6, 7, 1], [[8, 9, 10, 1], [11, 1]]), Group([9, 1], [[3], [20, 21, 22]]), Group([4] * 9, [[30, 1]])]
SINGLE = [Group([5, 6, 7, 1], [[8, 9, 10, 1]]), Group([9, 1], [[3, 1]])]


def policy(kind: str) -> TokenScorer:
    model = seq2seq(kind)
    if kind == "bart":
        model.final_logits_bias.normal_()
    scorer = TokenScorer(model)
    assert probe(scorer) == "padded"
    return scorer


def test_the_layout_is_cut_into_prompts_and_responses() -> None:
    layout = lay_out(SHARED)
    reading = read(layout, start=0)
    assert reading.prompts.tolist() == [
        [5, 6, 7, 1, 0, 0, 0, 0, 0], [9, 1, 0, 0, 0, 0, 0, 0, 0], [4] * 9,
    ]  # fmt: skip
    assert reading.keep.sum(1).tolist() == [4, 2, 9] and reading.parent.tolist() == [0, 0, 1, 1, 2]
    assert reading.responses.tolist() == [[0, 8, 9, 10, 1], [0, 11, 1, 0, 0], [0, 3, 0, 0, 0], [0, 20, 21, 22, 0],
                                          [0, 30, 1, 0, 0]]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [SHARED, SINGLE], ids=["shared", "single"])
def test_log_probabilities_and_gradients_are_transformers_own(kind: str, groups: list[Group]) -> None:
    """Against the model's own loss on labels, one response at a time: no code of ours."""
    scorer = policy(kind)
    found = scorer(lay_out(groups), entropy=True)
    rows = [(g.prompt, r) for g in groups for r in g.responses]
    want = [
        -scorer.model(input_ids=torch.tensor([list(p)]), labels=torch.tensor([list(r)])).loss * len(r) for p, r in rows
    ]
    torch.testing.assert_close(found.logprobs.sum(1), torch.stack(want), rtol=0, atol=1e-4)
    (ours,) = torch.autograd.grad(found.logprobs.sum(), scorer.model.get_input_embeddings().weight)
    (theirs,) = torch.autograd.grad(torch.stack(want).sum(), scorer.model.get_input_embeddings().weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    scorer.use("full")
    torch.testing.assert_close(scorer(lay_out(groups)).logprobs, found.logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_rewards_and_values_read_the_same_states(kind: str) -> None:
    config = seq2seq_config(kind)
    config.num_labels = 1
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    scorer, value = RewardScorer(model), ValueScorer(model)
    assert probe(scorer) == "padded"
    layout = lay_out(SHARED)
    rewards, values = scorer(layout), value(layout)
    start = start_token(model)
    row = 0
    for g in SHARED:
        for r in g.responses:
            ids, read_so_far = torch.tensor([list(g.prompt)]), torch.tensor([[start, *r]])
            states = network(model)(input_ids=ids, decoder_input_ids=read_so_far).last_hidden_state
            want = model.classification_head(states)[0, :, 0]
            assert rewards[row].item() == pytest.approx(want[-1].item(), abs=1e-5)
            torch.testing.assert_close(values[row, : len(r)], want[:-1], rtol=0, atol=1e-5)
            row += 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_draws_from_the_same_model(kind: str) -> None:
    scorer = policy(kind)
    sampler = NativeSampler(scorer, [1])
    prompts = [[5, 6, 7, 1], [9, 1], [3, 8, 2, 6, 4, 1]]
    for path in ("padded", "full"):
        scorer.use(path)  # type: ignore[arg-type]
        samples = sampler.sample(prompts, 3, SamplingParameters(max_new_tokens=9), [1, 2, 3])
        assert len({tuple(s.tokens) for s in samples}) > 3
        groups = [Group(p, [s.tokens for s in samples[3 * i : 3 * i + 3]]) for i, p in enumerate(prompts)]
        logprobs = scorer(lay_out(groups)).logprobs
        for row, sample in enumerate(samples):
            assert logprobs[row, : len(sample.tokens)].tolist() == pytest.approx(sample.logprobs, abs=1e-4)
    greedy = sampler.sample(prompts, 1, SamplingParameters(max_new_tokens=6, temperature=0), [1, 2, 3])
    for prompt, sample in zip(prompts, greedy, strict=True):
        own = scorer.model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False, num_beams=1)
        assert own[0, 1 : len(sample.tokens) + 1].tolist() == sample.tokens
    assert max(t for s in greedy for t in s.tokens) < V
