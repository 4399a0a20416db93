"""Groups of labelers who want different things: finding them from their comparisons, and what averaging costs them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.statistics.intervals import cluster_index
from hearken.statistics.linear_reward import fit_pairs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Tastes:
    """What `discover_groups` returns."""

    labelers: tuple[Hashable, ...]
    membership: Array
    """(L, G) chance that each labeler is of each group."""
    theta: Array
    """(G, d) each group's linear reward."""
    share: Array
    """(G,) of the labelers, largest first."""
    log_likelihood: float
    bic: float
    """Bayesian information criterion, smaller is better: compare numbers of groups by it."""

    def group(self, labeler: Hashable) -> int:
        """The likeliest group of a labeler."""
        return int(self.membership[self.labelers.index(labeler)].argmax())


def discover_groups(
    differences: ArrayLike, labelers: Sequence[Hashable], groups: int, *, ridge: float = 1.0, starts: int = 4,
    seed: int = 0, steps: int = 60,
) -> Tastes:  # fmt: skip
    """A mixture of Bradley-Terry models over labelers, by expectation maximisation: who shares whose taste?

    Each labeler belongs to one group and judges by its linear reward. A labeler's all comparisons speak for the
    membership together, so a few dozen each tell groups apart that no single comparison could.

    Args:
        differences: (N, d) φ(preferred) - φ(other), e.g. of a reward model's last layer or of known features.
        labelers: (N,) who judged.
        groups: how many; 1 is the average taste.
        ridge: precision of the normal prior of each group's reward.
        starts: random beginnings, of which the likeliest end is taken.
        seed: of the beginnings.
        steps: of expectation maximisation at most.

    Raises:
        ValueError: fewer labelers than groups, or lengths that differ.
    """
    x = np.asarray(differences, dtype=np.float64)
    who = cluster_index(labelers, len(x))
    names = tuple(dict.fromkeys(labelers))
    if not 1 <= groups <= len(names):
        raise ValueError(f"{groups} groups of {len(names)} labelers")
    rng = np.random.default_rng(seed)
    best: Tastes | None = None
    for _ in range(starts if groups > 1 else 1):
        member = rng.dirichlet(np.full(groups, 0.5), len(names))
        before = -np.inf
        for _ in range(steps):
            share = np.maximum(member.mean(0), 1e-9)
            theta = np.stack([fit_pairs(x, None, member[who, g] + 1e-9, ridge=ridge).theta for g in range(groups)])
            each = -np.logaddexp(0, -(x @ theta.T))
            joint = np.log(share) + np.stack([np.bincount(who, each[:, g], len(names)) for g in range(groups)], 1)
            top = joint.max(1, keepdims=True)
            total = (top + np.log(np.exp(joint - top).sum(1, keepdims=True)))[:, 0]
            member = np.exp(joint - total[:, None])
            if total.sum() - before < 1e-6 * abs(total.sum()):
                break
            before = float(total.sum())
        if best is None or total.sum() > best.log_likelihood:
            order = np.argsort(-share)
            parameters = groups * x.shape[1] + groups - 1
            found = float(total.sum())
            bic = parameters * np.log(len(x)) - 2 * found
            best = Tastes(names, member[:, order], theta[order], share[order], found, float(bic))
    assert best is not None
    return best


@dataclass(frozen=True)
class Averaging:
    """What one response for everybody costs each group: (G,) each."""

    own: Array
    """Mean value of the response that the group itself likes best, to that group."""
    average: Array
    """Of the one that is best by the average of the groups' values."""
    worst_off: Array
    """Of the one whose least satisfied group is best off (max-min)."""

    @property
    def price(self) -> Array:
        """What each group loses by averaging."""
        return self.own - self.average


def price_of_averaging(values: ArrayLike, weights: ArrayLike | None = None) -> Averaging:
    """Choose among the responses to each prompt for each group alone, for the average, and for the worst off.

    Args:
        values: (N, K, G) what each of K responses to each prompt is worth to each group.
        weights: (G,) of the groups in the average; equal where None.

    Raises:
        ValueError: not three dimensions, or another number of weights.
    """
    v = np.asarray(values, dtype=np.float64)
    if v.ndim != 3:
        raise ValueError(f"values of shape {v.shape}, not (prompts, responses, groups)")
    w = np.full(v.shape[2], 1 / v.shape[2]) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(w) != v.shape[2]:
        raise ValueError(f"{len(w)} weights for {v.shape[2]} groups")
    rows = np.arange(len(v))
    least = (v - v.mean(1, keepdims=True)).min(2)
    return Averaging(v.max(1).mean(0), v[rows, (v @ w).argmax(1)].mean(0), v[rows, least.argmax(1)].mean(0))
