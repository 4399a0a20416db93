"""What all commands share: how results and errors are shown, and the options they have in common."""

from __future__ import annotations

import errno
import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hearken.config import FormerName
from hearken.errors import UserError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
ProjectOption = Annotated[
    Path, typer.Option("--project", "-C", metavar="DIR", help="The project folder.", rich_help_panel="Common")
]
SeedOption = Annotated[int | None, typer.Option(help="Fixes every draw.", show_default="the project's")]

USAGE_ERROR, INTERRUPTED = 2, 130
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PACKAGE = Path(__file__).parents[1]


class Group(TyperGroup):
    """The root of all commands. A user's mistake, Ctrl-C and a full disk end in one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; see the class."""
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except UserError as error:
            _say(f"Error: {error.what}", error.hint)
            raise typer.Exit(USAGE_ERROR) from None
        except KeyboardInterrupt:
            _say("Interrupted. Finished work is kept.", f"To go on, run the same command again: {_again()}")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if not (where := disk_full(error)):
                raise
            _say(
                f"Error: the disk is full ({where})",
                f"What was finished is kept. Free some space, then run the same command again: {_again()}",
            )
            raise typer.Exit(1) from None


def not_on_command_line(ctx: typer.Context, param: typer.CallbackParam, value: str) -> str:
    """For options that hold a secret: their environment variable is the only way in.

    Raises:
        UserError: it was given on the command line, which everybody on this machine can read.
    """
    source = ctx.get_parameter_source(str(param.name))
    if source is not None and source.name == "COMMANDLINE":
        raise UserError(
            f"{param.opts[0]}: a secret on the command line can be read by everybody on this machine",
            f"Put it into the environment: {param.envvar}",
        )
    return value


def disk_full(error: BaseException) -> str:
    """What could not be written, where ``error`` or anything that caused it says that the disk is full; else ""."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return f"writing {cause.filename}" if cause.filename else str(cause.strerror)
        # Writers in other languages (SQLite, safetensors) report it in words only.
        for words in ("No space left on device", "database or disk is full"):
            if words in str(cause):
                return words
        cause = cause.__cause__ or cause.__context__
    return ""


def _again() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _say(what: str, hint: str = "", colour: str = "red") -> None:
    """One line on stderr, and what to do on the next."""
    coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    typer.echo(typer.style(what, fg=colour, bold=True) if coloured else what, err=True)
    if hint:
        typer.echo(hint, err=True)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """What Hearken itself warns of is a line for a person: no file and line of the code, no word of Python's."""
    shown = warnings.showwarning

    def show(message: Any, category: Any, filename: str, *more: Any, **named: Any) -> None:
        ours = category is UserWarning and Path(filename).is_relative_to(_PACKAGE)
        if ours or issubclass(category, FormerName):
            _say(f"Warning: {message}", colour="yellow")
        else:
            shown(message, category, filename, *more, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = shown


@contextmanager
def clean_stdout() -> Iterator[None]:
    """Whatever libraries print while a command works goes to stderr: stdout is for the result."""
    with redirect_stdout(sys.stderr):
        yield


def emit(result: Mapping[str, object], as_json: bool, title: str = "") -> None:
    """Show a command's result: one JSON object, or a small table for people."""
    if as_json:
        typer.echo(json.dumps(_strict(result), ensure_ascii=False, default=str, allow_nan=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in flatten(result):
        table.add_row(Text(name), Text(figure(value)))
    console = Console(highlight=False)
    if title:
        console.print(Text(title, "bold"))
    console.print(table)


def _strict(value: Any) -> Any:
    """JSON knows no NaN and no infinity: what is not a number is null."""
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of nested dictionaries, with dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def figure(value: Any) -> str:
    """A value for people: numbers with four digits, lists with commas."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(figure, value))
    return "–" if value is None else str(value)
