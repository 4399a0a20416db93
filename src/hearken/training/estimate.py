"""What a run will cost, measured on a small part of it: memory by part, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hearken.models.head import CHUNK
from hearken.models.layout import Group

SAMPLE_TOKENS = 1024
"""Real tokens of the microbatch that is timed."""


@dataclass(frozen=True)
class Trial:
    """A forward and backward pass over ``tokens`` real tokens, timed, with the bytes it kept for the backward pass."""

    tokens: int
    forward_seconds: float
    seconds: float
    activation_bytes: int

    def scaled(self, tokens: int, vocabulary: int) -> int:
        """Activation bytes of a microbatch of ``tokens``, with the logits of one chunk of the head."""
        logits = 3 * 4 * min(CHUNK, tokens * vocabulary)
        return round(self.activation_bytes * tokens / max(self.tokens, 1)) + logits


def sample_of(groups: Sequence[Group], tokens: int) -> list[Group]:
    """The first groups, of at most ``tokens`` real tokens together, and at least one."""
    found: list[Group] = []
    for group in groups:
        if found and sum(g.tokens for g in found) + group.tokens > tokens:
            break
        found.append(group)
    return found


def try_out(loss: Callable[[], Tensor], tokens: int, parameters: Sequence[nn.Parameter], device: torch.device) -> Trial:
    """Run ``loss`` and its backward pass twice (the first warms up) and clear the gradients again."""
    best = (float("inf"), float("inf"))
    kept = 0
    known = {p.untyped_storage().data_ptr() for p in parameters}
    for _ in range(2):
        seen: dict[int, int] = {}

        def keep(x: Tensor, seen: dict[int, int] = seen) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in known:
                seen[storage.data_ptr()] = storage.nbytes()
            return x

        _settle(device)
        start = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = loss()
        _settle(device)
        middle = time.perf_counter()
        value.backward()
        _settle(device)
        best = min(best, (time.perf_counter() - start, middle - start))
        kept = sum(seen.values())
    for parameter in parameters:
        parameter.grad = None
    return Trial(tokens, best[1], best[0], kept)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameters(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """All parameters of some modules, shared ones once."""
    return list({p.untyped_storage().data_ptr(): p for m in modules.values() for p in m.parameters()}.values())


def weight_bytes(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Bytes of each module's weights that no module before it holds already: 0 for the reference policy under LoRA."""
    seen: set[int] = set()
    found: dict[str, int] = {}
    for name, module in modules.items():
        new = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in module.parameters()}
        found[name] = sum(size for pointer, size in new.items() if pointer not in seen)
        seen |= new.keys()
    return found
