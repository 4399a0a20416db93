"""The commands of a project folder: init, sample, label, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hearken.cli import evaluating
from hearken.cli.console import JsonOption, ProjectOption, SeedOption, clean_stdout, emit, not_on_command_line
from hearken.cli.evaluating import PessimismOption
from hearken.cli.reading import ReadingCommand, reading
from hearken.errors import UserError

PolicyOption = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="An artifact, a folder or a Hub name.", show_default="the newest policy"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    init_example = "Example:  hearken init my-project --model my-sft --prompts prompts.jsonl"
    app.command(cls=ReadingCommand, epilog=init_example)(init)
    app.command(epilog="Example:  hearken sample -k 4 --prompts 200")(sample)
    app.command(epilog="Example:  hearken label --with simulated")(label)
    evaluating.register(app)
    app.command(epilog="Example:  hearken report")(report)


def init(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="The policy to begin with: a folder or a Hub name.")],
    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="The prompts: a file, a folder or a Hub name. (Some domains have their own.)",
            show_default=False,
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Fixes every draw of the project.")] = 0,
    domain: Annotated[
        str, typer.Option(metavar="NAME", help="What responses are.", show_default="told from the model")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """A new project: a folder with hearken.yaml and the feedback database."""
    with clean_stdout():
        from hearken.loop.project import Project

        done = Project.init(directory, model=model, prompts=prompts, seed=seed, reading=reading(ctx), domain=domain)
    emit({"project": str(done.path)}, as_json, "Ready. Next: hearken sample")


def sample(
    k: Annotated[
        int | None, typer.Option("-k", min=2, help="Responses per prompt.", show_default="the project's")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many prompts.")] = None,
    policy: PolicyOption = None,
    best_of: Annotated[
        int, typer.Option(min=1, metavar="N", help="Draw N for each response and keep the best by the reward.")
    ] = 1,
    reward: Annotated[
        str | None, typer.Option(metavar="REWARD", help="For --best-of.", show_default="the one in use")
    ] = None,
    pessimism: PessimismOption = 0.0,
    width: Annotated[
        Literal["linear", "heads", "models"],
        typer.Option(help="Of linear theory, of 5 bootstrapped heads, or of --reward a,b,c."),
    ] = "linear",
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Responses of a policy into the feedback database, queued for judgment."""
    with clean_stdout():
        from hearken.domains.best_of import BestOf, check_choice
        from hearken.loop.project import Project

        check_choice(best_of, pessimism)
        choice = BestOf(best_of, reward or "", pessimism, width) if best_of > 1 else None
        done = Project(project).sample(k, prompts=prompts, policy=policy, seed=seed, best_of=choice)
    emit(done, as_json, "Sampled")


def label(
    labeler: Annotated[Literal["simulated", "ai"], typer.Option("--with", help="Who answers the queue.")] = "simulated",
    server: Annotated[str, typer.Option(metavar="URL", help="A running 'hearken serve' whose queue is answered.")] = "",
    token: Annotated[
        str,
        typer.Option(
            metavar="TOKEN",
            envvar="HEARKEN_TOKEN",
            callback=not_on_command_line,
            help="For --server: one that may write; in HEARKEN_TOKEN, as a command line can be read by all.",
        ),
    ] = "",
    judge: Annotated[
        str, typer.Option(metavar="MODEL", help="ai: a folder or Hub name, or the server's name of its model.")
    ] = "",
    url: Annotated[
        str, typer.Option(metavar="URL", help="ai: base URL of an OpenAI-compatible server; else OPENAI_BASE_URL.")
    ] = "",
    constitution: Annotated[
        str, typer.Option(metavar="NAME|YAML", help="ai: the principles: general, stories, summaries, or a file.")
    ] = "general",
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="ai: let it think in words first, and keep them.")
    ] = False,
    revise: Annotated[
        bool,
        typer.Option("--revise", help="ai: rewrite responses as people's critiques ask, else by its own: for SFT."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="ai: requests at once.")] = 4,
    per_minute: Annotated[float, typer.Option(min=0, help="ai: most requests a minute; 0 for no limit.")] = 0.0,
    price_in: Annotated[float, typer.Option(min=0, help="ai: price of a million tokens read.")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0, help="ai: price of a million tokens written.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="ai: say what it will cost, and ask nothing.")] = False,
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Answer the queue without people: by a simulation, or by a model with a constitution.

    With --server a running server's queue is answered, through the API that people's pages use.
    """

    def announce(text: str) -> None:
        typer.echo(text, err=True)

    with clean_stdout():
        from hearken.loop.project import Project
        from hearken.loop.rounds_options import AIOptions

        opened = Project(project)
        ai = AIOptions(
            judge=judge, url=url, constitution=constitution, reasoning=reasoning, workers=workers,
            per_minute=per_minute, price_in=price_in, price_out=price_out,
        )  # fmt: skip
        fixed = opened.config.seed if seed is None else seed
        if server:
            if revise or dry_run:
                raise UserError("--revise and --dry-run work on the project's own database", "Leave --server out")
            from hearken.server.client import HearkenClient, label_over_http

            labelers: Any = opened.panel().labelers
            if labeler == "ai":
                labelers = [opened.ai_labeler(ai)]
            with HearkenClient(server, token) as client:
                done = label_over_http(
                    client, labelers, fixed, workers=workers, price_in=price_in, price_out=price_out, announce=announce
                )
        elif labeler == "ai":
            done = opened.ai_labels(ai, revise=revise, seed=seed, dry_run=dry_run, announce=announce)
        else:
            done = opened.label(labeler, seed=seed)
    emit(done, as_json, "Estimated" if dry_run else "Labelled")


def report(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Write report.html: what was done, what changed, whether it is better, and whether the reward is being fooled.

    With --json, everything that stands in the report is printed as well.
    """
    with clean_stdout():
        from hearken.loop.project import Project
        from hearken.loop.reporting import write_report

        path, found = write_report(Project(project))
    emit({"report": str(path), **(found.to_dict() if as_json else {})}, as_json)
