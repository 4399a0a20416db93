"""``hearken audit``: somebody checks a few answers, and truth stands beside preference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken audit -n 60, and when the column 'right' is filled: hearken audit audit.csv")(
        audit
    )


def audit(
    sheet: Annotated[
        Path | None, typer.Argument(metavar="[SHEET]", help="A sheet that was filled in; none draws one.")
    ] = None,
    prompts: Annotated[
        int, typer.Option("-n", "--prompts", min=1, help="Prompts drawn: an answer of each policy.")
    ] = 60,
    policy: Annotated[str, typer.Option(metavar="NAME", help="Beside the baseline.", show_default="the report's")] = "",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The new sheet: .csv or .jsonl.")] = Path("audit.csv"),
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Check a few answers for truth: labelers may prefer what is confident and wrong.

    Draws answers of the last evaluation, without names and in random order. Write yes or no into the column 'right' and
    give the sheet back: an alarm is raised where truth fell, and the report shows it beside preference.
    """
    with clean_stdout():
        from dataclasses import asdict

        from hearken.loop import auditing
        from hearken.loop.project import Project
        from hearken.statistics.audit import audits_needed

        opened = Project(project)
        if sheet is None:
            done = auditing.draw_sheet(opened, out, prompts, policy=policy, seed=seed)
            needed = audits_needed(0.8, 0.2)
            done["says"] = f"To notice a fall from 80 % right to 60 %, {needed} answers of each policy are needed."
        else:
            found = asdict(auditing.take_in(opened, sheet))
            intervals = ("before", "after", "preference")
            done = {k: v for k, v in found.items() if k not in intervals}
            done |= {k: [*found[k]] for k in intervals if found[k] is not None}
    emit(done, as_json, "Drawn" if sheet is None else "Audited")
