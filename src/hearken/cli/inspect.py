"""``hearken inspect``: what the model really sees, in colour; and the responses it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from hearken.cli.chat import printable, resolve
from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit
from hearken.cli.reading import ReadingCommand, reading
from hearken.errors import UserError
from hearken.feedback.examples import Graded

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hearken.domains.base import Domain
    from hearken.domains.text.inspect import Inspection, Piece, View
    from hearken.evaluation.rollouts import Browsed, Rollout
    from hearken.feedback.examples import Content
    from hearken.loop.inspecting import View as MediaView

STYLES = {"prompt": "cyan", "response": "green", "untrained": "yellow", "end": "bold white on red"}


_ROLLOUTS = "Rollouts"
_BLOCKS = " ▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        cls=ReadingCommand,
        epilog="Example:  hearken inspect pairs.jsonl --model my-sft -n 2, or "
        "hearken inspect my-ppo --rollouts --sort reward --bottom 10",
    )(inspect)


def inspect(
    ctx: typer.Context,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A file, a folder or a Hub name; or a run.")],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Whose tokenizer and template; of files, a reward to score them.")
    ] = "",
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many examples to show.")] = 3,
    start: Annotated[int, typer.Option(min=1, help="Number of the first one.")] = 1,
    max_length: Annotated[int, typer.Option(min=0, help="As in training; 0 takes the model's context.")] = 0,
    eos: Annotated[str, typer.Option(metavar="TOKEN", help="As in training.")] = "",
    train_on: Annotated[Literal["last", "all"], typer.Option(help="As in training: turns of a dialogue.")] = "last",
    ids: Annotated[bool, typer.Option("--ids", help="Show every token with its id.")] = False,
    rollouts: Annotated[
        bool, typer.Option("--rollouts", help="DATA is a run: an artifact, its folder, or its rollouts.jsonl.",
                           rich_help_panel=_ROLLOUTS)
    ] = False,
    sort: Annotated[
        Literal["reward", "kl", "length"], typer.Option(help="By what.", rich_help_panel=_ROLLOUTS)
    ] = "reward",
    top: Annotated[int | None, typer.Option(min=0, help="How many of the largest.", rich_help_panel=_ROLLOUTS)] = None,
    bottom: Annotated[
        int | None, typer.Option(min=0, help="How many of the smallest.", rich_help_panel=_ROLLOUTS)
    ] = None,
    steps: Annotated[
        str, typer.Option(metavar="RANGE", help="Only of these steps: 7, 0-9, 10-, last.", rich_help_panel=_ROLLOUTS)
    ] = "",
    grep: Annotated[
        str, typer.Option(metavar="TEXT", help="Only with these words.", rich_help_panel=_ROLLOUTS)
    ] = "",
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Only those that did not end.", rich_help_panel=_ROLLOUTS)
    ] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page to a file as well.")] = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """What the model really sees: template, loss mask, end of sequence, truncation, token ids.

    Text is encoded exactly as the training stages do it. Only the tokenizer is loaded. With --rollouts (or where DATA
    is a run), the responses that a policy was trained on, by reward, KL or length. Of clips, sounds and pictures, what
    rewards and simulated labelers see of each; DATA may then be the file of one.
    """
    run = find_rollouts(resolve(data, project), rollouts)
    if run is not None:
        if top is None and bottom is None:
            top = bottom = 3
        browse(run, html, as_json, sort=sort, top=top or 0, bottom=bottom or 0, steps=steps, grep=grep,
               unfinished=unfinished)  # fmt: skip
        return
    model = resolve(model, project)
    domain = _domain(model, project)
    if domain.viewer != "text":
        _inspect_media(data, domain, model, as_json, count=count, start=start, reading=reading(ctx))
        return
    if not model:
        raise UserError("--model is missing: whose template and tokens?", "Name a folder or Hub name: --model my-sft")
    with clean_stdout():
        from hearken.domains.text.inspect import inspect as look

        found = look(
            data, model, count=count, start=start, reading=reading(ctx), max_length=max_length, eos=eos,
            train_on=train_on,
        )  # fmt: skip
    if as_json:
        emit(found.to_json(), as_json=True)
        return
    from rich.console import Console

    console = Console(record=html is not None, highlight=False)
    show(found, console, ids=ids)
    if html:
        html.write_text(console.export_html(), encoding="utf-8")


def _domain(model: str, project: Path) -> Domain:
    """That of the model that is named, else of the project."""
    from hearken.domains.base import find_domain

    if model:
        from hearken.loop.artifacts import domain_of_artifact

        return domain_of_artifact(model)
    from hearken.loop.project import CONFIG, Project

    return Project(project).domain if (project / CONFIG).is_file() else find_domain("text")


def _inspect_media(data: str, domain: Domain, model: str, as_json: bool, **how: Any) -> None:
    """Show what is seen of responses that are files; their scores, where the model is one that gives some."""
    from hearken.loop.artifacts import is_reward
    from hearken.loop.inspecting import inspect_media

    with clean_stdout():
        views = inspect_media(data, domain, reward=model if model and is_reward(model) else "", **how)
    if as_json:
        emit({"views": [view.to_json() for view in views]}, as_json=True)
        return
    from rich.console import Console

    show_media(views, Console(highlight=False))


def show_media(views: Sequence[MediaView], console: Console) -> None:
    """Print examples whose responses are files."""
    from rich.text import Text

    for view in views:
        console.rule(f"example {view.example}  [dim]{view.kind}[/]", align="left")
        if view.prompt:
            console.print(Text(printable(words_of(view.prompt)), STYLES["prompt"]))
        for one in view.responses:
            score = "" if one.score is None else f"  score {one.score:.3f}"
            console.print(Text.assemble((one.content, STYLES["response"]), f"  {one.note}", (score, "bold")))
            for name, value in one.facts.items():
                console.print(Text.assemble((f"  {name}  ", "dim"), printable(str(value))))


def words_of(prompt: Content) -> str:
    """A prompt as it is read."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{m.role}: {m.content}" for m in prompt)


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
        judged = view.kind in {kind.__name__ for kind in get_args(Graded)}
        loss = "a reward model reads its score at the last" if judged else f"{trained} trained"
        facts += [f"{response} response tokens", loss, ends]
    return ", ".join(facts)


# --- rollouts --------------------------------------------------------------------------------------------------------


def find_rollouts(data: str, wanted: bool) -> Path | None:
    """The rollouts that DATA names; None where it is data.

    Raises:
        UserError: they are wanted and not there.
    """
    path = Path(data)
    if not wanted and not path.name.startswith("rollouts") and not (path / "run").is_dir():
        return None
    from hearken.evaluation.rollouts import find

    found = find(path)
    if found is None and wanted:
        raise UserError(
            f"{data} has no rollouts",
            "Name a run that samples (ppo, rloo, grpo ...), trained with save_rollouts, as is the default",
        )
    return found


def browse(run: Path, html: Path | None, as_json: bool, **how: Any) -> None:
    """Show the rollouts asked for."""
    from hearken.evaluation import rollouts

    found = rollouts.browse(run, **how)
    if html:
        from hearken.report.rollouts import render_rollouts

        html.write_text(render_rollouts(found, run), "utf-8")
    if as_json:
        emit(found.to_json(), as_json=True)
        return
    from rich.console import Console

    show_rollouts(found, Console(highlight=False))


def show_rollouts(found: Browsed, console: Console) -> None:
    """Print distributions as blocks and the extremes as a table."""
    from rich.table import Table
    from rich.text import Text

    rest = "" if found.matching == found.total else f" of {found.total:,}"
    console.print(Text.assemble((found.source, "bold"), f"  {found.matching:,}{rest} responses"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "lowest", "", "highest", "median", "mean"):
        table.add_column(name, justify="left" if not name else "right")
    for measure, spread in found.spreads.items():
        bars = Text(blocks(spread.counts), "cyan")
        table.add_row(
            measure, number(spread.low, measure), bars, number(spread.high, measure), number(spread.median, measure),
            number(spread.mean, measure),
        )  # fmt: skip
    console.print(table)
    for what, value in (("length", found.reward_length), ("KL", found.reward_kl)):
        if value is not None:
            console.print(Text(f"correlation of reward and {what} {value:+.2f}", "dim"))
    if found.unfinished:
        console.print(Text(f"{found.unfinished:.1%} did not end by themselves", "dim"))
    for title, rows in ((f"highest {found.sort}", found.top), (f"lowest {found.sort}", found.bottom)):
        if rows:
            console.rule(title, align="left")
            for row in rows:
                _rollout(row, console)


def number(value: float, measure: str) -> str:
    """A measure as it is read: whole tokens, two places for the rest."""
    return f"{value:.0f}" if measure == "length" else f"{value:.2f}"


def blocks(counts: Sequence[int]) -> str:
    """A histogram in one line; what is there at all is seen."""
    most = max(counts, default=0) or 1
    return "".join(_BLOCKS[0 if not c else max(1, round(c / most * (len(_BLOCKS) - 1)))] for c in counts)


def _rollout(row: Rollout, console: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    ended = "" if row.finish_reason in ("stop", "") else "  did not end"
    spent = () if row.kl is None else (("  KL ", "dim"), f"{row.kl:.2f}")
    console.print(
        Text.assemble(
            ("reward ", "dim"), (f"{row.reward:.2f}", "bold"), *spent, ("  length ", "dim"),
            str(row.length), ("  step ", "dim"), str(row.step), ("  line ", "dim"), str(row.line), (ended, "bold red"),
        )
    )  # fmt: skip
    console.print(Padding(Text(printable(words_of(row.prompt)), STYLES["prompt"]), (0, 0, 0, 2)))
    console.print(Padding(Text(printable(row.completion)), (0, 0, 1, 2)))
