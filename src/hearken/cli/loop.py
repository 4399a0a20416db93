"""``hearken loop`` and ``hearken trace``: rounds that run by themselves, and the way back from their results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  hearken loop --rounds 3 -C my-project")(loop)
    app.command(epilog="Example:  hearken trace r03-ppo -C my-project")(trace)


def loop(
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rounds in all.", show_default="the project's loop.rounds")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for people; else stop there, to go on another time.")
    ] = True,
    redo: Annotated[
        bool, typer.Option("--redo", help="Make steps again whose settings have changed; the old ones go to replaced/.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-o", metavar="KEY=VALUE", help="A setting over hearken.yaml's, e.g. loop.prompts=300."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which steps are done and which are to do.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Round after round: sample, wait for judgments, fit a reward model, improve the policy, evaluate.

    Everything is in the section 'loop' of hearken.yaml. Each step leaves an artifact and is skipped when it is there:
    after an interruption, run the same command again.
    """
    with clean_stdout():
        from hearken.loop.rounds import Loop, plan

        opened = open_project(project, override or [])
        if dry_run:
            steps = plan(opened, rounds)
        else:
            done = Loop(opened, wait=wait, redo=redo, announce=lambda text: typer.echo(text, err=True)).run(rounds)
    if dry_run or as_json:
        emit(steps if dry_run else done, as_json, "Steps")
        return
    waiting = done["waiting_for"]
    head = {key: value for key, value in done.items() if key != "figures"}
    emit(head, False, f"{waiting} judgments are waited for: run this again later" if waiting else "Done")
    for row in done["figures"]:
        figures = {key: value for key, value in row.items() if key != "round" and value is not None}
        emit(figures, False, f"After round {row['round']}")


def open_project(path: Path, overrides: list[str]) -> Any:
    """A project, by its absolute path, with overrides of its configuration."""
    from hearken.config import read_yaml
    from hearken.loop.project import CONFIG, Project, ProjectConfig

    opened = Project(path.resolve())
    if overrides:
        opened.config = ProjectConfig.parse(read_yaml(opened.path / CONFIG, overrides), where=CONFIG)
    return opened


def trace(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Its name in the project, or its folder.")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """What stands behind an artifact: models, data, judgments, labelers and guideline versions, back to the start."""
    with clean_stdout():
        from hearken.loop.project import CONFIG, Project
        from hearken.loop.trace import as_json as say
        from hearken.loop.trace import draw
        from hearken.loop.trace import trace as walk

        inside = (project / CONFIG).is_file()
        # A folder given by its path may stand in a project of its own.
        home = next((p for p in Path(artifact).resolve().parents if (p / CONFIG).is_file()), None)
        opened = Project(project) if inside else Project(home) if home else None
        found = walk(artifact, opened)
    if as_json:
        typer.echo(say(found))
        return
    from rich.console import Console

    Console(highlight=False).print(draw(found))
