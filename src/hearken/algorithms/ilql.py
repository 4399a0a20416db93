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
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.estimate import recorded
from hearken.algorithms.ilql_options import ILQLConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, Reader, judgments, nothing_fits
from hearken.domains.text.loading import TextPolicy, open_policy
from hearken.errors import UserError
from hearken.models.guided import Estimates, GuidedScorer
from hearken.models.layout import Group, Layout, lay_out
from hearken.objectives.offline import ILQLLoss, bellman_targets, ilql, terminal_rewards
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import Order
from hearken.training.estimate import Dry
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    scorer: GuidedScorer
    data: list[tuple[Group, float]]
    facts: dict[str, Any]


def load(inputs: Inputs, options: ILQLConfig) -> Ready:
    """Open the policy, give it heads, and encode the responses with their scores.

    Raises:
        UserError: every response has the same score; an architecture whose logits come from its own forward pass alone.
    """
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows = reader.rows(inputs.data, inputs.validation, 0.0, options.seed)
    policy = open_policy(inputs.model, options, options)
    if policy.scorer.whole:
        raise UserError(f"ILQL cannot guide a {type(policy.scorer.model).__name__}", "Use dpo, or reward and then rloo")
    torch.manual_seed(options.seed)
    scorer = GuidedScorer(policy.scorer.model, options.beta, policy.scorer.adapter)
    scorer.use(policy.scorer.path)
    data = scored(judgments(rows.train, policy.encoder))
    if not data:
        raise nothing_fits(inputs.data)
    if len({score for _, score in data}) == 1:
        raise UserError(f"{', '.join(inputs.data)}: every response has the same score", "ILQL learns from differences")
    more = {"responses": len(data), "skipped": reader.skipped, "truncation": policy.encoder.tell()}
    return Ready(policy, scorer, data, rows.facts | more | say(of_recorded(options, [group for group, _ in data])))


def scored(found: Sequence[Judged]) -> list[tuple[Group, float]]:
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
    return made


def run(inputs: Inputs, options: ILQLConfig, out: Path) -> Artifact:
    """Fit policy and heads to ``inputs.data``, starting from ``inputs.model``, and write them to ``out``."""
    ready = load(inputs, options)
    scorer, data = ready.scorer, ready.data
    order = Order(len(data), options.batch, options.seed)
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
            ready.policy.save(folder)
            scorer.save_heads(folder)

        return run.finish(save, data=ready.facts, metrics={"train_loss": run.last("loss")["loss"], "steps": total})


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


def weighted_tokens(groups: Sequence[Group]) -> float:
    """Response tokens, each counted by its group's weight: what the losses of a batch are divided by."""
    return distributed.total(sum(group.weight * len(group.responses[0]) for group in groups))


def losses(scorer: GuidedScorer, batch: Sequence[tuple[Group, float]], tokens: float, options: ILQLConfig) -> ILQLLoss:
    """A microbatch's share of the losses of a batch with so many `weighted_tokens`."""
    layout: Layout = lay_out([group for group, _ in batch], scorer.device)
    scores = torch.tensor([score for _, score in batch], device=scorer.device)
    weights = torch.tensor([group.weight for group, _ in batch], device=scorer.device)
    actions = layout.targets[layout.mask]
    found: Estimates = scorer(lambda net: net.estimates(layout))
    rewards = terminal_rewards(scores, layout.mask)
    goals = bellman_targets(rewards, layout.grid(found.values.detach()), layout.mask, options.gamma)[layout.mask]
    late = torch.minimum(*(head.gather(-1, actions[:, None])[:, 0] for head in found.target_q))
    return ilql(
        found.q, late, found.values, found.logits, actions, goals, torch.ones_like(goals),
        tau=options.tau, cql=options.cql, awac=options.awac, beta=options.awac_beta,
        weights=weights[:, None].expand_as(layout.mask)[layout.mask], count=tokens,
    )  # fmt: skip


def estimate(dry: Dry, inputs: Inputs, options: ILQLConfig) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    groups = [group for group, _ in ready.data]

    def loss(some: Sequence[int]) -> Tensor:
        return losses(
            ready.scorer, [ready.data[i] for i in some], weighted_tokens([groups[i] for i in some]), options
        ).total

    return recorded(dry, ready, {"policy": ready.scorer}, groups, loss, options)
