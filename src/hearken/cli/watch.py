"""``hearken watch``: a policy at work, as a video or in a window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearken.cli.chat import resolve
from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit
from hearken.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken watch r01-ppo --episodes 3 --out ppo.webm")(watch)


def watch(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="An artifact of the project, or a policy's folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The video (WebM).", show_default="POLICY.webm")
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="In a window instead, where there is a display.")] = False,
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 1,
    steps: Annotated[int, typer.Option(min=0, help="The most of an episode; 0 is as many as it takes.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the first start; each further episode has the next.")] = 1,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Act as in training, instead of by the likeliest action.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Watch a policy act, from the start of episodes to their end: the sibling of `hearken chat` for what acts.

    Prints the return of each episode by the environment's own reward.
    """
    if window and out is not None:
        raise UserError("--window and --out are two things", "Name one of them")
    name = resolve(policy, project)
    file = None if window else out or Path(f"{Path(name).name}.webm")
    if file is not None and file.exists() and not overwrite:
        raise UserError(f"{file} exists", "Name another file: --out FILE, or add --overwrite")
    with clean_stdout():
        from hearken.domains.base import domain_of

        domain = domain_of(name)
        domain.check_model(name, "POLICY")
        done = domain.watch(name, file, episodes=episodes, seed=seed, steps=steps, greedy=not sampled)
    emit(done, as_json, "Watched" if window else "Written")
