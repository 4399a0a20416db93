"""The result of `hearken evaluate` for people: a leaderboard, the spread over seeds, perplexities and tasks."""

from __future__ import annotations

from typing import Any

import typer


def show(found: dict[str, Any]) -> None:
    """Print what an evaluation found, without the responses themselves."""
    from rich.console import Console

    console = Console(highlight=False)
    if found.get("waiting_for"):
        console.print(f"{found['waiting_for']} judgments are waited for. Run the same command again later.")
        return
    policies = found["policies"]
    if "prompts" in found:
        console.print(f"On {len(found['prompts'])} held-out prompts, judged by {found['judge']}", style="bold")
        console.print(_standings(found))
        if len(found.get("leaderboard", [])) > 2:
            console.print("level: those that it cannot be told apart from. Strengths are in log-odds.", style="dim")
    if found.get("seeds"):
        console.print("\nOver seeds", style="bold")
        for name, one in found["seeds"].items():
            spread = "–" if one["seeds"] < 2 else f"{one['deviation']:.3g}"
            console.print(f"{name}: {_interval(one['mean'])}, between seeds ±{spread}, {one['seeds']} seeds")
    for name, figures in policies.items():
        for file, values in figures.get("perplexities", {}).items():
            typer.echo(f"{name}: perplexity of {file} {values['token']:.3f} a token, {values['byte']:.3f} a byte")
        for task, scores in figures.get("tasks", {}).items():
            said = ", ".join(f"{key} {_interval(value)}" for key, value in scores.items())
            typer.echo(f"{name}: {task}: {said}")


def _standings(found: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    board = found.get("leaderboard") or [{"policy": name} for name in found["policies"]]
    wanted = [
        c for c in ("win_rate", "gold", "proxy", "kl", "length") if any(c in f for f in found["policies"].values())
    ]
    several = len(board) > 2
    headers = ["", "policy", *(["strength"] if several else []), *(w.replace("_", " ") for w in wanted)]
    for header in [*headers, *(["level"] if several else [])]:
        table.add_column(header)
    for row in board:
        figures = found["policies"][row["policy"]]
        cells = [str(row.get("place", "")), row["policy"]]
        cells += [_interval(row["strength"])] if several else []
        base = row["policy"] == found["baseline"]
        cells += ["baseline" if w == "win_rate" and base else _interval(figures.get(w)) for w in wanted]
        cells += [", ".join(row["level_with"])] if several else []
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _interval(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, int | float):
        return f"{value:.3g}"
    estimate, low, high = value
    if low is None or low != low:
        return f"{estimate:.3g}"
    return f"{estimate:.3g} [{low:.3g}, {high:.3g}]"
