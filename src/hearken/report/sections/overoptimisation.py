"""Is the reward fooled? Proxy against gold on each run's way, all policies over their KL, likelihoods, the audit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from hearken.evaluation.compare import Divergence, smooth
from hearken.evaluation.numbers import estimate, number, percent, with_interval
from hearken.evaluation.results import PolicyResult
from hearken.report import charts, text
from hearken.report.contents import Report, Training
from hearken.report.sections.bars import Chart, View, bounds_of, in_words, row_of
from hearken.statistics.intervals import wilson

APART = 5.0
"""Proxy and gold whose ranges differ by more than this factor are each drawn on their own scale."""


@dataclass(frozen=True, slots=True)
class _Course:
    """A run on its way, its proxy beside what it is held against."""

    name: str
    said: str
    truth: str
    """In words."""
    note: str
    chart: Markup
    fooled: bool
    tells: bool = False
    """It is worth saying even where nothing was fooled."""
    enough: bool = False
    """It shows that nothing was, where it was not."""


def fooling(report: Report) -> View | None:
    """A verdict in words, proxy against gold on each run's way from the start, and all policies over their KL."""
    over_kl = all(_reached(run) for run in report.training if _held_against(run))
    runs = [found for run in report.training for found in (_parting(run, over_kl), _watched(run)) if found]
    frontier, audited, likelihood = _frontier(report), _audited(report), _likelihood(report)
    if not (runs or frontier or audited or likelihood or report.alarms):
        return None
    fine = [run for run in runs if not run.fooled and run.enough]
    names = " and ".join(dict.fromkeys(run.name for run in fine))
    truths = " or the ".join(dict.fromkeys(run.truth for run in fine))
    found = [report.audit.says] if report.audit and report.audit.alarm else []
    return {
        "alarms": [*found, *report.alarms, *(run.said for run in runs if run.fooled)],
        "fine": f"No sign of it in {names}: where the reward model's score rose, the {truths} "
        "did not fall beyond noise."
        if fine
        else "",
        "said": [run.said for run in runs if run.tells and not run.fooled],
        "charts": [*([audited] if audited else []), *((run.name, run.note, run.chart) for run in runs)],
        "likelihood": likelihood,
        "frontier": frontier,
    }


def _audited(report: Report) -> Chart | None:
    """Truth before and now beside preference, on answers that somebody checked."""
    found = report.audit
    if found is None:
        return None
    by = f" by {found.judge}" if found.judge else ""
    candidates = (
        row_of(f"{found.baseline} is right", found.before, None, True),
        row_of(f"{found.policy} is right", found.after, 0, True),
        row_of(f"{found.policy} is preferred{by}", found.preference, 1, True),
    )
    items = [bar for bar in candidates if bar]
    chart = charts.bars(
        items, title="Truth and preference", description=found.says, x_range=(0.0, 1.0), as_percent=True
    )
    checked = f"on {found.checked:,} answers that somebody checked" if found.checked else "on answers that were checked"
    verdict = "" if found.alarm else f"; {found.says}"
    return "Right, and preferred", checked + verdict, Markup(chart)


def _likelihood(report: Report) -> View | None:
    """What became of the likelihood of responses that people had compared."""
    items = []
    for name, p in report.evaluation.policies.items():
        if (change := p.likelihood) is not None:
            bars = row_of(f"{name}: preferred", change.preferred), row_of(f"{name}: the other", change.other, None)
            items += [bar for bar in bars if bar]
    if not items:
        return None
    chart = charts.bars(
        items,
        title="Change of likelihood of compared responses",
        description=in_words(items),
        references=[charts.Reference(0.0, "as likely as before")],
        dots=True,
        width=520,
    )
    return {"said": text.about_likelihood(report), "chart": Markup(chart)}


def _watched(run: Training) -> _Course | None:
    """A judge's win rate over the proxy of the same answers, checkpoint by checkpoint."""
    known = text.WATCH
    if not text.knows(run, known):
        return None
    steps, proxy, wins = (text.path(run, keys, known) for keys in (text.STEP_KEYS, known.proxy, known.keys))
    if len(wins) < 2 or len(steps) != len(wins):
        return None
    found = text.divergence(run, known)
    fooled = bool(found and found.fooled)
    at = dict(zip(steps, proxy, strict=True))
    kept = run.kept if run.kept is not None and run.kept in at else None
    marks = [] if kept is None else [charts.Reference(at[kept], f"kept: step {kept:,.0f}")]
    if found and fooled and found.peak != kept:
        marks.append(charts.Reference(at[found.peak], f"fooled after step {found.peak:,.0f}"))
    bounds = [wilson(win * run.judged_on, run.judged_on) for win in wins] if run.judged_on else []
    said = text.fooled(run, known) or run.says
    lowest = min(0.4, *(b.low for b in bounds), *wins)
    highest = max(0.6, *(b.high for b in bounds), *wins)
    chart = charts.line_chart(
        [
            charts.Series(
                "checkpoint", proxy, wins, low=[b.low for b in bounds], high=[b.high for b in bounds], whiskers=True
            )
        ],
        title=f"Win rate against proxy, {run.name}",
        description=f"{said} " + "; ".join(
            f"step {step:,.0f}: proxy {number(x)}, wins {percent(win)}"
            for step, x, win in zip(steps, proxy, wins, strict=True)
        ),
        x=charts.Axis("proxy reward of the same answers"),
        y=charts.Axis("win rate", percent=True, range=(lowest, highest)),
        levels=[charts.Reference(0.5, "no difference")],
        marks=marks,
        width=440,
        height=260,
    )  # fmt: skip
    note = (
        "each checkpoint against the reference, by a judge that is not optimised; to the right and down is being fooled"
    )
    return _Course(run.name, said, known.words, note, Markup(chart), fooled, tells=bool(run.says))


def _held_against(run: Training) -> Divergence | None:
    """The proxy against gold (or a judge's score) on a run's way; None where only a judge's win rate is known."""
    return text.divergence(run) if text.truth(run) != text.WATCH else None


def _reached(run: Training) -> list[float]:
    """√KL at each point of a run's `divergence`, or the farthest before; empty where it stayed put for most of the run.

    A policy that steps back for a moment would make a line over it run backwards, one that stays put a wall.
    """
    found = text.divergence(run)
    kl = text.kl_path(run, len(found.steps)) if found else []
    reached = [math.sqrt(max(v, 0.0)) for v in accumulate(kl, max)]
    return reached if len(set(reached)) > len(reached) / 2 else []


def _parting(run: Training, over_kl: bool) -> _Course | None:
    found = _held_against(run)
    if found is None:
        return None
    said = text.fooled(run) or f"No sign of it in {run.name}."
    keys, truth, _ = text.truth(run)
    x = _reached(run) if over_kl else found.steps
    spans = [max(v) - min(v) for v in (found.proxy, found.gold)]
    alike = min(spans) > 0 and max(spans) / min(spans) <= APART
    change = [_change(v, 1.0 if alike else span) for v, span in zip((found.proxy, found.gold), spans, strict=True)]
    peak = x[found.steps.index(found.peak)]
    chart = charts.line_chart(
        [charts.Series("proxy", x, change[0], style=1), charts.Series(keys[0], x, change[1], style=0)],
        title=f"Proxy and {truth}, {run.name}",
        description=said,
        x=charts.Axis("√KL reached, √nats" if over_kl else "step"),
        y=charts.Axis("change since the start" + ("" if alike else ", share of own range")),
        marks=[charts.Reference(peak, f"{keys[0]} at its best")] if found.fooled else [],
        width=440,
        height=260,
    )
    scale = "smoothed" if alike else "smoothed, each on its own scale"
    note = f"proxy and {truth} as the policy moves away; {scale}"
    return _Course(run.name, said, truth, note, Markup(chart), found.fooled, enough=True)


def _change(values: Sequence[float], unit: float) -> list[float]:
    return [(v - values[0]) / unit if unit else 0.0 for v in values]


def _frontier(report: Report) -> View | None:
    """Every policy over its KL to the reference, by the best judge that several of them have."""
    judged = ((*by, _known(report, by[0])) for by in (
        ("gold", "gold reward", False),
        ("win_rate", f"wins against {report.baseline}", True),
        ("proxy", "proxy reward", False),
    ))  # fmt: skip
    found = next((by for by in judged if len(by[3]) > 1), None)
    if found is None:
        return None
    field, title, as_percent, known = found
    styles = _styles(report)
    points = []
    for name, p in known.items():
        figure = 0.5 if field == "win_rate" and p.win_rate is None else getattr(p, field)
        low, high = bounds_of(figure)
        told = f"{name}: KL {with_interval(p.kl)}, {title} {with_interval(figure, as_percent)}"
        points.append(charts.Point(name, estimate(p.kl) or 0.0, estimate(figure) or 0.0, low, high, styles[name], told))
    trails = []
    if field == "gold":
        for run in report.training:
            kl = text.kl_path(run)
            gold = text.path(run, text.GOLD_KEYS)
            if kl and len(kl) == len(gold) and run.name in styles:
                way = smooth(gold, max(3, len(kl) // 10) | 1)
                trails.append(charts.Series(run.name, kl, way, faint=True, style=styles[run.name] or 0))
    chart = charts.frontier(
        points,
        trails,
        title="Reward-KL frontier",
        description="; ".join(p.text for p in points) + ".",
        x_label="KL to the reference, nats a response",
        y_label=title,
        y_percent=as_percent,
    )
    trust = {"gold": "", "win_rate": "", "proxy": " Only the proxy is known: a point far to the right may be fooled."}
    return {
        "chart": Markup(chart),
        "note": f"{title} that each policy reaches, for its distance from the reference; whiskers are 95 % intervals"
        + (", faint lines the ways they took" if trails else ""),
        "said": "The dashed line is the most that any policy reached for so much KL." + trust[field],
    }


def _known(report: Report, field: str) -> dict[str, PolicyResult]:
    """Policies whose KL is known, and this figure; the baseline wins half against itself."""
    placed = {name: p for name, p in report.evaluation.policies.items() if p.kl is not None}
    known = {name: p for name, p in placed.items() if getattr(p, field) is not None}
    if field == "win_rate" and known and report.baseline in placed:
        known = {report.baseline: placed[report.baseline]} | known
    return known


def _styles(report: Report) -> dict[str, int | None]:
    """A colour and marker for each policy: the reported one first, the baseline quiet, others by their method."""
    styles: dict[str, int | None] = {report.baseline: None, report.policy: 0}
    methods: dict[str, int] = {}
    stages = {made.name: made.kind for made in report.lineage}
    for name in report.evaluation.policies:
        if name not in styles:
            method = "best of n" if name.startswith("best-of-") else stages.get(name, name)
            styles[name] = 1 + methods.setdefault(method, len(methods)) % (charts.SERIES_STYLES - 1)
    return styles
