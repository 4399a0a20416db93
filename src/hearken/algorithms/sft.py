"""Supervised fine-tuning: raise the probability of demonstrated responses.

Loss: -Σ_t log π(y_t | x, y_<t) over response tokens, divided by the number of such tokens in the whole batch; a
demonstration of weight w counts as w of its kind would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.estimate import recorded, tokens_of
from hearken.algorithms.sft_options import SFTConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader, demonstrations, nothing_fits
from hearken.domains.text.loading import TextPolicy, open_policy
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.language import nll, perplexity
from hearken.progress import progress
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import Order, microbatches
from hearken.training.estimate import Dry
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    data: list[Group]
    held_out: list[Group]
    facts: dict[str, Any]


def load(inputs: Inputs, options: SFTConfig) -> Ready:
    """Open the model and encode the demonstrations."""
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows = reader.rows(inputs.data, inputs.validation, options.validation, options.seed)
    policy = open_policy(inputs.model, options, options)
    data = demonstrations(rows.train, policy.encoder, options.train_on)
    held_out = demonstrations(rows.validation, policy.encoder, options.train_on)
    if not data:
        raise nothing_fits(inputs.data)
    more = {"sequences": len(data), "skipped": reader.skipped, "truncation": policy.encoder.tell()}
    return Ready(policy, data, held_out, rows.facts | more | say(of_recorded(options, data)))


def run(inputs: Inputs, options: SFTConfig, out: Path) -> Artifact:
    """Fine-tune ``inputs.model`` on ``inputs.data`` and write the policy to ``out``."""
    ready = load(inputs, options)
    policy, data = ready.policy, ready.data
    scorer = policy.scorer
    order = Order(len(data), options.batch, options.seed)
    total = order.steps(options.epochs)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        for step in run.steps(total):
            batch = [data[i] for i in order.rows(step)]
            figures = learn(scorer, batch, run)
            run.log(**figures, **optimiser.step(step), tokens=weighted_tokens(batch))

        metrics = {"train_loss": run.last("loss")["loss"], "steps": total}
        metrics |= evaluate(scorer, ready.held_out, options.tokens)
        return run.finish(policy.save, data=ready.facts, metrics=metrics)


def learn(scorer: TokenScorer, batch: Sequence[Group], run: Run) -> dict[str, float]:
    """The gradient on a batch; its figures."""
    tokens, loss = weighted_tokens(batch), 0.0
    for part in run.microbatches(batch, scorer):
        share = summed_nll(scorer, [batch[i] for i in part]) / tokens
        run.backward(share)
        loss += share.item()
    return {"loss": distributed.total(loss)}


def summed_nll(scorer: TokenScorer, groups: Sequence[Group]) -> torch.Tensor:
    """Sum of the negative log-likelihood over the trained tokens, times the weights of their groups."""
    layout = lay_out(groups, scorer.device)
    weights = torch.tensor([g.weight for g in groups], device=scorer.device)[layout.parent]
    return (nll(scorer(layout).logprobs, layout.trained) * weights).sum()


def trained_tokens(group: Group) -> int:
    """Tokens that the loss counts."""
    return sum(map(sum, group.masks)) if group.masks is not None else sum(map(len, group.responses))


def weighted_tokens(batch: Sequence[Group]) -> float:
    """Tokens that the loss counts, by their groups' weights, over all processes: what a batch's loss is divided by."""
    return distributed.total(sum(g.weight * trained_tokens(g) for g in batch))


@torch.no_grad()
def evaluate(scorer: TokenScorer, groups: Sequence[Group], tokens: int) -> dict[str, float]:
    """Mean loss and perplexity per trained token of held-out groups; empty where there are none."""
    if not groups:
        return {}
    total = 0.0
    with progress("Held-out text", len(groups), "sequence", patient=True) as bar:
        for part in microbatches(groups, tokens, scorer):
            total += summed_nll(scorer, [groups[i] for i in part]).item()
            bar.advance(len(part))
    count = weighted_tokens(groups)
    return {"validation_loss": total / count, "validation_perplexity": perplexity(total, count)}


def estimate(dry: Dry, inputs: Inputs, options: SFTConfig) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    scorer, data = ready.policy.scorer, ready.data
    return recorded(
        dry, ready, {"policy": scorer}, data, lambda some: summed_nll(scorer, [data[i] for i in some]), options,
        evaluated=tokens_of(ready.held_out),
    )  # fmt: skip
