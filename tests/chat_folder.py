"""A tiny chat model's folder."""

from __future__ import annotations

from pathlib import Path

from gguf_files import SPECIAL, TEMPLATE, digits_apart, tiny_llama
from transformers import PreTrainedTokenizerFast


def write_chat_folder(out: Path) -> Path:
    """A Llama with random weights that knows ChatML; the folder."""
    own = digits_apart()
    start, end = SPECIAL[1], SPECIAL[2]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token=end, bos_token=start, pad_token=end)
    tokenizer.chat_template = TEMPLATE
    tiny_llama(own.get_vocab_size()).save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out
