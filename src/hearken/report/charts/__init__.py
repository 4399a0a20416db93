"""Charts as SVG text: no dependency, no inline style, light and dark by CSS variables.

A page that shows them includes ``CSS`` once. Every chart has a ``<title>`` and ``<desc>`` for screen readers, tells its
series apart by dash and marker as well as colour, and labels them directly. Natural widths are about 420 px, so that
two stand side by side on a desk and one stays readable on a phone.
"""

from hearken.report.charts.bars import Bar, bars, histogram
from hearken.report.charts.drawing import SERIES_STYLES, Axis, Reference, clean, text_width, tick_labels, ticks
from hearken.report.charts.graphs import Node, graph
from hearken.report.charts.lines import Series, line_chart, sparkline
from hearken.report.charts.points import Point, Reliability, calibration_plot, frontier, scatter

__all__ = [
    "CSS", "SERIES_STYLES", "Axis", "Bar", "Node", "Point", "Reference", "Reliability", "Series", "bars",
    "calibration_plot", "clean", "frontier", "graph", "histogram", "line_chart", "scatter", "sparkline", "text_width",
    "tick_labels", "ticks",
]  # fmt: skip

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
.chart .soft { opacity: .18; } .chart .whisker.soft { opacity: .35; }
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
