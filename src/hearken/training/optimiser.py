"""AdamW with warm-up, schedule, clipping and a guard against numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hearken.models.layout import Group
from hearken.training.options import TrainingOptions


class NonFiniteGradient(Exception):
    """A gradient, loss or score was NaN or infinite; the weights are as before the step.

    ``groups`` are what it was computed on, where that is not what is being learnt from.
    """

    def __init__(self, what: str, groups: Sequence[Group] = ()) -> None:
        super().__init__(what)
        self.groups = groups


def learning_rate(step: int, total: int, options: TrainingOptions) -> float:
    """Learning rate of step ``step`` (from 0) of ``total``."""
    warm = round(options.warmup * total)
    if step < warm:
        return options.lr * (step + 1) / warm
    done = (step - warm) / max(total - warm, 1)
    if options.schedule == "linear":
        return options.lr * (1 - done)
    if options.schedule == "cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * done))
    return options.lr


class Optimiser:
    """AdamW over the trainable parameters of some modules. The learning rate is a function of the step, not a state.

    Args:
        modules: whose parameters are trained.
        options: see `TrainingOptions`.
        total: steps of the whole run.
        scale: multiplies the learning rate (e.g. of a value model).
    """

    def __init__(self, modules: Iterable[nn.Module], options: TrainingOptions, total: int, scale: float = 1.0) -> None:
        self.options, self.total, self.scale = options, total, scale
        seen: dict[int, nn.Parameter] = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
        self.parameters = list(seen.values())
        matrices = [p for p in self.parameters if p.ndim > 1]
        others = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=options.lr,
            betas=(options.beta1, options.beta2),
            eps=options.eps,
            fused=all(p.is_floating_point() for p in self.parameters) or None,
        )

    def clip(self) -> float:
        """Scale the gradients down to the greatest norm allowed, and return their norm before.

        Raises:
            NonFiniteGradient: it is NaN or infinite.
        """
        norm: Tensor = nn.utils.clip_grad_norm_(self.parameters, self.options.max_grad_norm)
        if not torch.isfinite(norm):
            self.adam.zero_grad(set_to_none=True)
            raise NonFiniteGradient(f"the gradient's norm is {norm.item()}")
        return norm.item()

    def step(self, step: int) -> dict[str, float]:
        """Clip, update, clear. ``step`` (from 0) fixes the learning rate.

        Raises:
            NonFiniteGradient: before anything is changed.
        """
        return self.update(step, self.clip())

    def update(self, step: int, norm: float) -> dict[str, float]:
        """The update alone, for several optimisers that are all to `clip` before any of them changes a weight."""
        rate = self.scale * learning_rate(step, self.total, self.options)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return {"grad_norm": norm, "lr": rate}

    def state_dict(self) -> dict[str, Any]:
        """The moments and the trained parameters themselves."""
        return {"adam": self.adam.state_dict(), "parameters": [p.detach() for p in self.parameters]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Back to a saved state, to the bit."""
        self.adam.load_state_dict(state["adam"])
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
