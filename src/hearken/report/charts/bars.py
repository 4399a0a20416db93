"""Bars with intervals, and distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hearken.report.charts.drawing import (
    GAP,
    SERIES_STYLES,
    Frame,
    Reference,
    escaped,
    finite,
    marker,
    no_data,
    rule,
    shade,
    shortened,
    some_ticks,
    span,
    svg,
    tenth,
    text_width,
    tick_labels,
    track,
    value_text,
    write,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value, perhaps with its interval; ``text`` is printed beside it. ``style`` is its colour; None is quiet."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    style: int | None = 0


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
    if any(len(finite((item.low, item.high))) == 1 for item in items):
        raise ValueError("an interval needs both its bounds")
    if not items:
        return no_data(title, description, width, 60)
    texts = [item.text or value_text(item.value, as_percent) for item in items]
    left = min(max(text_width(item.label) for item in items) + 12, width * 0.38)
    right = min(max(text_width(t) for t in texts) + 12, width * 0.36)
    found = [v for item in items for v in (item.value, item.low, item.high)] + [r.value for r in references]
    low, high = x_range or (span(found) if dots else (min(0.0, *finite(found)), max(0.0, *finite(found)) * 1.02))

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
        captions.append(write(x_text, 11 + row * GAP, reference.label, "middle"))
        rules.append((x, row))
    top = len(lines) * GAP + 8
    step, thick = 30.0, 14.0
    bottom = top + step * len(items)
    body: list[str] = []
    values = some_ticks(low, high, max(2, int((width - left - right) / 48))) if axis else []
    for value, label in zip(values, tick_labels(values, as_percent), strict=True):
        x = px(value)
        body += [rule(x, top, x, bottom, "grid"), write(x, bottom + 15, label, "middle")]
    body += captions
    body += [rule(x, 15 + row * GAP, x, bottom, "mark") for x, row in rules]
    for i, (item, text) in enumerate(zip(items, texts, strict=True)):
        y = top + step * (i + 0.5)
        tip = f"{item.label}: {text}"
        body.append(write(left - 10, y + 4, shortened(item.label, left - 10), "end strong"))
        body.append(write(width, y + 4, shortened(text, right - 4), "end strong label"))
        start, end = sorted((px(max(low, 0.0)), px(item.value)))
        if not dots:
            body.append(
                f'<rect x="{tenth(start)}" y="{tenth(y - thick / 2)}" rx="2" '
                f'width="{tenth(max(end - start, 1))}" height="{tenth(thick)}" '
                f'class="fill paint {shade(item.style)}"><title>{escaped(tip)}</title></rect>'
            )
        bounds = finite((item.low, item.high))
        if bounds:
            a, b = (px(bound) for bound in bounds)
            body += [
                rule(a, y, b, y, "whisker"),
                rule(a, y - 4, a, y + 4, "whisker"),
                rule(b, y - 4, b, y + 4, "whisker"),
            ]
        if dots:
            body.append(marker(px(item.value), y, item.style, tip, 5))
    return svg(width, bottom + (22 if axis else 2), title, description, body)


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
    kept = {name: found for name, values in groups.items() if (found := finite(values))}
    if not kept:
        return no_data(title, description, width, height)
    low, high = min(min(v) for v in kept.values()), max(max(v) for v in kept.values())
    if high <= low:
        low, high = span([low])
    shares: dict[str, list[float]] = {}
    for name, values in kept.items():
        counts = [0] * bins
        for v in values:
            counts[min(int((v - low) / (high - low) * bins), bins - 1)] += 1
        shares[name] = [c / len(values) for c in counts]
    frame = Frame(
        x=(low, high),
        y=(0.0, max(max(s) for s in shares.values()) * 1.12),
        width=width,
        height=height,
        y_percent=True,
        x_label=x_label,
        top=8.0 + (GAP if len(kept) > 1 else 0.0),
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
        body.append(f'<path d="{track(steps)}Z" class="soft paint s{style}"/>')
        body.append(f'<path d="{track(steps)}" class="line stroke s{style}"/>')
        if len(kept) > 1:
            body.append(f'<path d="M{tenth(legend)} 7L{tenth(legend + 24)} 7" class="line stroke s{style}"/>')
            body.append(write(legend + 29, 11, name, f"label paint s{style}"))
            legend += 29 + text_width(name) + 18
    return svg(width, height, title, description, body)
