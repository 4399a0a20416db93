"""Online DPO (Guo et al. 2024): DPO on pairs or rankings of the policy's own fresh responses.

repeat:
    sample n responses to each prompt, score them with the reward; the scores rank them
    for some passes over minibatches:
        DPO's loss (or one of its relatives) on the rankings
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.estimate import sampling
from hearken.algorithms.online_dpo_options import OnlineDPOConfig
from hearken.algorithms.pair_losses import Figures, losses
from hearken.algorithms.rollouts import Rollout, Seen, draw
from hearken.algorithms.sampled import Setup, set_up
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged
from hearken.objectives.group import informative
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.reference import logprob_sums
from hearken.training.run import Run, Stateful, mean

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


@dataclass
class Referred(Rollout):
    """Responses with log π of each, under the reference and under the policy that gave it: (R,)."""

    reference: Tensor
    policy: Tensor

    def kls(self) -> Tensor:
        """(R,) KL to the reference in nats, of each sample."""
        return self.policy - self.reference


def load(inputs: Inputs, options: OnlineDPOConfig) -> Setup:
    """Open policy, reference and reward, and encode the prompts."""
    return set_up(inputs, options)


def run(inputs: Inputs, options: OnlineDPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward``; write the policy to ``out``."""
    return improve(load(inputs, options), inputs, options, out)


def improve(setup: Setup, inputs: Inputs, options: OnlineDPOConfig, out: Path) -> Artifact:
    """The outer loop: one step of the run is one batch of responses and the updates on it."""
    scorer, seen = setup.scorer, Seen()
    optimiser = Optimiser([scorer], options, options.iterations * options.updates)
    states: dict[str, Stateful] = {"policy": optimiser, "seen": seen}

    with Run(inputs, options, out, states, label="Online DPO") as run:
        run.choose_precision(scorer)
        for step in run.steps(options.iterations):
            drawn = draw(setup, step, run, options, grouped=True)
            reference, policy = (logprob_sums(one, drawn.groups, options.tokens) for one in (setup.reference, scorer))
            rollout = Referred(**vars(drawn), reference=reference, policy=policy)
            telling = informative(rollout.scores.view(-1, options.num_generations)).nonzero()[:, 0].tolist()
            stats = []
            for update, batch in enumerate(rollout.take(telling).minibatches(step, options), step * options.updates):
                stats.append(learn(setup, batch, run, options) | optimiser.step(update))
            seen.note(step, rollout, learnt=bool(telling))
            run.log(
                **rollout.figures(), kl=distributed.mean(rollout.kls()).item(),
                equal_groups=1 - len(telling) / len(rollout.groups), **mean(stats),
            )  # fmt: skip
            rollout.record(run, setup)

        seen.tell(run)
        metrics = run.last("score", "kl", "equal_groups", "eos_share") | {"steps": run.step}
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def learn(setup: Setup, batch: Referred, run: Run, options: OnlineDPOConfig) -> dict[str, float]:
    """The gradient on a minibatch; its figures."""
    figures, prompts = Figures(), distributed.total(len(batch.groups))
    for chosen in run.microbatches(batch.groups, setup.scorer):
        part = batch.take(chosen)
        table = part.scores.view(len(chosen), options.num_generations)
        judged = [Judged(g, "comparison", ranks(row)) for g, row in zip(part.groups, table, strict=True)]
        found = losses(setup.scorer, judged, part.reference, options)
        run.backward(found.loss.sum() / prompts)
        figures.add(found, judged, prompts)
    return figures.means()


def ranks(scores: Tensor) -> tuple[int, ...]:
    """Dense ranks of (n,) scores: 0 is the highest, equal scores are ties."""
    return tuple(torch.unique(-scores, return_inverse=True)[1].tolist())


estimate = sampling(load)
