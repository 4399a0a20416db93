"""PPO for language models: Ziegler et al. 2019, Stiennon et al. 2020, Ouyang et al. 2022 (PPO-ptx).

repeat:
    sample responses from the policy, score them with the reward model
    reward per token = -β (log π - log π_ref), plus the score on the last token
    advantages by GAE from the value model, whitened over the batch
    for some passes over minibatches:
        clipped policy loss + vf_coef x clipped value loss (+ ptx_coef x pretraining loss)
    adapt β to the KL target, where there is one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hearken.algorithms.critic import CriticRollout, KLControl, collect
from hearken.algorithms.estimate import sampling
from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.pretraining import Pretraining
from hearken.algorithms.stage import Inputs
from hearken.algorithms.value_model import CriticSetup, set_up_critic
from hearken.algorithms.watch import watched
from hearken.objectives.policy import ppo_clip, value_clip
from hearken.objectives.reduce import masked_sum
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.run import Callback, Run, Stateful, mean

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


def load(inputs: Inputs, options: PPOConfig) -> CriticSetup:
    """Open the four networks and encode the prompts and the pretraining text."""
    setup = set_up_critic(inputs, options)
    setup.facts |= {"ptx_pieces": len(setup.ptx), "judge_prompts": 0}
    return setup


def run(inputs: Inputs, options: PPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    setup, callbacks = watched(load, inputs, options)
    return improve(setup, inputs, options, out, callbacks)


def improve(
    setup: CriticSetup, inputs: Inputs, options: PPOConfig, out: Path, callbacks: Sequence[Callback] = ()
) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the updates on it."""
    total = options.iterations * options.updates
    actor = Optimiser([setup.scorer], options, total)
    critic = Optimiser([setup.value], options, total, scale=options.value_scale)
    control = KLControl(options.beta)
    pretraining = Pretraining(setup.ptx, options)
    states: dict[str, Stateful] = {"policy": actor, "value": critic, "control": control}
    with Run(inputs, options, out, states, callbacks=callbacks) as run:
        run.choose_precision(setup.scorer)
        for step in run.steps(options.iterations):
            rollout = collect(setup, step, control.beta, run, options)
            stats = []
            for update, batch in enumerate(rollout.minibatches(step, options), step * options.updates):
                stats.append(learn(setup, actor, critic, batch, pretraining, update, run, options))
            run.log(**summary(rollout, stats, control.beta))
            rollout.record(run, setup)
            control.adapt(rollout, options)

        metrics = run.last("score", "kl", "beta", "entropy", "length", "eos_share") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def learn(
    setup: CriticSetup, actor: Optimiser, critic: Optimiser, batch: CriticRollout, pretraining: Pretraining,
    update: int, run: Run, options: PPOConfig,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step of policy and value model on a minibatch, and of the policy on pretraining text."""
    tokens = batch.tokens
    sums = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction"), 0.0)
    farthest = 0.0
    for layout, part in batch.microbatches(run, setup.scorer):
        logprobs = setup.scorer(layout, temperature=options.temperature).logprobs
        policy = ppo_clip(logprobs, part.old_logprobs, part.advantages, options.clip)
        policy_loss = masked_sum(policy.loss, part.mask) / tokens
        run.backward(policy_loss)  # before the value model's turn: one network's activations at a time
        value = value_clip(setup.value(layout), part.values, part.returns, options.value_clip or None)
        value_loss = masked_sum(value.loss, part.mask) / tokens
        run.backward(options.vf_coef * value_loss)
        sums["policy_loss"] += policy_loss.item()
        sums["value_loss"] += value_loss.item()
        sums["approx_kl"] += masked_sum(policy.approx_kl, part.mask).item() / tokens
        sums["clip_fraction"] += masked_sum(policy.clipped.float(), part.mask).item() / tokens
        sums["value_clip_fraction"] += masked_sum(value.clipped.float(), part.mask).item() / tokens
        farthest = max(farthest, ((policy.ratio - 1).abs() * part.mask).max().item())
    sums |= pretraining.learn(setup.scorer, update, run)
    norms = actor.clip(), critic.clip()  # both are looked at before either changes a weight
    steps = actor.update(update, norms[0])
    critic.update(update, norms[1])
    return {**distributed.totals(sums), **steps, "value_grad_norm": norms[1], "ratio_gap": farthest}


def summary(rollout: CriticRollout, stats: Sequence[dict[str, float]], beta: float) -> dict[str, float]:
    """The figures of an iteration."""
    updates = mean(stats)
    updates.pop("ratio_gap")
    return {**rollout.figures(), "beta": beta, "first_ratio_gap": stats[0]["ratio_gap"], **updates}


estimate = sampling(load)
