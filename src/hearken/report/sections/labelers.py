"""Who judged, with the biases that show in it; and what each group of labelers got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from hearken.evaluation.numbers import MISSING, estimate, percent, with_interval
from hearken.report import charts
from hearken.report.contents import Judge, Report
from hearken.report.sections.bars import Chart, View, in_words, row_of
from hearken.report.text import about_taste
from hearken.statistics.intervals import Interval

LABELERS_SHOWN = 12
"""More labelers than this stand in the table only."""


def taste(report: Report) -> View | None:
    """What each group of labelers got, and how well its taste was learnt."""
    tastes = [t for t in report.tastes if t.win_rate is not None or t.accuracy is not None]
    policy = report.ours
    groups = {t.name for t in tastes if t.win_rate is not None}
    wins = [bar for t in tastes if (bar := row_of(t.name, t.win_rate, 0, True))]
    if policy is not None:
        others = {name: rate for name, rate in policy.win_rate_by_group.items() if name not in groups}
        wins += [bar for name, rate in others.items() if (bar := row_of(name, rate, 0, True))]
    learnt = [bar for t in tastes if (bar := row_of(t.name, t.accuracy, 2, True))]
    shown: list[Chart] = []
    if wins:
        overall = estimate(policy.win_rate) if policy else None
        levels = [charts.Reference(0.5, "no difference")]
        levels += [charts.Reference(overall, "all")] if overall is not None and abs(overall - 0.5) > 0.02 else []
        chart = charts.bars(
            wins,
            title=f"Wins of {report.policy} by each group's taste",
            description=in_words(wins),
            references=levels,
            x_range=(0.0, 1.0),
            as_percent=True,
        )
        note = f"of {report.policy} against {report.baseline}, judged by that group alone"
        note += _behind((t.name, t.judges, t.comparisons, "comparison") for t in tastes if t.win_rate is not None)
        shown.append(("What each group got", note, Markup(chart)))
    if learnt:
        chart = charts.bars(
            learnt,
            title="Accuracy of the reward model on each group's comparisons",
            description=in_words(learnt),
            references=[charts.Reference(0.5, "chance")],
            x_range=(0.0, 1.0),
            as_percent=True,
        )
        note = "reward model's accuracy on held-out comparisons"
        note += _behind((t.name, t.labelers, t.pairs, "pair") for t in tastes if t.accuracy is not None)
        shown.append(("Whose taste was learnt", note, Markup(chart)))
    divided = {n: p.win_rate_by_group for n, p in report.evaluation.policies.items() if len(p.win_rate_by_group) > 1}
    rows = [
        (n, {g: with_interval(r, True) for g, r in rates.items()}, _worst_off(rates)) for n, rates in divided.items()
    ]
    if not shown:
        return None
    return {
        "said": about_taste(report),
        "charts": shown,
        "policies": rows if len(rows) > 1 else [],
        "groups": list(dict.fromkeys(g for rates in divided.values() for g in rates)),
    }


def _behind(groups: Iterable[tuple[str, int | None, int | None, str]]) -> str:
    """How many labelers, and how much of what they said, stand behind each group's figure."""
    known = [f"{g}: {_many(who, 'labeler')}, {_many(count, what)}" for g, who, count, what in groups if who and count]
    return f" ({'; '.join(known)})" if known else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _worst_off(rates: Mapping[str, Interval]) -> str:
    """The group that gained least, and what it got."""
    name = min(rates, key=lambda group: rates[group].estimate)
    return f"{name} {percent(rates[name].estimate)}"


def judging(judges: Sequence[Judge]) -> View | None:
    """Who gave how many judgments, with the biases that show in them."""
    if not judges:
        return None
    bias = []
    for title, field, reference in (
        ("Preferred the response shown first", "first_shown", "no side bias"),
        ("Preferred the longer response", "longer", "length ignored"),
    ):
        items = [bar for j in judges if (bar := row_of(j.name, getattr(j, field), as_percent=True))]
        if items and len(items) <= LABELERS_SHOWN:
            chart = charts.bars(
                items,
                title=title,
                description=in_words(items),
                references=[charts.Reference(0.5, reference)],
                as_percent=True,
                dots=True,
            )
            bias.append((title, "", Markup(chart)))
    ties = [(j.ties, j.judgments) for j in judges if j.ties is not None and j.judgments]
    total = sum(count for _, count in ties)
    return {
        "judgments": sum(j.judgments for j in judges),
        "grouped": any(j.group for j in judges),
        "models": any(j.overlap is not None for j in judges),
        "ties": percent(sum(share * count for share, count in ties) / total) if total else MISSING,
        "bias": bias,
    }
