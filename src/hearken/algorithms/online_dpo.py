"""Online DPO (Guo et al. 2024): DPO on pairs or rankings of the policy's own fresh responses.

repeat:
    sample n responses to each prompt, score them with the reward; the scores rank them
    for some passes over minibatches:
        DPO's loss (or one of its relatives) on the rankings
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.dpo import Figures, losses
from hearken.algorithms.estimate import sampled
from hearken.algorithms.online_dpo_options import OnlineDPOOptions
from hearken.algorithms.policy_gradient import load, mean
from hearken.algorithms.rollouts import ROLLOUTS, described, draw, minibatches, rate, set_up, tell, without_signal
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged
from hearken.models.loading import save, switch_adapter
from hearken.objectives.group import informative
from hearken.training.artifact import Artifact, finish
from hearken.training.batching import microbatches
from hearken.training.estimate import Dry
from hearken.training.forward import rows_of
from hearken.training.reference import logprob_sums


def run(inputs: Inputs, options: OnlineDPOOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    ready = load(inputs, options)
    policy, ids, scorer = ready.policy, ready.prompts, ready.policy.scorer
    loop = set_up(policy, ids, options, out, label="Online DPO")
    run = loop.run

    for step in run.steps(loop.iterations):
        with run.guard():
            chosen = loop.order.endless(step)
            groups, samples = draw(policy, loop.sampler, [ids[i] for i in chosen], step, run, options)
            run.batch = groups
            scores = rate(ready.reward, groups, samples, options)
            tell(run, step, without_signal(samples, scores, options, grouped=True))
            table = scores.view(len(groups), options.samples)
            telling = informative(table).nonzero()[:, 0].tolist()
            reference = logprob_sums(ready.reference, groups, options.tokens)
            kls = logprob_sums(scorer, groups, options.tokens) - reference
            ranked = [Judged(g, "comparison", ranks(row)) for g, row in zip(groups, table, strict=True)]
            stats: list[dict[str, float]] = []
            for update, part in enumerate(minibatches(len(telling), step, options) if telling else []):
                batch = [telling[i] for i in part]
                run.batch = [groups[i] for i in batch]
                figures = Figures()
                for some in microbatches(run.batch, options.tokens, scorer):
                    rows = torch.tensor(rows_of(groups, [batch[i] for i in some]), device=scorer.device)
                    judged = [ranked[batch[i]] for i in some]
                    found = losses(scorer, judged, reference[rows], options)
                    run.backward(found.loss.sum() / len(batch))
                    figures.add(found, judged, len(batch))
                stats.append(figures.means() | loop.optimiser.step(step * loop.updates + update))
        run.log(
            score=scores.mean().item(), kl=kls.mean().item(), equal_groups=1 - len(telling) / len(groups),
            eos_share=sum(s.finish_reason == "stop" for s in samples) / len(samples), **mean(stats),
        )  # fmt: skip
        if options.save_rollouts:
            run.record(ROLLOUTS, described(policy, samples, [ready.contents[i] for i in chosen], scores, kls))

    if all(row["equal_groups"] == 1 for row in run.history):
        run.notice("no step changed the policy: the responses to each prompt always scored alike")
    last = run.history[-1]
    metrics = {key: last[key] for key in ("score", "kl", "equal_groups", "eos_share")} | {"steps": loop.iterations}
    switch_adapter(scorer.model, "policy")
    save(scorer.model, policy.tokenizer, out)
    artifact = finish(
        out, "online_dpo", inputs=inputs, options=options, data=ready.facts, metrics=metrics, seconds=run.seconds
    )
    run.discard_checkpoint()
    return artifact


def ranks(scores: Tensor) -> tuple[int, ...]:
    """Dense ranks of (n,) scores: 0 is the highest, equal scores are ties."""
    return tuple(torch.unique(-scores, return_inverse=True)[1].tolist())


def estimate(dry: Dry, inputs: Inputs, options: OnlineDPOOptions) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    trained, frozen = {"policy": ready.policy.scorer}, {"reference": ready.reference}
    return sampled(dry, ready, trained, frozen, ready.reward, options, [])
