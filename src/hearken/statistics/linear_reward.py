"""Learning a linear reward from comparisons: maximum likelihood, its confidence, pessimism and optimism.

The model is r(x) = θ·φ(x), and people compare by Bradley and Terry's model (pairs) or Plackett and Luce's (rankings).
Zhu, Jordan and Jiao (2023) show that the maximum-likelihood θ is close to the truth in the norm of the comparisons'
own covariance, that its greedy policy may still never become good, and that a pessimistic one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]
_STEPS, _CLOSE, _LONGEST = 60, 1e-9, 4.0
_ALIKE = 1e-7  # relative difference of widths up to which they count as equal


@dataclass(frozen=True)
class LinearFit:
    """What `fit_pairs` and `fit_rankings` return."""

    theta: Array
    """(d,) the estimate."""
    design: Array
    """(d, d) Σ: mean outer product of the feature differences of all compared pairs (not of the features)."""
    information: Array
    """(d, d) curvature of the (penalised) negative log-likelihood at θ."""
    covariance: Array
    """(d, d) of θ's sampling error: H⁻¹ J H⁻¹ with one score per comparison, which also holds for split rankings."""
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

    def optimistic(
        self, features: ArrayLike, c: float, baseline: ArrayLike | None = None, ridge: float = 1e-6
    ) -> Array:
        """(..., ) upper-confidence values θ·φ + c·`width`: what is worth trying while people can be asked."""
        return self.values(features) + c * self.width(features, baseline, ridge)

    def standard_error(self, features: ArrayLike, baseline: ArrayLike | None = None) -> Array:
        """(..., ) of θ·(φ - baseline), by the delta method from `covariance`."""
        x = np.asarray(features, dtype=np.float64)
        x = x if baseline is None else x - np.asarray(baseline, dtype=np.float64)
        error: Array = np.sqrt(np.maximum(np.einsum("...i,ij,...j->...", x, self.covariance, x), 0.0))
        return error


def confidence_radius(dimension: int, n: float, delta: float, bound: float, ridge: float = 1e-6) -> float:
    """A radius in Σ's norm that holds θ with probability 1 - delta, up to a universal constant taken as 1.

    √((d + log 1/δ)/(γ² n) + λB²) with γ = 1/(2 + e^{-B} + e^{B}), for features within the unit ball (Zhu et al. 2023,
    lemma 3.1). Over √n removed it is the c of `LinearFit.pessimistic`; in practice c is tuned, e.g. between 1 and 5.

    Args:
        dimension: d.
        n: comparisons.
        delta: chance of being wrong.
        bound: B, an upper bound of the values' size.
        ridge: λ.

    Raises:
        ValueError: numbers for which it means nothing.
    """
    if dimension < 1 or n <= 0 or not 0 < delta < 1 or bound <= 0:
        raise ValueError("a radius needs dimension, n and bound above 0, and delta within 0..1")
    flatness = 1 / (2 + math.exp(-bound) + math.exp(bound))
    return math.sqrt((dimension + math.log(1 / delta)) / (flatness**2 * n) + ridge * bound**2)


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
        p = _sigmoid(margin)
        value = float(w @ (np.logaddexp(0, -margin) + (1 - y) * margin))
        return value, x.T @ (w * (p - y)), (x * (w * p * (1 - p))[:, None]).T @ x

    theta, multiplier = _maximise(slopes, x.shape[1], norm, ridge, centre)
    p = _sigmoid(x @ theta)
    # A row may stand for many comparisons: each was won or lost, and the mean of their squares counts.
    scores = x * np.sqrt(w * (y * (1 - p) ** 2 + (1 - y) * p**2))[:, None]
    design = (x * w[:, None]).T @ x / w.sum()
    return _finish(theta, slopes(theta)[2], scores, design, float(w.sum()), multiplier)


def fit_rankings(
    features: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    split: bool = False,
    norm: float | None = None,
    ridge: float = 0.0,
    centre: ArrayLike | None = None,
) -> LinearFit:
    """Maximum likelihood of θ from rankings of K: Plackett and Luce's, or that of all pairs as if independent (split).

    Split pairs are consistent too, but waste some of what a ranking says (Zhu et al. 2023, theorem 4.1 and section 4).

    Args:
        features: (N, K, d), each ranking's responses best first.
        weights: (N,) of the rankings.
        split: maximise the likelihood of the C(K, 2) pairs of each ranking.
        norm: see `fit_pairs`, as are ridge and centre.
        ridge: see there.
        centre: see there.

    Raises:
        ValueError: not (N, K, d) with N > 0 and K > 1, or another number of weights.
    """
    x = np.asarray(features, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 3 or x.shape[1] < 2 or len(x) == 0 or len(w) != len(x):
        raise ValueError(f"{x.shape} features of rankings and {len(w)} weights")
    size, d = x.shape[1:]
    better, worse = (list(side) for side in zip(*combinations(range(size), 2), strict=True))
    pairs = x[:, better] - x[:, worse]
    gradients: Callable[[Array], tuple[Array, Array, Array]] = _pair_terms(pairs) if split else _ranking_terms(x)

    def slopes(theta: Array) -> tuple[float, Array, Array]:
        value, scores, curvature = gradients(theta)
        return float(w @ value), w @ scores, np.einsum("n,nij->ij", w, curvature)

    theta, multiplier = _maximise(slopes, d, norm, ridge, centre)
    flat = pairs.reshape(-1, d)
    design = (flat * np.repeat(w, pairs.shape[1])[:, None]).T @ flat / (w.sum() * pairs.shape[1])
    scores = gradients(theta)[1] * np.sqrt(w)[:, None]
    return _finish(theta, slopes(theta)[2], scores, design, float(w.sum()), multiplier)


def optimistic_pair(fit: LinearFit, features: ArrayLike, c: float) -> tuple[int, int]:
    """Which two of A arms to compare next: the pair least known among those that may still be best (Saha 2021).

    An arm may be best as long as no other one beats it by more than c standard errors of their difference. Once one
    arm is left it is compared with itself, and nothing is regretted. The errors are those of the curvature, not of
    the covariance Σ as in `LinearFit.width`: comparisons whose outcome was clear beforehand teach little.

    Args:
        fit: of the comparisons so far; with a ridge, so that nothing is known of what was never compared.
        features: (A, d) of the arms.
        c: how wide the confidence is.
    """
    x = np.asarray(features, dtype=np.float64)
    lead = fit.values(x)[:, None] - fit.values(x)[None]
    spread = x @ np.linalg.pinv(fit.information, hermitian=True) @ x.T
    own = np.diag(spread)
    width = np.sqrt(np.maximum(own[:, None] + own[None] - 2 * spread, 0.0))
    alive = np.flatnonzero((lead + c * width >= 0).all(1))
    if len(alive) == 0:  # rounding only: the best by value is never beaten
        alive = np.array([int(np.argmax(fit.values(x)))])
    inside = width[np.ix_(alive, alive)]
    # Of pairs as little known as each other the first, not the one that this machine's rounding makes the largest.
    a, b = np.unravel_index(int(np.argmax(inside >= inside.max() * (1 - _ALIKE))), inside.shape)
    return int(alive[a]), int(alive[b])


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def _pair_terms(pairs: Array) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Per ranking: loss (N,), gradient (N, d) and curvature (N, d, d) of its pairs (N, P, d)."""

    def terms(theta: Array) -> tuple[Array, Array, Array]:
        margin = pairs @ theta
        p = _sigmoid(margin)
        curvature = np.einsum("npi,np,npj->nij", pairs, p * (1 - p), pairs, optimize=True)
        return np.logaddexp(0, -margin).sum(1), np.einsum("np,npi->ni", p - 1, pairs), curvature

    return terms


def _ranking_terms(x: Array) -> Callable[[Array], tuple[Array, Array, Array]]:
    """The same of Plackett and Luce's likelihood: at place k the choice is among all from k on."""

    def terms(theta: Array) -> tuple[Array, Array, Array]:
        values = x @ theta
        loss = np.zeros(len(x))
        gradient, curvature = np.zeros(x.shape[::2]), np.zeros((len(x), x.shape[2], x.shape[2]))
        for k in range(x.shape[1] - 1):
            left = x[:, k:]
            chance = np.exp(values[:, k:] - values[:, k:].max(1, keepdims=True))
            total = chance.sum(1, keepdims=True)
            chance /= total
            loss -= np.log(chance[:, 0])
            mean = np.einsum("nk,nki->ni", chance, left)
            gradient += mean - left[:, 0]
            apart = left - mean[:, None]
            curvature += np.einsum("nki,nk,nkj->nij", apart, chance, apart, optimize=True)
        return loss, gradient, curvature

    return terms


def _maximise(
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


def _finish(theta: Array, curvature: Array, scores: Array, design: Array, n: float, ridge: float) -> LinearFit:
    information = curvature + ridge * np.eye(len(theta))
    inverse = np.linalg.pinv(information, hermitian=True)
    return LinearFit(theta, design, information, inverse @ (scores.T @ scores) @ inverse, n, ridge)
