"""The report's section about the taste of the person at this machine: a sentence, a chart and a table."""

from __future__ import annotations

from markupsafe import Markup

from hearken.evaluation.numbers import number, with_interval
from hearken.report import charts
from hearken.report.contents import Liking, OwnTaste
from hearken.report.sections.bars import View
from hearken.statistics.intervals import Interval

SHOWN = 8
"""Likings in the chart."""


def view(taste: OwnTaste | None) -> View | None:
    """What the template shows; None where no person judged."""
    if taste is None:
        return None
    rows = [
        {
            "name": one.name, "pairs": one.pairs, "person": with_interval(one.person, True),
            "learned": with_interval(one.learned, True), "before": number(one.before, 2), "after": number(one.after, 2),
        }
        for one in taste.likings
    ]  # fmt: skip
    return {"said": said(taste), "chart": _chart(taste.likings[:SHOWN]), "rows": rows}


def said(taste: OwnTaste) -> str:
    """The findings in plain words; what the judgments do not show is not claimed."""
    rest = taste.needed - taste.judgments
    parts = [f"You gave {taste.judgments} judgment{'' if taste.judgments == 1 else 's'}"]
    if rest > 0:
        parts[0] += f"; simulated labelers gave the other {rest}, and their taste was learned along with yours"
    for words, chosen in (
        ("You liked", [one for one in taste.likings if _side(one.person) > 0]),
        ("You disliked", [one for one in taste.likings if _side(one.person) < 0]),
    ):
        if chosen:
            parts.append(f"{words}: {', '.join(one.name for one in chosen)}")
    if taste.likings and not any(_side(one.person) for one in taste.likings):
        parts.append("No liking stands out from chance yet; more judgments would show it")
    if taste.agreement is not None:
        parts.append(
            f"On {taste.held_out} pairs that it never saw, the reward model prefers what you preferred "
            f"{with_interval(taste.agreement, True)} of the time; the average taste of the simulated labelers does "
            f"{with_interval(taste.others, True)}"
        )
    return ". ".join(parts) + "."


def _side(figure: Interval) -> int:
    """1 where the whole interval lies above one half, -1 where it lies below, else 0."""
    return int(figure.low > 0.5) - int(figure.high < 0.5)


def _chart(likings: list[Liking]) -> Markup | None:
    items = []
    for one in likings:
        for label, figure, style in ((one.name, one.person, 0), ("  learned", one.learned, None)):
            if figure is not None:
                items.append(charts.Bar(label, *figure, with_interval(figure, True), style))
    if not items:
        return None
    return Markup(
        charts.bars(
            items, title="What you like", description="; ".join(f"{item.label} {item.text}" for item in items) + ".",
            references=[charts.Reference(0.5, "indifferent")], x_range=(0.0, 1.0), as_percent=True, dots=True,
            width=520,
        )
    )  # fmt: skip
