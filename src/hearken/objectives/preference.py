"""Fitting scores to people's judgments: pairs, rankings, ratings and thumbs.

Ranks are (B, K) integers: 0 is best, equal numbers are ties, and -1 marks a response that was not ranked or is padding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    target: Tensor | None = None,
    label_smoothing: float = 0.0,
    margin: Tensor | float | None = None,
) -> Tensor:
    """Negative log-likelihood of a pair under Bradley and Terry (1952): -p·log σ(h) - (1-p)·log σ(-h).

    h = chosen - rejected - margin, and p = (1-ε)·target + ε·(1-target) with ε the label smoothing: the chance that the
    label is flipped (Mitchell 2023, cDPO).

    Args:
        chosen: (B,) scores; any other shape will do if all agree.
        rejected: (B,) scores.
        target: (B,) probability that ``chosen`` is the better, e.g. a share of votes; 0.5 is a tie. Default 1.
        label_smoothing: ε in [0, 0.5].
        margin: (B,) the lead at which the loss falls below log 2 (Touvron et al. 2023, Llama 2).

    Returns:
        (B,) losses.
    """
    lead = chosen - rejected
    if margin is not None:
        lead = lead - margin
    if target is None and label_smoothing == 0.0:
        return -logsigmoid(lead)
    probability = torch.ones_like(lead) if target is None else target.to(lead.dtype)
    probability = probability * (1 - 2 * label_smoothing) + label_smoothing
    return -probability * logsigmoid(lead) - (1 - probability) * logsigmoid(-lead)


def ordered_pairs(ranks: Tensor) -> Tensor:
    """Which responses were ranked strictly above which: (B, K) ranks to a (B, K, K) mask, [b, i, j] = i above j."""
    above, below = ranks.unsqueeze(-1), ranks.unsqueeze(-2)
    return (above >= 0) & (below >= 0) & (above < below)


def tied_pairs(ranks: Tensor) -> Tensor:
    """Which ranked responses share a rank, each with itself included: (B, K) ranks to a (B, K, K) mask."""
    above, below = ranks.unsqueeze(-1), ranks.unsqueeze(-2)
    return (above >= 0) & (above == below)


def kwise(
    scores: Tensor,
    ranks: Tensor,
    *,
    ties: Literal["drop", "half"] = "half",
    divisor: Literal["ordered", "all"] = "all",
    label_smoothing: float = 0.0,
    margin: Tensor | None = None,
) -> Tensor:
    """All pairs of a ranking as one batch element (Ouyang et al. 2022, InstructGPT, eq. 1).

    -1/C(K,2) · Σ over pairs of log σ(r_better - r_worse). K is the number of ranked responses of that row.

    Args:
        scores: (B, K).
        ranks: (B, K).
        ties: ``half`` gives a tied pair the label 0.5; ``drop`` leaves it out, as InstructGPT did.
        divisor: ``all`` divides by C(K,2), so that under ``drop`` a row with many ties weighs less; ``ordered`` divides
            by the number of pairs that contribute, so that every row that contributes weighs the same.
        label_smoothing: see `bradley_terry`.
        margin: (B,) the lead asked of the better response in each strictly ordered pair.

    Returns:
        (B,) losses; exactly 0, with zero gradient, where no pair contributes.
    """
    ranked = ranks >= 0
    # Cleared before use, so that whatever stands in the padding cannot reach the gradient.
    scores = torch.where(ranked, scores, torch.zeros_like(scores))
    better = ordered_pairs(ranks)
    # Entry (i, j) weighs the loss of "i beats j"; a tied pair has one half in (i, j) and one half in (j, i).
    weight = better.to(scores.dtype)
    if ties == "half":
        itself = torch.eye(ranks.shape[-1], dtype=torch.bool, device=ranks.device)
        weight = weight + 0.5 * (tied_pairs(ranks) & ~itself)
    lead = None if margin is None else better * margin.view(-1, 1, 1)
    loss = bradley_terry(scores.unsqueeze(-1), scores.unsqueeze(-2), label_smoothing=label_smoothing, margin=lead)
    if divisor == "all":
        size = ranked.sum(-1).to(scores.dtype)
        pairs = size * (size - 1) / 2
    else:
        pairs = weight.sum((-2, -1))
    return (weight * loss).sum((-2, -1)) / pairs.clamp(min=1)


def plackett_luce(
    scores: Tensor,
    ranks: Tensor,
    *,
    unranked: Literal["ignore", "last"] = "ignore",
    present: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of a ranking under Plackett and Luce: Σ_k [log Σ_{j at or below k} e^{s_j} - s_(k)].

    Ties take Efron's form (1977): the k-th (from 0) of m tied responses is drawn against everything below plus
    (1 - k/m) of the tied ones' weight. By Jensen's inequality the loss is then never below its average over all orders
    consistent with the ranking (so e^-loss is a lower bound of their mean likelihood), and equals it where the tied
    scores are equal, which is where it pulls them. Without ties it is exact; with K = 2 it is then `bradley_terry`.

    Args:
        scores: (B, K).
        ranks: (B, K). Only their order matters; numbers may be skipped.
        unranked: ``ignore`` leaves responses of rank -1 out; ``last`` takes those that are present to lie below every
            ranked one, in no order among themselves (a "best m of K" judgment).
        present: (B, K) bool, which entries are responses and not padding; needed by ``last``.

    Returns:
        (B,) losses, summed over the ranked responses; exactly 0, with zero gradient, where there is nothing to compare.

    Raises:
        ValueError: ``last`` without ``present``.
    """
    ranked = ranks >= 0
    if unranked == "last":
        if present is None:
            raise ValueError("unranked='last' needs `present`, to tell unranked responses from padding")
        ranks = torch.where(~ranked & present.bool(), torch.full_like(ranks, torch.iinfo(ranks.dtype).max), ranks)
    inside = ranks >= 0
    scores = torch.where(inside, scores, torch.zeros_like(scores))

    tied = tied_pairs(ranks).to(scores.dtype)
    place = tied.tril(-1).sum(-1, keepdim=True)  # (B, K, 1): which of its ties this one is, counted from 0
    weight = ordered_pairs(ranks) + tied * (1 - place / tied.sum(-1, keepdim=True).clamp(min=1))
    # Padding would be a logsumexp of nothing, whose gradient is NaN: let it see itself; it is dropped below.
    weight = weight + torch.diag_embed(~inside).to(scores.dtype)
    against = torch.logsumexp(scores.unsqueeze(-2) + weight.log(), dim=-1)
    return torch.where(ranked, against - scores, torch.zeros_like(scores)).sum(-1)


def rating_regression(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the attributes that were rated.

    Args:
        predicted: (B, A).
        target: (B, A), on the scale of ``predicted``; anything where the mask is false.
        mask: (B, A), which attributes this row has.

    Returns:
        (B,) losses, 0 for a row without attributes.
    """
    mask = mask.bool()
    # Cleared before squaring: a NaN for "not rated" would come back as a NaN gradient.
    zero = torch.zeros_like(predicted)
    error = torch.where(mask, predicted, zero) - torch.where(mask, target.to(predicted.dtype), zero)
    return (error**2).sum(-1) / mask.sum(-1).clamp(min=1)


def thumb_bce(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of thumbs with P(up) = σ(score): (B,) scores, (B,) labels (bool or share) to (B,) losses."""
    return binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), reduction="none")
