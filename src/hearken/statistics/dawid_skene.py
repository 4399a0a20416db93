"""The truth behind several labelers' judgments, and how reliable each labeler is: Dawid and Skene's (1979) model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class DawidSkene:
    """What `dawid_skene` returns."""

    truth: NDArray[np.float64]
    """(U, V) probability that the true value of each unit is v."""
    confusion: NDArray[np.float64]
    """(L, V, V) probability that labeler l says w where v is true."""
    prior: NDArray[np.float64]
    """(V,) how common each true value is."""

    @property
    def reliability(self) -> NDArray[np.float64]:
        """(L,) probability that a labeler says what is true: Σ_v prior_v · confusion_lvv."""
        return np.asarray(np.einsum("v,lvv->l", self.prior, self.confusion))


def right_verdicts(units: ArrayLike, labelers: ArrayLike, verdicts: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Of what several labelers said of pairs: the (N,) chance that each is right, and the one that a guess would have.

    Args:
        units: (N,) number of the pair, 0..U-1.
        labelers: (N,) number of the labeler.
        verdicts: (N,) 1 the first is better, 0 a tie, -1 the second is.
    """
    unit, said = np.asarray(units, dtype=np.int64), np.asarray(verdicts, dtype=np.int64) + 1
    found = dawid_skene(unit, labelers, said, 3, smoothing=1.0, symmetric=True)
    return found.truth[unit, said], float(found.prior @ found.prior)


def dawid_skene(
    units: ArrayLike,
    labelers: ArrayLike,
    values: ArrayLike,
    number_of_values: int,
    weights: ArrayLike | None = None,
    smoothing: float = 0.01,
    steps: int = 200,
    tolerance: float = 1e-6,
    symmetric: bool = False,
) -> DawidSkene:
    """Maximum likelihood by expectation maximisation, from the votes' shares (Dawid and Skene 1979).

    Given the truth, labelers err independently, each in their own way. E step: truth_uv ∝ prior_v Π confusion_{l,v,w}
    over all w said of u; M step: prior and confusion are the frequencies that this expects.

    Args:
        units: (N,) number of the judged unit, 0..U-1, one row a judgment.
        labelers: (N,) number of the labeler, 0..L-1.
        values: (N,) number of the value said, 0..V-1.
        number_of_values: V.
        weights: (U,) of the units, e.g. how often a bootstrap drew each; None is 1.
        smoothing: added to each expected count of a confusion matrix, so that a labeler with few judgments is not
            declared certain.
        steps: at most.
        tolerance: stop when no probability of a truth moves more.
        symmetric: value v means of the one side what V-1-v means of the other, and which side is which means nothing:
            the same as every judgment twice, once turned round, with twice the smoothing.

    Raises:
        ValueError: no judgments, or a value outside 0..V-1.
    """
    unit, who, said = (np.asarray(a, dtype=np.int64) for a in (units, labelers, values))
    if len(unit) == 0 or said.min() < 0 or said.max() >= number_of_values:
        raise ValueError(f"judgments with values 0..{number_of_values - 1} are needed")
    count = int(unit.max()) + 1
    weight = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    every = range(number_of_values)
    votes = np.bincount(unit * number_of_values + said, minlength=count * number_of_values).reshape(count, -1)
    truth: NDArray[np.float64] = votes / np.maximum(votes.sum(1, keepdims=True), 1)
    people = int(who.max()) + 1
    cell, cells = who * number_of_values + said, people * number_of_values
    for _ in range(steps):
        prior = weight @ truth / weight.sum()
        prior = (prior + prior[::-1]) / 2 if symmetric else prior
        expected = truth * weight[:, None]
        counts = smoothing + np.stack(
            [np.bincount(cell, expected[unit, true], cells).reshape(people, -1) for true in every], axis=1
        )  # labeler, true, said
        counts = counts + counts[:, ::-1, ::-1] if symmetric else counts
        confusion = counts / np.maximum(counts.sum(2, keepdims=True), 1e-300)
        with np.errstate(divide="ignore"):
            said_by = np.maximum(np.log(confusion), -1e300)
            log_truth = np.log(prior) + np.stack(
                [np.bincount(unit, said_by[who, true, said], count) for true in every], axis=1
            )
        log_truth = np.maximum(log_truth, -1e300)
        new = np.exp(log_truth - log_truth.max(1, keepdims=True))
        new /= new.sum(1, keepdims=True)
        moved = float(np.abs(new - truth).max())
        truth = new
        if moved < tolerance:
            break
    return DawidSkene(truth, confusion, prior)
