"""Losses of judgments of any kind, from what a reward model's heads say of the judged responses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hearken.algorithms.reward_options import RewardConfig
from hearken.domains.text.data import Judged, by_responses
from hearken.models.layout import lay_out
from hearken.models.scorers import RewardScorer
from hearken.objectives.preference import bradley_terry, kwise, plackett_luce, rating_regression, thumb_bce


def losses(scorer: RewardScorer, batch: Sequence[Judged], options: RewardConfig) -> Tensor:
    """(B,) weighted losses of judgments of any kind; responses that several of them share are computed once."""
    layout = lay_out([same[0].group for same in by_responses(batch)], scorer.device)
    heads: Tensor = scorer(lambda net: net.heads(layout))
    return losses_from(heads, scorer, batch, options)


def losses_from(heads: Tensor, scorer: RewardScorer, batch: Sequence[Judged], options: RewardConfig) -> Tensor:
    """(B,) weighted losses of judgments.

    Args:
        heads: (R, A) what each head says of the responses, in the order of ``by_responses(batch)``.
        scorer: says how heads make up a score.
        batch: B judgments.
        options: of the stage.
    """
    elements = by_responses(batch)
    device = heads.device
    width = max(len(j.group.responses) for j in batch)
    starts, at = {}, 0
    for same in elements:
        starts[id(same[0].group)] = at
        at += len(same[0].group.responses)
    first = torch.tensor([starts[id(j.group)] for j in batch], device=device)
    count = torch.tensor([len(j.group.responses) for j in batch], device=device)
    column = torch.arange(width, device=device)
    cells = (first[:, None] + column).clamp_max(at - 1)
    if scorer.by:  # each labeler's judgment by the head of its group
        scores = (heads[cells] * scorer.own([j.who for j in batch])[:, None]).sum(-1)
    else:
        scores = scorer.combine(heads)[cells]
    grid = scores * (column < count[:, None])
    ranks = torch.full((len(batch), width), -1, device=device)
    for row, judged in enumerate(batch):
        if judged.ranks:
            ranks[row, : len(judged.ranks)] = torch.tensor(judged.ranks, device=device)
    total = scores.new_zeros(len(batch))
    for kind in {j.kind for j in batch}:
        rows = torch.tensor([i for i, j in enumerate(batch) if j.kind == kind], device=device)
        some = [batch[i] for i in rows.tolist()]
        if kind == "rating":
            single = grid[rows, :1] if scorer.by else heads[first[rows]]
            found = rating_losses(single, some, () if scorer.by else scorer.attributes)
        else:
            found = _losses(kind, grid[rows], ranks[rows], some, options)
        total = total.index_add(0, rows, found)
    return total * torch.tensor([j.weight for j in batch], device=device)


def _losses(kind: str, scores: Tensor, ranks: Tensor, batch: Sequence[Judged], options: RewardConfig) -> Tensor:
    """(B,) losses of judgments of one kind: scores and ranks (B, K)."""
    if kind == "comparison":
        margin = scores.new_tensor([options.margin * (j.strength or 0.0) for j in batch])
        if options.loss == "plackett_luce":
            found = plackett_luce(scores, ranks)
        else:
            found = kwise(scores, ranks, ties=options.ties, label_smoothing=options.label_smoothing, margin=margin)
        voted = [i for i, j in enumerate(batch) if j.share is not None]
        if voted:
            share = scores.new_tensor([batch[i].share for i in voted])
            where = torch.tensor(voted, device=scores.device)
            found = found.index_copy(0, where, bradley_terry(scores[where, 0], scores[where, 1], target=share))
        return found
    return thumb_bce(scores[:, 0], scores.new_tensor([j.target for j in batch]))


def rating_losses(heads: Tensor, batch: Sequence[Judged], names: Sequence[str]) -> Tensor:
    """(B,) losses of ratings: the (B, A) heads against what was rated, each head against its own attribute."""
    rated = [[j.ratings.get(name, float("nan")) for name in names] if names else [j.target] for j in batch]
    target = heads.new_tensor(rated)
    return rating_regression(heads, target, ~target.isnan())
