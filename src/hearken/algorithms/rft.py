"""Rejection-sampling fine-tuning: best-of-n distilled, expert iteration (Anthony et al. 2017), RFT (Yuan et al. 2023).

repeat:
    sample n responses to each prompt and score them
    keep the best of each prompt, or those above a rising percentile of its scores
    for some passes over minibatches:
        negative log-likelihood of what was kept, as in SFT
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.estimate import sampled
from hearken.algorithms.policy_gradient import load, mean
from hearken.algorithms.rft_options import RFTOptions
from hearken.algorithms.rollouts import ROLLOUTS, described, draw, minibatches, rate, set_up, tell, without_signal
from hearken.algorithms.sft import summed_nll, trained_tokens
from hearken.algorithms.stage import Inputs
from hearken.models.layout import Group
from hearken.models.loading import save, switch_adapter
from hearken.training.artifact import Artifact, finish
from hearken.training.batching import microbatches
from hearken.training.estimate import Dry


def run(inputs: Inputs, options: RFTOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    ready = load(inputs, options, with_reference=False)
    policy, ids, scorer = ready.policy, ready.prompts, ready.policy.scorer
    loop = set_up(policy, ids, options, out, label="RFT")
    run = loop.run

    for step in run.steps(loop.iterations):
        with run.guard():
            chosen = loop.order.endless(step)
            groups, samples = draw(policy, loop.sampler, [ids[i] for i in chosen], step, run, options)
            run.batch = groups
            scores = rate(ready.reward, groups, samples, options)
            tell(run, step, without_signal(samples, scores, options, grouped=True))
            table = scores.view(len(groups), options.samples)
            kept = select(groups, table, percentile(step, loop.iterations, options))
            stats: list[dict[str, float]] = []
            for update, part in enumerate(minibatches(len(kept), step, options) if kept else []):
                run.batch = batch = [kept[i] for i in part]
                tokens = sum(trained_tokens(g) for g in batch)
                loss = 0.0
                for some in microbatches(batch, options.tokens, scorer):
                    share = summed_nll(scorer, [batch[i] for i in some]) / tokens
                    run.backward(share)
                    loss += share.item()
                stats.append({"loss": loss} | loop.optimiser.step(step * loop.updates + update))
        run.log(
            score=scores.mean().item(), best=table.max(-1).values.mean().item(),
            kept=sum(len(g.responses) for g in kept) / len(samples), equal_groups=1 - len(kept) / len(groups),
            eos_share=sum(s.finish_reason == "stop" for s in samples) / len(samples), **mean(stats),
        )  # fmt: skip
        if options.save_rollouts:
            run.record(ROLLOUTS, described(policy, samples, [ready.contents[i] for i in chosen], scores, None))

    if all(row["equal_groups"] == 1 for row in run.history):
        run.notice("no step changed the policy: the responses to each prompt always scored alike")
    last = run.history[-1]
    metrics = {key: last[key] for key in ("score", "best", "kept", "equal_groups")} | {"steps": loop.iterations}
    switch_adapter(scorer.model, "policy")
    save(scorer.model, policy.tokenizer, out)
    artifact = finish(
        out, "rft", inputs=inputs, options=options, data=ready.facts, metrics=metrics, seconds=run.seconds
    )
    run.discard_checkpoint()
    return artifact


def percentile(step: int, iterations: int, options: RFTOptions) -> float:
    """The share of each prompt's responses that is left out, at least; 1 keeps the best alone."""
    if options.select == "best":
        return 1.0
    done = step / max(iterations - 1, 1)
    return options.percentile + done * (options.last_percentile - options.percentile)


def select(groups: Sequence[Group], scores: Tensor, share: float) -> list[Group]:
    """The responses at or above the percentile ``share`` of their prompt's scores, equal texts once.

    Prompts whose responses all score the same are left out: they do not say what to imitate.
    """
    found = []
    limits = torch.quantile(scores.float(), share, dim=-1)
    for g, row, limit in zip(groups, scores.tolist(), limits.tolist(), strict=True):
        if min(row) == max(row):
            continue
        good = [tuple(r) for r, s in zip(g.responses, row, strict=True) if s >= limit - 1e-6]
        found.append(Group(g.prompt, [list(r) for r in dict.fromkeys(good)]))
    return found


def estimate(dry: Dry, inputs: Inputs, options: RFTOptions) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options, with_reference=False)
    return sampled(dry, ready, {"policy": ready.policy.scorer}, {}, ready.reward, options, [], again=False)
