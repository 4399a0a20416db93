"""The ``hearken`` command. Nothing here, or imported by ``--help``, loads torch or transformers."""

from __future__ import annotations

from typing import Annotated

import typer

import hearken
from hearken.cli import (
    audit,
    bench,
    care,
    chat,
    data,
    inspect,
    loop,
    model,
    project,
    push,
    quickstart,
    serve,
    train,
    watch,
)
from hearken.cli.console import Group

app = typer.Typer(
    name="hearken",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Reinforcement learning from human feedback: sample, ask, fit a reward model, improve the policy, measure.",
    epilog="Start here:  hearken quickstart my-tales",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hearken {hearken.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


quickstart.register(app)
model.register(app)
project.register(app)
loop.register(app)
data.register(app)
care.register(app)
serve.register(app)
train.register(app)
audit.register(app)
inspect.register(app)
chat.register(app)
watch.register(app)
push.register(app)
bench.register(app)


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="hearken")
