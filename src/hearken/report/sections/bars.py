"""Rows of a bar chart from figures of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from hearken.evaluation.numbers import estimate, number, with_interval
from hearken.report import charts
from hearken.report.contents import Figure, Report
from hearken.statistics.intervals import Interval

View = dict[str, object]
"""What a section of the template shows."""
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


def rows_of(report: Report, figures: Mapping[str, Figure], as_percent: bool = False) -> list[charts.Bar]:
    """A row for each policy whose figure is known; the reported one stands out."""
    rows = (row_of(n, figure, 0 if n == report.policy else None, as_percent) for n, figure in figures.items())
    return [row for row in rows if row is not None]


def bounds_of(figure: Figure) -> tuple[float | None, float | None]:
    """Of its interval, where it has one."""
    if isinstance(figure, Interval) and math.isfinite(figure.low) and math.isfinite(figure.high):
        return figure.low, figure.high
    return None, None


def bars_over(report: Report, field: str, title: str, *, as_percent: bool = False, zero: bool = True) -> Markup | None:
    """One row a policy for one of its figures; None unless some policy has it."""
    items = rows_of(report, {n: getattr(p, field) for n, p in report.evaluation.policies.items()}, as_percent)
    if not items:
        return None
    return Markup(charts.bars(items, title=title, description=in_words(items), as_percent=as_percent, dots=not zero))


def weights(count: int) -> str:
    """A number of weights: ``549 k weights``, ``1.2 G weights``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{number(count / size)} {unit} weights"
    return f"{count} weights"
