"""``hearken backup``, ``hearken restore`` and ``hearken erase``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  hearken backup")(backup)
    app.command(epilog="Example:  hearken restore backups/feedback-20260504-153000.db")(restore)
    app.command(epilog='Example:  hearken erase labeler 3f2a... --reason "asked for by the labeler"')(erase)


def backup(
    out: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The new file.", show_default="backups/feedback-TIME.db")
    ] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Copy the feedback database to a file, also while it is served and labelled."""
    with clean_stdout():
        from hearken.loop import maintenance
        from hearken.loop.project import Project

        done = maintenance.backup(Project(project), out)
    emit({"backup": str(done), "bytes": done.stat().st_size}, as_json, "Backed up")


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the feedback database.

    What stood there is kept beside it. What was erased since the backup is erased in it, too.
    """
    with clean_stdout():
        from hearken.loop import maintenance
        from hearken.loop.project import Project
        from hearken.server.run import alone

        opened = Project(project)
        with alone(maintenance.database_file(opened)):
            done = maintenance.restore(opened, source)
    emit(asdict(done), as_json, "Restored")


def erase(
    target: Annotated[
        Literal["prompt", "response", "judgment", "labeler"], typer.Argument(metavar="WHAT", help="What is erased.")
    ],
    target_id: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    reason: Annotated[str, typer.Option(help="For the tombstone that stays.")],
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Erase a prompt, response or judgment, or a labeler with all their judgments.

    Contents are overwritten; a tombstone stays. Lists the files that still hold them and the models that learned from
    them.
    """
    with clean_stdout():
        from hearken.loop import maintenance
        from hearken.loop.project import Project

        done = maintenance.erase(Project(project), target, target_id, reason)
    emit(asdict(done), as_json, "Erased")
