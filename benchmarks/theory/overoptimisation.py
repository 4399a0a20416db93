"""Over-optimisation as Gao, Schulman and Hilton (2022) measure it: gold reward against d = √KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Form = Literal["best_of_n", "rl"]


@dataclass(frozen=True)
class GaoFit:
    """R(d) = d(α - βd) for best-of-n, d(α - β log d) for RL, above the reward at d = 0."""

    form: Form
    alpha: float
    beta: float
    alpha_error: float
    """Standard error of α (NaN where the points are no more than the parameters)."""
    beta_error: float
    r2: float
    """Share of the points' variance that is explained."""

    def value(self, d: ArrayLike) -> Array:
        """R at distances d."""
        x = np.asarray(d, dtype=np.float64)
        return self.alpha * x - self.beta * _bend(x, self.form)

    @property
    def peak(self) -> float:
        """The d of the highest R: α/2β or e^{α/β - 1}; infinite where the fit does not turn down (β ≤ 0)."""
        if self.beta <= 0:
            return math.inf
        if self.form == "best_of_n":
            return max(self.alpha / (2 * self.beta), 0.0)
        return math.exp(min(self.alpha / self.beta - 1, 700.0))


def fit_gao(d: ArrayLike, reward: ArrayLike, form: Form, weights: ArrayLike | None = None) -> GaoFit:
    """Least squares of either form, which are linear in α and β.

    Args:
        d: (N,) √KL, 0 or more.
        reward: (N,) gold reward minus that of the initial policy.
        form: see `GaoFit`.
        weights: (N,) e.g. 1/variance.

    Raises:
        ValueError: fewer than two points with d > 0, lengths that differ, or a negative d.
    """
    x, y = np.asarray(d, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(x) == len(y) == len(w) or (x < 0).any() or len(np.unique(x[x > 0])) < 2:
        raise ValueError("a fit needs two different distances above 0, and a reward for each")
    columns = np.stack([x, -_bend(x, form)], axis=1) * np.sqrt(w)[:, None]
    target = y * np.sqrt(w)
    solution, _, rank, _ = np.linalg.lstsq(columns, target, rcond=None)
    rest = target - columns @ solution
    free = len(x) - 2
    errors = np.full(2, math.nan)
    if free > 0 and rank == 2:
        errors = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * (rest @ rest) / free)
    spread = float(w @ (y - np.average(y, weights=w)) ** 2)
    r2 = 1 - float(rest @ rest) / spread if spread > 0 else math.nan
    return GaoFit(form, float(solution[0]), float(solution[1]), float(errors[0]), float(errors[1]), r2)


def _bend(d: Array, form: Form) -> Array:
    return d**2 if form == "best_of_n" else d * np.log(np.where(d > 0, d, 1.0))


@dataclass(frozen=True)
class Noise:
    """Density and distribution function of a proxy's error."""

    density: Callable[[Array], Array]
    below: Callable[[Array], Array]


def student_2() -> Noise:
    """Student's t with 2 degrees of freedom: tails so heavy that a high proxy is mostly error."""
    return Noise(lambda x: (2 + x**2) ** -1.5, lambda x: 0.5 + x / (2 * np.sqrt(2 + x**2)))


def gaussian(sd: float = 1.0) -> Noise:
    """Normal error: the proxy's maximum is then always worth something."""
    from scipy.special import ndtr

    return Noise(
        lambda x: np.exp(-((x / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi)), lambda x: np.asarray(ndtr(x / sd))
    )


def expected_best_of_n(noise: Noise, n: int, nodes: int = 4001) -> tuple[float, float]:
    """Expected proxy and gold of the best of n by proxy, where gold ~ N(0, 1) and proxy = gold + noise; by integration.

    E[h] = ∫ E[h | p] n F(p)^{n-1} f(p) dp on a grid p = sinh(u), which reaches far into heavy tails; over gold by
    Gauss and Hermite's rule.

    Args:
        noise: independent of gold.
        n: how many are drawn.
        nodes: of the grid.

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"best of {n} is none")
    points, share = np.polynomial.hermite_e.hermegauss(61)
    share = share / share.sum()
    u = np.linspace(-20.0, 20.0, nodes)
    p, step = np.sinh(u), np.cosh(u) * (u[1] - u[0])
    error = p[:, None] - points
    density = noise.density(error)
    f, of_gold = density @ share, density @ (share * points)
    chance = n * np.clip(noise.below(error) @ share, 0, 1) ** (n - 1) * step
    return float(np.sum(p * f * chance)), float(np.sum(of_gold * chance))


def best_of_n(proxy: ArrayLike, gold: ArrayLike, n: int) -> float:
    """Unbiased estimate of the gold reward of the best of n responses by the proxy, from N ≥ n responses to one prompt.

    Σ_i C(i-1, n-1)/C(N, n) · gold_(i), the responses sorted by proxy, ascending: the mean over all subsets of n (Nakano
    et al. 2021). Where proxies are equal, one is picked at random.

    Args:
        proxy: (N,) scores that choose.
        gold: (N,) scores that are reported; the proxy again for its own expected maximum.
        n: how many responses are chosen from.

    Raises:
        ValueError: n outside 1..N, or lengths that differ.
    """
    chooser, reported = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    size = len(chooser)
    if chooser.shape != reported.shape or not 1 <= n <= size:
        raise ValueError(f"best of {n} from {size} proxy and {len(reported)} gold scores cannot be estimated")
    # C(i-1, n-1)/C(N, n) downward from its value n/N at i = N; the factorials would overflow. It reaches 0 below i = n.
    position = np.arange(size, 1, -1)
    falling = np.cumprod(np.concatenate([[n / size], np.maximum(position - n, 0) / (position - 1)]))
    weight = falling[::-1]
    order = np.argsort(chooser, kind="stable")
    _, level = np.unique(chooser[order], return_inverse=True)
    shared = (np.bincount(level, weights=weight) / np.bincount(level))[level]  # equal proxies share their weight
    return float(shared @ reported[order])
