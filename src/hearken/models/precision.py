"""Computing in bf16: autocast, with the weights that nobody trains kept in bf16.

Autocast casts a frozen weight at every call, since it keeps only what is trained until the pass is over. A linear layer
whose weight is cast once gives the same numbers, to the bit, in half the memory. Everything else (embeddings, norms,
biases, score heads, adapters) stays in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

Precision = Literal["fp32", "bf16"]
SCORES = ("score", "classification_head")
WORTH_BF16 = 1 << 24
"""Weights from which a model that is only read is computed in bf16: smaller ones gain little by it."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Computation in ``fp32`` or ``bf16`` (what is trained, and the optimiser, stay fp32)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def has_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last is what ARM calls it
    return False


def to_read(model: PreTrainedModel, trained_in: str | None) -> Precision:
    """The precision of a model that is only read: the one it was trained in where that is known, else by its size.

    A rule, not a measurement: the same seed is to give the same responses the next time, too.
    """
    device = next(model.parameters()).device
    if trained_in == "fp32" or not has_bf16(device):
        return "fp32"
    large = sum(p.numel() for p in model.parameters()) >= WORTH_BF16
    return "bf16" if large or trained_in == "bf16" else "fp32"


def lower(model: PreTrainedModel) -> None:
    """Cast the frozen weights of ``model``'s linear layers to bf16; a head tied to the embeddings gets its own."""
    embedding = model.get_input_embeddings()
    tied = None if embedding is None else getattr(embedding, "weight", None)
    for name, layer in _frozen(model):
        if layer.weight is tied:
            if layer is model.get_output_embeddings():
                layer.weight = nn.Parameter(tied.detach().to(torch.bfloat16), requires_grad=False)
        elif name.split(".")[0] not in SCORES:
            layer.weight.data = layer.weight.data.to(torch.bfloat16)
    for parameter in model.parameters():  # a view of the file keeps the whole of it in memory
        if not parameter.requires_grad and parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()


def restore(model: PreTrainedModel, original: PreTrainedModel) -> None:
    """Give ``model`` the full weights again that `lower` has cast: those of ``original``, the model it was before."""
    full = dict(original.named_parameters())
    for name, layer in _frozen(model):
        if layer.weight.dtype == torch.bfloat16:
            layer.weight.data = full[f"{name}.weight".replace(".base_layer.", ".")].data


def _frozen(model: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D) and not layer.weight.requires_grad:
            yield name, layer
