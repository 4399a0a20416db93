"""Which precision to train in: measured in a trial of seconds, not assumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hearken.models.layout import Group, lay_out
from hearken.models.precision import autocast
from hearken.models.scorers import RewardScorer, TokenScorer
from hearken.training.artifact import MANIFEST, write_json

RECORD = "precision.json"
"""In a run's folder."""
SECONDS = 2.0
"""After so many, of one precision's passes, no further one is begun."""
OPERATIONS = 1e11
"""Of a trial's pass: it is over as many tokens as that allows, at least 16 and at most 256."""


def device_of(name: str) -> torch.device:
    """The device an option names; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def recorded(folder: str) -> str | None:
    """The precision that the artifact in ``folder`` was trained in; None where no manifest says."""
    manifest = Path(folder) / MANIFEST
    if not manifest.is_file():
        return None
    found: str | None = json.loads(manifest.read_text("utf-8")).get("precision")
    return found


def settle(scorer: TokenScorer | RewardScorer, groups: Sequence[Group], option: str, run: Path | None = None) -> str:
    """The precision of a run, in which ``scorer`` and all that follow it compute from now on.

    Args:
        scorer: what is trained.
        groups: the data.
        option: ``fp32``, ``bf16``, or ``auto``: what stands in ``run``, else the faster one.
        run: the folder in which the choice is recorded.
    """
    record = run / RECORD if run else None
    seconds: dict[str, float] = {}
    chosen = option
    if option == "auto":
        if record and record.exists():
            chosen = json.loads(record.read_text())["precision"]
        else:
            chosen, seconds = choose(scorer, groups)
    if record and not record.exists():
        write_json(record, {"precision": chosen, "seconds": seconds, "device": str(scorer.device)})
    scorer.compute_in(chosen)
    return chosen


def choose(scorer: TokenScorer | RewardScorer, groups: Sequence[Group]) -> tuple[str, dict[str, float]]:
    """The faster precision for training ``scorer``, and the seconds of a short pass in each.

    Args:
        scorer: with the parameters that are to be trained; their gradients are cleared afterwards.
        groups: the data; the beginnings of a few serve.
    """
    some = _short(groups, scorer)
    found = measure(lambda: _pass(scorer, some), scorer.device)
    scorer.zero_grad(set_to_none=True)
    return faster(found), found


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


def _short(groups: Sequence[Group], scorer: TokenScorer | RewardScorer) -> list[Group]:
    """The first prompts, each with the beginning of its first response, as many tokens as a trial may have."""
    weights = sum(p.numel() for p in scorer.model.parameters())
    room = int(min(max(OPERATIONS / (6 * weights), 16), 256))
    found: list[Group] = []
    for g in groups:
        prompt, response = g.prompt[-max(room // 4, 1) :], (g.responses or [[]])[0][: max(room // 4, 1)]
        if room < len(prompt) + len(response) and found:
            break
        found.append(Group(prompt, [response or prompt[-1:]]))
        room -= len(prompt) + len(response)
    return found


def _pass(scorer: TokenScorer | RewardScorer, groups: Sequence[Group]) -> None:
    layout = lay_out(groups, scorer.device)
    found = scorer(lambda net: net.heads(layout)) if isinstance(scorer, RewardScorer) else scorer(layout).logprobs
    found.sum().backward()


def _time(step: Callable[[], object], precision: str, device: torch.device) -> float:
    best, began = float("inf"), time.perf_counter()
    for _ in range(3):
        start = time.perf_counter()
        with autocast(precision, device):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - began > SECONDS:
            break
    return best
