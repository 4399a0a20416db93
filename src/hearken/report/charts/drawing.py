"""What every chart is made of: numbers as labels, text that fits, the plot area with its axes, the svg element."""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

SERIES_STYLES = 5
"""Colours, dashes and markers before they repeat."""

SIZE = 12.0  # font size of chart text, px
GAP = 14.0  # least distance between two lines of text, px


@dataclass(frozen=True, slots=True)
class Reference:
    """A value everything is read against, e.g. chance: a dotted line with a label."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """How an axis of a chart reads."""

    label: str = ""
    """Under the x axis, right; above the y axis, left, where it should be short."""
    percent: bool = False
    """Shares 0..1, shown as per cent."""
    whole: bool = False
    """Counted (rounds): only whole numbers are marked."""
    range: tuple[float, float] | None = None
    """By default what the data need."""


PLAIN = Axis()


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


def some_ticks(low: float, high: float, wanted: int, least: int = 2) -> list[float]:
    """`ticks`, with more of them wanted until there are ``least``: one alone gives no scale."""
    return next((found for n in range(wanted, wanted + 5) if len(found := ticks(low, high, n)) >= least), []) or ticks(
        low, high, wanted
    )


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


def value_text(y: float, as_percent: bool) -> str:
    """A value as it is printed beside its mark."""
    return f"{100 * y:.1f}\u202f%" if as_percent else f"{y:,.4g}".replace("-", "−")


def text_width(text: str, size: float = SIZE) -> float:
    """Approximate width of ``text`` in a sans-serif face, px; wide East Asian characters and emoji count double."""
    return sum(size * (1.05 if unicodedata.east_asian_width(c) in "WF" else 0.57) for c in text)


def clean(text: str) -> str:
    """``text`` without the characters that neither XML nor UTF-8 can carry (controls, lone surrogates)."""
    bad = {"\ufffe", "\uffff"}
    return "".join(
        c if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in bad) else "�" for c in text
    )


def escaped(text: str) -> str:
    """``text`` as it may stand in XML, whatever it holds."""
    return escape(clean(text), quote=True)


def shortened(text: str, width: float) -> str:
    """``text`` cut with an ellipsis where it is wider than ``width`` px."""
    if text_width(text) <= width:
        return text
    while text and text_width(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def tenth(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def write(x: float, y: float, content: str, classes: str = "") -> str:
    """A line of text; ``y`` is its baseline."""
    return f'<text x="{tenth(x)}" y="{tenth(y)}" class="{classes}">{escaped(content)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<line x1="{tenth(x1)}" y1="{tenth(y1)}" x2="{tenth(x2)}" y2="{tenth(y2)}" class="{classes}"/>'


def shade(style: int | None) -> str:
    """The class of a style; None is quiet."""
    return "quiet" if style is None else f"s{style % SERIES_STYLES}"


def marker(x: float, y: float, style: int | None, tip: str = "", size: float = 3.5) -> str:
    """A point as circle, square, triangle, diamond or cross, by style; ``tip`` shows on hover."""
    classes = f'class="paint {shade(style)}"'
    inside = f"<title>{escaped(tip)}</title>" if tip else ""
    s = size
    shape = (style or 0) % SERIES_STYLES
    if shape == 0:
        return f'<circle cx="{tenth(x)}" cy="{tenth(y)}" r="{tenth(s)}" {classes}>{inside}</circle>'
    if shape == 1:
        left, top, side = tenth(x - s), tenth(y - s), tenth(2 * s)
        return f'<rect x="{left}" y="{top}" width="{side}" height="{side}" {classes}>{inside}</rect>'
    outlines = {
        2: [(0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
        3: [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)],
        4: [(-1.3, -0.5), (0, 0.4), (1.3, -0.5), (1.3, 0.4), (0, 1.3), (-1.3, 0.4)],
    }
    points = " ".join(f"{tenth(x + s * dx)},{tenth(y + s * dy)}" for dx, dy in outlines[shape])
    return f'<polygon points="{points}" {classes}>{inside}</polygon>'


def svg(
    width: float, height: float, title: str, description: str, body: Iterable[str], *, natural: bool = False
) -> str:
    """The whole chart; ``width`` and ``height`` are those of its view box, px, and of itself where ``natural``."""
    inside = "".join(body)
    key = f"c{zlib.crc32(f'{title}{description}{inside}'.encode('utf-8', 'replace')):08x}"
    size = f' width="{tenth(width)}" height="{tenth(height)}"' if natural else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart"{size} viewBox="0 0 {tenth(width)} {tenth(height)}" '
        f'role="img" aria-labelledby="{key}t {key}d"><title id="{key}t">{escaped(title)}</title>'
        f'<desc id="{key}d">{escaped(description)}</desc>{inside}</svg>'
    )


def no_data(title: str, description: str, width: float, height: float) -> str:
    """A chart that says that there is nothing to draw."""
    return svg(width, height, title, description, [write(width / 2, height / 2, "no data", "middle")])


def finite(values: Iterable[float | None]) -> list[float]:
    """The ``values`` that can be drawn."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def span(values: Iterable[float | None], pad: float = 0.06) -> tuple[float, float]:
    """The range of ``values`` with a margin; a constant gets room on both sides."""
    found = finite(values)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    apart = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0  # else the noise of rounding
    room = apart * pad or abs(high) * 0.1 or 0.5
    return low - room, high + room


def apart(wanted: Sequence[float], low: float, high: float, gap: float = GAP) -> list[float]:
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
class Frame:
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
        self.y_ticks = some_ticks(*self.y, wanted=max(2, int((self.bottom - self.top) / 38)))
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
        out = [write(0, 11, self.y_label, "strong")] if self.y_label else []
        for value, label in zip(self.y_ticks, tick_labels(self.y_ticks, self.y_percent), strict=True):
            y = self.py(value)
            out += [rule(self.left, y, edge, y, "grid"), write(self.left - 7, y + 4, label, "end")]
        out.append(rule(self.left, self.bottom, edge, self.bottom, "axis"))
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
                rule(x, self.bottom, x, self.bottom + 4, "axis"),
                write(x, self.bottom + 17, label, "middle"),
            ]
        if self.x_label:
            out.append(write(edge, self.height - 3, self.x_label, "end"))
        return out


def runs_of(xs: Sequence[float], ys: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Runs of finite points; a gap in the data is a gap in the line."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(xs, ys, strict=True):
        if y is None or not math.isfinite(y) or not math.isfinite(x):
            runs.append([])
        else:
            runs[-1].append((float(x), float(y)))
    return [run for run in runs if run]


def track(points: Sequence[tuple[float, float]]) -> str:
    """A path through points, px."""
    return "M" + "L".join(f"{tenth(x)} {tenth(y)}" for x, y in points)
