"""``hearken quickstart``: the whole loop on the built-in tale world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hearken.cli.console import JsonOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken quickstart my-tales")(quickstart)


def quickstart(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A new folder, or one to go on with.")] = Path(
        "my-tales"
    ),
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A smoke test of a minute; its figures mean little.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole loop on the built-in tale world, in minutes on two cores; ends with report.html.

    Trains a small language model on generated tales, fine-tunes it on demonstrations, samples responses, lets
    simulated labelers with two tastes rank them, fits a reward model, improves the policy with PPO-ptx and measures it
    by the true reward. Run the same command again to go on after an interruption.
    """
    from hearken.loop.quickstart import quickstart as run

    with clean_stdout():
        summary = run(directory, seed=seed, fast=fast)
    emit(summary, as_json, "What changed")
    if not as_json:
        _closing(summary)


def _closing(summary: dict[str, Any]) -> None:
    typer.echo(f"\nRead the report: {summary['report']}")
