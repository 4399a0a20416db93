"""A small language model from nothing: a tokenizer trained on the spot and a Llama with fresh weights.

For the tale world and for benchmarks on machines without a pretrained model; real projects bring their own model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hearken.config import Options


class TinyModelSize(Options):
    """Shape of a small Llama."""

    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    head_width: int = 0
    """Dimensions of a head; 0 shares the hidden ones out."""
    shared: int = 1
    """Query heads that share a head of keys and values."""
    context: int = 256


def make_tiny_model(texts: Iterable[str], out: str | Path, size: TinyModelSize, seed: int = 0) -> Path:
    """Train a byte-level BPE tokenizer on ``texts``; write it with an untrained model to ``out``, which is returned."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from hearken.models.loading import save

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>"]
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size.vocabulary, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", model_max_length=size.context
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=round(size.hidden * 8 / 3 / 16) * 16,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads // size.shared,
            head_dim=size.head_width or size.hidden // size.heads,
            max_position_embeddings=size.context,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
            tie_word_embeddings=True,
            initializer_range=size.hidden**-0.5,  # the usual .02 suits wide models and slows narrow ones down
        )
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # each layer starts as nothing added to the stream
                weight.zero_()
    save(model, tokenizer, Path(out))
    return Path(out)
