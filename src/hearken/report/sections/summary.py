"""The few figures that end a run: plain rows, for the command line to print and the report to show large."""

from __future__ import annotations

from typing import NamedTuple

from hearken.evaluation.numbers import MISSING, duration, estimate, fixed, number, percent, with_interval
from hearken.report.contents import Figure, Report
from hearken.statistics.intervals import Interval


class Row(NamedTuple):
    """One line of the table."""

    label: str
    value: str
    note: str


def _interval(figure: Figure, as_percent: bool = False) -> str:
    """Only the brackets of a figure."""
    if not isinstance(figure, Interval):
        return ""
    bracket = with_interval(figure, as_percent).partition("[")[2]
    return f"[{bracket}" if bracket else ""


def _value(figure: Figure, as_percent: bool = False) -> str:
    """A figure without its brackets."""
    return with_interval(figure, as_percent).partition(" [")[0]


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def summary_table(report: Report) -> list[Row]:
    """The rows that are known, most important first."""
    rows: list[Row] = []
    policy, baseline = report.ours, report.before
    if policy is not None:
        if policy.win_rate is not None:
            count = len(report.evaluation.prompts)
            prompts = f"{count:,} held-out prompts" if count else ""
            rows.append(
                Row(
                    f"wins against {report.baseline}",
                    _value(policy.win_rate, True),
                    _join(_interval(policy.win_rate, True), prompts),
                )
            )
        rows += [
            Row(f"for group {name}", _value(rate, True), _interval(rate, True))
            for name, rate in policy.win_rate_by_group.items()
        ]
        if policy.gold is not None:
            before = f"{report.baseline} {_value(baseline.gold)}" if baseline and baseline.gold is not None else ""
            rows.append(Row("gold reward", _value(policy.gold), _join(_interval(policy.gold), before)))
        if (allowed := policy.allowed) is not None:
            reached = f"score − {allowed.beta:g}·KL: {fixed(allowed.start, 2)} → {_value(allowed.objective)} of"
            note = _join(_interval(allowed.share, True), f"{reached} {fixed(allowed.best, 2)}")
            rows.append(Row("of what the reward allows", _value(allowed.share, True), note))
        if policy.kl is not None:
            rows.append(Row("KL to the start", _value(policy.kl), _join(_interval(policy.kl), "nats a response")))
        if policy.parse_rate is not None:
            rows.append(
                Row("responses that parse", _value(policy.parse_rate, True), _interval(policy.parse_rate, True))
            )
        if policy.perplexity is not None:
            before = (
                f"{report.baseline} {number(estimate(baseline.perplexity))}"
                if baseline and baseline.perplexity is not None
                else ""
            )
            rows.append(Row("perplexity", _value(policy.perplexity), _join(before, "on held-out text")))
        for name, figure in policy.figures.items():
            before = (
                f"{report.baseline} {_value(baseline.figures[name])}" if baseline and name in baseline.figures else ""
            )
            title = report.evaluation.titles.get(name, name)
            rows.append(Row(title, _value(figure), _join(_interval(figure), before)))
    model = report.reward_model
    if model is not None and model.accuracy is not None:
        ceiling = f"ceiling {percent(estimate(model.ceiling))}" if model.ceiling is not None else ""
        rows.append(
            Row("reward model accuracy", _value(model.accuracy, True), _join(_interval(model.accuracy, True), ceiling))
        )
        if model.reference_mean is not None:
            mean = estimate(model.reference_mean)
            rows.append(
                Row("score of references", fixed(mean, 2) if mean is not None else MISSING, "mean; should be 0")
            )
    known = [step.seconds for step in report.steps if step.seconds is not None]
    if known:
        rows.append(Row("time", duration(sum(known)), f"{len(report.steps)} steps"))
    return rows
