"""A sequence's numbers do not depend on what lies beside it.

Oracle: plain transformers, one sequence at a time, a fresh copy of the model for each.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as T
from tiny_models import V
from torch import Tensor

from hearken.errors import UserError
from hearken.models import attention
from hearken.models.layout import Group, lay_out
from hearken.models.lengths import regime, thresholds
from hearken.models.scorers import RewardScorer, TokenScorer, ValueScorer, probe
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters

SIZE: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.25, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
MOE = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    before = {} if kind == "linear" else {"original_max_position_embeddings": 32}
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, **before, **more}}


CONFIGS: dict[str, tuple[str, Callable[[], Any]]] = {
    "phi3 longrope": (
        "packed", lambda: T.Phi3Config(**SIZE, original_max_position_embeddings=32, rope_parameters=LONG)
    ),
    "phimoe longrope": (
        "packed",
        lambda: T.PhimoeConfig(
            **SIZE, num_local_experts=2, rope_parameters=LONG | {"short_mscale": 1.1, "long_mscale": 1.3}
        ),
    ),
    "llama dynamic": (
        "packed", lambda: T.LlamaConfig(**SIZE | {"max_position_embeddings": 32}, rope_parameters=DYNAMIC)
    ),
    "gemma3 dynamic in some layers": (
        "packed",
        lambda: T.Gemma3TextConfig(
            **SIZE | {"max_position_embeddings": 32}, head_dim=8, sliding_window=20,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters={
                "full_attention": DYNAMIC, "sliding_attention": {"rope_type": "default", "rope_theta": 1e3}
            },
        ),
    ),
    "llama yarn": ("packed", lambda: T.LlamaConfig(**SIZE, **rope("yarn"))),
    "llama linear": ("packed", lambda: T.LlamaConfig(**SIZE, **rope("linear"))),
    "llama llama3": (
        "packed", lambda: T.LlamaConfig(**SIZE, **rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0))
    ),
    "gemma3": ("packed", lambda: T.Gemma3TextConfig(**SIZE, head_dim=8, sliding_window=20)),
    "llama4": (
        "padded",
        lambda: T.Llama4TextConfig(
            **SIZE, head_dim=8, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=20
        ),
    ),
    "qwen2 with a window in some layers": (
        "packed", lambda: T.Qwen2Config(**SIZE, use_sliding_window=True, sliding_window=20, max_window_layers=1)
    ),
    "mixtral": ("packed", lambda: T.MixtralConfig(**SIZE, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3 moe": ("packed", lambda: T.Qwen3MoeConfig(**SIZE, **MOE)),
    "gpt neo": (
        "padded",
        lambda: T.GPTNeoConfig(
            vocab_size=V, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48, initializer_range=0.25,
            attention_types=[[["global", "local"], 1]], window_size=20, max_position_embeddings=256,
        ),
    ),
    "mamba2": (
        "padded",
        lambda: T.Mamba2Config(
            vocab_size=V, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=1, state_size=8,
            chunk_size=16, initializer_range=0.25,
        ),
    ),
    "falcon h1": (
        "padded",
        lambda: T.FalconH1Config(
            **SIZE, mamba_d_ssm=64, mamba_n_heads=8, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=8,
            mamba_chunk_size=16,
        ),
    ),
}  # fmt: skip

r = random.Random(1)


def tokens(n: int) -> list[int]:
    return [r.randrange(3, V) for _ in range(n)]


GROUPS = [
    Group(tokens(5), [tokens(7)]), Group(tokens(60), [tokens(20), tokens(3)]),
    Group(tokens(28), [tokens(2), tokens(9)]), Group(tokens(10), [tokens(22)]), Group(tokens(3), [tokens(100)]),
]  # fmt: skip
"""On both sides of every threshold, at it, and across it with one prompt."""


def build(name: str) -> Any:
    torch.manual_seed(0)
    model = T.AutoModelForCausalLM.from_config(CONFIGS[name][1]()).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.isnan().any() or p.abs().max() > 1e3 or p.ndim > 1:
                p.normal_(std=0.15)
    return model


def alone(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response by a fresh copy of the model."""
    ids = torch.tensor([[*prompt, *response]])
    logits = copy.deepcopy(model)(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0]


def probed(scorer: Any, longest: int = 160) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return probe(scorer, longest)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["as probed", "padded"])
@pytest.mark.parametrize("name", CONFIGS)
def test_neighbours_do_not_matter(name: str, path: Any) -> None:
    fresh = build(name)
    scorer = TokenScorer(copy.deepcopy(fresh))
    assert probed(scorer) == CONFIGS[name][0]
    if path == "padded":
        scorer.use("padded")
    with torch.no_grad():
        for groups in (GROUPS, GROUPS[::-1]):  # a model may remember what it saw before
            found, row = scorer(lay_out(groups)).logprobs, 0
            for group in groups:
                for response in group.responses:
                    want = alone(fresh, group.prompt, response)
                    torch.testing.assert_close(found[row, : len(response)], want, rtol=0, atol=2e-5)
                    row += 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["phi3 longrope", "llama dynamic", "gemma3 dynamic in some layers", "llama yarn", "gemma3"]
)
def test_a_sampler_says_of_each_token_what_the_model_says_of_its_prefix(name: str) -> None:
    fresh = build(name)
    scorer = TokenScorer(copy.deepcopy(fresh))
    probed(scorer)
    prompts = [g.prompt for g in GROUPS]
    for sample in NativeSampler(scorer, eos=[2]).sample(prompts, 2, SamplingParameters(max_new_tokens=8), range(5)):
        prompt = prompts[sample.prompt]
        with torch.no_grad():
            for at, (token, logprob) in enumerate(zip(sample.tokens, sample.logprobs, strict=True)):
                prefix = torch.tensor([[*prompt, *sample.tokens[:at]]])
                want = torch.log_softmax(copy.deepcopy(fresh)(input_ids=prefix, use_cache=False).logits[0, -1], -1)
                assert abs(want[token].item() - logprob) < 2e-5


@pytest.mark.parametrize("name", ["phi3 longrope", "llama dynamic"])
def test_gradients_rewards_and_values(name: str) -> None:
    fresh = build(name)
    mine = copy.deepcopy(fresh)
    TokenScorer(mine)(lay_out(GROUPS)).logprobs.sum().backward()
    model = copy.deepcopy(fresh)
    for g in GROUPS:
        for response in g.responses:
            one = copy.deepcopy(fresh)
            ids = torch.tensor([[*g.prompt, *response]])
            logits = one(input_ids=ids, use_cache=False).logits[0, len(g.prompt) - 1 : -1]
            torch.log_softmax(logits, -1).gather(1, torch.tensor(response)[:, None]).sum().backward()
            for p, q in zip(model.parameters(), one.parameters(), strict=True):
                p.grad = q.grad if p.grad is None else p.grad + q.grad
    for p, q in zip(mine.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4 * q.grad.abs().max().item())

    config = CONFIGS[name][1]()
    config.num_labels = 1
    classifier = T.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        own = copy.deepcopy(classifier)
        score, value = RewardScorer(classifier), ValueScorer(copy.deepcopy(classifier))
        scores, values, row = score(lay_out(GROUPS)), value(lay_out(GROUPS)), 0
        for g in GROUPS:
            for response in g.responses:
                one = copy.deepcopy(own)
                each = one.score(one.model(input_ids=torch.tensor([[*g.prompt, *response]])).last_hidden_state)[0, :, 0]
                assert abs(scores[row] - each[-1]) < 1e-4
                torch.testing.assert_close(
                    values[row, : len(response)], each[len(g.prompt) - 1 : -1], rtol=0, atol=1e-4
                )
                row += 1


def test_regimes_and_thresholds_are_those_of_the_config() -> None:
    assert regime(CONFIGS["llama yarn"][1]()) is None
    longrope, dynamic = (regime(CONFIGS[name][1]()) for name in ("phi3 longrope", "llama dynamic"))
    assert longrope is not None and dynamic is not None
    assert longrope(5) == longrope(32) != longrope(33) == longrope(200)
    assert dynamic(5) == dynamic(32) and len({dynamic(n) for n in (32, 33, 34)}) == 3
    assert {20, 256} <= set(thresholds(CONFIGS["gemma3"][1](), 300))
    assert thresholds(CONFIGS["phi3 longrope"][1](), 200) == [32], "not what training cannot reach"
    assert 20 in thresholds(CONFIGS["gpt neo"][1](), 200) and 16 in thresholds(CONFIGS["mamba2"][1](), 200)


class Crowded(T.LlamaForCausalLM):
    """A model of a kind nobody thought of: everything depends on the longest sequence of the call."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        rotary = self.model.rotary_emb
        rotary.register_forward_hook(
            lambda _, inputs, named, out: (out[0] * (1 + named["position_ids"].max() / 50), out[1]), with_kwargs=True
        )


def test_what_depends_on_its_neighbours_in_another_way_is_computed_alone_and_said() -> None:
    torch.manual_seed(0)
    fresh = Crowded(T.LlamaConfig(**SIZE)).eval()
    scorer = TokenScorer(copy.deepcopy(fresh))
    with pytest.warns(UserWarning, match=r"Crowded cannot be packed exactly \(numbers differ.*alone"):
        assert probe(scorer) == "alone"
    with torch.no_grad():
        found, row = scorer(lay_out(GROUPS)).logprobs, 0
        for g in GROUPS:
            for response in g.responses:
                torch.testing.assert_close(
                    found[row, : len(response)], alone(fresh, g.prompt, response), rtol=0, atol=2e-5
                )
                row += 1


class Restless(T.LlamaForCausalLM):
    """A model whose answers differ from call to call."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits + torch.randn_like(found.logits)
        return found


def test_a_model_that_does_not_repeat_itself_is_refused() -> None:
    with pytest.raises(UserError, match="differ from call to call"):
        probed(TokenScorer(Restless(T.LlamaConfig(**SIZE)).eval()))


class Stubborn(T.LlamaForCausalLM):
    """A model whose own code cannot read one long row."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.register_forward_pre_hook(self.refuse, with_kwargs=True)

    @staticmethod
    def refuse(_: Any, args: Any, kwargs: Any) -> None:
        if "layout" in kwargs:
            raise RuntimeError("no such shape")


def test_only_what_a_models_own_code_says_makes_it_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"RuntimeError: no such shape\); using the slower padded"):
        assert probe(TokenScorer(Stubborn(T.LlamaConfig(**SIZE)).eval())) == "padded"
    monkeypatch.setattr(
        Stubborn, "refuse", staticmethod(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    )
    with pytest.raises(torch.OutOfMemoryError):
        probed(TokenScorer(Stubborn(T.LlamaConfig(**SIZE)).eval()))

    def mistaken(*_: Any) -> Tensor:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(attention, "_packed", mistaken)
    with pytest.raises(RuntimeError, match="of ours"):
        probed(TokenScorer(build("llama yarn")))
