"""Curves of the training runs."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from hearken.evaluation.compare import smooth
from hearken.evaluation.numbers import number, percent
from hearken.report import charts
from hearken.report.contents import Training
from hearken.report.sections.bars import View
from hearken.report.text import GOLD_KEYS, JUDGE_KEYS, JUDGED_PROXY_KEYS, PROXY_KEYS, STEP_KEYS, metric


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
    Curve(PROXY_KEYS, "Proxy reward", "score of the reward model, before the KL penalty"),
    Curve(GOLD_KEYS, "Gold reward", "the true reward; training never sees it"),
    Curve(
        JUDGE_KEYS,
        "Held-out judge",
        "who watches and is not optimised: wins against the reference, or a score",
    ),
    Curve(
        JUDGED_PROXY_KEYS,
        "Proxy, held out",
        "score of the reward model on the answers that the judge saw",
    ),
    Curve(("return",), "True return", "of an episode, by the environment's own reward; training never sees it"),
    Curve(("predicted",), "Predicted return", "of an episode, by the reward model"),
    Curve(("labels",), "Labels", "that had arrived"),
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


def run_curves(run: Training) -> View:
    """One small chart for each known curve: the values faintly, their moving average strongly."""
    shown: list[View] = []
    for curve in CURVES:
        points = [
            (step if (step := metric(row, STEP_KEYS)) is not None else float(index), value)
            for index, row in enumerate(run.rows)
            if (value := metric(row, curve.keys)) is not None
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
            y=charts.Axis(percent=curve.percent),
            width=300,
            height=150,
        )
        shown.append(
            {"title": curve.title, "meaning": curve.meaning, "last": tell(lines[-1].y[-1]), "svg": Markup(chart)}
        )
    return {"name": run.name, "charts": shown, "rows": len(run.rows)}
