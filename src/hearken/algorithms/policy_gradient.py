"""Policy gradients without a critic.

RLOO (Ahmadian et al. 2024), GRPO (Shao et al. 2024), Dr. GRPO (Liu et al. 2025), REINFORCE++ (Hu 2025).

repeat:
    sample n responses to each prompt and score them
    advantages: how much better a response is than the others of its prompt (REINFORCE++: of the batch)
    for some passes over minibatches:
        clipped policy loss on every token (+ β x KL per token, where the KL is not in the reward)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hearken.algorithms.estimate import sampling
from hearken.algorithms.policy_gradient_options import PolicyGradientOptions
from hearken.algorithms.rollouts import Seen, TokenRollout, roll_out
from hearken.algorithms.sampled import Setup, set_up
from hearken.algorithms.stage import Inputs
from hearken.objectives import group
from hearken.objectives.kl import k2, k3, sequence_kl
from hearken.objectives.policy import ppo_clip, token_rewards
from hearken.objectives.reduce import masked_sum, whiten
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run, mean

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact

TRUSTED = {"fp32": 1e-4, "bf16": 0.05}
"""Mean gap between a token's log-probability by the sampler and by training, in nats, that rounding alone explains."""


def load(inputs: Inputs, options: PolicyGradientOptions) -> Setup:
    """Open policy, reference and reward, and encode the prompts."""
    options.check()
    return set_up(inputs, options)


def run(inputs: Inputs, options: PolicyGradientOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(setup: Setup, inputs: Inputs, options: PolicyGradientOptions, out: Path) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the updates on it."""
    scorer, seen = setup.scorer, Seen()
    optimiser = Optimiser([scorer], options, options.iterations * options.updates)
    grouped = options.estimator != "reinforce++"

    with Run(inputs, options, out, {"policy": optimiser, "seen": seen}) as run:
        run.choose_precision(scorer)
        exact = run.precision == "fp32" or options.updates == 1  # in bf16 the ratio must not hang on the rounding
        whole = exact and options.top_p == 1 and not options.top_k and scorer.regime is None
        for step in run.steps(options.iterations):
            # The sampler finds what training would compute again, if the first step's gap says so.
            alike = whole and step > 0 and seen.gap < TRUSTED[run.precision]
            rollout = roll_out(setup, step, run, options, grouped=grouped, trust_sampler=alike)
            telling = advantage(rollout, options)
            stats = []
            for update, batch in enumerate(rollout.take(telling).minibatches(step, options), step * options.updates):
                stats.append(learn(setup, optimiser, batch, update, run, options))
            seen.note(step, rollout, learnt=bool(telling))
            skipped = len(rollout.groups) - len(telling)
            run.log(**rollout.figures(), equal_groups=skipped / len(rollout.groups), **mean(stats))
            rollout.record(run, setup)

        seen.tell(run)
        metrics = run.last("score", "kl", "entropy", "length", "eos_share", "equal_groups") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def advantage(rollout: TokenRollout, options: PolicyGradientOptions) -> list[int]:
    """Give the rollout its advantages; the prompts that can teach something: their responses differ in reward."""
    mask, scores = rollout.mask, rollout.scores
    beta = options.beta if options.place_of_kl == "reward" else 0.0
    if options.estimator == "reinforce++":
        rewards = token_rewards(scores, rollout.old_logprobs, rollout.ref_logprobs, mask, beta)
        rollout.advantages = whiten(group.reward_to_go(rewards, mask), mask, total=distributed.total)
        return list(range(len(rollout.groups)))
    if beta:
        scores = scores - beta * sequence_kl(rollout.old_logprobs, rollout.ref_logprobs, mask)
    table = scores.view(len(rollout.groups), options.num_generations)
    estimator = {"rloo": group.rloo, "grpo": group.grpo, "dr_grpo": group.dr_grpo}[options.estimator]
    rollout.advantages = estimator(table).view(-1, 1) * mask
    return group.informative(table).nonzero()[:, 0].tolist()


def learn(
    setup: Setup, optimiser: Optimiser, batch: TokenRollout, update: int, run: Run, options: PolicyGradientOptions
) -> dict[str, float]:
    """One optimiser step on a minibatch."""
    scale, kl, tokens = options.divisor, options.place_of_kl, batch.tokens
    responses = distributed.total(len(batch.samples))
    count = {"responses": responses, "tokens": tokens, "longest": options.max_new_tokens}
    sums = dict.fromkeys(("policy_loss", "kl_loss", "approx_kl", "clip_fraction"), 0.0)
    for layout, part in batch.microbatches(run, setup.scorer):
        logprobs = setup.scorer(layout, temperature=options.temperature).logprobs
        # The first update on a batch is by the policy that sampled it.
        old = logprobs.detach() if options.updates == 1 else part.old_logprobs
        found = ppo_clip(logprobs, old, part.advantages, options.clip)
        loss = group.aggregate(found.loss, part.mask, scale, **count)
        sums["policy_loss"] += loss.item()
        if kl != "reward" and options.beta:
            distance = (k3 if kl == "k3" else k2)(logprobs, part.ref_logprobs)
            penalty = options.beta * group.aggregate(distance, part.mask, scale, **count)
            sums["kl_loss"] += penalty.item()
            loss = loss + penalty
        run.backward(loss)
        sums["approx_kl"] += masked_sum(found.approx_kl, part.mask).item() / tokens
        sums["clip_fraction"] += masked_sum(found.clipped.float(), part.mask).item() / tokens
    return {**distributed.totals(sums), **optimiser.step(update)}


estimate = sampling(load, again=False)
