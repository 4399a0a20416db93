"""The models and data of the contest, and the floating-point operations its work needs.

Models are Llamas of random weights over a vocabulary of made-up words (one word, one token), so that both sides read
the same files into the same tokens. The rate at which responses end is built into the weights.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hearken.models.loading import add_adapter, load_policy, load_tokenizer, new_reward, save

SPECIAL = ("<pad>", "<eos>", "<bos>")
NEVER = -60.0  # added to a logit: a token that is not drawn


GPU_HIDDEN = 1536
"""Width of the model of 1 B parameters that stands for hidden 256 where there is a GPU."""


@dataclass(frozen=True)
class Size:
    """Shape of a Llama whose heads all have their own keys and values."""

    hidden: int
    layers: int = 4
    heads: int = 4
    vocabulary: int = 2048
    context: int = 1024
    inner: int = 0
    """Width of the feed-forward layers; 0: four times the hidden one."""
    keys: int = 0
    """Width of the keys (and of the values) of all heads together; 0: the hidden one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", self.inner or 4 * self.hidden)
        object.__setattr__(self, "keys", self.keys or self.hidden)

    @classmethod
    def of(cls, hidden: int) -> Size:
        """The size that goes by this width: a GPU's model has layers, heads and vocabulary of a real one."""
        return cls(hidden, layers=24, heads=12, vocabulary=32768) if hidden == GPU_HIDDEN else cls(hidden)

    @classmethod
    def read(cls, folder: Path) -> Size:
        """That of a Llama-like model in a folder."""
        c = AutoConfig.from_pretrained(folder)
        keys = c.num_key_value_heads * (getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads)
        shape = (c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.vocab_size, c.max_position_embeddings)
        return cls(*shape, c.intermediate_size, keys)

    @property
    def layer(self) -> int:
        """Weights of a layer's linear maps."""
        return 2 * self.hidden * (self.hidden + self.keys) + 3 * self.hidden * self.inner

    @property
    def parameters(self) -> int:
        """Weights, the embedding being the head as well."""
        return self.vocabulary * self.hidden + self.layers * self.layer

    def forward(self, spans: Iterable[tuple[int, int]], head: int = 0) -> int:
        """Operations of a forward pass.

        Args:
            spans: (tokens seen before, new tokens) of each run of tokens; a prompt shared by responses is one run.
            head: tokens whose logits are computed.

        Returns:
            Two a multiply-add, of matrix products alone: linear layers, causal attention, head.
        """
        found = 2 * self.vocabulary * self.hidden * head
        for before, new in spans:
            pairs = new * before + new * (new + 1) // 2
            found += 2 * self.layers * new * self.layer
            found += 4 * self.layers * self.hidden * pairs
        return found


Vocabulary = Sequence[str]
"""Words that are a token each."""


def made_up(size: Size) -> Vocabulary:
    """The words of our own models."""
    return [f"w{i}" for i in range(len(SPECIAL), size.vocabulary)]


def of_tokenizer(folder: Path, most: int = 2000) -> Vocabulary:
    """The first words of a model's own vocabulary that are one token, with a space before them and without."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = (tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer)))
    after_space = (t[1:] for t in known if t and t[0] in "\u0120\u2581")
    found = (w for w in after_space if len(w) > 2 and w.isascii() and w.isalpha())
    alone = (w for w in found if len(tokenizer(w, add_special_tokens=False)["input_ids"]) == 1)
    return list(itertools.islice(alone, most))


def words(generator: np.random.Generator, vocabulary: Vocabulary, count: int) -> str:
    """So many random words."""
    return " ".join(vocabulary[i] for i in generator.integers(len(vocabulary), size=count))


def end_rate(limit: int, mean: float = 0.5) -> float:
    """The chance of ending after each token that makes responses of at most ``limit`` tokens ``mean`` of it on average.

    Their mean length is (1 - (1 - p)^limit) / p; p by bisection.
    """
    low, high = 1e-9, 1.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if (1 - (1 - p) ** limit) / p > mean * limit else (low, p)
    return low


def make_model(folder: Path, size: Size, seed: int, ends: float) -> Path:
    """Write a policy of random weights that ends its response with probability ``ends`` after every token (0: never).

    The first number of every embedding is the same, so the final hidden state has a constant part there, along which
    the rows of the end, pad and begin tokens differ from the others.
    """
    if folder.exists():
        return folder
    vocabulary = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), size.vocabulary))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.inner,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
            max_position_embeddings=size.context, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
            bos_token_id=2,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[:, 0] = table.norm(dim=1).mean()
        ids = torch.randint(len(SPECIAL), size.vocabulary, (8, 32))
        constant = model.model(input_ids=ids).last_hidden_state[:, :, 0].mean()
        odds = math.log(ends * size.vocabulary / (1 - ends)) if ends else NEVER
        for token, shift in enumerate((NEVER, odds, NEVER)):
            table[token, 1:] = 0
            table[token, 0] += shift / constant
    save(model, tokenizer, folder)
    return folder


def make_reward(folder: Path, policy: Path, seed: int) -> Path:
    """Write the untrained reward model that `hearken train reward` would start from."""
    if not folder.exists():
        model, tokenizer = new_reward(str(policy), seed)
        save(model, tokenizer, folder)
    return folder


def make_adapter(folder: Path, model: Path, rank: int, seed: int) -> Path:
    """Write a LoRA adapter of the policy that changes its responses a little."""
    if not folder.exists():
        policy = load_policy(str(model))
        add_adapter(policy, "default", rank, seed=seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=1e-3)
        save(policy, load_tokenizer(str(model)), folder)
    return folder


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def demonstrations(vocabulary: Vocabulary, count: int, seed: int) -> list[dict[str, Any]]:
    """Prompts of 32 to 96 tokens with responses of 16 to 160."""
    draw = np.random.default_rng([seed, 1])
    return [
        {
            "prompt": words(draw, vocabulary, draw.integers(32, 97)),
            "completion": " " + words(draw, vocabulary, draw.integers(15, 160)),
        }
        for _ in range(count)
    ]


def rankings(vocabulary: Vocabulary, count: int, k: int, seed: int) -> list[dict[str, Any]]:
    """The same lengths, ``k`` responses each, the first the best."""
    draw = np.random.default_rng([seed, 2, k])
    return [
        {
            "prompt": words(draw, vocabulary, draw.integers(32, 97)),
            "responses": [" " + words(draw, vocabulary, draw.integers(15, 160)) for _ in range(k)],
            "ranks": list(range(k)),
        }
        for _ in range(count)
    ]


def thumbs(vocabulary: Vocabulary, count: int, seed: int) -> list[dict[str, Any]]:
    """Demonstrations with a thumb, up and down by turns."""
    return [row | {"label": i % 2 == 0} for i, row in enumerate(demonstrations(vocabulary, count, seed))]


def prompts(vocabulary: Vocabulary, count: int, length: int, seed: int) -> list[dict[str, Any]]:
    """Prompts of one length."""
    draw = np.random.default_rng([seed, 3])
    return [{"prompt": words(draw, vocabulary, length)} for _ in range(count)]


def lengths(row: dict[str, Any]) -> tuple[int, list[int]]:
    """Tokens of a row's prompt and of each of its responses, the end token included."""
    responses: Sequence[str] = row.get("responses") or [row["completion"]]
    return len(row["prompt"].split()), [len(r.split()) + 1 for r in responses]


def real_tokens(rows: Iterable[dict[str, Any]]) -> int:
    """Tokens of prompts and responses, the prompt counted once for each of its responses (as a peer reads it)."""
    return sum(p * len(r) + sum(r) for p, r in map(lengths, rows))


def spans(rows: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    """The runs of tokens that have to be computed: each prompt once, then its responses."""
    return [span for p, r in map(lengths, rows) for span in [(0, p), *((p, n) for n in r)]]


def fresh(folder: Path) -> Path:
    """An empty place for an output."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder
