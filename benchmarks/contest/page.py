"""The contest's figures as Markdown tables and charts, and where they stand in docs/performance.md."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import markdown

from hearken.report.charts import CSS, Axis, Reference, Series, line_chart

AXES = {
    "tokens": ("microbatch, real tokens", "SFT, hidden 256"),
    "length": ("response limit, tokens", "Sampling, hidden 256, 32 rows"),
    "k": ("K, responses a prompt", "Reward model, hidden 256"),
    "hidden": ("hidden size", "SFT, 4 layers"),
}

COLOURS = """
:root { --ink: #1d2733; --muted: #5c6773; --hairline: #d5dae0; --paper: #fff; --series-0: #0b62a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf2; --muted: #a3adb8; --hairline: #3a434d; --paper: #14181d; --series-0: #6db3f2; }
}
"""


def tables(figures: dict[str, Any]) -> dict[str, str]:
    """The figures as Markdown tables, by the name of their place in docs/performance.md."""
    found: dict[str, str] = {}
    rows, phases, profile = [], [], []
    for one in figures.get("rows", []):
        row, turns = one["row"], one["turns"]
        name = f"{row['name']}, hidden {row['hidden']}"
        ours, peer = ([t[side] for t in turns] for side in ("ours", "peer"))
        rows.append((
            name, f"{_median(ours, 'per_second'):,.4g} {row['unit']}", f"{_median(peer, 'per_second'):,.4g}",
            f"{one['ratio']:.2f} ({min(t['ratio'] for t in turns):.2f} to {max(t['ratio'] for t in turns):.2f})",
            f"{row['goal']:g}", "yes" if one["met"] else "**no**",
            f"{_median(ours, 'peak_mb'):.0f} / {_median(peer, 'peak_mb'):.0f}",
            f"{_median(ours, 'grown_mb'):.0f} / {_median(peer, 'grown_mb'):.0f}",
            f"{_median(ours, 'matmul_share'):.0%} / {_median(peer, 'matmul_share'):.0%}",
            ", ".join(f"{k}={v}" for k, v in one["setting"].items()) or "defaults",
        ))  # fmt: skip
        for phase in ours[0]["phases"]:
            mine, theirs = (
                statistics.median(t["phase_seconds"].get(phase, 0.0) for t in side) for side in (ours, peer)
            )
            phases.append((name, phase, f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}" if mine else "–"))
        if one["shares"]:
            profile.append((name, *(f"{share:.0%}" for share in one["shares"].values())))
            kinds = list(one["shares"])
    if rows:
        head = (
            "work",
            "Hearken",
            "peer",
            "ratio",
            "goal",
            "met",
            "peak MB",
            "of it grown",
            "matmul share",
            "peer's setting",
        )
        found["ratios"] = markdown(head, rows)
    if phases:
        found["phases"] = markdown(("work", "phase", "Hearken, s", "TRL, s", "ratio"), phases)
    if profile:
        found["profile"] = markdown(("work", *kinds), profile)
    if figures.get("model"):
        return {f"model-{name}": table for name, table in found.items()}
    if figures.get("losses"):
        lines = [
            (e["kind"], e["of"], e["steps"], f"{e['first']:.4f}", f"{e['last']:.4f}", f"{e['worst']:.1e}")
            for e in figures["losses"]
        ]
        found["losses"] = markdown(("stage", "compared", "steps", "first", "last", "greatest difference"), lines)
    if figures.get("startup"):
        found["startup"] = markdown(("command", "seconds"), [(k, f"{v:.2f}") for k, v in figures["startup"].items()])
    for axis, points in (figures.get("scaling") or {}).items():
        lines = [(f"{p['x']:g}", f"{p['per_second']:,.4g}", f"{p['share']:.0%}") for p in points]
        found[f"scaling-{axis}"] = markdown((AXES[axis][0], "tokens/s", "matmul share"), lines)
    return found


def _median(side: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(turn[name] for turn in side)


def write_docs(figures: dict[str, Any], page: Path) -> None:
    """Put the tables between ``<!-- figures: NAME -->`` and ``<!-- end -->``, and the charts beside the page."""
    text = page.read_text("utf-8")
    for name, table in tables(figures).items():
        pattern = rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
    page.write_text(text, "utf-8")
    for axis, points in (figures.get("scaling") or {}).items():
        page.with_name(f"performance-{axis}.svg").write_text(chart(axis, points), "utf-8")


def chart(axis: str, points: Sequence[dict[str, float]]) -> str:
    """Tokens a second over ``axis`` as an SVG file, marked where nine tenths of the best share are reached."""
    label, what = AXES[axis]
    best = max(p["share"] for p in points)
    limit = next(p for p in points if p["share"] >= 0.9 * best)
    mark = Reference(math.log2(limit["x"]), f"{limit['x']:g}: {limit['share']:.0%} of the matmul rate")
    svg = line_chart(
        [Series("Hearken", [math.log2(p["x"]) for p in points], [p["per_second"] for p in points])],
        title=what, x=Axis(f"log2 of {label}"), y=Axis("tokens/s"), marks=[mark],
        description=f"{what}: tokens a second against {label}, marked where nine tenths of the best share are reached.",
    )  # fmt: skip
    start, rest = svg.split(">", 1)
    return f"{start}><style>{COLOURS}{CSS}</style>{rest}\n"
