"""Measuring policies and reward models by their responses; every interval is over prompts, not over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hearken.errors import UserError
from hearken.evaluation.numbers import JsonInterval
from hearken.feedback.examples import Content, content_key
from hearken.statistics.divergence import Divergence, find_divergence, smooth
from hearken.statistics.intervals import Interval, wilson
from hearken.statistics.winrate import TIE, outcomes, win_rate

__all__ = [
    "Calibration", "CalibrationBin", "Divergence", "HeadToHead", "calibration", "find_divergence", "head_to_head",
    "smooth",
]  # fmt: skip

Score = Callable[[Content, str], float]
"""What one response to a prompt is worth; larger is better."""


@dataclass(frozen=True, slots=True)
class HeadToHead:
    """Policy A against policy B on the same prompts."""

    win_rate: Interval
    """Of A; a tie counts half."""
    by_group: dict[str, Interval]
    wins: int
    ties: int
    losses: int


def head_to_head(
    prompts: Sequence[Content],
    responses_a: Sequence[str],
    responses_b: Sequence[str],
    score: Score,
    groups: Mapping[str, Score] | None = None,
    *,
    tie: float = TIE,
) -> HeadToHead:
    """How often A's response is worth more than B's, overall and to each group.

    Row i pairs ``responses_a[i]`` with ``responses_b[i]``, both answers to ``prompts[i]``; a prompt may appear
    in several rows. Intervals are by bootstrap over prompts.

    Args:
        prompts: (N,).
        responses_a: (N,), of the policy whose win rate is asked.
        responses_b: (N,).
        score: the judge; gold where it is known.
        groups: what each group of labelers finds a response worth, by the group's name.
        tie: scores no further apart than this are a tie.

    Raises:
        UserError: nothing to compare, lengths that differ, or a score that is not a finite number.
    """
    if not len(prompts) == len(responses_a) == len(responses_b):
        raise UserError(
            f"cannot compare {len(responses_a)} responses with {len(responses_b)} on {len(prompts)} prompts",
            "Give one response of each policy a row",
        )
    if not prompts:
        raise UserError("no responses to compare", "Sample both policies on the same held-out prompts first")
    keys = [content_key(prompt) for prompt in prompts]

    def scored(judge: Score, responses: Sequence[str]) -> list[float]:
        scores = [judge(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        for row, value in enumerate(scores):
            if not math.isfinite(value):
                raise UserError(f"the score of row {row} is not a finite number", "Mend the judge or leave the row out")
        return scores

    def judged(judge: Score) -> list[float]:
        return outcomes(scored(judge, responses_a), scored(judge, responses_b), tie).tolist()

    overall = judged(score)
    return HeadToHead(
        win_rate=win_rate(overall, keys),
        by_group={name: win_rate(judged(judge), keys) for name, judge in (groups or {}).items()},
        wins=overall.count(1.0),
        ties=overall.count(0.5),
        losses=overall.count(0.0),
    )


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose predicted probability falls in ``[start, end)``."""

    start: float
    end: float
    predicted: float
    """Mean prediction in the bin."""
    observed: JsonInterval
    """Share that came true."""
    count: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far predicted probabilities may be taken at their word."""

    bins: tuple[CalibrationBin, ...]
    """Non-empty bins, in order."""
    error: float
    """Expected calibration error: mean of |observed − predicted| over rows; 0 is perfect."""
    brier: float
    """Mean squared error of the probabilities; a coin scores 0.25."""


def calibration(probabilities: Sequence[float], happened: Sequence[float], bins: int = 10) -> Calibration:
    """Predicted against observed, in equally wide bins (Naeini et al. 2015 for the expected calibration error).

    For pairs, orient each at random (or give both orientations): with the preferred response always first, outcomes
    are all 1 and nothing can be learnt.

    Args:
        probabilities: (N,) predicted probability that the event happens, 0..1.
        happened: (N,) 1 it did, 0 it did not, 0.5 a tie.
        bins: how many.

    Raises:
        UserError: no rows, lengths that differ, or values outside 0..1.
    """
    p = np.asarray(probabilities, dtype=float)
    y = np.asarray(happened, dtype=float)
    if p.shape != y.shape or p.ndim != 1 or not p.size:
        raise UserError(
            f"calibration needs as many outcomes as probabilities, and at least one (got {p.size}, {y.size})"
        )
    if not (np.all((p >= 0) & (p <= 1)) and np.all((y >= 0) & (y <= 1))):
        raise UserError(
            "calibration got a value outside 0..1", "Pass probabilities (a sigmoid of the score difference)"
        )
    where = np.minimum((p * bins).astype(int), bins - 1)
    found = []
    error = 0.0
    for index in np.unique(where):
        inside = where == index
        count = int(inside.sum())
        predicted, observed = float(p[inside].mean()), float(y[inside].mean())
        error += count / p.size * abs(observed - predicted)
        found.append(
            CalibrationBin(
                start=index / bins,
                end=(index + 1) / bins,
                predicted=predicted,
                observed=wilson(float(y[inside].sum()), count),
                count=count,
            )
        )
    return Calibration(bins=tuple(found), error=error, brier=float(np.mean((p - y) ** 2)))
