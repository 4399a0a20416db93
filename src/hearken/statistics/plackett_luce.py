"""Strengths from rankings: the model of Plackett (1975) and Luce (1959)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize


def plackett_luce(rankings: Sequence[Sequence[int]], size: int, ridge: float = 0.01) -> NDArray[np.float64]:
    """Maximum likelihood of rankings, log L = Σ over rankings and places k of θ_(k) - log Σ_{j≥k} e^{θ_(j)}.

    Concave in θ; minus ridge·|θ|²/2 it has a maximum even where someone is always first. Rankings of two are Bradley
    and Terry's model.

    Args:
        rankings: each the numbers 0..size-1 of what was ranked, best first; any subset, of any length.
        size: how many there are.
        ridge: precision of the normal prior.

    Returns:
        (size,) θ, in log-odds, with mean 0.

    Raises:
        ValueError: a number outside 0..size-1, or twice in one ranking.
    """
    for ranking in rankings:
        if len(set(ranking)) != len(ranking) or any(not 0 <= i < size for i in ranking):
            raise ValueError(f"not a ranking of numbers below {size}: {list(ranking)}")
    longest = max((len(ranking) for ranking in rankings), default=0)
    rows = np.full((len(rankings), longest), -1)
    for row, ranking in zip(rows, rankings, strict=True):
        row[: len(ranking)] = ranking
    here = rows >= 0
    chosen = here.copy()
    if longest:
        chosen[np.arange(len(rows)), np.maximum(here.sum(1) - 1, 0)] = False  # the last of a ranking is no choice

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = np.where(here, theta[rows], -np.inf)
        highest = scores.max(1, keepdims=True, initial=-1e300)
        weight = np.exp(scores - highest)
        left = np.cumsum(weight[:, ::-1], 1)[:, ::-1]  # Σ_{j≥k}
        value = (scores - highest)[chosen].sum() - np.log(left[chosen]).sum()
        # ∂/∂θ_(j) of Σ_k log Σ_{j'≥k}: its share of each choice up to its own place.
        share = weight * np.cumsum(np.where(chosen, 1 / np.where(left > 0, left, 1), 0), 1)
        gradient = np.zeros(size)
        np.add.at(gradient, rows[here], (chosen - share)[here])
        return float(ridge * theta @ theta / 2 - value), ridge * theta - gradient

    found = minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-14})
    theta: NDArray[np.float64] = found.x - found.x.mean()
    return theta
