"""``hearken inspect``: what the model really sees, in colour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hearken.cli.console import JsonOption, clean_stdout, emit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hearken.domains.text.inspect import Inspection, Piece, View

STYLES = {"prompt": "cyan", "response": "green", "untrained": "yellow", "end": "bold white on red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken inspect pairs.jsonl --model my-sft -n 2")(inspect)


def inspect(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a folder or a Hub name.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="Whose tokenizer and template: a folder or a Hub name.")],
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many examples to show.")] = 3,
    start: Annotated[int, typer.Option(min=1, help="Number of the first one.")] = 1,
    format: Annotated[str, typer.Option(metavar="LAYOUT", help="The data's layout; auto: by its columns.")] = "auto",
    max_length: Annotated[int, typer.Option(min=0, help="As in training; 0 takes the model's context.")] = 0,
    eos: Annotated[str, typer.Option(metavar="TOKEN", help="As in training.")] = "",
    train_on: Annotated[Literal["last", "all"], typer.Option(help="As in training: turns of a dialogue.")] = "last",
    ids: Annotated[bool, typer.Option("--ids", help="Show every token with its id.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page to a file as well.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What the model really sees: template, loss mask, end of sequence, truncation, token ids.

    Text is encoded exactly as the training stages do it. Only the tokenizer is loaded.
    """
    with clean_stdout():
        from hearken.domains.text.inspect import inspect as look

        found = look(
            data, model, count=count, start=start, format=format, max_length=max_length, eos=eos, train_on=train_on
        )
    if as_json:
        emit(found.to_json(), as_json=True)
        return
    from rich.console import Console

    console = Console(record=html is not None, highlight=False)
    show(found, console, ids=ids)
    if html:
        html.write_text(console.export_html(), encoding="utf-8")


def show(found: Inspection, console: Console, *, ids: bool = False) -> None:
    """Print an inspection in colour."""
    from rich.markup import escape
    from rich.text import Text

    names = "  ".join(f"{name} {token}" for name, token in found.tokens.items())
    console.print(f"[bold]{escape(found.model)}[/]  at most {found.max_length} tokens")
    console.print(f"dialogues: {found.template}    special tokens: {escape(names)}")
    legend = Text("prompt", STYLES["prompt"])
    legend.append("  response, trained", STYLES["response"]).append("  in between, not trained", STYLES["untrained"])
    console.print(legend.append("  ").append("end", STYLES["end"]).append("  ⟨cut⟩", "bold magenta"))
    for view in found.views:
        kind = ", ".join(filter(None, [view.kind, view.note]))
        console.rule(f"example {view.example}  [dim]{escape(kind)}[/]", align="left")
        console.print(_tokens(view, ids))
        console.print(f"[dim]{_facts(view)}[/]")
    console.rule("all examples" if found.summary["examples"] < 1000 else "the first 1,000 examples", align="left")
    for part in ("prompt", "response"):
        lengths = found.summary[f"{part}_tokens"]
        console.print(f"{part} tokens: median {lengths['median']:g}, longest {lengths['longest']}")
    for warning in found.warnings:
        console.print(f"[bold yellow]![/] {escape(warning)}")


def _tokens(view: View, ids: bool) -> Text:
    from rich.text import Text

    text = Text()
    if view.prompt_lost:
        text.append(f"⟨{view.prompt_lost} tokens of the prompt lost⟩", "bold magenta")
    for piece in view.pieces:
        shown = piece.text.replace("\n", "⏎" if ids else "⏎\n") if piece.part != "end" else piece.text
        text.append(shown, _style(piece))
        if ids:
            text.append(f"·{piece.id} ", "dim")
    if view.response_lost:
        text.append(f"⟨{view.response_lost} tokens of the response lost, the end among them⟩", "bold magenta")
    return text


def _style(piece: Piece) -> str:
    if piece.part == "response" and not piece.trained:
        return STYLES["untrained"]
    return STYLES[piece.part]


def _facts(view: View) -> str:
    trained = sum(piece.trained for piece in view.pieces)
    response = view.count("response") + view.count("end")
    ends = "ends with an end token" if view.pieces and view.pieces[-1].part == "end" else "has no end token"
    facts = [f"{view.count('prompt')} prompt tokens"]
    if response:
        judged = view.kind in ("Comparison", "Rating", "Thumb")
        loss = "a reward model reads its score at the last" if judged else f"{trained} trained"
        facts += [f"{response} response tokens", loss, ends]
    return ", ".join(facts)
