"""Learning a linear reward from comparisons: maximum likelihood, its confidence, and pessimism.

The model is r(x) = θ·φ(x), and people compare by Bradley and Terry's model.
Zhu, Jordan and Jiao (2023) show that the maximum-likelihood θ is close to the truth in the norm of the comparisons'
own covariance, that its greedy policy may still never become good, and that a pessimistic one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]
_STEPS, _CLOSE, _LONGEST = 60, 1e-9, 4.0


@dataclass(frozen=True)
class LinearFit:
    """What `fit_pairs` returns."""

    theta: Array
    """(d,) the estimate."""
    design: Array
    """(d, d) Σ: mean outer product of the feature differences of all compared pairs (not of the features)."""
    information: Array
    """(d, d) curvature of the (penalised) negative log-likelihood at θ."""
    covariance: Array
    """(d, d) of θ's sampling error: H⁻¹ J H⁻¹ with one score per comparison."""
    n: float
    """Comparisons (prompts), weights counted."""
    ridge: float
    """Precision at which the likelihood was maximised: the one given, or the multiplier of the norm's bound."""

    def values(self, features: ArrayLike) -> Array:
        """(..., ) θ·φ of (..., d) features."""
        return np.asarray(features, dtype=np.float64) @ self.theta

    def width(self, features: ArrayLike, baseline: ArrayLike | None = None, ridge: float = 1e-6) -> Array:
        """(..., ) ‖φ - baseline‖ in the norm of (Σ + ridge·I)⁻¹, over √n; times c it is the confidence half-width.

        Args:
            features: (..., d).
            baseline: (d,) what values are compared with. Comparisons say nothing of a reward's zero, so a width
                without a baseline counts an ignorance that no choice depends on.
            ridge: keeps directions that no comparison has looked at finite (and wide).
        """
        x = np.asarray(features, dtype=np.float64)
        x = x if baseline is None else x - np.asarray(baseline, dtype=np.float64)
        solved = np.linalg.solve(self.design + ridge * np.eye(len(self.theta)), x.reshape(-1, x.shape[-1]).T).T
        square = np.einsum("...d,...d->...", x, solved.reshape(x.shape))
        width: Array = np.sqrt(np.maximum(square, 0.0) / max(self.n, 1e-12))
        return width

    def pessimistic(
        self, features: ArrayLike, c: float, baseline: ArrayLike | None = None, ridge: float = 1e-6
    ) -> Array:
        """(..., ) lower-confidence values θ·φ - c·`width`: what an offline policy should maximise (Zhu et al. 2023)."""
        return self.values(features) - c * self.width(features, baseline, ridge)


def fit_pairs(
    differences: ArrayLike,
    outcomes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    norm: float | None = None,
    ridge: float = 0.0,
    centre: ArrayLike | None = None,
) -> LinearFit:
    """Bradley-Terry maximum likelihood of θ, from pairs, by Newton's method.

    Args:
        differences: (N, d) φ(first) - φ(second).
        outcomes: (N,) of the first: 1 won, 0.5 tied, 0 lost, or shares of votes; None where the first always won.
            A tie or a share counts as so many comparisons won and the rest lost, in the covariance too.
        weights: (N,) of the pairs, e.g. how often each occurred, or how reliable its labeler is.
        norm: bound of ‖θ‖ (without one, and without a ridge, separable data have no maximum).
        ridge: precision of a normal prior around ``centre``.
        centre: (d,) of the prior and of the bound; 0 where None.

    Raises:
        ValueError: shapes that do not fit, an outcome outside 0..1, or no pair.
    """
    x = np.asarray(differences, dtype=np.float64)
    y = np.ones(len(x)) if outcomes is None else np.asarray(outcomes, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or not len(x) == len(y) == len(w) or len(x) == 0:
        raise ValueError(f"{x.shape} feature differences, {len(y)} outcomes and {len(w)} weights")
    if not np.all((y >= 0) & (y <= 1)):
        raise ValueError("an outcome is a number from 0 (lost) to 1 (won)")

    def slopes(theta: Array) -> tuple[float, Array, Array]:
        margin = x @ theta
        p = sigmoid(margin)
        value = float(w @ (np.logaddexp(0, -margin) + (1 - y) * margin))
        return value, x.T @ (w * (p - y)), (x * (w * p * (1 - p))[:, None]).T @ x

    theta, multiplier = maximise_likelihood(slopes, x.shape[1], norm, ridge, centre)
    p = sigmoid(x @ theta)
    # A row may stand for many comparisons: each was won or lost, and the mean of their squares counts.
    scores = x * np.sqrt(w * (y * (1 - p) ** 2 + (1 - y) * p**2))[:, None]
    design = (x * w[:, None]).T @ x / w.sum()
    return finish_fit(theta, slopes(theta)[2], scores, design, float(w.sum()), multiplier)


def sigmoid(x: Array) -> Array:
    """1/(1 + e⁻ˣ), which does not overflow."""
    return 0.5 * (1 + np.tanh(x / 2))


def maximise_likelihood(
    slopes: Callable[[Array], tuple[float, Array, Array]],
    d: int,
    norm: float | None,
    ridge: float,
    centre: ArrayLike | None,
) -> tuple[Array, float]:
    """Minimise a convex loss plus ridge·|θ - centre|²/2 within ‖θ - centre‖ ≤ norm; returns θ and the precision used.

    The bound's Lagrange multiplier is a ridge of its own (‖θ‖ falls as it grows), found by its logarithm.
    """
    middle = np.zeros(d) if centre is None else np.asarray(centre, dtype=np.float64)

    def solve(precision: float, start: Array) -> Array:
        theta = start
        for _ in range(_STEPS):
            value, gradient, curvature = slopes(theta)
            away = theta - middle
            value += precision * float(away @ away) / 2
            gradient = gradient + precision * away
            full = curvature + (precision + 1e-10 * (1 + np.trace(curvature))) * np.eye(d)
            change = -np.linalg.solve(full, gradient)
            change *= min(1.0, _LONGEST / max(float(np.linalg.norm(change)), 1e-300))
            scale = 1.0
            while scale > 1e-6:  # Newton's step, halved until the loss falls
                moved = theta + scale * change
                apart = moved - middle
                if slopes(moved)[0] + precision * float(apart @ apart) / 2 <= value + 1e-12 * (1 + abs(value)):
                    break
                scale /= 2
            theta = theta + scale * change
            if np.abs(scale * change).max(initial=0.0) < _CLOSE:
                break
            if norm is not None and precision == ridge and np.linalg.norm(theta - middle) > 10 * norm:
                break  # on its way to infinity: the bound will hold it
        return theta

    theta = solve(ridge, middle)
    if norm is None or np.linalg.norm(theta - middle) <= norm * (1 + 1e-9):
        return theta, ridge
    found = middle

    def beyond(log_precision: float) -> float:
        nonlocal found
        found = solve(ridge + math.exp(log_precision), found)
        return float(np.linalg.norm(found - middle)) - norm

    steepest = float(np.linalg.norm(slopes(middle)[1]))  # ‖θ - centre‖ ≤ gradient at the centre / precision
    at = float(brentq(beyond, -20.0, math.log(max(steepest, 1e-300) / norm) + 1e-6, xtol=1e-8))
    return solve(ridge + math.exp(at), found), ridge + math.exp(at)


def finish_fit(theta: Array, curvature: Array, scores: Array, design: Array, n: float, ridge: float) -> LinearFit:
    """The fit at a maximum: its curvature (d, d) there, the (N, d) scores, Σ, comparisons and the precision used."""
    information = curvature + ridge * np.eye(len(theta))
    inverse = np.linalg.pinv(information, hermitian=True)
    return LinearFit(theta, design, information, inverse @ (scores.T @ scores) @ inverse, n, ridge)
