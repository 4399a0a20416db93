"""Strengths from paired comparisons: Bradley and Terry's model, with Davidson's ties, and a leaderboard of it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from hearken.statistics.intervals import Interval, cluster_index, percentile, resamples

_CHUNK = 500_000  # rows times resamples held in memory at once
_STEPS, _LONGEST, _CLOSE = 100, 2.0, 1e-9  # of Newton's method: most, longest in log-odds, and when to stop


def outcome_table(outcomes: ArrayLike) -> NDArray[np.float64]:
    """(N, 3) weights of win, tie, loss from (N,) outcomes: 1 won, 0.5 tied, 0 lost; other numbers are shares of votes.

    Raises:
        ValueError: an outcome outside 0..1.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    if not np.all((y >= 0) & (y <= 1)):
        raise ValueError("an outcome is a number from 0 (lost) to 1 (won)")
    tied = y == 0.5
    return np.stack([np.where(tied, 0, y), tied.astype(np.float64), np.where(tied, 0, 1 - y)], axis=1)


def fit_davidson(
    features: ArrayLike,
    outcomes: ArrayLike,
    weights: ArrayLike | None = None,
    ridge: float = 0.01,
    start: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Maximum likelihood of paired comparisons with ties (Davidson 1970), by Newton's method, for B weightings at once.

    With d = x·β: P(win) : P(tie) : P(loss) = e^{d/2} : ν : e^{-d/2}. With x the difference of two indicators this is
    Davidson's model of strengths e^β; without ties ν = 0 and it is Bradley and Terry's (1952). Further columns of x are
    covariates. The log-likelihood is concave; minus ridge·(|β|² + log² ν)/2 it has a maximum even where someone never
    loses, or two groups never meet, and β adds up to 0 within each group.

    Args:
        features: (N, F) x of each comparison.
        outcomes: (N,) see `outcome_table`.
        weights: (B, N) weights of the comparisons, one fit each; None is one fit with all 1.
        ridge: precision of the normal prior.
        start: (F + 1,) where to start, e.g. the solution for other weights.

    Returns:
        (B, F + 1) β, and last log ν (-inf where there are no ties).
    """
    x, y = np.asarray(features, dtype=np.float64), outcome_table(outcomes)
    w = np.ones((1, len(x))) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or w.shape[1] != len(x):
        raise ValueError(f"{len(x)} rows of features, {len(y)} outcomes and {w.shape[1]} weights")
    first = np.zeros(x.shape[1] + 1) if start is None else np.nan_to_num(np.asarray(start), neginf=0.0)
    step = max(1, _CHUNK // max(len(x), 1))
    return np.concatenate([_newton(x, y, w[i : i + step], ridge, first) for i in range(0, len(w), step)])


def _newton(
    x: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], ridge: float, start: NDArray[np.float64]
) -> NDArray[np.float64]:
    size, has_ties = x.shape[1], bool(y[:, 1].any())
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    parameters = np.tile(start, (len(w), 1))
    if not has_ties:
        parameters[:, -1] = 0.0
    lead, total = (y[:, 0] - y[:, 2]) / 2, y.sum(1)
    prior = ridge * np.eye(size + 1)
    for _ in range(_STEPS):
        d = parameters[:, :size] @ x.T
        odds = np.stack([d / 2, np.broadcast_to(parameters[:, -1:], d.shape), -d / 2])
        if not has_ties:
            odds[1] = -np.inf
        odds = np.exp(odds - odds.max(0))
        win, tie, loss = odds / odds.sum(0)
        mean = (win - loss) / 2
        gradient = np.empty_like(parameters)
        gradient[:, :size] = (w * (lead - total * mean)) @ x
        gradient[:, -1] = (w * (y[:, 1] - total * tie)).sum(1)
        gradient -= ridge * parameters
        curvature = np.empty((len(w), size + 1, size + 1))
        m = w * total
        curvature[:, :size, :size] = ((m * ((win + loss) / 4 - mean**2)) @ squares).reshape(-1, size, size)
        curvature[:, :size, -1] = curvature[:, -1, :size] = -(m * tie * mean) @ x
        curvature[:, -1, -1] = (m * tie * (1 - tie)).sum(1)
        change = np.linalg.solve(curvature + prior + 1e-12 * np.eye(size + 1), gradient[:, :, None])[:, :, 0]
        change *= np.minimum(1.0, _LONGEST / np.maximum(np.abs(change).max(1, keepdims=True), 1e-300))
        parameters += change
        if np.abs(change).max(initial=0.0) < _CLOSE:
            break
    if not has_ties:
        parameters[:, -1] = -np.inf
    return parameters


@dataclass(frozen=True, slots=True)
class Standing:
    """One row of a leaderboard."""

    name: str
    strength: Interval
    """β, in log-odds, relative to the mean of all."""
    wins: float
    ties: float
    losses: float
    place: int
    """1 is best."""
    level_with: tuple[str, ...]
    """Those that cannot yet be told apart from it: the interval of the difference holds 0."""


@dataclass(frozen=True)
class Leaderboard:
    """What `leaderboard` returns."""

    standings: tuple[Standing, ...]
    """Best first."""
    covariate: Interval | None
    """Coefficient of the covariate; None where there was none."""
    names: tuple[str, ...]
    """In the order of ``fitted``."""
    fitted: NDArray[np.float64]
    """(1 + B, P + 1) β of each name and log ν: the estimate first, then the resamples."""

    def difference(self, a: str, b: str) -> Interval:
        """β of ``a`` minus β of ``b``, in log-odds."""
        one, other = self.names.index(a), self.names.index(b)
        return self._interval(self.fitted[:, one] - self.fitted[:, other])

    def chance(self, a: str, b: str) -> Interval:
        """The chance that ``a`` beats ``b``, half of that of a tie included."""
        one, other = self.names.index(a), self.names.index(b)
        half = (self.fitted[:, one] - self.fitted[:, other]) / 2
        tie = np.exp(self.fitted[:, -1])
        odds = np.exp(half)
        return self._interval((odds + tie / 2) / (odds + tie + 1 / odds))

    def _interval(self, values: NDArray[np.float64]) -> Interval:
        if len(values) == 1:
            return Interval(float(values[0]), math.nan, math.nan)
        return percentile(values[1:], float(values[0]))


def leaderboard(
    first: Sequence[str],
    second: Sequence[str],
    outcomes: ArrayLike,
    prompts: Sequence[Hashable] | NDArray[np.generic] | None = None,
    covariate: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    ridge: float = 0.01,
) -> Leaderboard:
    """Who is better, from comparisons of pairs: Davidson's model, with intervals by bootstrap over prompts.

    A covariate is a number per comparison that turns round with the sides, e.g. how much longer the first response is;
    strengths are then those at equal length. See `length_lead` (Dubois et al. 2024).

    Args:
        first: (N,) names, e.g. of policies.
        second: (N,) whom each was compared with.
        outcomes: (N,) of the first: 1 won, 0.5 tied, 0 lost, or a share of votes.
        prompts: the prompt of each comparison; None if every one has its own.
        covariate: (N,) see above.
        weights: (N,) of the comparisons.
        n: resamples.
        seed: of the resampling.
        ridge: see `fit_davidson`; as small as it is, it only matters where someone never loses or groups never meet.

    Raises:
        ValueError: no comparisons, lengths that differ, or a name compared with itself only.
    """
    y = np.asarray(outcomes, dtype=np.float64)
    if len(y) == 0 or not len(first) == len(second) == len(y):
        raise ValueError(f"a leaderboard of {len(first)} and {len(second)} names with {len(y)} outcomes")
    names = tuple(dict.fromkeys([*first, *second]))
    number = {name: i for i, name in enumerate(names)}
    a, b = (np.array([number[name] for name in side]) for side in (first, second))
    base = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    columns = [a, b, y] if covariate is None else [a, b, y, np.asarray(covariate, dtype=np.float64)]
    # Comparisons that are alike are one row of the fit, which counts as often as there are of them.
    alike, row = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    row, rows = row.reshape(-1), np.arange(len(alike))
    x = np.zeros((len(alike), len(names) + (covariate is not None)))
    x[rows, alike[:, 0].astype(np.int64)] += 1
    x[rows, alike[:, 1].astype(np.int64)] -= 1
    if covariate is not None:
        x[:, -1] = alike[:, 3]
    owner = cluster_index(prompts, len(y))
    estimate = fit_davidson(x, alike[:, 2], np.bincount(row, base)[None], ridge)
    fits = estimate
    if (clusters := int(owner.max()) + 1) > 1:
        share = csr_array((base, (row, owner)), shape=(len(alike), clusters))  # of each cluster in each row
        fits = np.concatenate(
            [
                estimate,
                *(
                    fit_davidson(x, alike[:, 2], (share @ counts.T).T, ridge, estimate[0])
                    for counts in resamples(clusters, n, seed)
                ),
            ]
        )
    kept = np.delete(fits, len(names), axis=1) if covariate is not None else fits
    kept[:, :-1] -= kept[:, :-1].mean(1, keepdims=True)
    board = Leaderboard((), None, names, kept)
    table = outcome_table(y) * base[:, None]
    tally = np.zeros((len(names), 3))
    for place in range(3):
        tally[:, place] = np.bincount(a, table[:, place], len(names)) + np.bincount(b, table[:, 2 - place], len(names))
    order = np.argsort(-kept[0, :-1], kind="stable")
    standings = tuple(
        Standing(
            name=names[i],
            strength=board._interval(kept[:, i]),
            wins=float(tally[i, 0]),
            ties=float(tally[i, 1]),
            losses=float(tally[i, 2]),
            place=place,
            level_with=tuple(names[j] for j in order if j != i and _holds_zero(board.difference(names[i], names[j]))),
        )
        for place, i in enumerate(order, 1)
    )
    effect = board._interval(fits[:, len(names)]) if covariate is not None else None
    return Leaderboard(standings, effect, names, kept)


def _holds_zero(difference: Interval) -> bool:
    return not (difference.low > 0 or difference.high < 0)  # NaN bounds hold it


def length_lead(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """The covariate of length-controlled win rates: tanh of the difference in length over its root mean square.

    As in Dubois et al. (2024): antisymmetric, and bounded so that a few very long responses do not rule.

    Args:
        first: (N,) length of the first response, e.g. in words.
        second: (N,) of the second.
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    spread = float(np.sqrt(np.mean(difference**2))) if len(difference) else 0.0
    return np.tanh(difference / spread) if spread > 0 else np.zeros_like(difference)
