"""Tiny GGUF files, written by the format's own package from a model whose weights are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from tiny_models import WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def digits_apart() -> Tokenizer:
    """A byte-level tokenizer that splits as SmolLM's does: each digit by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([f"{a} {b}" for a in WORDS for b in WORDS] * 3, trainer)
    return tokenizer


def tiny_llama(vocabulary: int) -> LlamaForCausalLM:
    """With sizes that blocks of 32 divide, so that any of its matrices can be quantised."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.2,
        rms_norm_eps=1e-5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def write_gguf(path: Path, pre: str = "smollm", kind: str = "F32") -> tuple[LlamaForCausalLM, Tokenizer]:
    """A Llama and its byte-level tokenizer as a GGUF file; the model that stands in it, and the tokenizer."""
    tokenizer = digits_apart()
    model = tiny_llama(tokenizer.get_vocab_size())
    config = model.config
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    writer.add_token_types([TokenType.CONTROL if w in SPECIAL else TokenType.NORMAL for w in words])
    writer.add_token_merges([" ".join(m) for m in _merges(tokenizer)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            _write(writer, model, name, weight, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


def _merges(tokenizer: Tokenizer) -> list[Any]:
    import json

    return json.loads(tokenizer.to_str())["model"]["merges"]


_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "model.layers.": "blk.",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def _write(writer: GGUFWriter, model: LlamaForCausalLM, name: str, weight: torch.Tensor, kind: str) -> None:
    """One tensor; a quantised one is put back into the model as it can be read again."""
    config, theirs = model.config, name
    for ours, other in _NAMES.items():
        theirs = theirs.replace(ours, other)
    array = weight.numpy()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    of = next((n for key, n in heads.items() if key in theirs), 0)

    def turned(rows: Any) -> Any:  # the file keeps rotary pairs side by side
        half = rows.reshape(of, 2, -1, rows.shape[-1]) if of else rows
        return half.swapaxes(1, 2).reshape(rows.shape) if of else rows

    def back(rows: Any) -> Any:
        half = rows.reshape(of, -1, 2, rows.shape[-1]) if of else rows
        return half.swapaxes(1, 2).reshape(rows.shape) if of else rows

    if array.ndim == 1 or kind == "F32":
        writer.add_tensor(theirs, turned(array))
        return
    packed = GGMLQuantizationType[kind]
    blocks = quants.quantize(turned(array), packed)
    writer.add_tensor(theirs, blocks, raw_dtype=packed)
    with torch.no_grad():
        weight.copy_(torch.from_numpy(back(quants.dequantize(blocks, packed))))
