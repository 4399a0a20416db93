"""Charts as SVG text: no dependency, no inline style, light and dark by CSS variables.

A page that shows them includes ``CSS`` once. Every chart has a ``<title>`` and ``<desc>`` for screen readers, tells its
series apart by dash and marker as well as colour, and labels them directly. Natural widths are about 420 px, so that
two stand side by side on a desk and one stays readable on a phone.
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

SERIES_STYLES = 5
"""Colours, dashes and markers before they repeat."""

CSS = """
.chart { display: block; width: 100%; height: auto; overflow: visible; font-family: var(--sans, sans-serif); }
.chart text { font-size: 12px; fill: var(--muted); font-variant-numeric: tabular-nums; }
.chart .strong { fill: var(--ink); }
.chart .label { font-weight: 600; }
.chart .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .grid { stroke: var(--hairline); stroke-width: 1; }
.chart .axis { stroke: var(--muted); stroke-width: 1; opacity: .6; }
.chart .mark { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 2 3; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .faint { stroke-width: 1; opacity: .3; }
.chart .whisker { stroke: var(--ink); stroke-width: 1.5; opacity: .75; }
.chart .band { stroke: none; opacity: .14; }
.chart .fill { opacity: .85; }
.chart .soft { opacity: .18; }
.chart .dot { opacity: .45; }
.chart .envelope { fill: none; stroke: var(--ink); stroke-width: 1; stroke-dasharray: 4 3; opacity: .5; }
.chart .node { fill: var(--paper); stroke: var(--hairline); stroke-width: 1.5; }
.chart .edge { fill: none; stroke: var(--muted); stroke-width: 1.25; opacity: .55; }
.chart .s0 { --c: var(--series-0); } .chart .s1 { --c: var(--series-1); } .chart .s2 { --c: var(--series-2); }
.chart .s3 { --c: var(--series-3); } .chart .s4 { --c: var(--series-4); } .chart .quiet { --c: var(--muted); }
.chart rect.quiet { opacity: .45; }
.chart .stroke { stroke: var(--c); } .chart .paint { fill: var(--c); } .chart text.paint { fill: var(--c); }
.chart .line.s1 { stroke-dasharray: 7 4; } .chart .line.s2 { stroke-dasharray: 2 4; }
.chart .line.s3 { stroke-dasharray: 9 3 2 3; } .chart .line.s4 { stroke-dasharray: 4 3; }
.chart .line.faint { stroke-dasharray: none; }
"""

_SIZE = 12.0  # font size of chart text, px
_GAP = 14.0  # least distance between two lines of text, px


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; None and NaN leave a gap. ``low``/``high`` draw a band; ``faint`` lines have no label."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    faint: bool = False
    style: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A value, perhaps with its interval; ``text`` is printed beside it. ``style`` is its colour; None is quiet."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    style: int | None = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """A value everything is read against, e.g. chance: a dotted line with a label."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Reliability:
    """One bin of a calibration plot: mean predicted probability, observed share, its interval, and rows in the bin."""

    predicted: float
    observed: float
    low: float
    high: float
    count: int


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
class Node:
    """One box of a graph, with the names of the boxes it comes from."""

    name: str
    caption: str = ""
    parents: Sequence[str] = ()


# --- small parts -----------------------------------------------------------------------------------------------------


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) inside ``low``..``high``, about ``wanted`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(wanted, 1)
    if raw < 1e-300:  # a range of denormal numbers, in which no step can be told from another
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12 - math.floor(math.log10(step))) for i in range(first, last + 1)]


def tick_labels(values: Sequence[float], as_percent: bool = False) -> list[str]:
    """Labels with just the places that tell neighbouring ticks apart, thousands separated."""
    if as_percent:
        return [f"{label}\u202f%" for label in tick_labels([100 * v for v in values])]
    step = min((b - a for a, b in pairwise(values)), default=abs(values[0]) if values else 1.0)
    largest = max((abs(v) for v in values), default=0.0)
    if largest and (largest < 1e-4 or step < 1e-6):
        return [f"{v:.1e}".replace("e-0", "e-").replace("-", "−") if v else "0" for v in values]
    suffix, unit = next(((s, u) for s, u in (("G", 1e9), ("M", 1e6)) if largest >= 2 * u), ("", 1.0))
    step /= unit
    places = next((p for p in range(9) if math.isclose(round(step, p), step, rel_tol=1e-6)), 8)
    return [f"{v / unit:,.{places}f}".replace("-", "−") + suffix for v in values]


def text_width(text: str, size: float = _SIZE) -> float:
    """Approximate width of ``text`` in a sans-serif face, px; wide East Asian characters and emoji count double."""
    return sum(size * (1.05 if unicodedata.east_asian_width(c) in "WF" else 0.57) for c in text)


def clean(text: str) -> str:
    """``text`` without the characters that neither XML nor UTF-8 can carry (controls, lone surrogates)."""
    bad = {"\ufffe", "\uffff"}
    return "".join(
        c if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in bad) else "�" for c in text
    )


def _escape(text: str) -> str:
    return escape(clean(text), quote=True)


def _shorten(text: str, width: float) -> str:
    if text_width(text) <= width:
        return text
    while text and text_width(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _c(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, content: str, classes: str = "") -> str:
    return f'<text x="{_c(x)}" y="{_c(y)}" class="{classes}">{_escape(content)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    return f'<line x1="{_c(x1)}" y1="{_c(y1)}" x2="{_c(x2)}" y2="{_c(y2)}" class="{classes}"/>'


def _class(style: int | None) -> str:
    return "quiet" if style is None else f"s{style % SERIES_STYLES}"


def _marker(x: float, y: float, style: int | None, tip: str = "", size: float = 3.5) -> str:
    """A point as circle, square, triangle, diamond or cross, by style; ``tip`` shows on hover."""
    classes = f'class="paint {_class(style)}"'
    inside = f"<title>{_escape(tip)}</title>" if tip else ""
    s = size
    shape = (style or 0) % SERIES_STYLES
    if shape == 0:
        return f'<circle cx="{_c(x)}" cy="{_c(y)}" r="{_c(s)}" {classes}>{inside}</circle>'
    if shape == 1:
        return (
            f'<rect x="{_c(x - s)}" y="{_c(y - s)}" width="{_c(2 * s)}" height="{_c(2 * s)}" {classes}>{inside}</rect>'
        )
    outlines = {
        2: [(0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
        3: [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)],
        4: [(-1.3, -0.5), (0, 0.4), (1.3, -0.5), (1.3, 0.4), (0, 1.3), (-1.3, 0.4)],
    }
    points = " ".join(f"{_c(x + s * dx)},{_c(y + s * dy)}" for dx, dy in outlines[shape])
    return f'<polygon points="{points}" {classes}>{inside}</polygon>'


def _svg(width: float, height: float, title: str, description: str, body: Iterable[str]) -> str:
    inside = "".join(body)
    key = f"c{zlib.crc32(f'{title}{description}{inside}'.encode('utf-8', 'replace')):08x}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_c(width)} {_c(height)}" role="img" '
        f'aria-labelledby="{key}t {key}d"><title id="{key}t">{_escape(title)}</title>'
        f'<desc id="{key}d">{_escape(description)}</desc>{inside}</svg>'
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _domain(values: Iterable[float | None], pad: float = 0.06) -> tuple[float, float]:
    """The range of ``values`` with a margin; a constant gets room on both sides."""
    found = _finite(values)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    room = (high - low) * pad or abs(high) * 0.1 or 0.5
    return low - room, high + room


def _apart(wanted: Sequence[float], low: float, high: float, gap: float = _GAP) -> list[float]:
    """Positions near ``wanted``, in the same order, ``gap`` or more apart, inside ``low``..``high`` where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


@dataclass(slots=True)
class _Frame:
    """The plot area: where data coordinates fall in pixels, and its axes."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float
    right: float = 12.0
    top: float = 22.0
    x_percent: bool = False
    x_whole: bool = False
    y_percent: bool = False
    x_label: str = ""
    y_label: str = ""
    left: float = 0.0
    bottom: float = 0.0
    y_ticks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bottom = self.height - (38.0 if self.x_label else 22.0)
        self.y_ticks = ticks(*self.y, wanted=max(2, int((self.bottom - self.top) / 38)))
        labels = tick_labels(self.y_ticks, self.y_percent)
        self.left = max((text_width(t) for t in labels), default=10.0) + 10.0

    def px(self, x: float) -> float:
        low, high = self.x
        return self.left + (x - low) / ((high - low) or 1.0) * (self.width - self.right - self.left)

    def py(self, y: float) -> float:
        low, high = self.y
        return self.bottom - (y - low) / ((high - low) or 1.0) * (self.bottom - self.top)

    def axes(self) -> list[str]:
        edge = self.width - self.right
        out = [_text(0, 11, self.y_label, "strong")] if self.y_label else []
        for value, label in zip(self.y_ticks, tick_labels(self.y_ticks, self.y_percent), strict=True):
            y = self.py(value)
            out += [_rule(self.left, y, edge, y, "grid"), _text(self.left - 7, y + 4, label, "end")]
        out.append(_rule(self.left, self.bottom, edge, self.bottom, "axis"))
        wanted = max(2, int((edge - self.left) / 64))
        values = [v for v in ticks(*self.x, wanted=wanted) if not self.x_whole or v == round(v)]
        labels = tick_labels(values, self.x_percent)
        last = -math.inf
        for value, label in zip(values, labels, strict=True):
            x, half = self.px(value), text_width(label) / 2
            if x - half < last + 8:
                continue
            last = x + half
            out += [
                _rule(x, self.bottom, x, self.bottom + 4, "axis"),
                _text(x, self.bottom + 17, label, "middle"),
            ]
        if self.x_label:
            out.append(_text(edge, self.height - 3, self.x_label, "end"))
        return out


def _segments(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Runs of finite points; a gap in the data is a gap in the line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None or not math.isfinite(y) or not math.isfinite(x):
            runs.append([])
        else:
            runs[-1].append((float(x), float(y)))
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_c(x)} {_c(y)}" for x, y in points)


# --- charts ----------------------------------------------------------------------------------------------------------


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    y_range: tuple[float, float] | None = None,
    x_whole: bool = False,
    y_percent: bool = False,
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
        x_label: under the axis, right.
        y_label: above the axis, left; short.
        y_range: the y axis; by default what the data need.
        x_whole: x are counted (rounds), so only whole numbers are marked.
        y_percent: y are shares 0..1, shown as per cent.
        marks: vertical lines at an x.
        levels: horizontal lines at a y.
        width: of the view box, px.
        height: of the view box, px.

    Returns:
        One ``<svg>`` element.
    """
    drawn = [(s, _segments(s.x, s.y)) for s in series]
    xs = [x for _, runs in drawn for run in runs for x, _ in run]
    if not xs:
        return _empty(title, description, width, height)
    ys: list[float | None] = [y for _, runs in drawn for run in runs for _, y in run]
    for s in series:
        ys += [*(s.low or ()), *(s.high or ())]
    ys += [level.value for level in levels]
    named = [(i, s, runs) for i, (s, runs) in enumerate(drawn) if runs and s.name and not s.faint]
    labels = [s.name for _, s, _ in named] if len(named) > 1 else []
    frame = _Frame(
        x=(min(xs), max(xs)) if max(xs) > min(xs) else _domain(xs),
        y=y_range or _domain(ys),
        width=width,
        height=height,
        right=min(max((text_width(t) for t in labels), default=0.0) + 14.0, width * 0.42),
        top=22.0 if y_label or marks else 10.0,
        x_whole=x_whole,
        y_percent=y_percent,
        x_label=x_label,
        y_label=y_label,
    )
    body = frame.axes()
    edge = width - frame.right
    for level in levels:
        y = frame.py(level.value)
        body += [_rule(frame.left, y, edge, y, "mark"), _text(edge - 2, y - 5, level.label, "end")]
    for row, mark in enumerate(marks):
        x = frame.px(mark.value)
        flip = x + text_width(mark.label) > edge
        body += [
            _rule(x, frame.top - 4, x, frame.bottom, "mark"),
            _text(x + (-5 if flip else 5), frame.top + 6 + row * _GAP, mark.label, "end strong" if flip else "strong"),
        ]
    for i, (s, runs) in enumerate(drawn):
        style = (i if s.style is None else s.style) % SERIES_STYLES
        if s.low is not None and s.high is not None:
            low, high = _segments(s.x, s.low), _segments(s.x, s.high)
            for down, up in zip(low, high, strict=False):
                outline = [(frame.px(x), frame.py(y)) for x, y in [*down, *reversed(up)]]
                body.append(f'<path d="{_path(outline)}Z" class="band paint s{style}"/>')
        count = sum(len(run) for run in runs)
        every = max(1, count // 6)
        seen = 0
        for run in runs:
            points = [(frame.px(x), frame.py(y)) for x, y in run]
            faint = " faint" if s.faint else ""
            if len(points) > 1:
                body.append(f'<path d="{_path(points)}" class="line stroke s{style}{faint}"/>')
            if s.faint:
                continue
            for (x, y), (px, py) in zip(run, points, strict=True):
                if count <= 12 or (len(named) > 1 and seen % every == every // 2):
                    tip = f"{s.name} at {tick_labels([x])[0]}: {_value(y, y_percent)}"
                    body.append(_marker(px, py, style, tip, 3))
                seen += 1
    if labels:
        ends = [frame.py(runs[-1][-1][1]) for _, _, runs in named]
        for (i, s, _), y in zip(named, _apart(ends, frame.top + 4, frame.bottom - 2), strict=True):
            style = (i if s.style is None else s.style) % SERIES_STYLES
            body.append(_text(edge + 7, y + 4, _shorten(s.name, frame.right - 8), f"label paint s{style}"))
    return _svg(width, height, title, description, body)


def _value(y: float, as_percent: bool) -> str:
    return f"{100 * y:.1f}\u202f%" if as_percent else f"{y:,.4g}".replace("-", "−")


def _empty(title: str, description: str, width: float, height: float) -> str:
    return _svg(width, height, title, description, [_text(width / 2, height / 2, "no data", "middle")])


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    trend: bool = True,
    limit: int = 600,
    width: float = 420,
    height: float = 240,
) -> str:
    """Points, at most ``limit`` of them (evenly picked), with the least-squares line of all and their correlation."""
    pairs = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not pairs:
        return _empty(title, description, width, height)
    frame = _Frame(
        x=_domain(a for a, _ in pairs),
        y=_domain(b for _, b in pairs),
        width=width,
        height=height,
        x_label=x_label,
        y_label=y_label,
    )
    body = frame.axes()
    every = max(1, math.ceil(len(pairs) / limit))
    body += [
        f'<circle cx="{_c(frame.px(a))}" cy="{_c(frame.py(b))}" r="2.5" class="dot paint s0"/>'
        for a, b in pairs[::every]
    ]
    n = len(pairs)
    mean_x, mean_y = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    spread_x = math.sqrt(sum((a - mean_x) ** 2 for a, _ in pairs))
    spread_y = math.sqrt(sum((b - mean_y) ** 2 for _, b in pairs))
    if trend and spread_x * spread_y > 0:
        correlation = sum((a - mean_x) * (b - mean_y) for a, b in pairs) / (spread_x * spread_y)
        slope = correlation * spread_y / spread_x
        ends = []
        for v in (min(a for a, _ in pairs), max(a for a, _ in pairs)):
            inside = min(max(mean_y + slope * (v - mean_x), frame.y[0]), frame.y[1])
            ends.append((mean_x + (inside - mean_y) / slope if slope else v, inside))
        body.append(f'<path d="{_path([(frame.px(a), frame.py(b)) for a, b in ends])}" class="line stroke s1"/>')
        label = f"correlation {correlation:.2f}".replace("-", "−")
        body.append(_text(width - frame.right, 11, label, "end label paint s1"))
    return _svg(width, height, title, description, body)


def frontier(
    points: Sequence[Point],
    trails: Sequence[Series] = (),
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    y_percent: bool = False,
    levels: Sequence[Reference] = (),
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
        levels: horizontal lines at a y.
        width: of the view box, px.
        height: of the view box, px.

    Returns:
        One ``<svg>`` element.
    """
    points = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    if not points:
        return _empty(title, description, width, height)
    drawn = [(t, _segments(t.x, t.y)) for t in trails]
    xs = [p.x for p in points] + [x for _, runs in drawn for run in runs for x, _ in run]
    ys: list[float | None] = [v for p in points for v in (p.y, p.low, p.high)]
    ys += [y for _, runs in drawn for run in runs for _, y in run] + [level.value for level in levels]
    low, high = _domain(xs)
    frame = _Frame(
        x=(min(0.0, low) if min(xs) < 0 else 0.0, high),
        y=_domain(ys, 0.1),
        width=width,
        height=height,
        right=16.0,
        y_percent=y_percent,
        x_label=x_label,
        y_label=y_label,
    )
    body = frame.axes()
    taken: list[tuple[float, float, float, float]] = []
    for level in levels:
        y, edge = frame.py(level.value), width - frame.right
        body += [_rule(frame.left, y, edge, y, "mark"), _text(edge - 2, y - 5, level.label, "end")]
        taken.append((edge - text_width(level.label), y - 16, edge, y))
    for trail, runs in drawn:
        for run in runs:
            path = _path([(frame.px(x), frame.py(y)) for x, y in run])
            body.append(f'<path d="{path}" class="line faint stroke {_class(trail.style)}"/>')
    best = sorted(points, key=lambda p: (p.x, -p.y))
    steps: list[tuple[float, float]] = []
    for point in best:
        if not steps or point.y > steps[-1][1]:
            steps += [(point.x, steps[-1][1])] if steps else []
            steps.append((point.x, point.y))
    if len(points) > 1 and steps:
        steps.append((frame.x[1], steps[-1][1]))
        body.append(f'<path d="{_path([(frame.px(x), frame.py(y)) for x, y in steps])}" class="envelope"/>')
    for point in points:
        x, y = frame.px(point.x), frame.py(point.y)
        if len(bounds := _finite((point.low, point.high))) == 2:
            body.append(_rule(x, frame.py(bounds[0]), x, frame.py(bounds[1]), "whisker"))
        body.append(_marker(x, y, point.style, point.text or point.label, 5))
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
        body.append(_text(*at, point.label, f"label halo paint {_class(point.style)}"))
    return _svg(width, height, title, description, body)


def _free(
    box: tuple[float, float, float, float],
    taken: Iterable[tuple[float, float, float, float]],
    inside: tuple[float, float, float, float],
) -> bool:
    """Whether a box (left, top, right, bottom) lies ``inside`` and over none of those ``taken``."""
    if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
        return False
    return all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)


def bars(
    items: Sequence[Bar],
    *,
    title: str,
    description: str = "",
    references: Sequence[Reference] = (),
    x_range: tuple[float, float] | None = None,
    as_percent: bool = False,
    dots: bool = False,
    axis: bool = True,
    width: float = 420,
) -> str:
    """Horizontal bars from zero, one a row, each with its interval as a whisker and its value in words at the right.

    Args:
        items: the rows, top to bottom.
        title: read aloud and shown on hover.
        description: what the chart shows, in a sentence.
        references: values to read the rows against.
        x_range: the value axis; by default from zero to what the data need.
        as_percent: values are shares 0..1.
        dots: draw a point instead of a bar; right where zero means nothing.
        axis: draw the value axis.
        width: of the view box, px; the height follows from the number of rows.

    Returns:
        One ``<svg>`` element.
    """
    items = [item for item in items if math.isfinite(item.value)]
    if any(len(_finite((item.low, item.high))) == 1 for item in items):
        raise ValueError("an interval needs both its bounds")
    if not items:
        return _empty(title, description, width, 60)
    texts = [item.text or _value(item.value, as_percent) for item in items]
    left = min(max(text_width(item.label) for item in items) + 12, width * 0.38)
    right = min(max(text_width(t) for t in texts) + 12, width * 0.36)
    found = [v for item in items for v in (item.value, item.low, item.high)] + [r.value for r in references]
    low, high = x_range or (_domain(found) if dots else (min(0.0, *_finite(found)), max(0.0, *_finite(found)) * 1.02))

    def px(v: float) -> float:
        return left + (min(max(v, low), high) - low) / ((high - low) or 1.0) * (width - left - right)

    # Labels of references that would touch go to further lines above the rows.
    lines: list[float] = []
    captions: list[str] = []
    rules: list[tuple[float, int]] = []
    for reference in sorted(references, key=lambda r: r.value):
        x, half = px(reference.value), text_width(reference.label) / 2
        x_text = min(max(x, half), width - half)
        row = next((i for i, taken in enumerate(lines) if taken < x_text - half - 6), len(lines))
        lines[row : row + 1] = [x_text + half]
        captions.append(_text(x_text, 11 + row * _GAP, reference.label, "middle"))
        rules.append((x, row))
    top = len(lines) * _GAP + 8
    step, thick = 30.0, 14.0
    bottom = top + step * len(items)
    body: list[str] = []
    values = ticks(low, high, max(2, int((width - left - right) / 48))) if axis else []
    for value, label in zip(values, tick_labels(values, as_percent), strict=True):
        x = px(value)
        body += [_rule(x, top, x, bottom, "grid"), _text(x, bottom + 15, label, "middle")]
    body += captions
    body += [_rule(x, 15 + row * _GAP, x, bottom, "mark") for x, row in rules]
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        y = top + step * (i + 0.5)
        tip = f"{item.label}: {text}"
        body.append(_text(left - 10, y + 4, _shorten(item.label, left - 10), "end strong"))
        body.append(_text(width, y + 4, _shorten(text, right - 4), "end strong label"))
        start, end = sorted((px(max(low, 0.0)), px(item.value)))
        if not dots:
            body.append(
                f'<rect x="{_c(start)}" y="{_c(y - thick / 2)}" rx="2" '
                f'width="{_c(max(end - start, 1))}" height="{_c(thick)}" '
                f'class="fill paint {_class(item.style)}"><title>{_escape(tip)}</title></rect>'
            )
        bounds = _finite((item.low, item.high))
        if bounds:
            a, b = (px(bound) for bound in bounds)
            body += [
                _rule(a, y, b, y, "whisker"),
                _rule(a, y - 4, a, y + 4, "whisker"),
                _rule(b, y - 4, b, y + 4, "whisker"),
            ]
        if dots:
            body.append(_marker(px(item.value), y, item.style, tip, 5))
    return _svg(width, bottom + (22 if axis else 2), title, description, body)


def histogram(
    groups: dict[str, Sequence[float]],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    bins: int = 24,
    width: float = 420,
    height: float = 240,
) -> str:
    """Distributions over common bins as outlined steps, each the share of its own group's values, labelled at its peak.

    Args:
        groups: name to values; not-finite values are left out.
        title: read aloud and shown on hover.
        description: what the chart shows, in a sentence.
        x_label: under the axis.
        bins: number of equal bins over all values.
        width: of the view box, px.
        height: of the view box, px.

    Returns:
        One ``<svg>`` element.
    """
    kept = {name: found for name, values in groups.items() if (found := _finite(values))}
    if not kept:
        return _empty(title, description, width, height)
    low, high = min(min(v) for v in kept.values()), max(max(v) for v in kept.values())
    if high <= low:
        low, high = _domain([low])
    shares: dict[str, list[float]] = {}
    for name, values in kept.items():
        counts = [0] * bins
        for v in values:
            counts[min(int((v - low) / (high - low) * bins), bins - 1)] += 1
        shares[name] = [c / len(values) for c in counts]
    frame = _Frame(
        x=(low, high),
        y=(0.0, max(max(s) for s in shares.values()) * 1.12),
        width=width,
        height=height,
        y_percent=True,
        x_label=x_label,
        top=8.0 + (_GAP if len(kept) > 1 else 0.0),
    )
    body = frame.axes()
    legend = frame.left
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    for i, (name, share) in enumerate(shares.items()):
        style = i % SERIES_STYLES
        steps = [(frame.px(low), frame.py(0))]
        for left, right, s in zip(edges, edges[1:], share, strict=False):
            steps += [(frame.px(left), frame.py(s)), (frame.px(right), frame.py(s))]
        steps.append((frame.px(high), frame.py(0)))
        body.append(f'<path d="{_path(steps)}Z" class="soft paint s{style}"/>')
        body.append(f'<path d="{_path(steps)}" class="line stroke s{style}"/>')
        if len(kept) > 1:
            body.append(f'<path d="M{_c(legend)} 7L{_c(legend + 24)} 7" class="line stroke s{style}"/>')
            body.append(_text(legend + 29, 11, name, f"label paint s{style}"))
            legend += 29 + text_width(name) + 18
    return _svg(width, height, title, description, body)


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
        return _empty(title, description, width, height)
    frame = _Frame(
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
    body.append(_rule(frame.px(0), frame.py(0), frame.px(1), frame.py(1), "mark"))
    body.append(
        f'<path d="{_path([(frame.px(b.predicted), frame.py(b.observed)) for b in shown])}" class="line stroke s0"/>'
    )
    most = max(b.count for b in shown)
    for b in shown:
        x = frame.px(b.predicted)
        body.append(_rule(x, frame.py(b.low), x, frame.py(b.high), "whisker"))
        tip = f"predicted {_value(b.predicted, True)}, observed {_value(b.observed, True)}, {b.count:,} pairs"
        body.append(_marker(x, frame.py(b.observed), 0, tip, 2.5 + 4.5 * math.sqrt(b.count / most)))
    return _svg(width, height, title, description, body)


def sparkline(
    y: Sequence[float | None], *, title: str, description: str = "", width: float = 120, height: float = 28
) -> str:
    """A line without axes that fits into a row of text; its last point is marked."""
    runs = _segments(range(len(y)), y)
    if not runs:
        return _empty(title, description, width, height)
    low, high = _domain((v for run in runs for _, v in run), 0.0)
    scale: Callable[[float, float], tuple[float, float]] = lambda a, b: (  # noqa: E731
        4 + a / max(len(y) - 1, 1) * (width - 8),
        height - 4 - (b - low) / (high - low) * (height - 8),
    )
    body = [f'<path d="{_path([scale(*p) for p in run])}" class="line stroke s0"/>' for run in runs if len(run) > 1]
    return _svg(width, height, title, description, [*body, _marker(*scale(*runs[-1][-1]), 0, size=2.5)])


def _bend(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve between two points that leaves and arrives level."""
    middle = (start[0] + end[0]) / 2
    return f"C{_c(middle)} {_c(start[1])} {_c(middle)} {_c(end[1])} {_c(end[0])} {_c(end[1])}"


def graph(nodes: Sequence[Node], *, title: str, description: str = "") -> str:
    """What came from what, left to right: a box a node, one column right of the furthest of its parents.

    Parents that are not among the nodes are left out; a cycle is cut where it closes.
    """
    by_name = {node.name: node for node in nodes}
    depth: dict[str, int] = {}

    def column(name: str, above: tuple[str, ...] = ()) -> int:
        if name not in depth:
            parents = [p for p in by_name[name].parents if p in by_name and p not in (*above, name)]
            depth[name] = 1 + max((column(p, (*above, name)) for p in parents), default=-1)
        return depth[name]

    columns: dict[int, list[Node]] = {}
    for node in by_name.values():
        columns.setdefault(column(node.name), []).append(node)
    if not columns:
        return _empty(title, description, 200, 60)
    place: dict[str, tuple[float, float, float]] = {}
    tallest = max(len(c) for c in columns.values())
    step, tall, gap = 62.0, 42.0, 44.0
    x = 1.0
    for index in sorted(columns):
        wide = max(min(max(text_width(n.name) * 1.08, text_width(n.caption)), 190) + 22 for n in columns[index])
        start = (tallest - len(columns[index])) / 2

        def height_of(node: Node) -> float:
            known = [place[p][1] for p in node.parents if p in place]
            return sum(known) / len(known) if known else 0.0

        for row, node in enumerate(sorted(columns[index], key=height_of)):
            place[node.name] = (x, (start + row) * step + 1, wide)
        x += wide + gap
    body: list[str] = []
    lanes: dict[str, float] = {}
    for node in by_name.values():
        nx, ny, _ = place[node.name]
        for parent in node.parents:
            if parent not in place or place[parent][0] >= nx:
                continue
            ax, ay, wide = place[parent]
            source, target = (ax + wide, ay + tall / 2), (nx, ny + tall / 2)
            if depth[node.name] - depth[parent] == 1:
                body.append(f'<path d="M{_c(source[0])} {_c(source[1])}{_bend(source, target)}" class="edge"/>')
            else:
                # It would cross the boxes between: it runs below them, in a lane that a parent's children share.
                lane = lanes.setdefault(parent, tallest * step - (step - tall) + 14 + 10 * len(lanes))
                down, up = (source[0] + gap, lane), (target[0] - gap, lane)
                run = f"{_bend(source, down)}L{_c(up[0])} {_c(lane)}{_bend(up, target)}"
                body.append(f'<path d="M{_c(source[0])} {_c(source[1])}{run}" class="edge"/>')
    for node in by_name.values():
        nx, ny, wide = place[node.name]
        body.append(
            f'<rect x="{_c(nx)}" y="{_c(ny)}" width="{_c(wide)}" height="{_c(tall)}" rx="6" class="node">'
            f"<title>{_escape(node.name)}</title></rect>"
        )
        body.append(_text(nx + 11, ny + (18 if node.caption else 26), _shorten(node.name, wide - 18), "strong label"))
        if node.caption:
            body.append(_text(nx + 11, ny + 33, _shorten(node.caption, wide - 16)))
    bottom = max(lanes.values(), default=tallest * step - (step - tall))
    return _svg(x - gap + 1, bottom + 2, title, description, body)
