"""From a ``Report`` to its page: figures become words and charts here, and the template only arranges them."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hearken.evaluation import charts, findings, tables, taste
from hearken.evaluation.compare import smooth
from hearken.evaluation.numbers import MISSING, duration, estimate, fixed, number, percent, with_interval
from hearken.evaluation.report import Figure, Judge, Pair, Policy, Report, RewardModel, Training
from hearken.feedback.examples import Content
from hearken.statistics.intervals import Interval

PAIRS_OPEN = 4
"""Before/after pairs shown at once; the rest unfold."""

SIMILAR = 0.45
"""Two responses at least this alike have their differences marked; marking everything would mark nothing."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A known column of ``metrics.jsonl`` and how it is read."""

    keys: tuple[str, ...]
    title: str
    meaning: str
    percent: bool = False


CURVES = (
    Curve(findings.PROXY_KEYS, "Proxy reward", "score of the reward model, before the KL penalty"),
    Curve(findings.GOLD_KEYS, "Gold reward", "the true reward; training never sees it"),
    Curve(("reward",), "Reward with penalty", "what is maximised: score minus β times KL"),
    Curve(("kl", "sequence_kl"), "KL", "nats a response to the reference policy"),
    Curve(("beta", "kl_coefficient"), "β", "the KL coefficient"),
    Curve(("entropy",), "Entropy", "nats a token; near 0 the policy says one thing only"),
    Curve(("clip_fraction",), "Clip fraction", "token updates cut off by PPO's clip; a few per cent is usual", True),
    Curve(("approx_kl",), "Approximate KL", "old to new policy within one update"),
    Curve(("policy_loss",), "Policy loss", "PPO's surrogate; its level means little"),
    Curve(("value_loss",), "Value loss", "squared error of predicted returns"),
    Curve(
        ("explained_variance",),
        "Explained variance",
        "share of the returns' variance the value model predicts; 1 is all",
    ),
    Curve(("ptx_loss",), "Pretraining loss", "nats a token on pretraining text (ptx)"),
    Curve(("length", "response_length"), "Response length", "tokens"),
    Curve(("eos_share",), "Ended by itself", "responses that reached their end token", True),
    Curve(("loss",), "Loss", "training loss"),
    Curve(("validation_loss", "eval_loss"), "Validation loss", "on prompts not trained on"),
    Curve(("accuracy",), "Accuracy", "training comparisons ordered rightly", True),
    Curve(
        ("validation_accuracy", "eval_accuracy"), "Validation accuracy", "held-out comparisons ordered rightly", True
    ),
    Curve(("perplexity",), "Perplexity", "exp of the loss a token"),
    Curve(("grad_norm", "gradient_norm"), "Gradient norm", "before clipping"),
    Curve(("lr", "learning_rate"), "Learning rate", ""),
    Curve(("value_clip_fraction",), "Value clip fraction", "token values cut off by the value clip", True),
    Curve(("sampler_gap",), "Sampler gap", "log-probability, sampler against training; near 0 is right"),
    Curve(("first_ratio_gap",), "First ratio", "distance of the first minibatch's ratio from 1; near 0 is right"),
)


def page(report: Report) -> str:
    """The page of a report as HTML."""
    css = charts.CSS + files("hearken.evaluation").joinpath("templates/report.css").read_text("utf-8")
    policy = report.find(report.policy)
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            css=Markup(css),
            css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
            headline=findings.headline(report),
            subheadline=findings.subheadline(report),
            warnings=findings.warnings(report),
            figures=tables.summary_table(report)[:8],
            pairs=[_pair(pair) for pair in report.pairs],
            pairs_open=PAIRS_OPEN,
            winning=_winning(report, policy),
            taste=taste.view(report.taste),
            language=_language(report),
            reward_model=_reward_model(report.reward_model),
            runs=[run for training in report.training if (run := _run(training))["charts"]],
            fooling=[parting for training in report.training if (parting := _fooling(training))],
            judging=_judging(report.judges),
            lineage=_lineage(report),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hearken.evaluation"),
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
        "thousands": lambda value: f"{value:,}",
        "turns": _turns,
    }
    return environment


def _turns(content: Content) -> list[tuple[str, str]]:
    """A prompt as (role, text); plain text has no role."""
    return [("", content)] if isinstance(content, str) else [(message.role, message.content) for message in content]


# --- what changed ----------------------------------------------------------------------------------------------------


def difference(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts as runs of (text, changed), word by word; nothing is marked where they have little in common."""
    old, new = (re.findall(r"\s*(?:\w+|[^\w\s]|$)", text) for text in (before, after))
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    if len(old) * len(new) > 4_000_000 or matcher.ratio() < SIMILAR:
        return [(before, False)], [(after, False)]
    left: list[tuple[str, bool]] = []
    right: list[tuple[str, bool]] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        # A word or two in common between two changes is chance; marking around it would only make the text restless.
        inner = a > 0 and b < len(old) and c > 0 and d < len(new)
        changed = tag != "equal" or (inner and b - a < 3)
        _extend(left, "".join(old[a:b]), changed)
        _extend(right, "".join(new[c:d]), changed)
    return _trim(left), _trim(right)


def _trim(runs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Leave the space before a changed run unmarked."""
    out: list[tuple[str, bool]] = []
    for text, changed in runs:
        word = text.lstrip() if changed else text
        out += [(text[: len(text) - len(word)], False), (word, changed)]
    return [run for run in out if run[0]]


def _extend(runs: list[tuple[str, bool]], text: str, changed: bool) -> None:
    """Append ``text``, joined to the last run where that is of the same sort."""
    if runs and runs[-1][1] == changed:
        text = runs.pop()[0] + text
    if text:
        runs.append((text, changed))


def _pair(pair: Pair) -> dict[str, Any]:
    before, after = difference(pair.before.text, pair.after.text)
    return {"prompt": pair.prompt, "sides": [(pair.before, before), (pair.after, after)]}


# --- is it better, and what did it cost ------------------------------------------------------------------------------


def _bar(label: str, figure: Figure, style: int | None = 0, as_percent: bool = False) -> charts.Bar | None:
    value = estimate(figure)
    if value is None:
        return None
    low, high = (figure.low, figure.high) if isinstance(figure, Interval) else (None, None)
    return charts.Bar(label, value, low, high, with_interval(figure, as_percent), style)


def _bars_over(report: Report, field: str, title: str, *, as_percent: bool = False, zero: bool = True) -> Markup | None:
    """One row a policy for one of its figures; None unless some policy has it."""
    items = [
        bar
        for p in report.policies
        if (bar := _bar(p.name, getattr(p, field), 0 if p.name == report.policy else None, as_percent))
    ]
    if not items:
        return None
    said = "; ".join(f"{item.label} {item.text}" for item in items)
    return Markup(charts.bars(items, title=title, description=f"{said}.", as_percent=as_percent, dots=not zero))


def _winning(report: Report, policy: Policy | None) -> dict[str, Any] | None:
    rivals = [p for p in report.policies if p.win_rate is not None and p.name != report.baseline]
    if not rivals:
        return None
    items = [bar for p in rivals if (bar := _bar(p.name, p.win_rate, 0 if p is policy else None, as_percent=True))]
    if policy is not None:
        groups = [
            _bar(f"{policy.name}, group {name}", rate, 1, as_percent=True) for name, rate in policy.by_group.items()
        ]
        items += [bar for bar in groups if bar]
    chart = charts.bars(
        items,
        title=f"Win rate against {report.baseline}",
        description="; ".join(f"{item.label} {item.text}" for item in items) + "; 50 % is no difference.",
        references=[charts.Reference(0.5, "no difference")],
        x_range=(0.0, 1.0),
        as_percent=True,
    )
    figures = [
        (title, note, found)
        for title, field, note in (
            ("Gold reward", "gold", "the true reward, mean of a response"),
            ("Proxy reward", "proxy", "the reward model's score, mean of a response"),
            ("KL", "kl", "nats a response to the reference policy"),
        )
        if (found := _bars_over(report, field, title, zero=False))
    ]
    note = "share of held-out prompts, ties half; whiskers are 95 % intervals over prompts"
    return {"charts": [(f"Wins against {report.baseline}", note, Markup(chart)), *figures]}


LANGUAGE = (
    ("Perplexity", "perplexity", "on held-out pretraining text; lower is better", False),
    ("Responses that parse", "parse_rate", "whole, by the world's parser", True),
    ("Distinct word pairs", "distinct_2", "of all word pairs; falls when responses repeat each other", True),
    ("Length", "length", "tokens a response", False),
)


def _language(report: Report) -> dict[str, Any] | None:
    shown = [
        (title, note, chart)
        for title, field, note, as_percent in LANGUAGE
        if (chart := _bars_over(report, field, title, as_percent=as_percent))
    ]
    return {"charts": shown} if shown else None


# --- the reward model ------------------------------------------------------------------------------------------------


def _reward_model(model: RewardModel | None) -> dict[str, Any] | None:
    if model is None or model.accuracy is None:
        return None
    candidates = (
        _bar("reward model", model.accuracy, 0, True),
        _bar("longer wins", model.longer_wins, None, True),
        _bar("ceiling", model.ceiling, None, True),
    )
    items = [bar for bar in candidates if bar]
    accuracy = charts.bars(
        items,
        title="Accuracy on held-out comparisons",
        description="; ".join(f"{item.label} {item.text}" for item in items) + "; chance is 50 %.",
        references=[charts.Reference(0.5, "chance")],
        x_range=(0.0, 1.0),
        as_percent=True,
    )
    reliability = None
    if model.calibration is not None:
        bins = [
            charts.Reliability(b.predicted, b.observed.estimate, b.observed.low, b.observed.high, b.count)
            for b in model.calibration.bins
        ]
        reliability = charts.calibration_plot(
            bins,
            title="Calibration of the reward model",
            description=f"Expected calibration error {percent(model.calibration.error)}; the diagonal is perfect.",
            x_label="predicted share of votes",
            y_label="observed share of votes",
        )
    against_length = None
    if model.scores and len(model.scores) == len(model.lengths):
        against_length = charts.scatter(
            model.lengths,
            model.scores,
            title="Score against length",
            description=f"{len(model.scores):,} responses and their least-squares line.",
            x_label="length, tokens",
            y_label="score",
            height=300,
        )
    return {
        "accuracy": Markup(accuracy),
        "calibration": Markup(reliability) if reliability else None,
        "against_length": Markup(against_length) if against_length else None,
        "said": _said_of(model),
    }


def _said_of(model: RewardModel) -> str:
    parts = [f"On {'held-out' if model.held_out is None else f'{model.held_out:,} held-out'} comparisons"]
    if model.trained_on is not None:
        parts[0] += f", after training on {model.trained_on:,}"
    parts[0] += f", it prefers the response that labelers preferred {with_interval(model.accuracy, True)} of the time"
    accuracy, ceiling = estimate(model.accuracy), estimate(model.ceiling)
    if accuracy is not None and ceiling is not None:
        gap = 100 * (ceiling - accuracy)
        where = f"{fixed(abs(gap), 1)} points {'below' if gap >= 0 else 'above'}"
        parts[0] += f"; that is {where} the {percent(ceiling)} that knowing the exact vote would reach"
    if model.reference_mean is not None:
        value = estimate(model.reference_mean)
        text = with_interval(model.reference_mean) if isinstance(model.reference_mean, Interval) else fixed(value, 2)
        parts.append(f"Reference responses score {text} on average, 0 by construction")
    return ". ".join(parts) + "."


# --- training --------------------------------------------------------------------------------------------------------


def _run(run: Training) -> dict[str, Any]:
    """One small chart for each known curve: the values faintly, their moving average strongly."""
    shown = []
    for curve in CURVES:
        points = [
            (step if (step := findings.metric(row, findings.STEP_KEYS)) is not None else float(index), value)
            for index, row in enumerate(run.rows)
            if (value := findings.metric(row, curve.keys)) is not None
        ]
        if len(points) < 2:
            continue
        steps, values = [p[0] for p in points], [p[1] for p in points]
        window = len(values) // 12 | 1
        lines = [charts.Series(curve.title, steps, smooth(values, window), style=0)]
        if window > 1:
            lines.insert(0, charts.Series("raw", steps, values, faint=True, style=0))
        tell = percent if curve.percent else number
        first, last = (f"{tell(values[i])} at step {steps[i]:,.0f}" for i in (0, -1))
        chart = charts.line_chart(
            lines,
            title=f"{curve.title}, {run.name}",
            description=f"From {first} to {last}.",
            y_percent=curve.percent,
            width=300,
            height=150,
        )
        shown.append(
            {"title": curve.title, "meaning": curve.meaning, "last": tell(lines[-1].y[-1]), "svg": Markup(chart)}
        )
    return {"name": run.name, "charts": shown, "rows": len(run.rows)}


def _scaled(values: Sequence[float]) -> list[float]:
    """Change since the first value as a share of the range."""
    span = max(values) - min(values)
    return [(v - values[0]) / span if span else 0.0 for v in values]


def _fooling(run: Training) -> dict[str, Any] | None:
    found = findings.divergence(run)
    if found is None:
        return None
    warning = findings.fooled(run)
    said = warning or (
        f"No sign of it in {run.name}: where the reward model's score rose, the gold reward did not fall beyond noise."
    )
    chart = charts.line_chart(
        [
            charts.Series("proxy", found.steps, _scaled(found.proxy)),
            charts.Series("gold", found.steps, _scaled(found.gold)),
        ],
        title=f"Proxy and gold reward, {run.name}",
        description=said,
        x_label="step",
        y_label="change since the start, share of own range",
        marks=[charts.Reference(found.peak, "gold at its best")] if found.fooled else [],
        width=480,
        height=270,
    )
    return {"chart": Markup(chart), "said": said, "fooled": found.fooled}


# --- who judged, lineage ---------------------------------------------------------------------------------------------


def _judging(judges: Sequence[Judge]) -> dict[str, Any] | None:
    if not judges:
        return None
    bias = []
    for title, field, reference in (
        ("Preferred the response shown first", "first_shown", "no side bias"),
        ("Preferred the longer response", "longer", "length ignored"),
    ):
        items = [bar for j in judges if (bar := _bar(j.name, getattr(j, field), as_percent=True))]
        if items:
            chart = charts.bars(
                items,
                title=title,
                description="; ".join(f"{item.label} {item.text}" for item in items) + ".",
                references=[charts.Reference(0.5, reference)],
                as_percent=True,
                dots=True,
            )
            bias.append((title, Markup(chart)))
    ties = [(j.ties, j.judgments) for j in judges if j.ties is not None and j.judgments]
    total = sum(count for _, count in ties)
    return {
        "judgments": sum(j.judgments for j in judges),
        "grouped": any(j.group for j in judges),
        "ties": percent(sum(share * count for share, count in ties) / total) if total else MISSING,
        "bias": bias,
    }


def _lineage(report: Report) -> Markup | None:
    if not report.lineage:
        return None
    nodes = [charts.Node(made.name, made.kind, tuple(dict.fromkeys(made.parents.values()))) for made in report.lineage]
    said = "; ".join(f"{n.name} from {', '.join(n.parents)}" if n.parents else n.name for n in nodes)
    return Markup(charts.graph(nodes, title="Lineage of artifacts", description=f"{said}."))
