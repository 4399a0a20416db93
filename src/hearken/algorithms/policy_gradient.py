"""Policy gradients without a critic.

RLOO (Ahmadian et al. 2024), GRPO (Shao et al. 2024), Dr. GRPO (Liu et al. 2025), REINFORCE++ (Hu 2025).

repeat:
    sample n responses to each prompt and score them
    advantages: how much better a response is than the others of its prompt (REINFORCE++: of the batch)
    for some passes over minibatches:
        clipped policy loss on every token (+ β x KL per token, where the KL is not in the reward)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.estimate import sampled
from hearken.algorithms.policy_gradient_options import PolicyGradientOptions
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.rollouts import (
    ROLLOUTS,
    Batch,
    described,
    minibatches,
    open_prompts,
    roll_out,
    sampling_figures,
    set_up,
)
from hearken.algorithms.stage import Inputs
from hearken.domains.text.loading import TextPolicy, open_reference
from hearken.domains.text.rewarding import open_reward, prompt_facts
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.models.layout import lay_out
from hearken.models.loading import save, switch_adapter
from hearken.models.scorers import TokenScorer
from hearken.objectives import group
from hearken.objectives.kl import k2, k3, sequence_kl
from hearken.objectives.policy import ppo_clip, token_rewards
from hearken.objectives.reduce import masked_sum, whiten
from hearken.rewards.learned import Reward
from hearken.training.artifact import Artifact, finish
from hearken.training.batching import microbatches
from hearken.training.estimate import Dry
from hearken.training.forward import rows_of
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

DEFAULTS: dict[str, tuple[group.Scale, str]] = {
    "rloo": ("response", "reward"), "grpo": ("sequence", "k3"), "dr_grpo": ("constant", "k3"),
    "reinforce++": ("token", "reward"),
}  # fmt: skip
"""By estimator: what the loss divides by, and where the KL acts."""


TRUSTED = 1e-4
"""Mean gap between a token's log-probability by the sampler and by training, in nats, up to which they are the same."""


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    reference: TokenScorer
    reward: Reward
    contents: list[Content]
    prompts: list[list[int]]
    facts: dict[str, Any]


def settle(options: PolicyGradientOptions) -> tuple[group.Scale, str]:
    """The scale and the place of the KL, with ``auto`` made plain.

    Raises:
        UserError: a group estimator with one response to a prompt.
    """
    if options.samples < 2 and options.estimator != "reinforce++":
        raise UserError(
            f"{options.estimator} with samples=1: every advantage would be 0",
            "Set samples to 2 or more, or train: hearken train reinforce",
        )
    scale, kl = DEFAULTS[options.estimator]
    return scale if options.scale == "auto" else options.scale, kl if options.kl == "auto" else options.kl


def load(inputs: Inputs, options: RolloutOptions, *, with_reference: bool = True) -> Ready:
    """Open policy, reference and reward, and encode the prompts."""
    if isinstance(options, PolicyGradientOptions):
        settle(options)
    opened = open_prompts(inputs, options)
    policy, contents, ids = opened.policy, opened.contents, opened.ids
    assert inputs.reward is not None  # `check_inputs`
    reward = open_reward(inputs.reward, policy, prompt_facts(opened.rows.train, contents, ids), options)
    reference = open_reference(inputs.model, inputs.ref, policy) if with_reference else policy.scorer
    return Ready(policy, reference, reward, contents, ids, opened.facts())


def run(inputs: Inputs, options: PolicyGradientOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    ready = load(inputs, options)
    policy, ids = ready.policy, ready.prompts
    loop = set_up(policy, ids, options, out, label=options.stage.upper())
    run = loop.run
    whole = run.precision == "fp32" and options.top_p == 1 and not options.top_k and policy.scorer.regime is None

    for step in run.steps(loop.iterations):
        chosen = loop.order.endless(step)
        # In single precision the sampler finds what training would compute again, if the first step's gap says so.
        alike = whole and step > 0 and run.history[0].get("sampler_gap", math.inf) < TRUSTED
        with run.guard():
            batch = roll_out(
                policy, ready.reference, ready.reward, loop.sampler, [ids[i] for i in chosen], step, run, options,
                trust_sampler=alike,
            )  # fmt: skip
            advantages, telling = advantage(batch, options)
            stats: list[dict[str, float]] = []
            for update, part in enumerate(minibatches(len(telling), step, options) if telling else []):
                some, number = [telling[i] for i in part], step * loop.updates + update
                run.batch = [batch.groups[i] for i in some]
                stats.append(learn(policy.scorer, loop.optimiser, batch, advantages, some, number, run, options))
        skipped = len(batch.groups) - len(telling)
        run.log(**sampling_figures(batch), equal_groups=skipped / len(batch.groups), **mean(stats))
        if options.save_rollouts:
            contents = [ready.contents[i] for i in chosen]
            run.record(ROLLOUTS, described(policy, batch.samples, contents, batch.scores, batch.kls()))

    if all(row["equal_groups"] == 1 for row in run.history):
        run.notice("no step changed the policy: the responses to each prompt always scored alike")
    last = run.history[-1]
    metrics = {key: last[key] for key in ("score", "kl", "entropy", "length", "eos_share", "equal_groups")}
    metrics["steps"] = loop.iterations
    switch_adapter(policy.scorer.model, "policy")
    save(policy.scorer.model, policy.tokenizer, out)
    artifact = finish(
        out, options.stage, inputs=inputs, options=options, data=ready.facts, metrics=metrics, seconds=run.seconds
    )
    run.discard_checkpoint()
    return artifact


def advantage(batch: Batch, options: PolicyGradientOptions) -> tuple[Tensor, list[int]]:
    """(R, T) advantages, and the prompts that can teach something: those whose responses differ in reward."""
    _, kl = settle(options)
    mask = batch.mask
    beta = options.beta if kl == "reward" else 0.0
    if options.estimator == "reinforce++":
        rewards = token_rewards(batch.scores, batch.old_logprobs, batch.ref_logprobs, mask, beta)
        return whiten(group.reward_to_go(rewards, mask), mask), list(range(len(batch.groups)))
    scores = batch.scores
    if beta:
        scores = scores - beta * sequence_kl(batch.old_logprobs, batch.ref_logprobs, mask)
    table = scores.view(len(batch.groups), options.samples)
    estimate = {"rloo": group.rloo, "grpo": group.grpo, "dr_grpo": group.dr_grpo}[options.estimator]
    telling = group.informative(table).nonzero()[:, 0].tolist()
    return estimate(table).view(-1, 1) * mask, telling


def learn(
    scorer: TokenScorer, optimiser: Optimiser, batch: Batch, advantages: Tensor, chosen: Sequence[int], update: int,
    run: Run, options: PolicyGradientOptions,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step on the responses to the prompts ``chosen``."""
    scale, kl = settle(options)
    groups = [batch.groups[i] for i in chosen]
    every = torch.tensor(rows_of(batch.groups, chosen), device=scorer.device)
    count = {"responses": len(every), "tokens": int(batch.mask[every].sum()), "longest": options.max_new_tokens}
    sums = dict.fromkeys(("policy_loss", "kl_loss", "approx_kl", "clip_fraction"), 0.0)
    for part in microbatches(groups, options.tokens, scorer):
        layout = lay_out([groups[i] for i in part], scorer.device)
        rows = torch.tensor(rows_of(batch.groups, [chosen[i] for i in part]), device=scorer.device)
        mask, width = layout.mask, layout.mask.shape[1]
        logprobs = scorer(layout, temperature=options.temperature).logprobs
        found = ppo_clip(logprobs, batch.old_logprobs[rows, :width], advantages[rows, :width], options.clip)
        loss = group.aggregate(found.loss, mask, scale, **count)
        sums["policy_loss"] += loss.item()
        if kl != "reward" and options.beta:
            distance = (k3 if kl == "k3" else k2)(logprobs, batch.ref_logprobs[rows, :width])
            penalty = options.beta * group.aggregate(distance, mask, scale, **count)
            sums["kl_loss"] += penalty.item()
            loss = loss + penalty
        run.backward(loss)
        sums["approx_kl"] += masked_sum(found.approx_kl, mask).item() / count["tokens"]
        sums["clip_fraction"] += masked_sum(found.clipped.float(), mask).item() / count["tokens"]
    return {**sums, **optimiser.step(update)}


def mean(stats: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the updates on a batch; empty where there was none."""
    return {key: sum(s[key] for s in stats) / len(stats) for key in stats[0]} if stats else {}


def estimate(dry: Dry, inputs: Inputs, options: RolloutOptions) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    trained, frozen = {"policy": ready.policy.scorer}, {"reference": ready.reference}
    return sampled(dry, ready, trained, frozen, ready.reward, options, [], again=False)
