"""Training steps in fp32 over those in bf16, by width: what the rule of `training/precision.py` rests on."""

from __future__ import annotations

import argparse
import time

import torch
from common import table
from transformers import LlamaConfig, LlamaForCausalLM

from hearken.models.precision import autocast

SIZES = ((64, 2, 1024), (128, 4, 4096), (256, 4, 4096), (256, 6, 8192), (384, 6, 8192), (576, 8, 8192))
"""Width, layers, words of the vocabulary."""
ROWS, LENGTH, REPEATS = 16, 128, 5


def seconds(model: LlamaForCausalLM, ids: torch.Tensor, precision: str) -> float:
    """Of a forward and backward pass: the best of several."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        with autocast(precision, ids.device):
            model(input_ids=ids, labels=ids).loss.backward()
        best = min(best, time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    threads = parser.parse_args().threads
    rows = []
    for width, layers, vocabulary in SIZES:
        heads = max(width // 64, 1)
        config = LlamaConfig(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=heads, vocab_size=vocabulary,
        )  # fmt: skip
        model, ids = LlamaForCausalLM(config), torch.randint(0, vocabulary, (ROWS, LENGTH))
        ratios = []
        for count in threads:
            torch.set_num_threads(count)
            ratios.append(f"{seconds(model, ids, 'fp32') / seconds(model, ids, 'bf16'):.2f}")
        size = sum(p.numel() for p in model.parameters())
        rows.append([str(width), str(layers), f"{size / 1e6:.1f} M", *ratios])
    columns = ["width", "layers", "parameters", *(f"{n} thread{'s' * (n > 1)}" for n in threads)]
    table("Seconds in fp32 over seconds in bf16", columns, rows)


if __name__ == "__main__":
    main()
