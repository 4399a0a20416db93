"""Which comparisons to ask people for: at random, or where an ensemble of reward models can learn most.

Every policy keeps a part of the budget (a fifth or more) for a uniformly random sample, and says of each choice by
which rule it was made and with what probability that rule makes it. So whatever is estimated from the judgments can be
freed of the selection by inverse-propensity weights, or looked at on the random part alone.

A budget of B candidates is drawn in two steps. First a simple random sample of ⌈uB⌉. Then the rest by systematic
sampling with unequal probabilities (Madow 1949), whose inclusion probabilities are exactly those asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

SelectionPolicy = Literal["uniform", "disagreement", "thompson", "d-optimal", "disputed", "low-score"]

LEAST_UNIFORM = 0.2
"""Share of every budget that is drawn uniformly at random."""


@dataclass(frozen=True)
class Choice:
    """A candidate that was chosen."""

    index: int
    """Which one."""
    selection: SelectionPolicy
    """The rule that chose it: "uniform" for the random part of any policy."""
    propensity: float
    """The probability with which that rule chose it, given what was left to choose from, (0, 1]."""


def select(
    weights: Array | None,
    budget: int,
    rng: np.random.Generator,
    *,
    policy: SelectionPolicy = "uniform",
    count: int | None = None,
    uniform: float = LEAST_UNIFORM,
) -> list[Choice]:
    """Choose ``budget`` candidates, each at most once.

    Args:
        weights: (N,) how much each candidate is worth asking, ≥ 0, from `disagreement` or `d_optimal`; None for the
            uniform policy.
        budget: how many to choose; at most all.
        rng: the source of chance.
        policy: what the weights are, for the tag.
        count: N, where there are no weights.
        uniform: share of the budget that is drawn uniformly, ≥ .2.

    Raises:
        ValueError: weights that are negative or not finite, or a smaller uniform share.
    """
    if uniform < LEAST_UNIFORM:
        raise ValueError(f"at least {LEAST_UNIFORM:.0%} of a budget is drawn uniformly, not {uniform:.0%}")
    total = len(weights) if weights is not None else int(count or 0)
    budget = min(budget, total)
    if budget <= 0:
        return []
    first = budget if weights is None else min(math.ceil(uniform * budget), budget)
    drawn = rng.permutation(total)[:first]
    choices = [Choice(int(index), "uniform", first / total) for index in drawn]
    if weights is None or first == budget:
        return choices
    rest = np.setdiff1d(np.arange(total), drawn)
    picked = by_weight(weights[rest], budget - first, rng, policy)
    return choices + [replace(choice, index=int(rest[choice.index])) for choice in picked]


def by_weight(weights: Array, budget: int, rng: np.random.Generator, policy: SelectionPolicy) -> list[Choice]:
    """The part of a budget that a rule chooses: with probabilities proportional to ``weights``, see `inclusion`.

    For candidates of which the uniform part was drawn before, perhaps from more than these.

    Args:
        weights: (N,) ≥ 0.
        budget: how many to choose; at most all.
        rng: the source of chance.
        policy: what the weights are, for the tag.

    Raises:
        ValueError: weights that are negative or not finite.
    """
    if not len(weights) or budget <= 0:
        return []
    probabilities = inclusion(weights, budget)
    return [Choice(int(i), policy, float(probabilities[i])) for i in systematic(probabilities, rng)]


def inclusion(weights: Array, size: int) -> Array:
    """Inclusion probabilities proportional to ``weights``, none above 1, that add up to ``size``.

    Args:
        weights: (N,) ≥ 0. Where fewer than ``size`` are positive, the others share what is left.
        size: expected sample size, ≤ N.

    Returns:
        (N,) probabilities.

    Raises:
        ValueError: a weight that is negative or not finite.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights are finite and not negative")
    if size >= len(weights):
        return np.ones(len(weights))
    scale = weights.max(initial=0.0)
    weights = np.full(len(weights), 1.0) if scale == 0 else np.maximum(weights / scale, 1e-9)
    sure = np.zeros(len(weights), dtype=bool)
    while True:
        open_ = ~sure
        probabilities = np.where(sure, 1.0, (size - sure.sum()) * weights / weights[open_].sum())
        above = open_ & (probabilities >= 1)
        if not above.any():
            return probabilities
        sure |= above


def systematic(probabilities: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """A sample in which i is included with exactly ``probabilities[i]`` (systematic sampling, random order).

    Args:
        probabilities: (N,) in [0, 1]; the sample size is their sum, rounded up or down by chance where it is not whole.
        rng: the source of chance.

    Returns:
        Indices, ascending.
    """
    order = rng.permutation(len(probabilities))
    ends = np.cumsum(probabilities[order])
    size = round(ends[-1], 9)
    points = np.arange(rng.random(), size, 1.0)
    hits = np.searchsorted(ends * (size / ends[-1]), points, side="right")
    return np.sort(order[np.unique(np.minimum(hits, len(order) - 1))])


def disagreement(first: Array, second: Array) -> Array:
    """How much an ensemble disagrees about pairs: the variance of the Bradley–Terry probability over its members.

    Args:
        first: (E, N) rewards of the pairs' first responses by each member.
        second: (E, N) of the second ones.

    Returns:
        (N,) variances of σ(first − second), in [0, ¼]. Source: Christiano et al. 2017 (section 2.2.4).
    """
    probability = 0.5 * (1.0 + np.tanh((np.asarray(first) - np.asarray(second)) / 2.0))
    found: Array = probability.var(axis=0)
    return found


@dataclass(frozen=True)
class Duel:
    """Two responses to one prompt that are to be compared."""

    first: int
    second: int
    selection: SelectionPolicy
    propensity: float
    """Probability with which the rule chose this pair of this prompt's responses (in either order)."""


def duel_probabilities(rewards: Array) -> Array:
    """Probability of each pair under double Thompson sampling, in either order.

    A member of the ensemble is drawn and names its best response; further members are drawn until one names another. A
    response that all members prefer duels with one drawn uniformly from the rest. With p_i the share of members that
    prefer i, the pair {i, j} has probability p_i p_j / (1 − p_i) + p_j p_i / (1 − p_j).

    Args:
        rewards: (E, K) rewards of a prompt's K ≥ 2 responses by each member; equal bests share its vote.

    Returns:
        (K, K) symmetric, zero diagonal; the upper triangle adds up to 1. Source: Wu & Liu 2016 (double Thompson
        sampling); Dwaracherla et al. 2024 (with ensembles of reward models).
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    best = rewards == rewards.max(axis=1, keepdims=True)
    share = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    count = len(share)
    after = np.zeros((count, count))
    for i in range(count):
        others = np.delete(np.arange(count), i)
        left = share[others].sum()
        after[i, others] = share[others] / left if left > 1e-12 else 1.0 / (count - 1)
    ordered = share[:, None] * after
    found: Array = ordered + ordered.T
    return found


def thompson(rewards: Sequence[Array], rng: np.random.Generator, *, uniform: float = LEAST_UNIFORM) -> list[Duel]:
    """One duel per prompt: for a fifth of the prompts (or more) two random responses, for the others double Thompson.

    Args:
        rewards: for each prompt (E, K) rewards of its responses by each member of the ensemble; K may differ.
        rng: the source of chance.
        uniform: share of the prompts with a uniformly random pair, ≥ .2.

    Raises:
        ValueError: a smaller uniform share.
    """
    if uniform < LEAST_UNIFORM:
        raise ValueError(f"at least {LEAST_UNIFORM:.0%} of a budget is drawn uniformly, not {uniform:.0%}")
    at_random = set(rng.permutation(len(rewards))[: math.ceil(uniform * len(rewards))].tolist())
    duels = []
    for number, scores in enumerate(rewards):
        count = np.asarray(scores).shape[1]
        pairs = np.stack(np.triu_indices(count, 1), axis=1)
        if number in at_random:
            rule, probabilities = "uniform", np.full(len(pairs), 1.0 / len(pairs))
        else:
            rule, probabilities = "thompson", duel_probabilities(scores)[pairs[:, 0], pairs[:, 1]]
        pick = rng.choice(len(pairs), p=probabilities / probabilities.sum())
        first, second = rng.permutation(pairs[pick])
        duels.append(Duel(int(first), int(second), rule, float(probabilities[pick])))  # type: ignore[arg-type]
    return duels


def d_optimal(differences: Array, *, ridge: float = 1e-3, tolerance: float = 0.01, steps: int = 1_000) -> Array:
    """The D-optimal design: weights w (summing to 1) that maximise log det(Σ w_n z_n z_nᵀ + ridge·I).

    With z the difference of two responses' last-layer features, such comparisons shrink the volume of the confidence
    ellipsoid of a linear reward head fastest. Frank–Wolfe steps from the uniform design; by the equivalence theorem the
    design is optimal when the largest leverage z_nᵀ V⁻¹ z_n is the effective dimension tr(V⁻¹ Σ w z zᵀ).

    Args:
        differences: (N, d) features of the first response less those of the second.
        ridge: relative to the mean squared length of ``differences`` over d; keeps V regular.
        tolerance: relative gap to the optimum at which to stop.
        steps: at most so many.

    Returns:
        (N,) weights. Source: Kiefer & Wolfowitz 1960; Fedorov 1972; Mukherjee et al. 2024 (for preferences).
    """
    z = np.asarray(differences, dtype=np.float64)
    count, width = z.shape
    weights = np.full(count, 1.0 / max(count, 1))
    size = float((z**2).sum(axis=1).mean()) / width if count else 0.0
    if size == 0:
        return weights
    regular = ridge * size * np.eye(width)
    for _ in range(steps):
        information = (z * weights[:, None]).T @ z
        inverse = np.linalg.inv(information + regular)
        leverage = np.einsum("nd,de,ne->n", z, inverse, z)
        now = float(weights @ leverage)
        best = int(leverage.argmax())
        if leverage[best] <= (1.0 + tolerance) * now:
            break
        step = _line_search(information, regular, z[best])
        weights *= 1.0 - step
        weights[best] += step
    return weights


def _line_search(information: Array, regular: Array, z: Array) -> float:
    """The step in [0, 1] that maximises log det((1 − s)·information + s·z zᵀ + regular); the function is concave."""
    low, high = 0.0, 1.0 - 1e-9
    outer = np.outer(z, z)
    for _ in range(40):
        step = (low + high) / 2
        at = (1.0 - step) * information + step * outer + regular
        slope = float(np.trace(np.linalg.solve(at, outer - information)))
        low, high = (step, high) if slope > 0 else (low, step)
    return (low + high) / 2
