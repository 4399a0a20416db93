"""Whether it is better, and how far each policy drifted: win rates, leaderboard, rounds, language, variety."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from hearken.evaluation.numbers import MISSING, estimate, number, percent, with_interval
from hearken.evaluation.results import PolicyResult
from hearken.report import charts
from hearken.report.contents import Report
from hearken.report.sections.bars import Chart, View, bars_over, bounds_of, in_words, row_of, rows_of
from hearken.report.text import about_seeds
from hearken.statistics.diversity import written

JUDGES = {
    "judge": "independent judge", "labelers": "labelers' taste", "reward": "reward model",
    "understood": "better understood", "complete": "more complete", "easy": "easier to read",
}  # fmt: skip
"""Who decides in a quickstart on a pretrained model, in words."""


def better(report: Report) -> View | None:
    """Win rates, leaderboard, rounds, and the rewards themselves."""
    found = (_wins(report), _judges(report), _leaderboard(report), *_rewards(report), _allowed(report))
    shown = [chart for chart in found if chart]
    rounds, board, seeds = _rounds(report), _board(report), _seeds(report)
    if not (shown or rounds or board or seeds):
        return None
    return {"charts": shown, "rounds": rounds, "board": board, "seeds": seeds, "said": about_seeds(report)}


def _wins(report: Report) -> Chart | None:
    wins = {name: p.win_rate for name, p in report.evaluation.policies.items() if name != report.baseline}
    items = rows_of(report, wins, as_percent=True)
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
    policy = report.ours
    rates = {**policy.win_rate_by_judge, **policy.win_rate_by_reading} if policy is not None else {}
    bars = (row_of(JUDGES.get(by, by), rate, None if n else 0, True) for n, (by, rate) in enumerate(rates.items()))
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
    rows = sorted(report.evaluation.leaderboard, key=lambda s: -(estimate(s.strength) or 0.0))
    items = [bar for s in rows if (bar := row_of(s.policy, s.strength, 0 if s.policy == report.policy else None))]
    if len(items) < 2:
        return None
    chart = charts.bars(items, title="Leaderboard", description=in_words(items), dots=True)
    return "Leaderboard", "Bradley-Terry strength over all comparisons, in log-odds; 0 is the average", Markup(chart)


def _board(report: Report) -> View | None:
    """The leaderboard as a table, where it says more than its chart."""
    rows = sorted(report.evaluation.leaderboard, key=lambda s: -(estimate(s.strength) or 0.0))
    columns: list[tuple[str, str, bool]] = [
        ("Strength", "strength", False), ("At equal length", "strength_at_equal_length", False),
        (f"Beats {report.baseline}", "beats_baseline", True),
    ]  # fmt: skip
    columns = [c for c in columns if any(getattr(s, c[1]) is not None for s in rows)]
    if len(rows) < 2 or len(columns) < 2:
        return None
    return {
        "columns": [title for title, _, _ in columns],
        "level": any(s.level_with for s in rows),
        "rows": [
            (s.policy, s.comparisons, [with_interval(getattr(s, field), share) for _, field, share in columns],
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
    for one in report.evaluation.seeds:
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


def _allowed(report: Report) -> Chart | None:
    """Weak training or a weak reward?"""
    known = {name: p.allowed for name, p in report.evaluation.policies.items() if p.allowed is not None}
    items = rows_of(report, {name: allowed.share for name, allowed in known.items()}, as_percent=True)
    if not items:
        return None
    pool = max(allowed.pool for allowed in known.values())
    chart = charts.bars(
        items, title="Share of what the reward allows", description=in_words(items), as_percent=True,
        references=[charts.Reference(1.0, "all of it")],
    )  # fmt: skip
    note = (
        f"score − β·KL from the baseline's (0 %) to the best that {pool} of its responses a prompt show (100 %): low, "
        "training falls short; high with little gold, the reward does"
    )
    return "Of what the reward allows", note, Markup(chart)


def _rounds(report: Report) -> View | None:
    """The rounds as a table, with the win rate over them where more than one has it."""
    if len(report.rounds) < 2:
        return None
    columns = [
        (title, field, as_percent)
        for title, field, as_percent in (
            ("Reward accuracy", "accuracy", True), ("On its policy's own", "own_accuracy", True),
            ("Wins", "win_rate", True), ("Gold", "gold", False), ("Proxy", "proxy", False), ("KL", "kl", False),
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
            x=charts.Axis("round", whole=True),
            y=charts.Axis(percent=as_percent),
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


DRIFT = (
    ("KL", "kl", "nats a response to the reference policy", False),
    ("Perplexity", "perplexity", "on held-out pretraining text; lower is better", False),
    ("Length", "length", "tokens a response", False),
    ("Distinct word pairs", "distinct_2", "of all word pairs; falls when responses repeat each other", True),
    ("Self-BLEU", "self_bleu", "how much of each response is found in the others; rises when they grow alike", True),
    ("Repeated phrases", "repetition", "share of a response's phrases of four words that it has said before", True),
    ("Entropy", "entropy", "nats a token; near 0 the policy says one thing only", False),
    ("Responses that parse", "parse_rate", "whole, by the world's parser", True),
    ("Ended by itself", "eos_share", "responses that reached their end token", True),
)


def drift(report: Report) -> View | None:
    """How far each policy went from where it began, in distance, language, length and variety."""
    evaluated = report.evaluation.policies
    shown = [
        (title, note, chart)
        for title, field, note, as_percent in DRIFT
        if not _all_alike(evaluated.values(), field)
        and (chart := bars_over(report, field, title, as_percent=as_percent))
    ]
    for task in dict.fromkeys(name for p in evaluated.values() for name, scores in p.tasks.items() if scores.rate):
        rates = {name: p.tasks[task].rate for name, p in evaluated.items() if task in p.tasks}
        items = rows_of(report, rates, as_percent=True)
        bars = charts.bars(items, title=task, description=in_words(items), as_percent=True, x_range=(0.0, 1.0))
        shown.append((task, "accuracy on a task that nobody trained for", Markup(bars)))
    for key in dict.fromkeys(key for p in evaluated.values() for key in p.figures):
        items = rows_of(report, {name: p.figures.get(key) for name, p in evaluated.items()})
        title = report.evaluation.titles.get(key, key)
        shown.append((title, "", Markup(charts.bars(items, title=title, description=in_words(items)))))
    policy = report.ours
    phrases = [(written(p.text), percent(p.share), percent(p.before)) for p in policy.phrases] if policy else []
    return {"charts": shown, "said": _longer(report), "phrases": phrases} if shown or phrases else None


def _longer(report: Report) -> str:
    """How the reported policy's answers differ in length from the baseline's to the same prompts."""
    change = report.ours.length_drift if report.ours and report.policy != report.baseline else None
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


def _all_alike(policies: Iterable[PolicyResult], field: str) -> bool:
    """Whether a rate is 1 (or 0) everywhere, which needs no chart; so only for what is usually so."""
    values = {v for p in policies if (v := estimate(getattr(p, field))) is not None}
    return field in ("eos_share", "repetition") and values in ({1.0}, {0.0})
