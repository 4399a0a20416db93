"""TRPO for language models: Schulman et al. 2015, as RL4LMs offers it.

repeat:
    sample responses, score them, advantages by GAE (as in PPO)
    g = gradient of the surrogate A·π/π_old;  s = F⁻¹ g by conjugate gradients
    step of length √(2δ / sᵀFs), halved until the surrogate gains and the KL per token is within δ
    some steps of the value model
    adapt β to the KL target, where there is one
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hearken.algorithms.critic import CriticRollout, KLControl, collect, fit_values
from hearken.algorithms.estimate import sampling
from hearken.algorithms.natural_gradient import Fisher, Weights
from hearken.algorithms.stage import Inputs
from hearken.algorithms.trpo_options import TRPOConfig
from hearken.algorithms.value_model import CriticSetup, set_up_critic
from hearken.objectives.kl import k3
from hearken.objectives.reduce import masked_sum
from hearken.objectives.trust_region import backtrack, surrogate
from hearken.training import distributed
from hearken.training.optimiser import NonFiniteGradient, Optimiser
from hearken.training.run import Run, Stateful

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


def load(inputs: Inputs, options: TRPOConfig) -> CriticSetup:
    """Open the four networks and encode the prompts.

    Raises:
        UserError: an architecture whose logits come from its own forward pass alone.
    """
    setup = set_up_critic(inputs, options)
    # The Fisher matrix is taken through the hidden states and the head.
    setup.scorer.need_hidden_states("TRPO cannot measure the step of a", "Use ppo")
    return setup


def run(inputs: Inputs, options: TRPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(setup: CriticSetup, inputs: Inputs, options: TRPOConfig, out: Path) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the step that it allows."""
    weights, control = Weights(setup.scorer), KLControl(options.beta)
    critic = Optimiser([setup.value], options, options.iterations * options.value_steps)
    states: dict[str, Stateful] = {"policy": weights, "value": critic, "control": control}

    with Run(inputs, options, out, states) as run:
        run.choose_precision(setup.scorer)
        for step in run.steps(options.iterations):
            rollout = collect(setup, step, control.beta, run, options)
            stats = natural_step(setup, weights, rollout, run, options)
            first = step * options.value_steps
            stats |= fit_values(setup, critic, rollout, range(first, first + options.value_steps), run, options)
            run.log(**rollout.figures(), beta=control.beta, **stats)
            rollout.record(run, setup)
            control.adapt(rollout, options)

        metrics = run.last("score", "kl", "beta", "entropy", "length", "eos_share") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def natural_step(
    setup: CriticSetup, weights: Weights, rollout: CriticRollout, run: Run, options: TRPOConfig
) -> dict[str, float]:
    """One natural-gradient step of the policy."""
    tokens = rollout.tokens

    def over_all(backward: bool) -> tuple[float, float]:
        """Surrogate loss and KL per token."""
        sums = {"loss": 0.0, "kl": 0.0}
        for layout, part in rollout.microbatches(run, setup.scorer):
            with torch.set_grad_enabled(backward):
                logprobs = setup.scorer(layout, temperature=options.temperature).logprobs
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
    full = Fisher(setup.scorer, weights, rollout.groups[:count], options).step(gradient)

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


estimate = sampling(load)
