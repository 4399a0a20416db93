"""Reward modelling: a score that explains people's judgments.

Rankings: -1/C(K,2) Σ over pairs log σ(r_better - r_worse), all pairs of a prompt one batch element, K forward passes
and one of the prompt (Ouyang et al. 2022), or Plackett-Luce. Ratings: squared error on the scale -1..1, of several
attributes with a head for each (Wang et al. 2023, HelpSteer); their weighted sum is the score. Thumbs: binary
cross-entropy. Afterwards a bias is set so that reference responses (a sample of them) score 0 on average.

With ``head_only`` the network stays as it is and its head alone is fitted (see `head_only`).

With ``by``, labelers of different groups have heads of their own on one network: a common head plus an offset for each
group, under a normal prior N(0, 1/(shrink (d+1))), the variance of a fresh head's weights at shrink 1. So a small group
borrows from all and differs where its judgments say so; who says nothing of themselves is explained by the mixture.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from hearken.algorithms import head_only
from hearken.algorithms.estimate import recorded, tokens_of
from hearken.algorithms.reward_figures import calibrate, evaluate
from hearken.algorithms.reward_losses import losses
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.reward_setup import RewardSetup, load
from hearken.algorithms.stage import Inputs
from hearken.models.scorers import RewardScorer
from hearken.training import distributed
from hearken.training.batching import Order
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact
    from hearken.training.estimate import Dry


def run(inputs: Inputs, options: RewardConfig, out: Path) -> Artifact:
    """Fit a reward model on ``inputs.data``, starting from ``inputs.model``, and write it to ``out``."""
    setup = load(inputs, options)
    scorer = setup.scorer
    with Run(inputs, options, out, {}, label="Reward model") as run:
        if options.head_only:
            began = time.monotonic()
            trained = head_only.fit_head(scorer, setup.data, options)
            run.seconds = time.monotonic() - began
        else:
            trained = fit(setup, options, run)
        metrics = calibrate(scorer, setup.references, options)
        metrics |= evaluate(scorer, setup.held_out, options.tokens)
        if "effective" in setup.facts:
            metrics["effective_judgments"] = setup.facts["effective"]

        return run.finish(partial(setup.save, options=options), data=setup.facts, metrics=metrics | trained)


class Offsets(nn.Module):
    """Heads as what they have in common and an offset for each, so that the offsets can be drawn towards 0."""

    def forward(self, common: Tensor, offsets: Tensor) -> Tensor:
        """(1, d) and (A, d) to the heads' weights (A, d)."""
        return common + offsets

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The offsets from their mean."""
        common = weight.mean(0, keepdim=True)
        return common, weight - common


def prior(scorer: RewardScorer, shrink: float) -> Tensor:
    """Negative log-density of the heads' offsets, but for a constant: shrink (d+1)/2 Σ offset²; a scalar."""
    offsets = scorer.output.parametrizations.weight.original1  # type: ignore[union-attr]
    assert isinstance(offsets, Tensor)
    return 0.5 * shrink * (offsets.shape[1] + 1) * offsets.square().sum()


def fit(setup: RewardSetup, options: RewardConfig, run: Run) -> dict[str, float]:
    """The loop: an element of a batch is a set of responses with all judgments on it."""
    scorer, data, elements = setup.scorer, setup.data, setup.elements
    order = Order(len(elements), options.batch_size, options.seed)
    total = order.steps(options.epochs)
    judged_in_all = distributed.total(sum(j.weight for j in data)) or 1.0
    if scorer.by:
        parametrize.register_parametrization(scorer.output, "weight", Offsets())
    run.states["optimiser"] = optimiser = Optimiser([scorer], options, total)
    run.choose_precision(scorer)

    for step in run.steps(total):
        batch = [elements[i] for i in order.rows(step)]
        weight = distributed.total(sum(j.weight for judged in batch for j in judged)) or 1.0
        loss = 0.0
        for part in run.microbatches([judged[0].group for judged in batch], scorer):
            share = losses(scorer, [j for i in part for j in batch[i]], options).sum() / weight
            run.backward(share)
            loss += share.item()
        loss = distributed.total(loss)
        if scorer.by:  # the prior speaks once for all judgments, and every step's loss is the mean of some
            shrunk = prior(scorer, options.shrink) / judged_in_all
            run.backward(shrunk)
            loss += shrunk.item()
        run.log(loss=loss, **optimiser.step(step))
    if scorer.by:
        parametrize.remove_parametrizations(scorer.output, "weight")
    return {"train_loss": run.last("loss")["loss"], "steps": total}


def estimate(dry: Dry, inputs: Inputs, options: RewardConfig) -> dict[str, Any]:
    """For a dry run."""
    setup = load(inputs, options)
    elements, centred = setup.elements, setup.references
    share = min(options.calibrate_on or len(centred), len(centred)) / len(centred)
    calibrated = round(tokens_of(centred) * share)
    evaluated = tokens_of(setup.held_out_groups)
    if options.head_only:
        return head_only.estimate(dry, setup, options, calibrated + evaluated)

    def loss(some: Sequence[int]) -> Tensor:
        return losses(setup.scorer, [j for i in some for j in elements[i]], options).sum()

    return recorded(
        dry, setup, {"reward": setup.scorer}, [same[0].group for same in elements], loss, options,
        evaluated=evaluated, calibrated=calibrated,
    )  # fmt: skip
