"""From a ``Report`` to its page: figures become words and charts here, and the template only arranges them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hearken.evaluation.numbers import MISSING, duration, estimate, fixed, percent, with_interval
from hearken.feedback.examples import Content
from hearken.report import charts, text
from hearken.report.contents import Report, Step
from hearken.report.sections import costs, labelers, own_taste, policies, reward_model, summary
from hearken.report.sections.changes import compared
from hearken.report.sections.overoptimisation import fooling
from hearken.report.sections.training import run_curves

PAIRS_OPEN = 4
"""Before/after pairs shown at once; the rest unfold."""

CURVES_OPEN = 9
"""Curves of a run shown at once; the rest unfold."""

NAME_UNBROKEN = 18
"""Letters of a name that still fit in the headline's line on a phone."""


def render(report: Report) -> str:
    """The page as one HTML string: no link leaves it, no script runs in it, and model output is only ever text."""
    return render_page(
        "report.html",
        media=any(side.media for pair in [*report.pairs, *report.losses] for side in (pair.before, pair.after))
        or bool(report.reward_model and report.reward_model.strips),
        report=report,
        headline=_headline(report),
        subheadline=text.subheadline(report),
        warnings=text.warnings(report),
        figures=summary.summary_table(report)[:8],
        done=_done(report.steps),
        pairs=[compared(pair) for pair in report.pairs],
        losses=[compared(pair) for pair in report.losses],
        pairs_open=PAIRS_OPEN,
        curves_open=CURVES_OPEN,
        better=policies.better(report),
        fooling=fooling(report),
        reward_model=reward_model.reward_model(report.reward_model),
        yours=own_taste.view(report.taste),
        taste=labelers.taste(report),
        drift=policies.drift(report),
        costs=costs.costs(report),
        runs=[run for training in report.training if (run := run_curves(training))["charts"]],
        judging=labelers.judging(report.judges),
        lineage=_lineage(report),
    )


def _headline(report: Report) -> Markup:
    """The headline, whose names do not break at their hyphens while they are short enough for a phone."""
    said = charts.clean(text.headline(report))
    names = {n for n in map(charts.clean, (report.policy, report.baseline)) if 0 < len(n) <= NAME_UNBROKEN}
    if not names:
        return escape(said)
    parts = re.split(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])", said)
    whole = Markup('<span class="name">{}</span>')
    return Markup("").join(whole.format(part) if part in names else part for part in parts)


def render_page(template: str, *, media: bool = False, **values: object) -> str:
    """A page of one file: its stylesheet inside, allowed by its hash, and nothing else (but ``media`` within it)."""
    css = charts.CSS + files("hearken.report").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return _environment().get_template(template).render(css=Markup(css), css_hash=digest, media=media, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hearken.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: charts.clean(value) if type(value) is str else value,
    )
    environment.filters |= {
        "duration": duration,
        "fixed": fixed,
        "figure": with_interval,
        "estimate": estimate,
        "percent": percent,
        "share": lambda value: with_interval(value, as_percent=True),
        "thousands": lambda value: MISSING if value is None else f"{value:,}",
        "turns": _turns,
    }
    return environment


def _turns(content: Content) -> list[tuple[str, str]]:
    """A prompt as (role, text); plain text has no role."""
    return [("", content)] if isinstance(content, str) else [(message.role, message.content) for message in content]


def _done(steps: Sequence[Step]) -> list[tuple[str, list[Step]]]:
    """The steps, under the names of their rounds where there were several."""
    if len({step.round for step in steps if step.round}) < 2:
        return [("", list(steps))]
    runs = [(round, list(some)) for round, some in groupby(steps, key=lambda step: step.round or 0)]
    return [
        (f"Round {round}" if round else "To begin with" if i == 0 else "Afterwards", some)
        for i, (round, some) in enumerate(runs)
    ]


def _lineage(report: Report) -> Markup | None:
    if not report.lineage:
        return None
    nodes = [charts.Node(made.name, made.kind, tuple(dict.fromkeys(made.parents.values()))) for made in report.lineage]
    said = "; ".join(f"{n.name} from {', '.join(n.parents)}" if n.parents else n.name for n in nodes)
    return Markup(charts.graph(nodes, title="Lineage of artifacts", description=f"{said}."))
