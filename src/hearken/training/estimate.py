"""What a run will cost, measured on a small part of it: the most memory that stands at once, and seconds."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hearken.models.scorers import Scorer
from hearken.training import precision

SAMPLE_TOKENS = 2048
"""Real tokens of the microbatches that are timed, but for the first, which may be larger."""
WRITTEN = 32 << 20
"""Bytes that are written to see how fast the disk is."""


class Memory:
    """The most memory taken since it was made, in bytes: of a GPU what was allocated, else the resident set.

    On Linux the high-water mark is set back when it is made; elsewhere it is the process's own, from its start.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.cuda = torch.device(device).type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.start = self.now()

    def now(self) -> int:
        """What is taken now."""
        return torch.cuda.memory_allocated() if self.cuda else _status("VmRSS")

    def peak(self) -> int:
        """The most since the start."""
        return torch.cuda.max_memory_allocated() if self.cuda else _status("VmHWM")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Trial:
    """Forward and backward passes over ``tokens`` real tokens, timed.

    ``peak_bytes`` is the most memory that stood at once besides what stood before, gradients included.
    """

    tokens: int
    forward_seconds: float
    seconds: float
    peak_bytes: int


def try_out(
    losses: Sequence[Callable[[], Tensor]], tokens: int, parameters: Sequence[nn.Parameter], device: torch.device
) -> Trial:
    """Run each of ``losses`` and its backward pass (the first once before, to warm up), without touching any weight.

    Args:
        losses: of microbatches, the largest first.
        tokens: in all of them.
        parameters: whose gradients are cleared again.
        device: where they are computed.
    """
    forward = seconds = 0.0
    memory = Memory(device)
    for number, loss in enumerate([losses[0], *losses]):
        _settle(device)
        start = time.perf_counter()
        value = loss()
        _settle(device)
        middle = time.perf_counter()
        value.backward()
        _settle(device)
        if number:
            forward, seconds = forward + middle - start, seconds + time.perf_counter() - start
    for parameter in parameters:
        parameter.grad = None
    return Trial(tokens, forward, seconds, max(memory.peak() - memory.start, 0))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that it takes without gradients."""
    _settle(device)
    start = time.perf_counter()
    with torch.no_grad():
        work()
    _settle(device)
    return time.perf_counter() - start


def update_seconds(trained: Sequence[nn.Parameter]) -> float:
    """Seconds of clipping and an AdamW step on so many numbers: a part is done, on numbers of its own."""
    total = sum(p.numel() for p in trained)
    if not total:
        return 0.0
    some = min(total, 1 << 22)
    part = nn.Parameter(torch.zeros(some, device=trained[0].device))
    part.grad = torch.ones_like(part)
    adam = torch.optim.AdamW([part], fused=True)
    adam.step()

    def step() -> None:
        nn.utils.clip_grad_norm_([part], 1.0)
        adam.step()

    return timed(step, part.device) * total / some


def write_seconds(size: int) -> float:
    """Seconds of writing so many bytes to the disk of temporary files, to the end."""
    some = min(max(size, 1), WRITTEN)
    with tempfile.TemporaryFile() as file:
        start = time.perf_counter()
        file.write(bytes(some))
        file.flush()
        os.fsync(file.fileno())
        return (time.perf_counter() - start) * size / some


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


class Dry:
    """What is found out on the way.

    Args:
        began: when the command began (`time.perf_counter`): before the libraries were imported.
        device: that of the run.
    """

    def __init__(self, began: float, device: str) -> None:
        self.began = began
        self.memory = Memory(precision.device_of(device))
        self.seconds: dict[str, float] = {}
        self.loading = self.loaded = 0

    def settle(self, scorer: Any, options: Any) -> None:
        """All is loaded: choose the precision as the run will."""
        self.loading, self.loaded = self.memory.peak(), self.memory.now()
        self.seconds["start"] = time.perf_counter() - self.began
        precision.settle(scorer, options.precision)

    def finish(self, facts: dict[str, Any], modules: Mapping[str, nn.Module], options: Any, **parts: int) -> Any:
        """Facts with parameters, memory by part and seconds by part.

        Args:
            facts: what else is said.
            modules: all networks.
            options: of the stage.
            parts: bytes that stand beside weights, gradients and AdamW's moments at the worst moment.
        """
        every = parameters(modules)
        trained = [p for p in every if p.requires_grad]
        size = sum(p.untyped_storage().nbytes() for p in trained)
        weights = weight_bytes(modules)
        loop = sum(self.seconds[name] for name in self.seconds if name not in ("start", "saving"))
        saves = 1 + int(loop // options.checkpoint_seconds) if options.checkpoint_seconds else 1
        self.seconds["saving"] = write_seconds(saves * 3 * size + next(iter(weights.values())))
        program = max(self.loaded - sum(weights.values()), 0)
        memory: dict[str, int] = {"program": program} | {f"weights_of_{name}": n for name, n in weights.items()}
        memory |= {"gradients": size, "adam": 2 * size} | parts
        memory["loading"] = max(self.loading - sum(memory.values()), 0)  # a file and its weights at once
        return facts | {
            "precision": next(m.precision for m in modules.values() if isinstance(m, Scorer)),
            "parameters": {
                "trained": sum(p.numel() for p in trained),
                "frozen": sum(p.numel() for p in every if not p.requires_grad),
            },
            "memory": memory | {"total": sum(memory.values())},
            "seconds": sum(self.seconds.values()),
            "seconds_of": self.seconds,
        }
