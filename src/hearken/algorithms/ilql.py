"""ILQL: implicit language Q-learning, offline (Snell et al. 2022; trlX).

data: responses with scores (ratings, thumbs, rankings); the score comes with the last token
repeat, over minibatches:
    Q(s_t, y_t) towards r_t + γ V(s_{t+1}), for two Q heads
    V(s_t) towards an upper expectile of the smaller of the lagging Q(s_t, y_t)
    + cql x cross-entropy of softmax(Q) with the data + awac x negative log-likelihood of the data
    (each a mean over tokens, weighted by their judgments)
    lagging heads follow
decoding draws from softmax(log π + β(Q - V))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.estimate import likelihood
from hearken.algorithms.ilql_options import ILQLConfig
from hearken.algorithms.recorded import Encoded, Setup, set_up, weighted_tokens
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, judgments
from hearken.errors import UserError
from hearken.models.guided import GuidedScorer
from hearken.models.layout import Group, Layout, lay_out
from hearken.objectives.offline import Estimates, ILQLLoss, bellman_targets, ilql, terminal_rewards
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact

Scored = tuple[Group, float]
"""A response with its score."""


@dataclass
class ILQLSetup(Setup[Scored]):
    """With the network that has the heads; its policy is the other's."""

    guided: GuidedScorer


def load(inputs: Inputs, options: ILQLConfig) -> ILQLSetup:
    """Open the policy, give it heads, and encode the responses with their scores.

    Raises:
        UserError: every response has the same score; an architecture whose logits come from its own forward pass alone.
    """
    setup = set_up(
        inputs, options, lambda rows, encoder: scored(judgments(rows, encoder)), counted="responses"
    )  # fmt: skip
    if len({score for _, score in setup.data}) == 1:
        raise UserError(f"{', '.join(inputs.data)}: every response has the same score", "ILQL learns from differences")
    policy = setup.scorer
    policy.need_hidden_states("ILQL cannot guide a", "Use dpo, or reward and then rloo")
    torch.manual_seed(options.seed)
    scorer = GuidedScorer(policy.model, options.beta, policy.adapter)
    scorer.use(policy.path)
    return ILQLSetup(**vars(setup), guided=scorer)


def scored(found: Sequence[Judged]) -> Encoded[Scored]:
    """Responses with scores on -1..1: a rating as it is, a thumb 1 or -1, a ranking from 1 (best) to -1 (worst).

    Each group has its judgment's weight; those without any are left out.
    """
    made = []
    for judged in found:
        if judged.weight <= 0:
            continue
        if judged.kind == "comparison":
            worst = max(judged.ranks)
            for response, rank in zip(judged.group.responses, judged.ranks, strict=True):
                if rank >= 0:
                    one = Group(judged.group.prompt, [response], weight=judged.weight)
                    made.append((one, 1 - 2 * rank / worst if worst else 0.0))
        elif judged.target is not None:
            score = judged.target if judged.kind == "rating" else 2 * judged.target - 1
            made.append((replace(judged.group, weight=judged.weight), score))
    return Encoded(made, [group for group, _ in made])


def run(inputs: Inputs, options: ILQLConfig, out: Path) -> Artifact:
    """Fit policy and heads to ``inputs.data``, starting from ``inputs.model``, and write them to ``out``."""
    setup = load(inputs, options)
    scorer, data, order = setup.guided, setup.data, setup.order(options)
    total = order.steps(options.epochs)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser, "target": Target(scorer)}) as run:
        run.choose_precision(scorer)
        for step in run.steps(total):
            batch = [data[i] for i in order.rows(step)]
            groups = [group for group, _ in batch]
            tokens = weighted_tokens(groups)
            sums = dict.fromkeys(ILQLLoss._fields, 0.0)
            for part in run.microbatches(groups, scorer):
                found = losses(scorer, [batch[i] for i in part], tokens, options)
                run.backward(found.total)
                for name, value in found._asdict().items():
                    sums[name] += value.item()
            sums, stats = distributed.totals(sums), optimiser.step(step)
            scorer.follow(options.polyak)
            run.log(loss=sums.pop("total"), **{f"{name}_loss": value for name, value in sums.items()}, **stats)

        def save(folder: Path) -> None:
            setup.policy.save(folder)
            scorer.save_heads(folder)

        return run.finish(save, data=setup.facts, metrics={"train_loss": run.last("loss")["loss"], "steps": total})


class Target:
    """The lagging heads in the checkpoint: no optimiser moves them."""

    def __init__(self, scorer: GuidedScorer) -> None:
        self.scorer = scorer

    def state_dict(self) -> dict[str, Tensor]:
        """Their weights."""
        return dict(self.scorer.target.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Back to saved ones."""
        self.scorer.target.load_state_dict(state)


def losses(scorer: GuidedScorer, batch: Sequence[tuple[Group, float]], tokens: float, options: ILQLConfig) -> ILQLLoss:
    """A microbatch's share of the losses of a batch with so many `weighted_tokens`."""
    layout: Layout = lay_out([group for group, _ in batch], scorer.device)
    scores = torch.tensor([score for _, score in batch], device=scorer.device)
    weights = torch.tensor([group.weight for group, _ in batch], device=scorer.device)
    actions = layout.targets[layout.mask]
    estimates: Estimates = scorer(lambda net: net.estimates(layout))
    rewards = terminal_rewards(scores, layout.mask)
    goals = bellman_targets(rewards, layout.grid(estimates.values.detach()), layout.mask, options.gamma)[layout.mask]
    return ilql(
        estimates, actions, goals, weights[:, None].expand_as(layout.mask)[layout.mask],
        tau=options.tau, cql=options.cql, awac=options.awac, beta=options.awac_beta, count=tokens,
    )  # fmt: skip


def _loss(setup: ILQLSetup, some: Sequence[int], options: ILQLConfig) -> Tensor:
    batch = [setup.data[i] for i in some]
    return losses(setup.guided, batch, weighted_tokens([group for group, _ in batch]), options).total


estimate = likelihood(load, loss=_loss)
