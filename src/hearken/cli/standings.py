"""The result of `hearken evaluate` for people: a leaderboard, the spread over seeds, perplexities and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from hearken.evaluation.results import EvaluationResult, PolicyResult, Standing
    from hearken.statistics.intervals import Interval


SHARE = "of what the reward allows"


def show(found: EvaluationResult) -> None:
    """Print what an evaluation found, without the responses themselves."""
    from rich.console import Console

    console = Console(highlight=False)
    if found.prompts:
        judged = f", judged by {found.judge}" if found.judge else ""
        console.print(f"On {len(found.prompts)} held-out prompts{judged}", style="bold")
        console.print(_standings(found))
        if len(found.leaderboard) > 2:
            console.print("level: those that it cannot be told apart from. Strengths are in log-odds.", style="dim")
        if allowed := next((policy.allowed for policy in found.policies.values() if policy.allowed), None):
            console.print(
                f"{SHARE}: proxy - β·KL, 0 as the baseline, 1 as the best of {allowed.pool} of its responses a "
                "prompt. Low: train better. High and gold low: find a better reward.",
                style="dim",
            )
    if found.seeds:
        console.print("\nOver seeds", style="bold")
        for one in found.seeds:
            spread = "–" if one.deviation is None else f"{one.deviation:.3g}"
            console.print(f"{one.name}: {_interval(one.mean)}, between seeds ±{spread}, {one.seeds} seeds")
    for name, policy in found.policies.items():
        for file, perplexity in policy.perplexities.items():
            typer.echo(f"{name}: perplexity of {file} {perplexity.token:.3f} a token, {perplexity.byte:.3f} a byte")
        for task, scores in policy.tasks.items():
            said = ", ".join(f"{key} {_interval(value)}" for key, value in scores if value is not None)
            typer.echo(f"{name}: {task}: {said}")


class _Column(NamedTuple):
    """A figure of each policy."""

    header: str
    figures: dict[str, Interval | None]


def _columns(policies: dict[str, PolicyResult]) -> list[_Column]:
    """Those that some policy has."""
    columns = [
        _Column("win rate", {name: policy.win_rate for name, policy in policies.items()}),
        _Column("gold", {name: policy.gold for name, policy in policies.items()}),
        _Column("proxy", {name: policy.proxy for name, policy in policies.items()}),
        _Column("kl", {name: policy.kl for name, policy in policies.items()}),
        _Column(SHARE, {name: policy.allowed.share if policy.allowed else None for name, policy in policies.items()}),
        _Column("reward right on its own", {name: policy.own_accuracy for name, policy in policies.items()}),
        _Column("length", {name: policy.length for name, policy in policies.items()}),
    ]
    return [column for column in columns if any(figure is not None for figure in column.figures.values())]


def _standings(found: EvaluationResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    board: dict[str, Standing | None] = {row.policy: row for row in found.leaderboard}
    board = board or dict.fromkeys(found.policies)
    columns = _columns(dict(found.policies))
    several = len(board) > 2
    headers = ["", "policy", *(["strength"] if several else []), *(column.header for column in columns)]
    for header in [*headers, *(["level"] if several else [])]:
        table.add_column(header)
    for name, row in board.items():
        cells = [str(row.place or "") if row else "", name]
        cells += [_interval(row.strength if row else None)] if several else []
        for column in columns:
            base = name == found.baseline and column.header == "win rate"
            cells.append("baseline" if base else _interval(column.figures[name]))
        cells += [", ".join(row.level_with) if row else ""] if several else []
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _interval(value: Interval | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int | float):
        return f"{value:.3g}"
    if value.low != value.low:
        return f"{value.estimate:.3g}"
    return str(value)
