from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import causal, seq2seq, tokenizer, write_base, write_rows
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    LlamaConfig,
)

from hearken.algorithms.stage import train
from hearken.domains.text.loading import open_reference
from hearken.domains.text.measuring import Judge
from hearken.domains.text.sampling import open_frozen
from hearken.errors import UserError
from hearken.models.guided import GuidedScorer
from hearken.models.layout import Group, lay_out
from hearken.models.loading import fit, load_policy, load_tokenizer, new_reward, save, stop_tokens
from hearken.models.masked import MaskedScorer
from hearken.models.scorers import TokenScorer, probe
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

QUIET: dict[str, Any] = {"trackers": "none", "precision": "fp32"}
SAMPLED = QUIET | {"episodes": 2, "batch_size": 2, "num_generations": 2, "max_new_tokens": 8}
END = "<|im_end|>"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model that says <|im_end|> at once, and whose settings name another EOS."""
    folder = write_base(tmp_path / "base")
    tok, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():  # its last norm scales one direction alone, which is that token's
        model.model.norm.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False
        model.model.norm.weight[0] = 1.0
        model.lm_head.weight[tok.convert_tokens_to_ids(END), 0] = 30.0
    model.save_pretrained(folder)
    return folder


def settings(folder: Path, file: str) -> list[int]:
    found = json.loads((folder / file).read_text("utf-8"))["eos_token_id"]
    return found if isinstance(found, list) else [found]


def test_plain_generate_stops_where_eos_says(base: Path, tmp_path: Path) -> None:
    tok = load_tokenizer(str(base), END)
    save(load_policy(str(base)), tok, tmp_path / "out")
    model, saved = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    end = saved.convert_tokens_to_ids(END)
    assert saved.eos_token == END
    prompt = saved("the fox", return_tensors="pt")
    before = AutoModelForCausalLM.from_pretrained(base).generate(**prompt, max_new_tokens=5, do_sample=False)
    after = model.generate(**prompt, max_new_tokens=5, do_sample=False)
    assert before[0].tolist().count(end) == 5, "else this would show nothing"
    assert after[0].tolist().count(end) == 1
    for file in ("config.json", "generation_config.json"):
        assert settings(tmp_path / "out", file)[0] == end
        assert saved.convert_tokens_to_ids("<eos>") in settings(tmp_path / "out", file), (
            "what ended it before still does"
        )


@pytest.mark.parametrize("lora", [0, 2])
def test_every_stage_writes_eos(base: Path, tmp_path: Path, lora: int) -> None:
    pairs = write_rows(
        tmp_path / "p.jsonl",
        [{"prompt": f"the {w}", "chosen": " fox runs", "rejected": f" {w}"} for w in ("owl", "bear")],
    )
    more = QUIET | {"eos": END, "lora": lora, "validation": 0.0, "overwrite": True}
    end = AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(END)
    for stage in ("sft", "dpo", "reward"):
        out = train(stage, model=base, data=pairs, out=tmp_path / stage, **more).path
        assert AutoTokenizer.from_pretrained(out).eos_token == END
        files = ("config.json",) if stage == "reward" else ("generation_config.json",)
        for file in files if lora else {*files, "config.json"}:
            assert end in settings(out, file), (stage, file)
        if stage != "reward":
            assert end in stop_tokens(AutoTokenizer.from_pretrained(base), load_policy(str(out)))


# Ids beyond the tokenizer


def padded(name: str, size: int) -> tuple[Any, Any, Tensor]:
    """A model with more rows than its tokenizer has tokens, whose other ids are by far the likeliest."""
    tok = tokenizer()
    known = len(tok)
    if name in ("t5", "bart"):
        model = seq2seq(name, known + size)
    else:
        shape: dict[str, Any] = {
            "vocab_size": known + size, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False, "initializer_range": 0.2,
        }  # fmt: skip
        config = LlamaConfig(**shape)
        if name == "gemma2":
            config = Gemma2Config(**shape, head_dim=8, final_logit_softcapping=5.0)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model = model.eval()
    with torch.no_grad():
        head = torch.nn.Linear(model.get_output_embeddings().in_features, known + size)
        model.get_output_embeddings().weight[known:] *= 4
        if name == "llama":  # with a bias that makes the unknown ids all but certain
            head.weight.copy_(model.get_output_embeddings().weight)
            head.bias.zero_()
            head.bias[known:] = 20.0
            model.set_output_embeddings(head)
    return model, tok, torch.arange(known)


def oracle(model: Any, ids: list[int], known: Tensor, start: int) -> Tensor:
    """(t, K) log-probabilities over the known ids, by the model's own forward pass."""
    if model.config.is_encoder_decoder:
        begin = model.config.decoder_start_token_id
        found = model(input_ids=torch.tensor([ids[:start]]), decoder_input_ids=torch.tensor([[begin, *ids[start:-1]]]))
        logits = found.logits[0]
    else:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1]
    return torch.log_softmax(logits[:, known].float(), -1)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["packed", "padded", "full", "alone"])
@pytest.mark.parametrize("name", ["llama", "gemma2", "t5", "bart"])
def test_ids_that_the_tokenizer_does_not_know_have_no_probability(name: str, path: Any) -> None:
    model, tok, known = padded(name, 7)
    own = copy.deepcopy(model)
    fit(tok, model)
    scorer = TokenScorer(model)
    scorer.use(path)
    prompts = [[5, 6, 7], [9]]
    samples = NativeSampler(scorer, [tok.eos_token_id]).sample(prompts, 3, SamplingParameters(max_new_tokens=6), [1, 2])
    groups = [Group(prompts[s.prompt], [s.tokens]) for s in samples]
    with torch.no_grad():
        found = scorer(lay_out(groups), entropy=True)
        for row, (sample, group) in enumerate(zip(samples, groups, strict=True)):
            assert max(sample.tokens) < len(tok)
            want = oracle(own, [*group.prompt, *sample.tokens], known, len(group.prompt))
            chosen = want.gather(1, torch.tensor(sample.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(sample.logprobs), chosen, rtol=0, atol=1e-4)
            torch.testing.assert_close(found.logprobs[row, : len(sample.tokens)], chosen, rtol=0, atol=1e-4)
            spread = -(want.exp() * want).sum(-1)
            torch.testing.assert_close(found.entropy[row, : len(sample.tokens)], spread, rtol=0, atol=1e-4)
    greedy = NativeSampler(scorer, []).sample(prompts, 1, SamplingParameters(max_new_tokens=4, temperature=0), [1, 2])
    assert max(max(s.tokens) for s in greedy) < len(tok)


def test_the_gradient_is_that_of_the_known_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tok, known = padded("llama", 7)
    own = copy.deepcopy(model)
    fit(tok, model)
    group = Group([5, 6, 7], [[9, 11, 4, 8]])
    oracle(own, [5, 6, 7, 9, 11, 4, 8], known, 3).gather(1, torch.tensor(group.responses[0])[:, None]).sum().backward()
    for rows in (1, 1 << 22):  # what is kept for the backward pass, and what is computed again
        monkeypatch.setattr("hearken.models.head.CHUNK", rows)
        model.zero_grad()
        TokenScorer(model)(lay_out([group, group])).logprobs[0].sum().backward()
        for mine, theirs in zip(model.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_guided_and_masked_policies_keep_to_the_known_ids() -> None:
    model, tok, _ = padded("llama", 7)
    fit(tok, model)
    guided = GuidedScorer(copy.deepcopy(model), beta=1.0)
    for head in guided.target:
        torch.nn.init.normal_(head[-1].weight, std=3.0)  # type: ignore[index]
    for scorer in (guided, MaskedScorer(model, top_p=0.5), MaskedScorer(model, top_p=1.0, top_k=3)):
        samples = NativeSampler(scorer, []).sample([[5, 6], [7]], 4, SamplingParameters(max_new_tokens=8), [1, 2])
        assert max(max(s.tokens) for s in samples) < len(tok)
        groups = [Group([[5, 6], [7]][s.prompt], [s.tokens]) for s in samples]
        with torch.no_grad():
            found = scorer(lay_out(groups)).logprobs
        torch.testing.assert_close(found, torch.tensor([s.logprobs for s in samples]), rtol=0, atol=1e-4)


def test_holes_in_a_vocabulary_are_unknown_too() -> None:
    model, tok, _ = padded("llama", 3)
    vocabulary = {token: i for token, i in tok.get_vocab().items() if i not in (40, 41)}
    fit(SimpleNamespace(get_vocab=lambda: vocabulary, name_or_path=""), model)  # type: ignore[arg-type]
    assert model.forbidden_ids.tolist() == [40, 41, *range(len(tok), len(tok) + 3)]


def test_the_probe_reads_known_ids_alone() -> None:
    model, tok, _ = padded("llama", 7)
    fit(tok, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(TokenScorer(model)) == "packed"


# Tokenizers larger than their model


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A model with two embeddings too few for its tokenizer."""
    folder = write_base(tmp_path / "short")
    tok = AutoTokenizer.from_pretrained(folder)
    tok.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tok.save_pretrained(folder)
    return folder


SAID = r"has 303 tokens, but .* embeddings for 301: not for '<think>'"


def test_a_tokenizer_larger_than_the_embeddings_is_refused_everywhere(short: Path, tmp_path: Path) -> None:
    good = write_base(tmp_path / "good")
    size = len(AutoTokenizer.from_pretrained(good))
    said = SAID.replace("303", str(size + 2)).replace("301", str(size))
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the fox"}])
    pairs = write_rows(tmp_path / "p.jsonl", [{"prompt": "the", "chosen": " fox", "rejected": " owl"}] * 1)
    thumbs = write_rows(tmp_path / "t.jsonl", [{"prompt": "the", "completion": " fox", "label": True}])
    for stage in ("sft", "reward", "dpo", "ipo", "simpo", "orpo"):
        with pytest.raises(UserError, match=said):
            train(stage, model=short, data=pairs, out=tmp_path / stage, validation=0.0, **QUIET)
    for stage in ("kto", "ilql"):
        with pytest.raises(UserError, match=said):
            train(stage, model=short, data=thumbs, out=tmp_path / stage, **QUIET)
    for stage in ("ppo", "rloo", "rft", "trpo", "nlpo"):
        with pytest.raises(UserError, match=said):
            train(stage, model=short, data=prompts, reward="rule:distinct", out=tmp_path / stage, **SAMPLED)
    with pytest.raises(UserError, match=said):
        open_frozen(str(short))

    # the reference policy and the reward model
    tok = AutoTokenizer.from_pretrained(good)
    tok.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    large = write_base(tmp_path / "large", tok)
    with pytest.raises(UserError, match=r"--ref .*good has embeddings"):
        open_reference(str(large), str(good), open_frozen(str(large)))
    reward, own = new_reward(str(good), 0)
    save(reward, own, tmp_path / "rm")
    with pytest.raises(UserError, match=r"the value model, which starts from .*rm"):
        train(
            "ppo", model=large, data=prompts, reward=tmp_path / "rm", out=tmp_path / "ppo-2", max_new_tokens=8, **QUIET
        )
    own.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<more>"]})
    own.save_pretrained(tmp_path / "rm")
    with pytest.raises(UserError, match="embeddings for"):
        Judge(str(tmp_path / "rm"))
    with pytest.raises(UserError, match="embeddings for"):
        train("rloo", model=good, data=prompts, reward=tmp_path / "rm", out=tmp_path / "rloo-2", **SAMPLED)


def test_tokens_for_pictures_need_no_embedding(tmp_path: Path) -> None:
    """Gemma 3's text models: <image_soft_token> is their tokenizer's last, and beyond their embeddings."""
    folder = write_base(tmp_path / "base")
    tok = AutoTokenizer.from_pretrained(folder)
    tok.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    tok.save_pretrained(folder)
    assert (
        len(open_frozen(str(folder)).tokenizer)
        == AutoModelForSequenceClassification.from_pretrained(folder).config.vocab_size + 1
    )


def test_causal_zoo_has_no_unknown_ids() -> None:
    """Without a tokenizer nothing is forbidden."""
    assert TokenScorer(causal("llama")).forbidden is None
