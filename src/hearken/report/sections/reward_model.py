"""The reward model: its accuracy beside what it must beat, its calibration, its weak spots."""

from __future__ import annotations

from markupsafe import Markup

from hearken.evaluation.numbers import estimate, fixed, percent, with_interval
from hearken.report import charts
from hearken.report.contents import RewardModel, Strip
from hearken.report.sections.bars import Chart, View, bounds_of, in_words, row_of, weights
from hearken.statistics.intervals import Interval


def reward_model(model: RewardModel | None) -> View | None:
    """Its accuracy beside what it must beat, its calibration, its weak spots."""
    if model is None or model.accuracy is None:
        return None
    candidates = (
        row_of("reward model", model.accuracy, 0, True),
        row_of("length alone", model.length_baseline, None, True),
        row_of("labelers agree", model.agreement, None, True),
        row_of("ceiling", model.ceiling, None, True),
        row_of("at most, by agreement", model.agreement_ceiling[1] if model.agreement_ceiling else None, None, True),
        row_of("uniform slice", model.uniform, 0, True),
        row_of("selected slice", model.selected, 0, True),
    )
    items = [bar for bar in candidates if bar]
    shown: list[Chart] = []
    accuracy = charts.bars(
        items,
        title="Accuracy on held-out comparisons",
        description=f"{in_words(items)[:-1]}; chance is 50 %.",
        references=[charts.Reference(0.5, "chance")],
        x_range=(0.0, 1.0),
        as_percent=True,
    )
    shown.append(("Accuracy", "on held-out comparisons; ties of labelers left out", Markup(accuracy)))
    shown += _slices(model)
    deeper: list[Chart] = []
    if model.calibration is not None:
        bins = [
            charts.Reliability(b.predicted, b.observed.estimate, b.observed.low, b.observed.high, b.count)
            for b in model.calibration.bins
        ]
        error = percent(model.calibration.error)
        reliability = charts.calibration_plot(
            bins,
            title="Calibration of the reward model",
            description=f"Expected calibration error {error}; the diagonal is perfect.",
            x_label="predicted share of votes",
            y_label="observed share of votes",
        )
        note = f"on the diagonal, 70 % means 70 %; larger dots hold more pairs. Error {error}"
        deeper.append(("Calibration", note, Markup(reliability)))
    if model.scores and len(model.scores) == len(model.lengths):
        against_length = charts.scatter(
            model.lengths,
            model.scores,
            title="Score against length",
            description=f"{len(model.scores):,} responses and their least-squares line.",
            x_label="length, words",
            y_label="score",
            height=300,
        )
        deeper.append(("Score against length", "a steep line means length is being paid for", Markup(against_length)))
    if learning := _learning(model):
        deeper.append(learning)
    return {
        "charts": shown,
        "deeper": deeper,
        "learning_says": model.learning_says,
        "said": _said_of(model),
        "passes": model.passes,
        "told": [*model.failures, *model.remarks],
        "probes": [(p.name, with_interval(p.value), p.says) for p in model.probes],
        "strips": [(strip, _paid(strip)) for strip in model.strips],
    }


def _paid(strip: Strip) -> Markup:
    """The reward of each step, below its moments."""
    low, high = min(strip.rewards), max(strip.rewards)
    said = f"Reward of {len(strip.rewards)} steps, from {fixed(low, 2)} to {fixed(high, 2)}."
    return Markup(charts.sparkline(strip.rewards, title="Reward along it", description=said, width=640, height=48))


def _slices(model: RewardModel) -> list[Chart]:
    """One chart for each way of dividing the held-out comparisons."""
    found = []
    for by in dict.fromkeys(s.by for s in model.slices):
        rows = [s for s in model.slices if s.by == by]
        items = [bar for s in rows if (bar := row_of(s.name, s.accuracy, 0, True))]
        if len(items) < 2:
            continue
        overall = estimate(model.accuracy)
        chart = charts.bars(
            items,
            title=f"Accuracy by {by}",
            description=in_words(items),
            references=[charts.Reference(overall, "all")] if overall is not None else [],
            as_percent=True,
            dots=True,
        )
        counted = [f"{s.count:,}" for s in rows if s.count is not None]
        note = f"pairs: {', '.join(counted)}" if len(counted) == len(rows) else ""
        found.append((f"By {by}", note, Markup(chart)))
    return found


def _learning(model: RewardModel) -> Chart | None:
    """Held-out accuracy over labels, a line for each size."""
    sizes = sorted({point.parameters or 0 for point in model.learning})
    lines = []
    for size in sizes:
        points = sorted((p for p in model.learning if (p.parameters or 0) == size), key=lambda p: p.labels)
        if len(points) < 2:
            continue
        bounds = [bounds_of(p.accuracy) for p in points]
        complete = len(sizes) == 1 and all(low is not None for low, _ in bounds)
        lines.append(
            charts.Series(
                f"{weights(size)}" if size else "", [p.labels for p in points], [estimate(p.accuracy) for p in points],
                low=[low for low, _ in bounds] if complete else None,
                high=[high for _, high in bounds] if complete else None,
            )
        )  # fmt: skip
    if not lines:
        return None
    chart = charts.line_chart(
        lines,
        title="Learning curve",
        description="Held-out accuracy over the number of labels.",
        x=charts.Axis("labels"),
        y=charts.Axis(percent=True),
        height=300,
    )
    return "Learning curve", "still rising: more labels help; a larger model above a smaller: size helps", Markup(chart)


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
    if model.agreement_ceiling is not None:
        low, high = map(percent, model.agreement_ceiling)
        parts.append(f"By how often two labelers agree, the best that anyone could reach lies between {low} and {high}")
    if model.reference_mean is not None:
        value = estimate(model.reference_mean)
        text = with_interval(model.reference_mean) if isinstance(model.reference_mean, Interval) else fixed(value, 2)
        parts.append(f"Reference responses score {text} on average, 0 by construction")
    return ". ".join(parts) + "."
