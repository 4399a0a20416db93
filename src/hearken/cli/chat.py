"""``hearken chat``: talk to a policy, or to two side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit
from hearken.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from hearken.domains.text.chat import Conversation

HELP = """/reset    forget what was said
/again    other answers to the last message
/seed N   draw with another seed from here on
/quit     leave (or Ctrl-D)"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken chat my-sft my-ppo")(chat)


def chat(
    models: Annotated[list[str], typer.Argument(metavar="MODEL [MODEL]", help="Folder, Hub name or artifact.")],
    system: Annotated[str, typer.Option(metavar="TEXT", help="A system message to begin with.")] = "",
    form: Annotated[
        Literal["auto", "dialogue", "plain"],
        typer.Option("--as", help="plain: each message by itself; auto: a dialogue where there is a chat template."),
    ] = "auto",
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.001, max=1, help="Nucleus.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed and messages give the same answers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Talk to a policy, or to two side by side.

    /reset forgets, /again asks for other answers, /quit leaves. From a pipe, every line is a message:
    echo "Tell a tale." | hearken chat my-sft --json
    """
    if len(models) > 2:
        raise UserError(f"{len(models)} models are too many for one screen", "Name one or two")
    with clean_stdout():
        from hearken.domains.text.chat import Conversation
        from hearken.rollout.sampler import SamplingParameters

        how = SamplingParameters(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        named = [resolve(name, project) for name in models]
        talk = Conversation(named, how, form=form, system=system, seed=seed, device=device)
    if as_json:
        turns = [{"user": said, "answers": answers} for said, answers in _hear(talk, _lines())]
        emit({"models": talk.names, "seed": seed, "turns": turns}, as_json=True)
    elif sys.stdin.isatty():
        _interact(talk)
    else:
        for said, answers in _hear(talk, _lines()):
            if len(answers) == 1:
                typer.echo(next(iter(answers.values())))
                continue
            typer.echo(f"> {printable(said)}")
            for name, answer in answers.items():
                typer.echo(f"[{name}] {answer}")


def resolve(name: str, project: Path) -> str:
    """An artifact of the project by its name; anything else as it is."""
    artifact = project / "artifacts" / name
    return str(artifact) if not Path(name).exists() and (artifact / "manifest.json").is_file() else name


def printable(text: str) -> str:
    """Text that moves no cursor and rings no bell: what a model says is hostile to a terminal too."""
    from hearken.report.charts import clean

    return clean(text)


def _lines() -> Iterator[str]:
    """The messages of a pipe."""
    return (line for raw in sys.stdin if (line := raw.strip()))


def _hear(talk: Conversation, lines: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every message with the models' whole answers; commands are obeyed."""
    for line in lines:
        if line == "/quit":
            return
        if line.startswith("/"):
            if (stream := _obey(talk, line)) is None:
                continue
        else:
            stream = talk.say(line)
        answers = [""] * len(talk.names)
        with clean_stdout():
            for model, piece in stream:
                answers[model] += piece
        said = talk.messages(0)[-2].content
        yield said, {name: printable(a) for name, a in zip(talk.names, answers, strict=True)}


def _obey(talk: Conversation, line: str) -> Iterator[tuple[int, str]] | None:
    """Do what a line with a slash says; the answers where it asks for some.

    Raises:
        UserError: no such command.
    """
    word, _, rest = line.partition(" ")
    if word == "/reset":
        talk.reset()
    elif word == "/again":
        return talk.again()
    elif word == "/seed" and rest.strip().lstrip("-").isdigit():
        talk.seed, talk.turn = int(rest), 0
    else:
        raise UserError(f"there is no command {line}", "Commands: /reset, /again, /seed N, /quit")
    return None


def _interact(talk: Conversation) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text(f"Talking to {' and '.join(talk.names)}. /help says what else you can type.", "dim"))
    while True:
        try:
            line = console.input("[bold cyan]›[/] ").strip()
        except EOFError:
            console.print()
            return
        if line == "/quit":
            return
        if not line or line == "/help":
            console.print(Text(HELP, "dim"))
            continue
        try:
            stream = _obey(talk, line) if line.startswith("/") else talk.say(line)
            if stream is None:
                console.print(Text("Done.", "dim"))
                continue
            show(console, talk.names, stream)
        except UserError as error:
            console.print(Text(f"{error.what}. {error.hint}", "red"))


def show(console: Console, names: list[str], stream: Iterator[tuple[int, str]]) -> None:
    """Print answers as they come: one below its name, two in columns. Ctrl-C ends them, not the conversation."""
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    if len(names) == 1:
        try:
            for _, piece in stream:
                console.print(Text(printable(piece)), end="", soft_wrap=True)
        except KeyboardInterrupt:
            stream.close()  # type: ignore[attr-defined]
            console.print(Text(" [stopped]", "dim"), end="")
        console.print("\n")
        return
    answers = [""] * len(names)

    def columns() -> Table:
        table = Table.grid(expand=True, padding=(0, 1))
        for _ in names:
            table.add_column(ratio=1)
        panels = [
            Panel(Text(printable(answer)), title=Text(name), title_align="left", border_style=style)
            for name, answer, style in zip(names, answers, ("cyan", "green"), strict=False)
        ]
        table.add_row(*panels)
        return table

    with Live(columns(), console=console, refresh_per_second=12, vertical_overflow="visible") as live:
        try:
            for model, piece in stream:
                answers[model] += piece
                live.update(columns())
        except KeyboardInterrupt:
            stream.close()  # type: ignore[attr-defined]
