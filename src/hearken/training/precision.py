"""Which precision to compute in: measured, not assumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


def device_of(name: str) -> torch.device:
    """The device an option names; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Computation in ``fp32`` or ``bf16`` (weights and optimiser stay fp32)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def measure(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Seconds of ``step`` (a forward and backward pass) in each precision.

    On a CPU a plain matrix product is tried first: where bf16 loses even there (no instructions for it), its seconds
    are the answer and the step is not run at all.
    """
    if device.type == "cpu":
        a = torch.randn(256, 256)
        product = {name: _time(lambda: a @ a, name, device) for name in ("fp32", "bf16")}
        if product["bf16"] > 1.5 * product["fp32"]:
            return product
    return {name: _time(step, name, device) for name in ("fp32", "bf16")}


def faster(seconds: dict[str, float]) -> str:
    """bf16 only where it saves at least a tenth."""
    return "bf16" if seconds["bf16"] < 0.9 * seconds["fp32"] else "fp32"


def _time(step: Callable[[], object], precision: str, device: torch.device) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        with autocast(precision, device):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
