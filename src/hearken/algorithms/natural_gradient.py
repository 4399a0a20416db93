"""The natural gradient of a policy: its weights as one vector, and products with their Fisher matrix.

F·v is Jᵀ H J v with J the Jacobian of the logits and H the softmax's own metric, known in closed form: J v by central
differences of two forward passes, Jᵀ by one backward pass. Nothing is differentiated twice, so any model
will do whose logits are a head's of its hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hearken.algorithms.trpo_options import TRPOConfig
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.trust_region import categorical_fisher, conjugate_gradient, flatten, step_scale
from hearken.training.batching import microbatches


class Weights:
    """The trainable parameters of a policy as one vector, in place; their state for the checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    def get(self) -> Tensor:
        """A copy: (P,)."""
        return flatten(p.detach() for p in self.parameters).clone()

    @torch.no_grad()
    def set(self, vector: Tensor) -> None:
        """Put a vector (P,) into the parameters."""
        at = 0
        for p in self.parameters:
            p.copy_(vector[at : at + p.numel()].view_as(p))
            at += p.numel()

    def gradient(self) -> Tensor:
        """The gradient (P,), which is then cleared."""
        found = flatten(torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters)
        for p in self.parameters:
            p.grad = None
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """The vector."""
        return {"weights": self.get()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Back to a saved vector."""
        self.set(state["weights"])


class Fisher:
    """v to (F + damping·I)·v, with F the mean Fisher matrix per token of some responses, at the present weights."""

    def __init__(self, scorer: TokenScorer, weights: Weights, groups: Sequence[Group], options: TRPOConfig) -> None:
        self.scorer, self.weights, self.options = scorer, weights, options
        self.start = weights.get()
        self.layouts = [
            lay_out([groups[i] for i in part], scorer.device) for part in microbatches(groups, options.tokens, scorer)
        ]
        self.tokens = sum(int(layout.mask.sum()) for layout in self.layouts)

    def logits(self, layout: Layout) -> Tensor:
        """(n, V) of the response tokens, in fp32 and with an ordinary gradient."""
        found: Tensor = self.scorer(lambda net: net.response_logits(layout))
        return found / self.options.temperature

    def __call__(self, vector: Tensor) -> Tensor:
        """(P,) to (P,)."""
        size = vector.norm()
        if size == 0:
            return vector
        epsilon = 1e-2 / size  # central differences: the error falls with its square, rounding grows with its inverse
        for layout in self.layouts:
            with torch.no_grad():
                self.weights.set(self.start + epsilon * vector)
                ahead = self.logits(layout)
                self.weights.set(self.start - epsilon * vector)
                tangent = (ahead - self.logits(layout)) / (2 * epsilon)
                self.weights.set(self.start)
            logits = self.logits(layout)
            cotangent = categorical_fisher(tangent, torch.log_softmax(logits.detach(), -1))
            logits.backward(cotangent / self.tokens)
        return self.weights.gradient() + self.options.damping * vector

    def step(self, gradient: Tensor) -> Tensor:
        """(P,) -s·F⁻¹·gradient, as long as the KL bound allows where it is quadratic."""
        direction = conjugate_gradient(self, -gradient, self.options.cg_steps)
        return step_scale(direction, self(direction), self.options.max_kl) * direction
