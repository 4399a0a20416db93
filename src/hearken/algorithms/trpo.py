"""TRPO for language models: Schulman et al. 2015, as RL4LMs offers it.

repeat:
    sample responses, score them, advantages by GAE (as in PPO)
    g = gradient of the surrogate A·π/π_old;  s = F⁻¹ g by conjugate gradients
    step of length √(2δ / sᵀFs), halved until the surrogate gains and the KL per token is within δ
    some steps of the value model
    adapt β to the KL target, where there is one

F·v is Jᵀ H J v with J the Jacobian of the logits and H the softmax's own metric, known in closed form: J v by central
differences of two forward passes, Jᵀ by one backward pass. Nothing is differentiated twice, so any model
will do whose logits are a head's of its hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hearken.algorithms.critic import (
    CriticRollout,
    CriticSetup,
    KLControl,
    collect,
    estimator,
    set_up_critic,
)
from hearken.algorithms.rollouts import ROLLOUTS
from hearken.algorithms.stage import Inputs
from hearken.algorithms.trpo_options import TRPOConfig
from hearken.errors import UserError
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.kl import k3
from hearken.objectives.policy import value_clip
from hearken.objectives.reduce import masked_sum
from hearken.objectives.trust_region import (
    backtrack,
    categorical_fisher,
    conjugate_gradient,
    flatten,
    step_scale,
    surrogate,
)
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import microbatches
from hearken.training.optimiser import NonFiniteGradient, Optimiser
from hearken.training.run import Run, Stateful


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


def load(inputs: Inputs, options: TRPOConfig) -> CriticSetup:
    """Open the four networks and encode the prompts.

    Raises:
        UserError: an architecture whose logits come from its own forward pass alone.
    """
    setup = set_up_critic(inputs, options)
    if setup.scorer.whole:  # the Fisher matrix is taken through the hidden states and the head
        raise UserError(f"TRPO cannot measure the step of a {type(setup.scorer.model).__name__}", "Use ppo")
    return setup


def run(inputs: Inputs, options: TRPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(setup: CriticSetup, inputs: Inputs, options: TRPOConfig, out: Path) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the step that it allows."""
    weights, control = Weights(setup.scorer), KLControl(options.beta)
    critic = Optimiser([setup.value], options, options.iterations * options.value_steps)
    states: dict[str, Stateful] = {"policy": weights, "value": critic, "control": control}

    with Run(inputs, options, out, states, records=[ROLLOUTS]) as run:
        run.choose_precision(setup.scorer)
        for step in run.steps(options.iterations):
            rollout = collect(setup, step, control.beta, run, options)
            stats = natural_step(setup.scorer, weights, rollout, run, options)
            stats |= fit_values(setup, critic, rollout, step, run, options)
            run.log(**rollout.figures(), beta=control.beta, **stats)
            rollout.record(run, setup.policy)
            control.adapt(rollout, options)

        metrics = run.last("score", "kl", "beta", "entropy", "length", "eos_share") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def natural_step(
    scorer: TokenScorer, weights: Weights, rollout: CriticRollout, run: Run, options: TRPOConfig
) -> dict[str, float]:
    """One natural-gradient step of the policy."""
    tokens = rollout.tokens

    def over_all(backward: bool) -> tuple[float, float]:
        """Surrogate loss and KL per token."""
        sums = {"loss": 0.0, "kl": 0.0}
        for layout, part in rollout.microbatches(run, scorer):
            with torch.set_grad_enabled(backward):
                logprobs = scorer(layout, temperature=options.temperature).logprobs
                share = masked_sum(surrogate(logprobs, part.old_logprobs, part.advantages), part.mask) / tokens
            if backward:
                run.backward(share)
            sums["loss"] += share.item()
            sums["kl"] += (masked_sum(k3(part.old_logprobs, logprobs), part.mask).detach() / tokens).item()
        found = distributed.totals(sums)
        return found["loss"], found["kl"]

    before, _ = over_all(backward=True)
    gradient = weights.gradient()
    norm = gradient.norm().item()
    if not torch.isfinite(gradient).all():
        raise NonFiniteGradient(f"the gradient's norm is {norm}")
    start = weights.get()
    count = max(round(options.fisher_share * len(rollout.groups)), 1)
    fisher = Fisher(scorer, weights, rollout.groups[:count], options)
    direction = conjugate_gradient(fisher, -gradient, options.cg_steps)
    full = step_scale(direction, fisher(direction), options.max_kl) * direction

    def attempt(fraction: float) -> tuple[float, float]:
        weights.set(start + fraction * full)
        return over_all(backward=False)

    found = backtrack(attempt, before, options.max_kl, tries=options.line_search)
    weights.set(start + found.fraction * full)
    after, kl = over_all(backward=False)
    return {
        "policy_loss": before, "gain": before - after, "step_kl": kl, "step_fraction": found.fraction,
        "grad_norm": norm,
    }  # fmt: skip


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


def fit_values(
    setup: CriticSetup, critic: Optimiser, rollout: CriticRollout, step: int, run: Run, options: TRPOConfig
) -> dict[str, float]:
    """Some steps of the value model towards the returns."""
    tokens = rollout.tokens
    loss = norm = 0.0
    for number in range(options.value_steps):
        loss = 0.0
        for layout, part in rollout.microbatches(run, setup.scorer):
            found = value_clip(setup.value(layout), part.values, part.returns, options.value_clip or None)
            share = masked_sum(found.loss, part.mask) / tokens
            run.backward(share)
            loss += share.item()
        norm = critic.step(step * options.value_steps + number)["grad_norm"]
    return {"value_loss": distributed.total(loss), "value_grad_norm": norm}


estimate = estimator(load)
