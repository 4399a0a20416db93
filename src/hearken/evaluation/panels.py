"""The sections of the report that show figures: whether it is better, for whom, and what it cost.

Each function takes what is known and returns what the template arranges (sentences and charts), or None where the
report knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from hearken.evaluation import charts, findings
from hearken.evaluation.numbers import MISSING, duration, estimate, fixed, number, percent, with_interval
from hearken.evaluation.report import Judge, Policy, Report, RewardModel
from hearken.evaluation.rows import Chart, bars_over, bounds_of, in_words, row_of
from hearken.statistics.diversity import written
from hearken.statistics.intervals import Interval

LABELERS_SHOWN = 12
"""More labelers than this stand in the table only."""


# --- is it better? ---------------------------------------------------------------------------------------------------


def better(report: Report) -> dict[str, Any] | None:
    """Win rates, leaderboard, rounds, and the rewards themselves."""
    found = (_wins(report), _judges(report), _leaderboard(report), *_rewards(report))
    shown = [chart for chart in found if chart]
    rounds, board, seeds = _rounds(report), _board(report), _seeds(report)
    if not (shown or rounds or board or seeds):
        return None
    return {"charts": shown, "rounds": rounds, "board": board, "seeds": seeds, "said": findings.about_seeds(report)}


def _wins(report: Report) -> Chart | None:
    rivals = [p for p in report.policies if p.win_rate is not None and p.name != report.baseline]
    items = [bar for p in rivals if (bar := row_of(p.name, p.win_rate, 0 if p.name == report.policy else None, True))]
    if not items:
        return None
    chart = charts.bars(
        items,
        title=f"Win rate against {report.baseline}",
        description=f"{in_words(items)[:-1]}; 50 % is no difference.",
        references=[charts.Reference(0.5, "no difference")],
        x_range=(0.0, 1.0),
        as_percent=True,
    )
    note = "share of held-out prompts, ties half; whiskers are 95 % intervals over prompts"
    return f"Wins against {report.baseline}", note, Markup(chart)


def _judges(report: Report) -> Chart | None:
    """The policy's wins by each judge: the one that it was trained for stands beside those that it was not."""
    policy = report.find(report.policy)
    rates = policy.by_judge if policy is not None else {}
    bars = (row_of(name, rate, None if n else 0, True) for n, (name, rate) in enumerate(rates.items()))
    items = [bar for bar in bars if bar]
    if len(items) < 2:
        return None
    chart = charts.bars(
        items, title=f"Wins against {report.baseline}, judge by judge", description=f"{in_words(items)[:-1]}.",
        references=[charts.Reference(0.5, "no difference")], x_range=(0.0, 1.0), as_percent=True,
    )  # fmt: skip
    note = "the first decides; training has seen the reward model alone"
    return "Who says so?", note, Markup(chart)


def _leaderboard(report: Report) -> Chart | None:
    rows = sorted(report.leaderboard, key=lambda s: -(estimate(s.strength) or 0.0))
    items = [bar for s in rows if (bar := row_of(s.name, s.strength, 0 if s.name == report.policy else None))]
    if len(items) < 2:
        return None
    chart = charts.bars(items, title="Leaderboard", description=in_words(items), dots=True)
    return "Leaderboard", "Bradley-Terry strength over all comparisons, in log-odds; 0 is the average", Markup(chart)


def _board(report: Report) -> dict[str, Any] | None:
    """The leaderboard as a table, where it says more than its chart."""
    rows = sorted(report.leaderboard, key=lambda s: -(estimate(s.strength) or 0.0))
    columns: list[tuple[str, str, bool]] = [
        ("Strength", "strength", False), ("At equal length", "at_equal_length", False),
        (f"Beats {report.baseline}", "beats_baseline", True),
    ]  # fmt: skip
    columns = [c for c in columns if any(getattr(s, c[1]) is not None for s in rows)]
    if len(rows) < 2 or len(columns) < 2:
        return None
    return {
        "columns": [title for title, _, _ in columns],
        "level": any(s.level_with for s in rows),
        "rows": [
            (s.name, s.games, [with_interval(getattr(s, field), share) for _, field, share in columns],
             ", ".join(s.level_with))
            for s in rows
        ],
    }  # fmt: skip


_SPREADS = {
    "win_rate": ("Wins", True), "gold": ("Gold reward", False), "proxy": ("Proxy reward", False),
    "kl": ("KL", False), "length": ("Length", False),
}  # fmt: skip


def _seeds(report: Report) -> list[tuple[str, list[str]]]:
    """What each figure is over seeds: mean, between seeds, lowest, highest."""
    rows = []
    for one in report.seeds:
        title, share = _SPREADS.get(one.name, (one.name, False))
        between = (MISSING if one.deviation is None or one.seeds < 2 else "± " + (
            f"{number(100 * one.deviation, 2)} points" if share else number(one.deviation, 2)))  # fmt: skip
        ends = [with_interval(v, share) for v in (one.lowest, one.highest)]
        rows.append((title, [with_interval(one.mean, share), between, *ends]))
    return rows


def _rewards(report: Report) -> list[Chart]:
    return [
        (title, note, found)
        for title, field, note in (
            ("Gold reward", "gold", "the true reward, mean of a response"),
            ("Proxy reward", "proxy", "the reward model's score, mean of a response"),
        )
        if (found := bars_over(report, field, title, zero=False))
    ]


def _rounds(report: Report) -> dict[str, Any] | None:
    """The rounds as a table, with the win rate over them where more than one has it."""
    if len(report.rounds) < 2:
        return None
    columns = [
        (title, field, as_percent)
        for title, field, as_percent in (
            ("Reward accuracy", "accuracy", True), ("Wins", "win_rate", True), ("Gold", "gold", False),
            ("Proxy", "proxy", False), ("KL", "kl", False),
        )
        if any(getattr(r, field) is not None for r in report.rounds)
    ]  # fmt: skip
    rows = [
        (r, [with_interval(getattr(r, field), as_percent) for _, field, as_percent in columns]) for r in report.rounds
    ]
    field, as_percent = ("win_rate", True) if any(r.win_rate is not None for r in report.rounds) else ("gold", False)
    known = [(r.number, figure) for r in report.rounds if (figure := getattr(r, field)) is not None]
    chart = None
    if len(known) > 1:
        bounds = [bounds_of(figure) for _, figure in known]
        complete = all(low is not None for low, _ in bounds)
        chart = charts.line_chart(
            [
                charts.Series(
                    "", [n for n, _ in known], [estimate(f) for _, f in known],
                    low=[low for low, _ in bounds] if complete else None,
                    high=[high for _, high in bounds] if complete else None,
                )
            ],
            title="Round by round",
            description="; ".join(f"round {n} {with_interval(f, as_percent)}" for n, f in known) + ".",
            x_label="round",
            x_whole=True,
            y_percent=as_percent,
            levels=[charts.Reference(0.5, "no difference")] if as_percent else [],
            height=200,
        )  # fmt: skip
    return {
        "columns": [title for title, _, _ in columns],
        "rows": rows,
        "judgments": any(r.judgments is not None for r in report.rounds),
        "chart": Markup(chart) if chart else None,
        "what": f"Wins against {report.baseline}" if as_percent else "Gold reward",
    }


# --- the reward model ------------------------------------------------------------------------------------------------


def reward_model(model: RewardModel | None) -> dict[str, Any] | None:
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
    }


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
        x_label="labels",
        y_percent=True,
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


# --- whose taste? ----------------------------------------------------------------------------------------------------


def taste(report: Report) -> dict[str, Any] | None:
    """What each group of labelers got, and how well its taste was learnt."""
    tastes = [t for t in report.tastes if t.win_rate is not None or t.accuracy is not None]
    policy = report.find(report.policy)
    groups = {t.name for t in tastes if t.win_rate is not None}
    wins = [bar for t in tastes if (bar := row_of(t.name, t.win_rate, 0, True))]
    if policy is not None:
        wins += [
            bar for name, rate in policy.by_group.items() if name not in groups and (bar := row_of(name, rate, 0, True))
        ]
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
    divided = [p for p in report.policies if len(p.by_group) > 1]
    rows = [(p.name, {g: with_interval(r, True) for g, r in p.by_group.items()}, _worst_off(p)) for p in divided]
    if not shown:
        return None
    return {
        "said": findings.about_taste(report),
        "charts": shown,
        "policies": rows if len(rows) > 1 else [],
        "groups": list(dict.fromkeys(g for p in divided for g in p.by_group)),
    }


def _behind(groups: Iterable[tuple[str, int | None, int | None, str]]) -> str:
    """How many labelers, and how much of what they said, stand behind each group's figure."""
    known = [f"{g}: {_many(who, 'labeler')}, {_many(count, what)}" for g, who, count, what in groups if who and count]
    return f" ({'; '.join(known)})" if known else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _worst_off(policy: Policy) -> str:
    """The group that gained least, and what it got."""
    name = min(policy.by_group, key=lambda group: policy.by_group[group].estimate)
    return f"{name} {percent(policy.by_group[name].estimate)}"


def judging(judges: Sequence[Judge]) -> dict[str, Any] | None:
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


# --- drift and cost --------------------------------------------------------------------------------------------------

DRIFT = (
    ("KL", "kl", "nats a response to the reference policy", False),
    ("Perplexity", "perplexity", "on held-out pretraining text; lower is better", False),
    ("Length", "length", "tokens a response", False),
    ("Distinct word pairs", "distinct_2", "of all word pairs; falls when responses repeat each other", True),
    ("Self-BLEU", "self_bleu", "how much of each response is found in the others; rises when they grow alike", True),
    ("Repeated phrases", "repetition", "share of a response's phrases of four words that it has said before", True),
    ("Entropy", "entropy", "nats a token; near 0 the policy says one thing only", False),
    ("Responses that parse", "parse_rate", "whole, by the world's parser", True),
    ("Ended by itself", "ended", "responses that reached their end token", True),
)


def drift(report: Report) -> dict[str, Any] | None:
    """How far each policy went from where it began, in distance, language, length and variety."""
    shown = [
        (title, note, chart)
        for title, field, note, as_percent in DRIFT
        if not _all_alike(report.policies, field) and (chart := bars_over(report, field, title, as_percent=as_percent))
    ]
    for task in dict.fromkeys(name for p in report.policies for name in p.tasks):
        rows = [(p, p.tasks[task]) for p in report.policies if task in p.tasks]
        items = [bar for p, f in rows if (bar := row_of(p.name, f, 0 if p.name == report.policy else None, True))]
        bars = charts.bars(items, title=task, description=in_words(items), as_percent=True, x_range=(0.0, 1.0))
        shown.append((task, "accuracy on a task that nobody trained for", Markup(bars)))
    policy = report.find(report.policy)
    phrases = [(written(p.text), percent(p.share), percent(p.before)) for p in policy.phrases] if policy else []
    return {"charts": shown, "said": _longer(report), "phrases": phrases} if shown or phrases else None


def _longer(report: Report) -> str:
    """How the reported policy's answers differ in length from the baseline's to the same prompts."""
    policy = report.find(report.policy)
    change = policy.length_change if policy else None
    value = estimate(change)
    if value is None:
        return ""
    low, high = bounds_of(change)
    if low is not None and high is not None and low <= 0 <= high:
        return f"Answers of {report.policy} are not shown to be longer or shorter ({with_interval(change)} words)."
    rule = "longer" if value > 0 else "shorter"
    return (
        f"To the same prompt, {report.policy} answers {rule} than {report.baseline}: "
        f"by {with_interval(change)} words on average."
    )


def _all_alike(policies: Sequence[Policy], field: str) -> bool:
    """Whether a rate is 1 (or 0) everywhere, which needs no chart; so only for what is usually so."""
    values = {v for p in policies if (v := estimate(getattr(p, field))) is not None}
    return field in ("ended", "repetition") and values in ({1.0}, {0.0})


def weights(count: int) -> str:
    """A number of weights: ``549 k weights``, ``1.2 G weights``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{number(count / size)} {unit} weights"
    return f"{count} weights"


def costs(report: Report) -> dict[str, Any] | None:
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
