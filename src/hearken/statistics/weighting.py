"""Weights of judgments: by how reliable their labelers are, and for whom these stand (raking)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def training_weights(
    reliability: Mapping[str, float], counts: Mapping[str, int], chance: float = 0.5
) -> dict[str, float]:
    """A weight for each labeler's judgments: (reliability - chance)/(1 - chance), as κ corrects an agreement.

    1 for who is always right, 0 for who guesses (never below), then scaled to a mean of 1 over all judgments. A
    labeler of unknown reliability has the mean.

    Args:
        reliability: share of right verdicts, by labeler.
        counts: judgments by labeler.
        chance: share of right verdicts that guessing would get.
    """
    plain = {labeler: max((share - chance) / (1 - chance), 0.0) for labeler, share in reliability.items()}
    known = sum(counts[labeler] for labeler in plain)
    total = sum(weight * counts[labeler] for labeler, weight in plain.items())
    if total == 0:
        return {labeler: 0.0 if labeler in plain else 1.0 for labeler in counts}
    return {labeler: plain[labeler] * known / total if labeler in plain else 1.0 for labeler in counts}


def effective_size(weights: ArrayLike) -> float:
    """How many equally weighted rows the weighted ones are worth: (Σw)²/Σw² (Kish 1965); 0 where all weigh nothing."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / square) if (square := float(w @ w)) else 0.0


class Raked(NamedTuple):
    """What `rake` returns."""

    weights: NDArray[np.float64]
    """(N,) with mean 1."""
    effective: float
    """How many equally weighted rows they are worth: (Σw)²/Σw² (Kish 1965)."""
    missing: dict[str, tuple[str, ...]]
    """Values of the target that nobody has, by attribute: no weight can stand for them."""


def rake(
    rows: Mapping[str, Sequence[str | None]],
    target: Mapping[str, Mapping[str, float]],
    counts: ArrayLike | None = None,
    limit: float = 10.0,
    steps: int = 500,
    tolerance: float = 1e-9,
) -> Raked:
    """Weights under which each attribute is distributed as in the target (Deming and Stephan 1940).

    One attribute after the other is scaled to its target, until none moves. A row that says no value (None, or one
    that the target does not name) keeps its weight through that attribute. Weights are cut at ``limit`` times their
    mean, so that one labeler cannot speak for everyone.

    Args:
        rows: (N,) values by attribute, e.g. of each labeler.
        target: shares by attribute and value; they need not add up to 1.
        counts: (N,) how much each row counts before weighting, e.g. a labeler's judgments; None is 1.
        limit: the largest weight.
        steps: at most.
        tolerance: stop when no weight moves more.

    Raises:
        ValueError: no rows, or a target share below zero.
    """
    size = len(next(iter(rows.values()), ()))
    base = np.ones(size) if counts is None else np.asarray(counts, dtype=np.float64)
    size = len(base)
    if size == 0 or base.sum() <= 0:
        raise ValueError("nobody to weight")
    groups: list[list[tuple[NDArray[np.bool_], float]]] = []
    missing: dict[str, tuple[str, ...]] = {}
    for attribute, shares in target.items():
        if any(share < 0 for share in shares.values()):
            raise ValueError(f"a target share of '{attribute}' is below zero")
        values = np.array(list(rows.get(attribute, [None] * size)), dtype=object)
        members = {value: (values == value) & (base > 0) for value in shares}
        absent = tuple(value for value, share in shares.items() if share > 0 and not members[value].any())
        if absent:
            missing[attribute] = absent
        groups.append([(members[value], share) for value, share in shares.items() if members[value].any()])
    weights = np.ones(size)
    for _ in range(steps):
        before = weights.copy()
        for cells in groups:
            known = sum(float((weights * base)[inside].sum()) for inside, _ in cells)
            total = sum(share for _, share in cells)
            if known == 0 or total == 0:
                continue
            for inside, share in cells:
                now = float((weights * base)[inside].sum())
                if now > 0:
                    weights[inside] *= known * share / total / now
        if np.abs(weights - before).max() < tolerance:
            break
    weights = _trim(weights * base.sum() / (weights @ base), base, limit)
    return Raked(weights, float((weights @ base) ** 2 / (weights**2 @ base)), missing)


def _trim(weights: NDArray[np.float64], base: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Cut weights at ``limit`` and let the others make up for it, so that the mean stays 1."""
    while (above := weights > limit * (1 + 1e-12)).any():
        weights = np.where(above, limit, weights)
        below = (weights < limit) & (base > 0)
        rest = float((weights * base)[below].sum())
        if rest == 0:
            break
        weights[below] *= (base.sum() - limit * base[~below].sum()) / rest
    return weights
