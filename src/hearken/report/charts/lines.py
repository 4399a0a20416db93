"""Lines over a common x, large and small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hearken.report.charts.drawing import (
    GAP,
    PLAIN,
    SERIES_STYLES,
    Axis,
    Frame,
    Reference,
    apart,
    marker,
    no_data,
    rule,
    runs_of,
    shortened,
    span,
    svg,
    text_width,
    tick_labels,
    track,
    value_text,
    write,
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; None and NaN leave a gap. ``low``/``high`` draw a band; ``faint`` lines have no label.

    With ``whiskers`` each point has its own interval instead of a band: right where x goes back and forth.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    faint: bool = False
    style: int | None = None
    whiskers: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    x: Axis = PLAIN,
    y: Axis = PLAIN,
    marks: Sequence[Reference] = (),
    levels: Sequence[Reference] = (),
    width: float = 420,
    height: float = 240,
) -> str:
    """Lines over a common x, each labelled at its end, with optional bands.

    Args:
        series: the lines; their x need not agree.
        title: read aloud and shown on hover; the visible caption is the page's.
        description: what the chart shows, in a sentence, for who cannot see it.
        x: the axis below.
        y: the axis on the left.
        marks: vertical lines at an x.
        levels: horizontal lines at a y.
        width: of the view box, px.
        height: of the view box, px.

    Returns:
        One ``<svg>`` element.
    """
    drawn = [(s, runs_of(s.x, s.y)) for s in series]
    xs = [at for _, runs in drawn for run in runs for at, _ in run]
    if not xs:
        return no_data(title, description, width, height)
    ys: list[float | None] = [value for _, runs in drawn for run in runs for _, value in run]
    for s in series:
        ys += [*(s.low or ()), *(s.high or ())]
    ys += [level.value for level in levels]
    named = [(i, s, runs) for i, (s, runs) in enumerate(drawn) if runs and s.name and not s.faint]
    labels = [s.name for _, s, _ in named] if len(named) > 1 else []
    frame = Frame(
        x=x.range or ((min(xs), max(xs)) if max(xs) > min(xs) else span(xs)),
        y=y.range or span(ys),
        width=width,
        height=height,
        right=min(max((text_width(t) for t in labels), default=0.0) + 14.0, width * 0.42),
        top=22.0 if y.label or marks else 10.0,
        x_whole=x.whole,
        y_percent=y.percent,
        x_label=x.label,
        y_label=y.label,
    )
    body = frame.axes()
    edge = width - frame.right
    for level in levels:
        across = frame.py(level.value)
        body += [rule(frame.left, across, edge, across, "mark"), write(edge - 2, across - 5, level.label, "end")]
    for row, mark in enumerate(marks):
        at = frame.px(mark.value)
        flip = at + text_width(mark.label) > edge
        body += [
            rule(at, frame.top - 4, at, frame.bottom, "mark"),
            write(at + (-5 if flip else 5), frame.top + 6 + row * GAP, mark.label, "end strong" if flip else "strong"),
        ]
    for i, (s, runs) in enumerate(drawn):
        style = (i if s.style is None else s.style) % SERIES_STYLES
        if s.whiskers:
            bounds = zip(s.x, s.low or (), s.high or (), strict=False)
            ranges = [
                (frame.px(at), frame.py(a), frame.py(b)) for at, a, b in bounds if a is not None and b is not None
            ]
            body += [rule(at, a, at, b, "whisker soft") for at, a, b in ranges]
        elif s.low is not None and s.high is not None:
            low, high = runs_of(s.x, s.low), runs_of(s.x, s.high)
            for down, up in zip(low, high, strict=False):
                outline = [(frame.px(at), frame.py(value)) for at, value in [*down, *reversed(up)]]
                body.append(f'<path d="{track(outline)}Z" class="band paint s{style}"/>')
        count = sum(len(run) for run in runs)
        every = max(1, count // 6)
        seen = 0
        for run in runs:
            points = [(frame.px(at), frame.py(value)) for at, value in run]
            faint = " faint" if s.faint else ""
            if len(points) > 1:
                body.append(f'<path d="{track(points)}" class="line stroke s{style}{faint}"/>')
            if s.faint:
                continue
            for (at, value), (px, py) in zip(run, points, strict=True):
                if count <= 12 or s.whiskers or (len(named) > 1 and seen % every == every // 2):
                    tip = f"{s.name} at {tick_labels([at])[0]}: {value_text(value, y.percent)}"
                    body.append(marker(px, py, style, tip, 3))
                seen += 1
    if labels:
        ends = [frame.py(runs[-1][-1][1]) for _, _, runs in named]
        for (i, s, _), end in zip(named, apart(ends, frame.top + 4, frame.bottom - 2), strict=True):
            style = (i if s.style is None else s.style) % SERIES_STYLES
            body.append(write(edge + 7, end + 4, shortened(s.name, frame.right - 8), f"label paint s{style}"))
    return svg(width, height, title, description, body)


def sparkline(
    y: Sequence[float | None], *, title: str, description: str = "", width: float = 120, height: float = 28
) -> str:
    """A line without axes that fits into a row of text; its last point is marked."""
    runs = runs_of(range(len(y)), y)
    if not runs:
        return no_data(title, description, width, height)
    low, high = span((v for run in runs for _, v in run), 0.0)
    scale: Callable[[float, float], tuple[float, float]] = lambda a, b: (  # noqa: E731
        4 + a / max(len(y) - 1, 1) * (width - 8),
        height - 4 - (b - low) / (high - low) * (height - 8),
    )
    body = [f'<path d="{track([scale(*p) for p in run])}" class="line stroke s0"/>' for run in runs if len(run) > 1]
    return svg(width, height, title, description, [*body, marker(*scale(*runs[-1][-1]), 0, size=2.5)])
