"""What it took: time, labels and computing."""

from __future__ import annotations

from markupsafe import Markup

from hearken.evaluation.numbers import duration
from hearken.report import charts
from hearken.report.contents import Report
from hearken.report.sections.bars import View, in_words, weights


def costs(report: Report) -> View | None:
    """Time, labels and computing, as figures, and the time of each step."""
    spent = report.costs
    timed = [step for step in report.steps if step.seconds is not None]
    if spent is None and not timed:
        return None
    figures: list[tuple[str, str, str]] = []
    seconds = spent.seconds if spent and spent.seconds is not None else sum(s.seconds or 0.0 for s in timed)
    machine = report.recipe.machine if report.recipe else ""
    if seconds:
        figures.append(("Computing", duration(seconds), machine))
    if spent:
        if spent.judgments:
            who = ", ".join(f"{count:,} {kind}" for kind, count in spent.judgments.items())
            figures.append(("Judgments", f"{sum(spent.judgments.values()):,}", who))
        if spent.labeling_seconds:
            each = spent.labeling_seconds / max(spent.judgments.get("person", 0), 1)
            figures.append(("People's time", duration(spent.labeling_seconds), f"{duration(each)} a judgment"))
        if spent.ai_requests:
            tokens = "{:,} tokens read, {:,} written".format(*spent.ai_tokens) if any(spent.ai_tokens) else ""
            figures.append(("Requests to AI labelers", f"{spent.ai_requests:,}", tokens))
        if spent.price:
            figures.append(("Paid for AI labels", f"{spent.price:,.2f}", "in the currency of the prices given"))
        if spent.responses:
            figures.append(("Responses", f"{spent.responses:,}", "sampled for judgment"))
        if spent.episodes:
            figures.append(("Episodes", f"{spent.episodes:,}", "responses sampled while training"))
        if spent.parameters:
            figures.append(("Policy", weights(spent.parameters).removesuffix(" weights"), "weights"))
    chart = None
    if len(timed) > 1:
        items = [charts.Bar(s.name, s.seconds or 0.0, text=duration(s.seconds)) for s in timed]
        told = in_words(items)
        chart = Markup(charts.bars(items, title="Time of each step", description=told, axis=False, width=720))
    return {"figures": figures, "chart": chart} if figures or chart else None
