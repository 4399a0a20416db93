"""``hearken push``: a model with its card, to the Hub or into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearken.cli.chat import resolve
from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken push r01-ppo --to my-name/tales-ppo --dry-run")(push)


def push(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact of the project, or its folder.")],
    to: Annotated[str, typer.Option(metavar="REPO", help="OWNER/NAME on the Hub; OWNER may be left out.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the folder is made.", show_default="ARTIFACT-hub")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make the folder and upload nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new repository that only you see.")] = False,
    license: Annotated[str, typer.Option(metavar="ID", help="For the card, e.g. apache-2.0.")] = "",
    rollouts: Annotated[bool, typer.Option("--rollouts", help="With the responses it was trained on.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a model card with lineage and figures, and upload the model.

    The card says what the model was made from, judged by whom and under which guideline, how it was measured, what it
    is not fit for, and the commands that make it again. Logging in is the Hub's own: hf auth login, or HF_TOKEN.
    """
    with clean_stdout():
        from hearken.loop.publishing import publish

        done = publish(
            resolve(artifact, project), to=to, out=out, dry_run=dry_run, private=private, license=license,
            rollouts=rollouts,
        )  # fmt: skip
    emit(done, as_json, "Written" if dry_run or not to else "Pushed")
