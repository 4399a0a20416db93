"""``hearken bench``: the benchmarks of the source checkout, peers beside us in one run where they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import hearken
from hearken.errors import UserError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken bench vs_trl --trl trl116/bin/python -- --only SFT --repeats 5")(bench)


def bench(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A script of benchmarks/.")] = "vs_trl",
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="The script's own; -- --help shows them.")
    ] = None,
    trl: Annotated[
        Path | None, typer.Option(metavar="PYTHON", envvar="HEARKEN_TRL", help="Python that has TRL 1.16.")
    ] = None,
    trl_ppo: Annotated[
        Path | None, typer.Option(metavar="PYTHON", envvar="HEARKEN_TRL_PPO", help="Python that has TRL 1.12.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="vs_trl: the rows of this model instead of those of small ones.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A smoke run; its figures mean nothing.")] = False,
) -> None:
    """Run a benchmark of the source checkout.

    vs_trl measures speed, memory and equal losses beside TRL and transformers' generate, each peer in an environment of
    its own; what a peer is missing for is said, and the rest is measured.
    """
    peers = [word for flag, path in (("--trl", trl), ("--trl-ppo", trl_ppo)) if path for word in (flag, str(path))]
    if name != "vs_trl":  # the others have no peers
        peers = []
        if model:
            raise UserError(f"{name} takes no --model", "Only vs_trl does; give what it takes after --")
    if model:
        peers += ["--model", str(model.absolute())]
    command = [sys.executable, str(find(name)), *(["--fast"] if fast else []), *peers, *(options or [])]
    raise typer.Exit(subprocess.run(command).returncode)


def find(name: str) -> Path:
    """A benchmark's script, in the checkout this package is installed from or the one we stand in.

    Raises:
        UserError: there is no checkout, or no such benchmark in it.
    """
    folders = [Path(hearken.__file__).parents[2] / "benchmarks", Path("benchmarks").absolute()]
    folder = next((f for f in folders if (f / "common.py").is_file()), None)
    if folder is None:
        raise UserError(
            "the benchmarks are not here: they come with the source, not with the installed package",
            "Run this in a checkout of Hearken's repository",
        )
    known = sorted(p.stem for p in folder.glob("*.py") if p.stem != "common")
    if name not in known:
        raise UserError(f"there is no benchmark '{name}'", f"Known benchmarks: {', '.join(known)}")
    return folder / f"{name}.py"
