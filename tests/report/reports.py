"""Reports for the tests, in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hearken.evaluation.results import EvaluationResult, PolicyResult, Spread, Standing
from hearken.report.contents import Report
from hearken.statistics.intervals import Interval


def exactly(value: float) -> Interval:
    """A figure without an interval."""
    return Interval(value, math.nan, math.nan)


def reported(
    policies: Mapping[str, PolicyResult] | None = None, *, baseline: str = "", prompts: int = 0,
    leaderboard: Sequence[Standing] = (), seeds: Sequence[Spread] = (), **fields: Any,
) -> Report:  # fmt: skip
    """A report of an evaluation."""
    evaluation = EvaluationResult(
        policies=policies or {}, baseline=baseline, prompts=("p",) * prompts, leaderboard=leaderboard, seeds=seeds
    )
    return Report(**{"title": "t", "evaluation": evaluation, **fields})


def reevaluated(report: Report, **changes: Any) -> Report:
    """The same report of another evaluation."""
    return replace(report, evaluation=report.evaluation.but(**changes))
