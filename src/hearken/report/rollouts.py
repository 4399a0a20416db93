"""The rollouts of a training run as a page (see `evaluation.rollouts`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from hearken.evaluation.rollouts import Browsed, known, read, values
from hearken.report import charts
from hearken.report.page import render_page


def render_rollouts(found: Browsed, path: Path) -> str:
    """The same as a page: distributions early and late in the run, reward over length and KL, and the extremes."""
    rows = read(path)
    newest = max(r.step for r in rows)
    early = [r for r in rows if r.step <= newest / 4]
    late = [r for r in rows if r.step > 0.75 * newest]
    names = {"reward": "Reward", "kl": "KL, nats a response", "length": "Length, tokens"}
    names = {measure: label for measure, label in names.items() if known(rows, measure)}
    drawn = []
    for measure, label in names.items():
        groups: dict[str, Sequence[float]] = {"first quarter": values(early, measure)}
        if newest:
            groups["last quarter"] = values(late, measure)
        svg = charts.histogram(groups, title=label, description=f"Distribution of {label}.", x_label=label)
        drawn.append((label.partition(",")[0], "shares of the run's first and last quarter of steps", svg))
    for measure, name in (("length", "length"), ("kl", "KL")):
        if measure not in names:
            continue
        svg = charts.scatter(
            values(rows, measure), values(rows, "reward"),
            title=f"Reward over {measure}", description=f"All {len(rows):,} rollouts.",
            x_label=names[measure], y_label="reward",
        )  # fmt: skip
        drawn.append((f"Reward over {name}", "every response, and the line of least squares", svg))
    shown = [(title, note, Markup(svg)) for title, note, svg in drawn]
    return render_page("rollouts.html", found=found, drawn=shown)
