"""A linear reward from rankings, and which two arms to compare next: what the theory adds to `fit_pairs`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from hearken.statistics.linear_reward import Array, LinearFit, finish_fit, maximise_likelihood, sigmoid

_ALIKE = 1e-7  # relative difference of widths up to which they count as equal


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

    theta, multiplier = maximise_likelihood(slopes, d, norm, ridge, centre)
    flat = pairs.reshape(-1, d)
    design = (flat * np.repeat(w, pairs.shape[1])[:, None]).T @ flat / (w.sum() * pairs.shape[1])
    scores = gradients(theta)[1] * np.sqrt(w)[:, None]
    return finish_fit(theta, slopes(theta)[2], scores, design, float(w.sum()), multiplier)


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


def _pair_terms(pairs: Array) -> Callable[[Array], tuple[Array, Array, Array]]:
    """Per ranking: loss (N,), gradient (N, d) and curvature (N, d, d) of its pairs (N, P, d)."""

    def terms(theta: Array) -> tuple[Array, Array, Array]:
        margin = pairs @ theta
        p = sigmoid(margin)
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
