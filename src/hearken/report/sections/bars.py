"""Rows of a bar chart from figures of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from hearken.evaluation.numbers import estimate, number, with_interval
from hearken.report import charts
from hearken.report.contents import Figure, Report
from hearken.statistics.intervals import Interval

Chart = tuple[str, str, Markup]
"""Caption, note, drawing."""


def in_words(items: Sequence[charts.Bar]) -> str:
    """The rows in words."""
    return "; ".join(f"{item.label} {item.text}" for item in items) + "."


def row_of(label: str, figure: Figure, style: int | None = 0, as_percent: bool = False) -> charts.Bar | None:
    """A row; None where the figure is not known."""
    value = estimate(figure)
    if value is None or not math.isfinite(value):
        return None
    low, high = bounds_of(figure)
    return charts.Bar(label, value, low, high, with_interval(figure, as_percent), style)


def bounds_of(figure: Figure) -> tuple[float | None, float | None]:
    """Of its interval, where it has one."""
    if isinstance(figure, Interval) and math.isfinite(figure.low) and math.isfinite(figure.high):
        return figure.low, figure.high
    return None, None


def bars_over(report: Report, field: str, title: str, *, as_percent: bool = False, zero: bool = True) -> Markup | None:
    """One row a policy for one of its figures; None unless some policy has it."""
    items = [
        bar
        for p in report.policies
        if (bar := row_of(p.name, getattr(p, field), 0 if p.name == report.policy else None, as_percent))
    ]
    if not items:
        return None
    return Markup(charts.bars(items, title=title, description=in_words(items), as_percent=as_percent, dots=not zero))


def weights(count: int) -> str:
    """A number of weights: ``549 k weights``, ``1.2 G weights``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{number(count / size)} {unit} weights"
    return f"{count} weights"
