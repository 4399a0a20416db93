"""Points: scatter plots, frontiers and calibration plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hearken.report.charts.drawing import (
    Frame,
    finite,
    marker,
    no_data,
    rule,
    runs_of,
    shade,
    span,
    svg,
    tenth,
    text_width,
    track,
    value_text,
    write,
)
from hearken.report.charts.lines import Series

SHOWN = 600
"""Points of a scatter plot; of more, so many are picked."""


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled point; ``low``/``high`` are its interval in y. ``style`` is colour and marker; None is quiet."""

    label: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    style: int | None = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Reliability:
    """One bin of a calibration plot: mean predicted probability, observed share, its interval, and rows in the bin."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    width: float = 420,
    height: float = 240,
) -> str:
    """Points, at most `SHOWN` of them (evenly picked), with the least-squares line of all and their correlation."""
    pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return no_data(title, description, width, height)
    frame = Frame(
        x=span(a for a, _ in pairs),
        y=span(b for _, b in pairs),
        width=width,
        height=height,
        x_label=x_label,
        y_label=y_label,
    )
    body = frame.axes()
    every = max(1, math.ceil(len(pairs) / SHOWN))
    body += [
        f'<circle cx="{tenth(frame.px(a))}" cy="{tenth(frame.py(b))}" r="2.5" class="dot paint s0"/>'
        for a, b in pairs[::every]
    ]
    n = len(pairs)
    mean_x, mean_y = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    spread_x = math.sqrt(sum((a - mean_x) ** 2 for a, _ in pairs))
    spread_y = math.sqrt(sum((b - mean_y) ** 2 for _, b in pairs))
    if spread_x * spread_y > 0:
        correlation = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / (spread_x * spread_y)
        slope = correlation * spread_y / spread_x
        ends = []
        for v in (min(a for a, _ in pairs), max(a for a, _ in pairs)):
            inside = min(max(mean_y + slope * (v - mean_x), frame.y[0]), frame.y[1])
            ends.append((mean_x + (inside - mean_y) / slope if slope else v, inside))
        body.append(f'<path d="{track([(frame.px(a), frame.py(b)) for a, b in ends])}" class="line stroke s1"/>')
        label = f"correlation {correlation:.2f}".replace("-", "−")
        body.append(write(width - frame.right, 11, label, "end label paint s1"))
    return svg(width, height, title, description, body)


def frontier(
    points: Sequence[Point],
    trails: Sequence[Series] = (),
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    y_percent: bool = False,
    width: float = 720,
    height: float = 340,
) -> str:
    """Labelled points, and the steps that none of them stands above: most y for at most so much x.

    Args:
        points: x is a price (KL), y what it buys (a reward, a win rate).
        trails: faint lines behind the points, e.g. the way a run took.
        title: read aloud and shown on hover.
        description: what the chart shows, in a sentence.
        x_label: under the axis, right.
        y_label: above the axis, left.
        y_percent: y are shares 0..1.
        width: of the view box, px.
        height: of the view box, px.

    Returns:
        One ``<svg>`` element.
    """
    points = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not points:
        return no_data(title, description, width, height)
    drawn = [(t, runs_of(t.x, t.y)) for t in trails]
    xs = [p.x for p in points] + [x for _, runs in drawn for run in runs for x, _ in run]
    ys: list[float | None] = [v for p in points for v in (p.y, p.low, p.high)]
    ys += [y for _, runs in drawn for run in runs for _, y in run]
    low, high = span(xs)
    frame = Frame(
        x=(min(0.0, low) if min(xs) < 0 else 0.0, high),
        y=span(ys, 0.1),
        width=width,
        height=height,
        right=16.0,
        y_percent=y_percent,
        x_label=x_label,
        y_label=y_label,
    )
    body = frame.axes()
    taken: list[tuple[float, float, float, float]] = []
    for trail, runs in drawn:
        for run in runs:
            path = track([(frame.px(x), frame.py(y)) for x, y in run])
            body.append(f'<path d="{path}" class="line faint stroke {shade(trail.style)}"/>')
    best = sorted(points, key=lambda p: (p.x, -p.y))
    steps: list[tuple[float, float]] = []
    for point in best:
        if not steps or point.y > steps[-1][1]:
            steps += [(point.x, steps[-1][1])] if steps else []
            steps.append((point.x, point.y))
    if len(points) > 1 and steps:
        steps.append((frame.x[1], steps[-1][1]))
        body.append(f'<path d="{track([(frame.px(x), frame.py(y)) for x, y in steps])}" class="envelope"/>')
    for point in points:
        x, y = frame.px(point.x), frame.py(point.y)
        if len(bounds := finite((point.low, point.high))) == 2:
            body.append(rule(x, frame.py(bounds[0]), x, frame.py(bounds[1]), "whisker"))
        body.append(marker(x, y, point.style, point.text or point.label, 5))
        taken.append((x - 7, y - 7, x + 7, y + 7))
    for point in points:
        x, y, wide = frame.px(point.x), frame.py(point.y), text_width(point.label) * 1.06
        places = [(x + 11, y + 4), (x - 14 - wide, y + 4)]
        places += [(x + 9, y - 12 - 14 * i) for i in range(5)] + [(x - 9 - wide, y + 19 + 14 * i) for i in range(5)]

        def box(place: tuple[float, float], wide: float = wide) -> tuple[float, float, float, float]:
            return place[0], place[1] - 10, place[0] + wide, place[1] + 3

        free = [p for p in places if _free(box(p), taken, (frame.left, 4.0, width, frame.bottom))]
        at = (free or places)[0]
        taken.append(box(at))
        body.append(write(*at, point.label, f"label halo paint {shade(point.style)}"))
    return svg(width, height, title, description, body)


def _free(
    box: tuple[float, float, float, float],
    taken: Iterable[tuple[float, float, float, float]],
    inside: tuple[float, float, float, float],
) -> bool:
    """Whether a box (left, top, right, bottom) lies ``inside`` and over none of those ``taken``."""
    if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
        return False
    return all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)


def calibration_plot(
    bins: Sequence[Reliability],
    *,
    title: str,
    description: str = "",
    x_label: str = "predicted",
    y_label: str = "observed",
    width: float = 420,
    height: float = 300,
) -> str:
    """Observed share against predicted probability, 0..1 both, beside the diagonal; a point's area is its count."""
    shown = [b for b in bins if b.count > 0]
    if not shown:
        return no_data(title, description, width, height)
    frame = Frame(
        x=(0.0, 1.0),
        y=(0.0, 1.0),
        width=width,
        height=height,
        x_percent=True,
        y_percent=True,
        x_label=x_label,
        y_label=y_label,
        right=22.0,
    )
    body = frame.axes()
    body.append(rule(frame.px(0), frame.py(0), frame.px(1), frame.py(1), "mark"))
    body.append(
        f'<path d="{track([(frame.px(b.predicted), frame.py(b.observed)) for b in shown])}" class="line stroke s0"/>'
    )
    most = max(b.count for b in shown)
    for b in shown:
        x = frame.px(b.predicted)
        body.append(rule(x, frame.py(b.low), x, frame.py(b.high), "whisker"))
        tip = f"predicted {value_text(b.predicted, True)}, observed {value_text(b.observed, True)}, {b.count:,} pairs"
        body.append(marker(x, frame.py(b.observed), 0, tip, 2.5 + 4.5 * math.sqrt(b.count / most)))
    return svg(width, height, title, description, body)
