"""Losses of pairs and rankings, from the likelihoods of the compared responses: DPO and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hearken.algorithms.accuracy import pair_accuracy
from hearken.algorithms.dpo_options import DPOConfig, PairOptions
from hearken.domains.text.data import Judged
from hearken.models.layout import Layout, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives import direct
from hearken.objectives.preference import ordered_pairs, plackett_luce
from hearken.training import distributed
from hearken.training.forward import batches_with_progress, rows_of
from hearken.training.reference import Reference

WITHOUT_REFERENCE = ("simpo", "orpo")


@dataclass(frozen=True)
class Losses:
    """A microbatch of B judgments over at most K responses: weighted losses (B,), scores and ranks (B, K)."""

    loss: Tensor
    scores: Tensor
    ranks: Tensor


def losses(scorer: TokenScorer, batch: Sequence[Judged], reference: Tensor | None, options: PairOptions) -> Losses:
    """One forward pass and the objective on it.

    ``reference`` (r,) holds the responses' reference log-probabilities; the losses `WITHOUT_REFERENCE` do not read it.
    """
    layout = lay_out([j.group for j in batch], scorer.device)
    logprobs = scorer(layout).logprobs
    scores, ranks = in_grid(score(logprobs, layout, reference, options), batch)
    found = objective(scores, ranks, batch, options)
    if options.imitation:
        likelihood, _ = in_grid(direct.sequence_logprobs(logprobs, layout.mask, average=True), batch)
        best = ranks == torch.where(ranks >= 0, ranks, torch.iinfo(ranks.dtype).max).amin(-1, keepdim=True)
        found = found - options.imitation * (likelihood * best).sum(-1) / best.sum(-1)
    return Losses(found * found.new_tensor([j.weight for j in batch]), scores, ranks)


def score(logprobs: Tensor, layout: Layout, reference: Tensor | None, options: PairOptions) -> Tensor:
    """(R,) what the leads are differences of."""
    if options.loss in WITHOUT_REFERENCE:
        mean = direct.sequence_logprobs(logprobs, layout.mask, average=True)
        return direct.log_odds(mean) if options.loss == "orpo" else mean
    assert reference is not None
    ratio = direct.sequence_logprobs(logprobs, layout.mask) - reference
    return ratio / layout.lengths if options.log_ratio == "mean" else ratio


def in_grid(values: Tensor, batch: Sequence[Judged]) -> tuple[Tensor, Tensor]:
    """Values (R,) of the responses and the ranks of the judgments, both (B, K); rank -1 in the padding."""
    width = max(len(j.group.responses) for j in batch)
    filled = torch.tensor([[k < len(j.group.responses) for k in range(width)] for j in batch], device=values.device)
    ranks = [[*j.ranks, *[-1] * (width - len(j.ranks))] for j in batch]
    return values.new_zeros(filled.shape).masked_scatter(filled, values), torch.tensor(ranks, device=values.device)


def objective(scores: Tensor, ranks: Tensor, batch: Sequence[Judged], options: PairOptions) -> Tensor:
    """(B,) losses of (B, K) scores."""
    beta, epsilon = options.beta, options.epsilon
    offset = scores.new_tensor([options.margin * (j.strength or 0.0) for j in batch])[:, None, None]
    share = scores.new_tensor([float("nan") if j.share is None else j.share for j in batch])

    def loss(lead: Tensor) -> Tensor:
        match options.loss:
            case "cdpo":
                return direct.cdpo(lead, beta, epsilon)
            case "robust":
                return direct.robust_dpo(lead, beta, epsilon)
            case "ipo":
                return direct.ipo(lead, beta)
            case "hinge":
                return direct.hinge(lead, beta)
            case "simpo":
                return direct.simpo(lead, beta, options.gamma)
            case "orpo":
                return beta * direct.orpo(lead)
            case _:
                return direct.dpo(lead, beta, offset=offset)

    found = direct.over_pairs(loss, scores, direct.pair_weights(ranks, ties=options.ties, share=share))
    if options.loss == "dpo" and options.rankings == "plackett_luce":
        several = (ranks >= 0).sum(-1) > 2
        found = torch.where(several, plackett_luce(beta * scores, ranks), found)
    return found


class Figures:
    """Sums over the microbatches of a step."""

    def __init__(self) -> None:
        self.loss = self.right = self.lead = self.pairs = 0.0

    def add(self, found: Losses, batch: Sequence[Judged], weight: float) -> None:
        """Count a microbatch."""
        scores, better = found.scores.detach(), ordered_pairs(found.ranks)
        lead = (scores[:, :, None] - scores[:, None])[better]
        self.loss += found.loss.sum().item() / weight
        self.right += ((lead > 0).float() + 0.5 * (lead == 0)).sum().item()
        self.lead += lead.sum().item()
        self.pairs += lead.numel()

    def means(self) -> dict[str, float]:
        """Loss, share of strictly ordered pairs whose scores lie the right way round, and their mean lead."""
        found = distributed.totals(vars(self))
        pairs = max(found["pairs"], 1)
        return {"loss": found["loss"], "accuracy": found["right"] / pairs, "lead": found["lead"] / pairs}


@torch.no_grad()
def evaluate(
    scorer: TokenScorer, held_out: Sequence[Judged], reference: Reference, options: DPOConfig
) -> dict[str, float]:
    """Loss and accuracy on held-out judgments; empty where there are none."""
    if not held_out:
        return {}
    groups = [j.group for j in held_out]
    scores = torch.zeros(sum(len(g.responses) for g in groups))
    total = 0.0
    for part in batches_with_progress(groups, options.tokens, scorer, "Held-out comparisons"):
        batch = [held_out[i] for i in part]
        found = losses(scorer, batch, reference.of(part), options)
        total += found.loss.sum().item()
        filled = torch.tensor([[k < len(j.group.responses) for k in range(found.scores.shape[1])] for j in batch])
        scores[torch.tensor(rows_of(groups, part))] = found.scores.float().cpu()[filled]
    weight = sum(j.weight for j in held_out) or 1.0
    return {"validation_loss": total / weight} | pair_accuracy(scores.tolist(), held_out)
