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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.estimate import sampling
from hearken.algorithms.rft_options import RFTConfig
from hearken.algorithms.rollouts import Seen, draw, minibatches
from hearken.algorithms.sampled import Setup, set_up
from hearken.algorithms.sft import learn
from hearken.algorithms.stage import Inputs
from hearken.models.layout import Group
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run, mean

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


def load(inputs: Inputs, options: RFTConfig) -> Setup:
    """Open policy and reward, and encode the prompts."""
    return set_up(inputs, options, with_reference=False)


def run(inputs: Inputs, options: RFTConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(setup: Setup, inputs: Inputs, options: RFTConfig, out: Path) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the updates on the best of it."""
    scorer, seen = setup.scorer, Seen()
    optimiser = Optimiser([scorer], options, options.iterations * options.updates)

    with Run(inputs, options, out, {"policy": optimiser, "seen": seen}) as run:
        run.choose_precision(scorer)
        for step in run.steps(options.iterations):
            rollout = draw(setup, step, run, options, grouped=True)
            table = rollout.scores.view(-1, options.num_generations)
            kept = select(rollout.groups, table, percentile(step, options.iterations, options))
            stats = []
            for update, part in enumerate(minibatches(len(kept), step, options), step * options.updates):
                stats.append(learn(scorer, [kept[i] for i in part], run) | optimiser.step(update))
            seen.note(step, rollout, learnt=bool(kept))
            best = distributed.mean(table.max(-1).values).item()
            share = sum(len(g.responses) for g in kept) / len(rollout.samples)
            run.log(
                **rollout.figures(), best=best, kept=share, equal_groups=1 - len(kept) / len(rollout.groups),
                **mean(stats),
            )  # fmt: skip
            rollout.record(run, setup)

        seen.tell(run)
        metrics = run.last("score", "best", "kept", "equal_groups") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def percentile(step: int, iterations: int, options: RFTConfig) -> float:
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


estimate = sampling(load, again=False)
