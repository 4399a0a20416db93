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
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hearken.evaluation import charts, findings, panels, tables, taste
from hearken.evaluation.compare import smooth
from hearken.evaluation.fooling import fooling
from hearken.evaluation.numbers import MISSING, duration, estimate, fixed, number, percent, with_interval
from hearken.evaluation.report import Pair, Report, Step, Training
from hearken.feedback.examples import Content

PAIRS_OPEN = 4
"""Before/after pairs shown at once; the rest unfold."""

CURVES_OPEN = 9
"""Curves of a run shown at once; the rest unfold."""

NAME_UNBROKEN = 18
"""Letters of a name that still fit in the headline's line on a phone."""

SIMILAR = 0.45
"""Two responses at least this alike have their differences marked; marking everything would mark nothing."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A known column of ``metrics.jsonl`` and how it is read."""

    keys: tuple[str, ...]
    title: str
    meaning: str
    percent: bool = False
    floor: float = 0.0
    """Values that all lie within this of 0 say nothing."""


CURVES = (
    Curve(findings.PROXY_KEYS, "Proxy reward", "score of the reward model, before the KL penalty"),
    Curve(findings.GOLD_KEYS, "Gold reward", "the true reward; training never sees it"),
    Curve(
        findings.JUDGE_KEYS,
        "Held-out judge",
        "who watches and is not optimised: wins against the reference, or a score",
    ),
    Curve(
        findings.JUDGED_PROXY_KEYS,
        "Proxy, held out",
        "score of the reward model on the answers that the judge saw",
    ),
    Curve(("reward",), "Reward with penalty", "what is maximised: score minus β times KL"),
    Curve(("win_rate",), "Win rate", "fresh comparisons of this checkpoint with the start", True),
    Curve(("kl", "sequence_kl"), "KL", "nats a response to the reference policy"),
    Curve(("beta", "kl_coefficient"), "β", "the KL coefficient"),
    Curve(("entropy",), "Entropy", "nats a token; near 0 the policy says one thing only"),
    Curve(("length", "response_length"), "Response length", "tokens"),
    Curve(("eos_share",), "Ended by itself", "responses that reached their end token", True),
    Curve(
        ("explained_variance",),
        "Explained variance",
        "share of the returns' variance the value model predicts; 1 is all",
    ),
    Curve(("clip_fraction",), "Clip fraction", "updates cut off by the clip; a few per cent is usual", True),
    Curve(("approx_kl",), "Approximate KL", "old to new policy within one update"),
    Curve(("policy_loss",), "Policy loss", "the surrogate; its level means little"),
    Curve(("value_loss",), "Value loss", "squared error of predicted returns"),
    Curve(("ptx_loss",), "Pretraining loss", "nats a token on pretraining text (ptx)"),
    Curve(("best",), "Best response", "highest score among the responses to a prompt"),
    Curve(("kept",), "Kept", "share of the samples that it is trained on", True),
    Curve(("equal_groups",), "Nothing to tell", "prompts whose responses all score alike", True),
    Curve(("gain",), "Gain", "of the surrogate by one update"),
    Curve(("step_kl",), "Step", "KL from the old to the new policy, nats a token"),
    Curve(("loss",), "Loss", "training loss"),
    Curve(("lead",), "Lead", "score of the preferred response above the other's, in log-odds"),
    Curve(("reward_up",), "Thumbs up", "implicit reward of responses that were liked"),
    Curve(("reward_down",), "Thumbs down", "implicit reward of responses that were disliked"),
    Curve(("z0",), "KL estimate", "of the batch, nats; what KTO weighs gains and losses against"),
    Curve(("validation_loss", "eval_loss"), "Validation loss", "on prompts not trained on"),
    Curve(("accuracy",), "Accuracy", "training comparisons ordered rightly", True),
    Curve(
        ("validation_accuracy", "eval_accuracy"), "Validation accuracy", "held-out comparisons ordered rightly", True
    ),
    Curve(("perplexity",), "Perplexity", "exp of the loss a token"),
    Curve(("grad_norm", "gradient_norm"), "Gradient norm", "before clipping"),
    Curve(("lr", "learning_rate"), "Learning rate", ""),
    Curve(("value_clip_fraction",), "Value clip fraction", "token values cut off by the value clip", True),
    Curve(("sampler_gap",), "Sampler gap", "log-probability, sampler against training; near 0 is right", floor=1e-4),
    Curve(
        ("first_ratio_gap",),
        "First ratio",
        "first minibatch's ratio, from 1; near 0 is right",
        floor=1e-4,
    ),
)


def page(report: Report) -> str:
    """The page of a report as HTML."""
    return render_page(
        "report.html",
        report=report,
        headline=_headline(report),
        subheadline=findings.subheadline(report),
        warnings=findings.warnings(report),
        figures=tables.summary_table(report)[:8],
        done=_done(report.steps),
        pairs=[_pair(pair) for pair in report.pairs],
        losses=[_pair(pair) for pair in report.losses],
        pairs_open=PAIRS_OPEN,
        curves_open=CURVES_OPEN,
        better=panels.better(report),
        fooling=fooling(report),
        reward_model=panels.reward_model(report.reward_model),
        yours=taste.view(report.taste),
        taste=panels.taste(report),
        drift=panels.drift(report),
        costs=panels.costs(report),
        runs=[run for training in report.training if (run := _run(training))["charts"]],
        judging=panels.judging(report.judges),
        lineage=_lineage(report),
    )


def _headline(report: Report) -> Markup:
    """The headline, whose names do not break at their hyphens while they are short enough for a phone."""
    said = charts.clean(findings.headline(report))
    names = {n for n in map(charts.clean, (report.policy, report.baseline)) if 0 < len(n) <= NAME_UNBROKEN}
    if not names:
        return escape(said)
    parts = re.split(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])", said)
    whole = Markup('<span class="name">{}</span>')
    return Markup("").join(whole.format(part) if part in names else part for part in parts)


def render_page(template: str, **values: Any) -> str:
    """A page of one file: its stylesheet inside, allowed by its hash, and nothing else."""
    css = charts.CSS + files("hearken.evaluation").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return _environment().get_template(template).render(css=Markup(css), css_hash=digest, **values)


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


# --- training --------------------------------------------------------------------------------------------------------


def _run(run: Training) -> dict[str, Any]:
    """One small chart for each known curve: the values faintly, their moving average strongly."""
    shown: list[dict[str, Any]] = []
    for curve in CURVES:
        points = [
            (step if (step := findings.metric(row, findings.STEP_KEYS)) is not None else float(index), value)
            for index, row in enumerate(run.rows)
            if (value := findings.metric(row, curve.keys)) is not None
        ]
        if len(points) < 2:
            continue
        steps, values = [p[0] for p in points], [p[1] for p in points]
        if max(map(abs, values)) <= curve.floor or max(values) - min(values) <= 1e-3 * max(map(abs, values)):
            continue  # it says nothing beyond its level, which the settings hold
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


# --- lineage ---------------------------------------------------------------------------------------------------------


def _lineage(report: Report) -> Markup | None:
    if not report.lineage:
        return None
    nodes = [charts.Node(made.name, made.kind, tuple(dict.fromkeys(made.parents.values()))) for made in report.lineage]
    said = "; ".join(f"{n.name} from {', '.join(n.parents)}" if n.parents else n.name for n in nodes)
    return Markup(charts.graph(nodes, title="Lineage of artifacts", description=f"{said}."))
