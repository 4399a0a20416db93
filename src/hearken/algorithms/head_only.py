"""A reward model's head alone, on features that its network, left as it is, gives once: a linear probe.

Minimises the judgments' mean loss + ridge/2 |v|², v being the head's weights in units of the features' standard
deviations: strictly convex, so L-BFGS finds the optimum and nothing depends on a learning rate or an order. The ridge
is given, or the one of a grid with the lowest held-out loss in five folds of the training prompts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.estimate import lengths_of, tokens_of
from hearken.algorithms.reward_losses import losses_from
from hearken.algorithms.reward_options import RewardConfig
from hearken.domains.text.data import Judged, by_responses
from hearken.errors import UserError
from hearken.models.precision import to_read
from hearken.models.scorers import RewardScorer
from hearken.progress import progress, quiet
from hearken.rewards.confidence import last_layer
from hearken.rewards.learned import LearnedReward
from hearken.training.estimate import Dry, Memory, timed

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FOLDS = 5
STEPS = 200
"""Of L-BFGS at most; tens are enough."""
SAMPLE = 16
"""Elements that a dry run tries."""


class Probe:
    """Judgments as a linear model of features.

    Args:
        scorer: its head is fitted, of which only the last layer may exist.
        data: the judgments.
        options: of the stage.
    """

    def __init__(self, scorer: RewardScorer, data: Sequence[Judged], options: RewardConfig) -> None:
        self.scorer, self.options, self.elements = scorer, options, by_responses(data)
        groups = [same[0].group for same in self.elements]
        found = last_layer(LearnedReward(scorer, options.tokens, "Features"), groups)
        self.scale = found.std(0, correction=0).clamp_min(1e-6)
        self.features = list((found / self.scale).split([len(g.responses) for g in groups]))

    def scores(self, weights: Tensor, chosen: Sequence[int]) -> list[list[float]]:
        """Of each of some elements, the scores of its responses by heads (A, d)."""
        return [self.scorer.combine(self.features[i] @ weights.T).tolist() for i in chosen]

    def loss(self, weights: Tensor, chosen: Sequence[int]) -> Tensor:
        """Mean loss of the judgments on some elements: weights (A, d) to a scalar."""
        batch = list(chain.from_iterable(self.elements[i] for i in chosen))
        heads = torch.cat([self.features[i] for i in chosen]) @ weights.T
        return losses_from(heads, self.scorer, batch, self.options).sum() / sum(j.weight for j in batch)

    def fit(self, chosen: Sequence[int], ridge: float) -> Tensor:
        """(A, d) the weights that minimise the penalised loss on some elements."""
        weights = torch.zeros_like(self.scorer.output.weight).requires_grad_(True)
        solver = torch.optim.LBFGS([weights], max_iter=STEPS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            loss = self.loss(weights, chosen) + 0.5 * ridge * weights.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]
        return weights.detach()

    def held_out_losses(self, chosen: Sequence[int]) -> dict[float, float]:
        """By ridge, the mean loss of some elements in folds of prompts, by heads fitted to the others of them.

        Raises:
            UserError: they are all on one prompt.
        """
        prompts = list(dict.fromkeys(self.elements[i][0].key for i in chosen))
        if len(prompts) < 2:
            raise UserError("the ridge cannot be chosen by judgments on a single prompt", "Give one, e.g. --ridge 1")
        drawn = np.random.default_rng([self.options.seed, 11]).permutation(len(prompts)) % min(FOLDS, len(prompts))
        fold = dict(zip(prompts, drawn.tolist(), strict=True))
        found = dict.fromkeys(RIDGES, 0.0)
        numbers = sorted(set(fold.values()))
        with progress("Choosing the ridge", len(RIDGES) * len(numbers), "fit", patient=True) as bar:
            for number in numbers:
                inside, outside = (
                    [i for i in chosen if (fold[self.elements[i][0].key] == number) is out] for out in (False, True)
                )
                for ridge in RIDGES:
                    with torch.no_grad():
                        loss = self.loss(self.fit(inside, ridge), outside).item()
                    found[ridge] += loss * len(outside) / len(chosen)
                    bar.advance(1)
        return found

    def choose(self, chosen: Sequence[int]) -> tuple[float, dict[float, float]]:
        """The ridge to fit some elements with, and the held-out loss of each that was tried (none if it is given)."""
        tried = {} if self.options.ridge else self.held_out_losses(chosen)
        return self.options.ridge or min(tried, key=lambda ridge: tried[ridge]), tried


def precision_of(scorer: RewardScorer, options: RewardConfig) -> str:
    """As of a network that is only read: there are no steps to try two precisions on."""
    return to_read(scorer.model, None) if options.precision == "auto" else options.precision


def fit_head(scorer: RewardScorer, data: Sequence[Judged], options: RewardConfig) -> dict[str, float]:
    """Fit the head in place; returns the ridge, the training loss and, of each ridge tried, the held-out loss."""
    scorer.compute_in(precision_of(scorer, options))
    probe = Probe(scorer, data, options)
    everything = range(len(probe.elements))
    ridge, tried = probe.choose(everything)
    weights = probe.fit(everything, ridge)
    with torch.no_grad():
        loss = probe.loss(weights, everything).item()
        scorer.output.weight.copy_(weights / probe.scale)
        if scorer.output.bias is not None:
            scorer.output.bias.zero_()
    return {"ridge": ridge, "train_loss": loss} | {f"held_out_loss_{r:g}": value for r, value in tried.items()}


def estimate(dry: Dry, ready: Any, options: RewardConfig, later: int) -> dict[str, Any]:
    """For a dry run: features of a few elements and a fit to them are timed.

    Args:
        dry: what is known by now.
        ready: see `reward.Ready`.
        options: of the stage.
        later: tokens that are read after the fit.
    """
    scorer, elements = ready.scorer, by_responses(ready.data)
    groups = [same[0].group for same in elements]
    dry.settle(scorer, options.model_copy(update={"precision": precision_of(scorer, options)}))
    few = elements[:SAMPLE]
    memory, start = Memory(scorer.device), time.perf_counter()
    with quiet():
        probe = Probe(scorer, list(chain.from_iterable(few)), options)
    each = (time.perf_counter() - start) / tokens_of(groups[:SAMPLE])
    fit = timed(lambda: probe.fit(range(len(few)), options.ridge or 1.0), scorer.device) / len(few)
    fits = 1.0 if options.ridge else 1 + len(RIDGES) * (FOLDS - 1)
    tokens = tokens_of(groups)
    dry.seconds |= {"features": tokens * each, "fit": fits * fit * len(elements), "calibration": later * each}
    facts = {**ready.facts, **lengths_of(groups), "steps": 1, "tokens": tokens}
    rows = 4 * sum(len(g.responses) for g in groups) * scorer.width
    held = max(memory.peak() - memory.start, 0)
    return dry.finish(facts, {"reward": scorer}, options, activations=held, features=rows)
