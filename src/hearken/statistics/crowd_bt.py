"""Strengths and labelers' reliability together, from pairs: the Crowd-BT model of Chen et al. (2013)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit


@dataclass(frozen=True)
class CrowdBT:
    """What `crowd_bt` returns."""

    strength: NDArray[np.float64]
    """(R,) θ of each response, in log-odds."""
    reliability: NDArray[np.float64]
    """(L,) η of each labeler: 1 always goes by the strengths, 0.5 tosses a coin, 0 says the opposite."""


def crowd_bt(
    first: ArrayLike,
    second: ArrayLike,
    labelers: ArrayLike,
    outcomes: ArrayLike,
    ridge: float = 0.1,
    right: float = 10.0,
    wrong: float = 1.0,
) -> CrowdBT:
    """Maximum a posteriori of P(labeler l prefers i to j) = η_l σ(θ_i - θ_j) + (1 - η_l) σ(θ_j - θ_i).

    The priors are θ ~ N(0, 1/ridge) and η ~ Beta(right, wrong); the second one says that labelers rather mean well,
    without which turning everything round would fit as well. Responses need many comparisons each (ten or more):
    with few, strengths close to 0 explain all disagreement and nobody seems unreliable; take `dawid_skene` then.

    Args:
        first: (N,) number of a response, 0..R-1.
        second: (N,) of the one it was compared with.
        labelers: (N,) number of the labeler, 0..L-1.
        outcomes: (N,) 1 the first was preferred, 0 the second, 0.5 a tie (half of each).
        ridge: see above.
        right: see above; 10 and 1 are the paper's.
        wrong: see above.

    Raises:
        ValueError: no comparisons, or an outcome outside 0..1.
    """
    i, j, who = (np.asarray(a, dtype=np.int64) for a in (first, second, labelers))
    y = np.asarray(outcomes, dtype=np.float64)
    if len(y) == 0 or not np.all((y >= 0) & (y <= 1)):
        raise ValueError("comparisons with outcomes from 0 to 1 are needed")
    responses, people = int(max(i.max(), j.max())) + 1, int(who.max()) + 1

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta, logit = parameters[:responses], parameters[responses:]
        d = theta[i] - theta[j]
        p, eta = expit(d), expit(logit)[who]
        prefer = eta * p + (1 - eta) * (1 - p)
        prefer = np.clip(prefer, 1e-12, 1 - 1e-12)
        by_prefer = y / prefer - (1 - y) / (1 - prefer)
        value = np.sum(y * np.log(prefer) + (1 - y) * np.log1p(-prefer))
        value += float(np.sum((right - 1) * log_expit(logit) + (wrong - 1) * log_expit(-logit)))
        value -= ridge * float(theta @ theta) / 2
        by_d = by_prefer * (2 * eta - 1) * p * (1 - p)
        by_theta = np.bincount(i, by_d, responses) - np.bincount(j, by_d, responses) - ridge * theta
        by_logit = np.bincount(who, by_prefer * (2 * p - 1) * eta * (1 - eta), people)
        by_logit += (right - 1) - (right + wrong - 2) * expit(logit)
        return -float(value), -np.concatenate([by_theta, by_logit])

    begin = np.concatenate([np.zeros(responses), np.full(people, np.log(right / wrong))])
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=[(-30, 30)] * len(begin))
    return CrowdBT(found.x[:responses], expit(found.x[responses:]))
