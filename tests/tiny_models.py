"""Models small enough for tests, of many architectures, and a tokenizer trained on the spot."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

V = 97
WIDE = 0.25
"""Initial weights large enough for attention to matter."""

_SIZE: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": WIDE,
}
_GQA = _SIZE | {"num_key_value_heads": 2}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": V, "initializer_range": WIDE}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(**_GPT),
    "llama": lambda: LlamaConfig(**_GQA),
    "qwen2": lambda: Qwen2Config(**_GQA),
    "qwen3": lambda: Qwen3Config(**_GQA, head_dim=8),
    "mistral": lambda: MistralConfig(**_GQA, sliding_window=5),
    "gemma2": lambda: Gemma2Config(
        **_GQA, head_dim=8, sliding_window=5, attn_logit_softcapping=2.0, final_logit_softcapping=3.0
    ),
    "neox": lambda: GPTNeoXConfig(**_SIZE),
    "opt": lambda: OPTConfig(
        vocab_size=V, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
        init_std=WIDE, dropout=0.1,
    ),
    "phi3": lambda: Phi3Config(**_GQA, pad_token_id=0, eos_token_id=1, bos_token_id=2),
    "gpt_oss": lambda: GptOssConfig(
        **_GQA, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=5
    ),
    "bloom": lambda: BloomConfig(**(_GPT | {"hidden_size": 32})),
    "mamba": lambda: MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, initializer_range=WIDE),
}  # fmt: skip
PACKED = [name for name in CONFIGS if name not in ("bloom", "mamba")]
FALLBACK = ["bloom", "mamba"]


def causal(name: str, seed: int = 0) -> Any:
    """A causal language model of an architecture, without dropout."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.isnan().any() or parameter.abs().max() > 1e3:  # gpt-oss leaves some as they were in memory
                parameter.normal_(std=WIDE)
            elif parameter.ndim == 1:
                parameter.add_(
                    0.1 * torch.randn_like(parameter)
                )  # biases and norms that are not at their neutral start
    return model


def classifier(name: str, seed: int = 0) -> Any:
    """A sequence classifier with one label."""
    config = CONFIGS[name]()
    config.num_labels, config.pad_token_id = 1, 0
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


WORDS = [
    "the",
    "fox",
    "bear",
    "owl",
    "runs",
    "sleeps",
    "sings",
    "in",
    "a",
    "forest",
    "river",
    "hill",
    "happily",
    "sadly",
    "home",
]


def sentence(generator: random.Random, low: int = 4, high: int = 10) -> str:
    return " ".join(generator.choice(WORDS) for _ in range(generator.randint(low, high)))


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer over `WORDS`; ``special`` as PreTrainedTokenizerFast takes it."""
    special = special or {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    generator = random.Random(0)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        [sentence(generator) for _ in range(100)],
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<pad>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        ),
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_base(folder: Path, tok: PreTrainedTokenizerFast | None = None, context: int = 96, **config: Any) -> Path:
    """A Llama of 28,000 weights with its tokenizer, as a folder."""
    tok = tok or tokenizer()
    size: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": context, "tie_word_embeddings": True,
        "initializer_range": 0.1, "pad_token_id": tok.pad_token_id, "eos_token_id": tok.eos_token_id,
        "bos_token_id": tok.bos_token_id,
    }  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tok), **(size | config))).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def seq2seq_config(kind: str, vocabulary: int = V) -> Any:
    """Of a T5 (t5), a T5 1.1 (t5v1_1: gated, its head not scaled) or a BART (bart) small enough for tests."""
    if kind == "bart":
        return BartConfig(
            vocab_size=vocabulary, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=96,
            init_std=0.15, pad_token_id=0, eos_token_id=1, bos_token_id=2, decoder_start_token_id=1,
            forced_eos_token_id=None,
        )  # fmt: skip
    more = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind == "t5v1_1" else {}
    return T5Config(
        vocab_size=vocabulary, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, **more,
    )  # fmt: skip


def seq2seq(kind: str, vocabulary: int = V) -> Any:
    """An encoder-decoder without dropout."""
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(seq2seq_config(kind, vocabulary)).eval()
    if kind == "t5v1_1":  # without the scale its tied head would be certain of everything
        with torch.no_grad():
            model.shared.weight.mul_(0.1)
    return model


def write_seq2seq(folder: Path, kind: str) -> Path:
    """An encoder-decoder with its tokenizer, as a folder."""
    tok = tokenizer()
    seq2seq(kind, len(tok)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
