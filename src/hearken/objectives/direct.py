"""Direct alignment: losses that fit a policy to judgments without a reward model between them.

Every pairwise loss here is a function of a *lead*, the difference of two responses' scores. What differs is the score:

    log-ratio      log π(y|x) - log π_ref(y|x)     DPO, cDPO, robust DPO, IPO, hinge
    its mean       the same per token              IPO as its authors told TRL to read it
    log-mean       log π(y|x) / |y|                SimPO
    log-odds       log p/(1-p), p = e^(log-mean)   ORPO (`log_odds`)

so one function, `over_pairs`, takes any of them from pairs to rankings with ties, votes and padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hearken.objectives.preference import bradley_terry, ordered_pairs, tied_pairs


def sequence_logprobs(logprobs: Tensor, mask: Tensor, *, average: bool = False) -> Tensor:
    """Log π(y|x): the sum over tokens, or their mean. (R, T) log-probabilities and mask to (R,), in nats."""
    mask = mask.bool()
    total = torch.where(mask, logprobs, torch.zeros_like(logprobs)).sum(-1)
    return total / mask.sum(-1).clamp(min=1) if average else total


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """Log p/(1-p) of p = e^mean_logprob, the likelihood per token (Hong et al. 2024, ORPO). Any shape; finite below 0.

    p is kept below 1 - 1e-6, where the odds would be infinite.
    """
    bounded = mean_logprobs.clamp(max=math.log1p(-1e-6))
    return bounded - torch.log(-torch.expm1(bounded))


# -- losses of a lead ---------------------------------------------------------------------------------------------


def dpo(lead: Tensor, beta: float = 0.1, *, offset: Tensor | float | None = None) -> Tensor:
    """-log σ(βh - offset): direct preference optimisation (Rafailov et al. 2023, eq. 7).

    Args:
        lead: h, any shape: log-ratio of the better response minus that of the worse.
        beta: strength of the KL constraint; the optimum is π ∝ π_ref·e^(r/β).
        offset: the lead, in implicit reward, at which the loss falls below log 2, e.g. the strength of the preference
            (Amini et al. 2024, ODPO). Default none.

    Returns:
        Losses of the same shape.
    """
    return bradley_terry(beta * lead, torch.zeros_like(lead), margin=offset)


def cdpo(lead: Tensor, beta: float = 0.1, epsilon: float = 0.1) -> Tensor:
    """-(1-ε)·log σ(βh) - ε·log σ(-βh): labels are flipped with probability ε < ½ (Mitchell 2023). Any shape."""
    return bradley_terry(beta * lead, torch.zeros_like(lead), label_smoothing=epsilon)


def robust_dpo(lead: Tensor, beta: float = 0.1, epsilon: float = 0.1) -> Tensor:
    """[-(1-ε)·log σ(βh) + ε·log σ(-βh)] / (1-2ε) (Chowdhury et al. 2024).

    Its mean over labels that are flipped with probability ε is DPO's loss on the true ones. Any shape; may be negative.

    Raises:
        ValueError: ε is not in [0, ½).
    """
    if not 0 <= epsilon < 0.5:
        raise ValueError("robust DPO needs 0 <= epsilon < 0.5")
    straight, flipped = -logsigmoid(beta * lead), -logsigmoid(-beta * lead)
    return ((1 - epsilon) * straight - epsilon * flipped) / (1 - 2 * epsilon)


def psi_po(lead: Tensor, gain: Tensor | float, tau: float) -> Tensor:
    """(h - gain/τ)²: the regression whose zero is the optimum of ΨPO (Azar et al. 2023, eq. 6 and 13).

    ΨPO maximises E[Ψ(p*(y ≻ y'))] - τ·KL(π ‖ π_ref) for responses y' of a fixed behaviour μ. At its optimum h(y, y') is
    the difference of E_μ[Ψ(p*(y ≻ ·))] and E_μ[Ψ(p*(y' ≻ ·))], over τ: that difference is ``gain``, or any number that
    has it as its mean.

    Args:
        lead: h, any shape.
        gain: broadcastable to it.
        tau: strength of the regularisation.
    """
    return (lead - gain / tau) ** 2


def ipo(lead: Tensor, tau: float = 0.1) -> Tensor:
    """(h - 1/2τ)²: identity preference optimisation (Azar et al. 2023, eq. 17). Any shape.

    `psi_po` with Ψ the identity: seen from either side, a judged pair is ±½ on average.
    """
    return psi_po(lead, 0.5, tau)


def hinge(lead: Tensor, beta: float = 0.1) -> Tensor:
    """max(0, 1 - βh): SLiC's calibration (Zhao et al. 2023) on log-ratios, as in RSO (Liu et al. 2023). Any shape."""
    return torch.relu(1 - beta * lead)


def simpo(lead: Tensor, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """-log σ(βh - γ) (Meng et al. 2024). Here h is the difference of *mean* log-probabilities: no reference policy."""
    return bradley_terry(beta * lead, torch.zeros_like(lead), margin=gamma)


def orpo(lead: Tensor) -> Tensor:
    """-log σ(h), h the difference of `log_odds` (Hong et al. 2024, eq. 7). ORPO's loss adds λ times this to the mean
    negative log-likelihood of the better response. Any shape.
    """
    return -logsigmoid(lead)


# -- from pairs to rankings ---------------------------------------------------------------------------------------


def pair_weights(ranks: Tensor, *, ties: Literal["drop", "half"] = "half", share: Tensor | None = None) -> Tensor:
    """How much each ordered pair counts; every judgment with a pair has the sum 1.

    Args:
        ranks: (B, K): 0 is best, equal numbers are ties, -1 was not ranked or is padding.
        ties: ``half``: a tie is half a vote for either; ``drop``: it does not count.
        share: (B,) the share of votes for the first response of a pair, NaN where nobody counted.

    Returns:
        (B, K, K), [b, i, j] the weight of "i is better than j"; 0 throughout where there is nothing to compare.
    """
    weights = ordered_pairs(ranks).float()
    if ties == "half":
        itself = torch.eye(ranks.shape[-1], dtype=torch.bool, device=ranks.device)
        weights = weights + 0.5 * (tied_pairs(ranks) & ~itself)
    if share is not None:
        counted = ~torch.isnan(share)
        votes = torch.zeros_like(weights)
        votes[:, 0, 1], votes[:, 1, 0] = torch.nan_to_num(share), 1 - torch.nan_to_num(share)
        weights = torch.where(counted[:, None, None], votes, weights)
    return weights / weights.sum((-2, -1), keepdim=True).clamp(min=1e-12)


def over_pairs(loss: Callable[[Tensor], Tensor], scores: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of a loss of leads over the pairs of each judgment.

    Args:
        loss: one of the losses above, (B, K, K) leads to (B, K, K).
        scores: (B, K); anything in the padding.
        weights: (B, K, K) of `pair_weights`.

    Returns:
        (B,) losses, 0 with zero gradient where there is nothing to compare.
    """
    counted = weights > 0
    compared = counted.any(-1) | counted.any(-2)
    scores = torch.where(compared, scores, torch.zeros_like(scores))  # padding must not reach the gradient
    lead = scores.unsqueeze(-1) - scores.unsqueeze(-2)
    return torch.where(counted, weights.to(scores.dtype) * loss(lead), torch.zeros_like(lead)).sum((-2, -1))


# -- human-aware losses ---------------------------------------------------------------------------------------------


def halo(
    rewards: Tensor, labels: Tensor, reference_point: Tensor | float, value: Callable[[Tensor], Tensor],
    *, desirable: float = 1.0, undesirable: float = 1.0,
) -> Tensor:  # fmt: skip
    """λ·(1 - v(±(r - z0))): a human-aware loss (Ethayarajh et al. 2024, def. 3.4).

    A value function v of gains over a reference point z0, of losses where the response was bad.

    Args:
        rewards: (R,) implicit rewards: log-ratios.
        labels: (R,) bool, whether each response is desirable.
        reference_point: z0, a constant to the gradient.
        value: v, increasing.
        desirable: λ of desirable responses.
        undesirable: λ of undesirable ones.

    Returns:
        (R,) losses.
    """
    good = labels.bool()
    gain = torch.where(good, rewards - reference_point, reference_point - rewards)
    weight = torch.where(good, torch.full_like(rewards, desirable), torch.full_like(rewards, undesirable))
    return weight * (1 - value(gain))


def kto(
    rewards: Tensor, labels: Tensor, reference_point: Tensor | float, beta: float = 0.1,
    *, desirable: float = 1.0, undesirable: float = 1.0,
) -> Tensor:  # fmt: skip
    """λ_D·(1 - σ(β(r - z0))) for desirable responses, λ_U·(1 - σ(β(z0 - r))) for undesirable ones.

    `halo` with v = σ(β·) (Ethayarajh et al. 2024, eq. 8); shapes as there.
    """
    return halo(
        rewards, labels, reference_point, lambda gain: torch.sigmoid(beta * gain),
        desirable=desirable, undesirable=undesirable,
    )  # fmt: skip


def kto_reference_point(mismatched: Tensor, mean: Callable[[Tensor], Tensor] = Tensor.mean) -> Tensor:
    """z0 = max(0, mean of the log-ratios of mismatched pairs (x_i, y_{i+1})): a biased, never negative estimate of
    KL(π ‖ π_ref), without gradient. (B,) of the *whole* batch, over its microbatches, to a scalar; where processes
    hold parts of it, ``mean`` is that over all of them.

    Raises:
        ValueError: fewer than two pairs: with one, the pair would not be mismatched.
    """
    if mismatched.shape[0] < 2:
        raise ValueError("KTO's reference point needs a batch of two or more")
    return mean(mismatched.detach()).clamp(min=0)
