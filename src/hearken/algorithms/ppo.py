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

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hearken.algorithms.estimate import sampled
from hearken.algorithms.ppo_options import ASKED, CriticOptions, PPOOptions
from hearken.algorithms.rollouts import (
    ROLLOUTS,
    Batch,
    beginnings,
    described,
    minibatches,
    open_prompts,
    roll_out,
    sampling_figures,
)
from hearken.algorithms.stage import Inputs
from hearken.algorithms.watch import NO_PROMPTS, ByScore, Judge, Prompts, Watch, set_apart
from hearken.domains.text.data import demonstrations, prompts
from hearken.domains.text.loading import TextPolicy, adapt, open_reference, prepare
from hearken.domains.text.rewarding import Known, open_reward, prompt_facts
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.models.layout import Group, lay_out
from hearken.models.loading import check_size, load_reward, new_reward, save, switch_adapter
from hearken.models.scorers import TokenScorer, ValueScorer, probe
from hearken.objectives.kl import adapt_kl, k3
from hearken.objectives.language import nll
from hearken.objectives.policy import explained_variance, gae, ppo_clip, token_rewards, value_clip
from hearken.objectives.reduce import masked_sum, whiten
from hearken.rewards.learned import Reward
from hearken.rewards.terms import parse_terms
from hearken.rollout.native import NativeSampler
from hearken.statistics.divergence import FEWEST
from hearken.training.artifact import Artifact, finish
from hearken.training.batching import Order, microbatches
from hearken.training.estimate import Dry
from hearken.training.forward import gather, rows_of
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run, Stateful


@dataclass
class Models:
    """The four networks of PPO (two sets of weights where the policy and the value model are adapters)."""

    policy: TokenScorer
    reference: TokenScorer
    value: ValueScorer
    reward: Reward


@dataclass
class KLControl:
    """β, fixed or adapted; part of the checkpoint."""

    beta: float

    def adapt(self, batch: Batch, options: CriticOptions) -> None:
        """Move β towards the KL target, where there is one."""
        if options.kl_target:
            self.beta = adapt_kl(self.beta, batch.kl(), options.kl_target, len(batch.samples), options.kl_horizon)

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


@dataclass
class Rollout(Batch):
    """A batch of sampled responses with everything the updates need.

    Attributes:
        values: (R, T), V before each token, like the others; besides those of `Batch`.
        rewards: KL penalty on every token, the score on the last.
        advantages, returns: by GAE.
    """

    values: Tensor
    rewards: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    models: Models
    contents: list[Content]
    prompts: list[list[int]]
    ptx: list[Group]
    facts: dict[str, Any]
    judge: Judge | None = None
    """Who watches (see `watch`)."""
    held_out: Prompts = NO_PROMPTS
    """Prompts on which they do."""


def load(inputs: Inputs, options: PPOOptions, judge: Judge | None = None) -> Ready:
    """Open the four networks and encode the prompts and the pretraining text.

    Args:
        inputs: of the stage.
        options: of the stage.
        judge: who watches; by default what ``options.judge`` names.
    """
    if options.stop_when and not options.judge:
        raise UserError(
            f"stop_when={options.stop_when} needs someone to ask",
            "Add --judge: another reward model or module:function",
        )
    if inputs.validation and not options.judge:
        raise UserError("--validation holds prompts for a judge, and there is none", "Add --judge, or leave it out")
    looks = -(-max(options.episodes // options.batch, 1) // options.judge_every)
    if options.stop_when and looks < FEWEST:
        warnings.warn(
            f"stop_when={options.stop_when} can stop nothing: {looks} looks, and {FEWEST} are needed to tell. "
            "Lower judge_every",
            stacklevel=2,
        )
    if options.judge in ASKED and judge is None:
        raise UserError(
            f"judge={options.judge}: they can be asked in a project's rounds",
            f"Set loop.watch.judge to {options.judge} in hearken.yaml and run: hearken loop",
        )
    opened = open_prompts(inputs, options)
    policy, rows, contents, ids = opened.policy, opened.rows, opened.contents, opened.ids
    ptx = demonstrations(opened.ptx, policy.encoder)
    known = prompt_facts(rows.train, contents, ids)
    held = NO_PROMPTS
    if options.judge:
        if inputs.validation:
            others = Prompts(*prompts(rows.validation, policy.encoder))
            known = {**known, **prompt_facts(rows.validation, *others)}
            held, _ = set_apart(others, options.judge_prompts, options.seed)
        else:
            held, (contents, ids) = set_apart(
                Prompts(contents, ids), min(options.judge_prompts, len(ids) // 5), options.seed
            )
        if not held.ids:
            raise UserError("no prompt is left for the judge", "Give --validation, or more prompts")
        plainly = options.model_copy(update={"pessimism": 0.0, "trust_reward": True})
        judge = judge or ByScore(open_reward(options.judge, policy, known, plainly))
    facts = opened.facts() | {"prompts": len(ids), "ptx_pieces": len(ptx), "judge_prompts": len(held.ids)}
    return Ready(policy, open_models(inputs, options, policy, known), contents, ids, ptx, facts, judge, held)


def open_models(inputs: Inputs, options: CriticOptions, policy: TextPolicy, known: Known) -> Models:
    """Reference, reward and value model beside the policy.

    The value model starts from the (first) reward model; where the reward is a function, from the policy with a fresh
    head. With LoRA the reference is the policy without its adapter, and the value model an adapter on the reward model.
    """
    device = policy.scorer.device
    reference = open_reference(inputs.model, inputs.ref, policy)
    assert inputs.reward is not None  # `check_inputs`
    learned = next((term.name for term in parse_terms(inputs.reward) if term.kind == "model"), None)
    shared = bool(options.lora)
    if learned:
        value_network = load_reward(learned, device=device)
    else:
        value_network = new_reward(inputs.model, options.seed, eos=options.eos, device=device)[0]
    check_size(policy.tokenizer, value_network, f"the value model, which starts from {learned or inputs.model},")
    prepare(value_network, options)
    if shared:
        adapt(value_network, "value", options)

    def network(name: str) -> PreTrainedModel:
        return value_network if shared and name == learned else load_reward(name, device=device).requires_grad_(False)

    reward = open_reward(inputs.reward, policy, known, options, network)
    value = ValueScorer(value_network, adapter="value" if shared else None)
    probe(value, policy.encoder.max_length)
    value.compute_like(policy.scorer)
    if not learned:
        torch.nn.init.zeros_(value.output.weight)  # nothing is known of the reward's scale
    return Models(policy.scorer, reference, value, reward)


def run(inputs: Inputs, options: PPOOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(
    ready: Ready, inputs: Inputs, options: PPOOptions, out: Path, *, more: dict[str, Stateful] | None = None,
    after: Callable[[int], None] = lambda _: None,
) -> Artifact:  # fmt: skip
    """The outer loop: one step of the run is one batch of responses and the updates on it.

    ``more`` states go into the checkpoint; ``after`` is called with the step's number, once it is done.
    """
    policy, models, ids, ptx, facts = ready.policy, ready.models, ready.prompts, ready.ptx, dict(ready.facts)
    iterations = max(options.episodes // options.batch, 1)
    updates = options.epochs * options.minibatches
    order = Order(len(ids), options.batch // options.samples, options.seed)
    pretraining = (
        Order(len(ptx), options.ptx_batch or options.batch // options.minibatches, options.seed + 1) if ptx else None
    )
    control = KLControl(options.beta)
    actor = Optimiser([models.policy], options, iterations * updates)
    critic = Optimiser(
        [models.value], options, iterations * updates, scale=(options.value_lr or options.lr) / options.lr
    )
    states: dict[str, Stateful] = {"policy": actor, "value": critic, "control": control, **(more or {})}
    watch = None
    if ready.judge is not None:
        watch = Watch(ready.judge, policy, models.reference, models.reward, ready.held_out, options)
        states["watch"] = watch
    run = Run(out, options, states, label=options.stage.upper(), records=[ROLLOUTS])
    run.choose_precision(models.policy, beginnings(ids))
    sampler = NativeSampler(models.policy, policy.stop)

    for step in run.steps(iterations):
        chosen = order.endless(step)
        with run.guard():
            judged = watch.look(step) if watch else {}
            if judged and options.stop_when == "fooled" and watch and watch.fooled:
                run.log(**judged)
                break
            rollout = collect(policy, models, sampler, [ids[i] for i in chosen], step, control.beta, run, options)
            stats: list[dict[str, float]] = []
            for update, batch in enumerate(minibatches(len(rollout.groups), step, options)):
                extra = [ptx[i] for i in pretraining.endless(step * updates + update)] if pretraining else []
                run.batch = [rollout.groups[i] for i in batch]
                stats.append(learn(models, actor, critic, rollout, batch, extra, step * updates + update, run, options))
        run.log(**summary(rollout, stats, control.beta), **judged)
        if options.save_rollouts:
            contents = [ready.contents[i] for i in chosen]
            run.record(ROLLOUTS, described(policy, rollout.samples, contents, rollout.scores, rollout.kls()))
        control.adapt(rollout, options)
        after(step)

    last = next(row for row in reversed(run.history) if "score" in row)
    metrics = {key: last[key] for key in ("score", "kl", "beta", "entropy", "length", "eos_share")} | {
        "steps": run.step
    }
    if watch:
        with run.guard():
            if run.step == iterations and (judged := watch.look(iterations, last=True)):
                run.log(**judged)
        metrics |= watch.restore()
        if watch.heard:
            facts["watched"] = sorted(watch.heard)
    switch_adapter(policy.scorer.model, "policy")
    save(policy.scorer.model, policy.tokenizer, out)
    artifact = finish(
        out, options.stage, inputs=inputs, options=options, data=facts, metrics=metrics, seconds=run.seconds
    )
    run.discard_checkpoint()
    return artifact


def collect(
    policy: TextPolicy, models: Models, sampler: NativeSampler, chosen: Sequence[list[int]], step: int, beta: float,
    run: Run, options: CriticOptions,
) -> Rollout:  # fmt: skip
    """Sample, score, and compute what stays fixed during the updates."""
    found = roll_out(policy, models.reference, models.reward, sampler, chosen, step, run, options)
    values = gather(models.value, found.groups, options.tokens, models.policy)
    rewards = token_rewards(found.scores, found.old_logprobs, found.ref_logprobs, found.mask, beta)
    if options.whiten_rewards:
        rewards = whiten(rewards, found.mask, keep_mean=True)
    advantages, returns = gae(rewards, values, found.mask, options.gamma, options.lam)
    if options.whiten_advantages:
        advantages = whiten(advantages, found.mask)
    return Rollout(**vars(found), values=values, rewards=rewards, advantages=advantages, returns=returns)


def learn(
    models: Models, actor: Optimiser, critic: Optimiser, rollout: Rollout, batch: Sequence[int], ptx: Sequence[Group],
    update: int, run: Run, options: PPOOptions,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step of policy and value model on the minibatch ``batch`` (indices of prompts)."""
    groups = [rollout.groups[i] for i in batch]
    whole = torch.tensor(rows_of(rollout.groups, batch), device=rollout.mask.device)
    tokens = rollout.mask[whole].sum().item()
    sums = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction"), 0.0)
    farthest = 0.0
    for part in microbatches(groups, options.tokens, models.policy):
        layout = lay_out([groups[i] for i in part], models.policy.device)
        rows = torch.tensor(rows_of(rollout.groups, [batch[i] for i in part]), device=whole.device)
        mask, width = layout.mask, layout.mask.shape[1]
        logprobs = models.policy(layout, temperature=options.temperature).logprobs
        policy = ppo_clip(logprobs, rollout.old_logprobs[rows, :width], rollout.advantages[rows, :width], options.clip)
        policy_loss = masked_sum(policy.loss, mask) / tokens
        run.backward(policy_loss)  # before the value model's turn: one network's activations at a time
        values = models.value(layout)
        value = value_clip(
            values, rollout.values[rows, :width], rollout.returns[rows, :width], options.value_clip or None
        )
        value_loss = masked_sum(value.loss, mask) / tokens
        run.backward(options.vf_coef * value_loss)
        sums["policy_loss"] += policy_loss.item()
        sums["value_loss"] += value_loss.item()
        sums["approx_kl"] += masked_sum(policy.approx_kl, mask).item() / tokens
        sums["clip_fraction"] += masked_sum(policy.clipped.float(), mask).item() / tokens
        sums["value_clip_fraction"] += masked_sum(value.clipped.float(), mask).item() / tokens
        farthest = max(farthest, ((policy.ratio - 1).abs() * mask).max().item())
    if ptx:
        sums["ptx_loss"] = 0.0
        count = sum(len(r) for g in ptx for r in g.responses)
        for part in microbatches(ptx, options.tokens, models.policy):
            layout = lay_out([ptx[i] for i in part], models.policy.device)
            share = nll(models.policy(layout).logprobs, layout.trained).sum() / count
            run.backward(options.ptx_coef * share)
            sums["ptx_loss"] += share.item()
    norms = actor.clip(), critic.clip()  # both are looked at before either changes a weight
    steps = actor.update(update, norms[0])
    critic.update(update, norms[1])
    return {**sums, **steps, "value_grad_norm": norms[1], "ratio_gap": farthest}


def summary(rollout: Rollout, stats: Sequence[dict[str, float]], beta: float) -> dict[str, float]:
    """The figures of an iteration; means are over real tokens or responses, never over padding."""
    mask, count = rollout.mask, len(rollout.samples)
    mean = {key: sum(s[key] for s in stats) / len(stats) for key in stats[0] if key != "ratio_gap"}
    return {
        **sampling_figures(rollout),
        "reward": masked_sum(rollout.rewards, mask).item() / count,
        "kl_k3": masked_sum(k3(rollout.old_logprobs, rollout.ref_logprobs), mask).item() / count,
        "beta": beta,
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask).item(),
        "first_ratio_gap": stats[0]["ratio_gap"],
        **mean,
    }


def estimate(dry: Dry, inputs: Inputs, options: PPOOptions) -> dict[str, Any]:
    """For a dry run."""
    return estimate_with_critic(dry, load(inputs, options), options)


def estimate_with_critic(dry: Dry, ready: Ready, options: Any) -> dict[str, Any]:
    """For a dry run of a method that trains a value model, too."""
    models = ready.models
    trained: dict[str, Any] = {"policy": models.policy, "value": models.value}
    found = sampled(dry, ready, trained, {"reference": models.reference}, models.reward, options, ready.ptx)
    if ready.judge is not None:
        looks = -(-max(options.episodes // options.batch, 1) // options.judge_every) + 1
        found["judge_comparisons"] = looks * len(ready.held_out.ids)
    return found
