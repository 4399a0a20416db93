"""Supervised fine-tuning: raise the probability of demonstrated responses.

Loss: -Σ_t log π(y_t | x, y_<t) over response tokens, divided by the number of such tokens in the whole batch; a
demonstration of weight w counts as w of its kind would.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.estimate import likelihood
from hearken.algorithms.recorded import Setup, every, set_up, weighted_tokens
from hearken.algorithms.sft_options import SFTConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import demonstrations
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.language import nll, perplexity
from hearken.training import distributed
from hearken.training.forward import batches_with_progress
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


def load(inputs: Inputs, options: SFTConfig) -> Setup[Group]:
    """Open the model and encode the demonstrations."""
    return set_up(
        inputs, options, lambda rows, encoder: every(demonstrations(rows, encoder, options.train_on)),
        counted="sequences",
    )  # fmt: skip


def run(inputs: Inputs, options: SFTConfig, out: Path) -> Artifact:
    """Fine-tune ``inputs.model`` on ``inputs.data`` and write the policy to ``out``."""
    setup = load(inputs, options)
    scorer, data, order = setup.scorer, setup.data, setup.order(options)
    total = order.steps(options.epochs)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        for step in run.steps(total):
            batch = [data[i] for i in order.rows(step)]
            figures = learn(scorer, batch, run)
            run.log(**figures, **optimiser.step(step), tokens=weighted_tokens(batch))

        metrics = {"train_loss": run.last("loss")["loss"], "steps": total}
        metrics |= evaluate(scorer, setup.held_out, options.tokens)
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def learn(scorer: TokenScorer, batch: Sequence[Group], run: Run) -> dict[str, float]:
    """The gradient on a batch; its figures."""
    tokens, loss = weighted_tokens(batch), 0.0
    for part in run.microbatches(batch, scorer):
        share = summed_nll(scorer, [batch[i] for i in part]) / tokens
        run.backward(share)
        loss += share.item()
    return {"loss": distributed.total(loss)}


def summed_nll(scorer: TokenScorer, groups: Sequence[Group]) -> Tensor:
    """Sum of the negative log-likelihood over the trained tokens, times the weights of their groups."""
    layout = lay_out(groups, scorer.device)
    weights = torch.tensor([g.weight for g in groups], device=scorer.device)[layout.parent]
    return (nll(scorer(layout).logprobs, layout.trained) * weights).sum()


@torch.no_grad()
def evaluate(scorer: TokenScorer, groups: Sequence[Group], tokens: int) -> dict[str, float]:
    """Mean loss and perplexity per trained token of held-out groups; empty where there are none."""
    if not groups:
        return {}
    total = 0.0
    for part in batches_with_progress(groups, tokens, scorer, "Held-out text"):
        total += summed_nll(scorer, [groups[i] for i in part]).item()
    count = weighted_tokens(groups)
    return {"validation_loss": total / count, "validation_perplexity": perplexity(total, count)}


estimate = likelihood(load)
