"""The commands of a project folder: init, sample, label, evaluate, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, SeedOption, clean_stdout, emit, not_on_command_line
from hearken.cli.reading import ReadingCommand, reading
from hearken.errors import UserError

if TYPE_CHECKING:
    from hearken.feedback.reading import ReadingOptions

PolicyOption = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="An artifact, a folder or a Hub name.", show_default="the newest policy"),
]

PessimismOption = Annotated[
    float, typer.Option(min=0, metavar="C", help="For --best-of: take C widths of its confidence off each score.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    init_example = "Example:  hearken init my-project --model my-sft --prompts prompts.jsonl"
    app.command(cls=ReadingCommand, epilog=init_example)(init)
    app.command(epilog="Example:  hearken sample -k 4 --prompts 200")(sample)
    app.command(epilog="Example:  hearken label --with simulated")(label)
    app.command(cls=ReadingCommand, epilog="Example:  hearken evaluate --policy r01-ppo")(evaluate)
    app.command(epilog="Example:  hearken report")(report)


def init(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="The policy to begin with: a folder or a Hub name.")],
    prompts: Annotated[str, typer.Option(metavar="FILE", help="The prompts: a file, a folder or a Hub name.")],
    seed: Annotated[int, typer.Option(help="Fixes every draw of the project.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """A new project: a folder with hearken.yaml and the feedback database."""
    with clean_stdout():
        from hearken.loop.project import Project

        done = Project.init(directory, model=model, prompts=prompts, seed=seed, reading=reading(ctx))
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
        from hearken.loop.project import Project

        done = Project(project).sample(
            k, prompts=prompts, policy=policy, seed=seed, best_of=best_of, reward=reward, pessimism=pessimism,
            width=width,
        )  # fmt: skip
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

        opened = Project(project)
        fixed = opened.config.seed if seed is None else seed
        if server:
            if revise or dry_run:
                raise UserError("--revise and --dry-run work on the project's own database", "Leave --server out")
            from hearken.server.client import HearkenClient, label_over_http

            labelers: Any = opened.panel().labelers
            if labeler == "ai":
                labelers = [opened.ai_labeler(judge, url, constitution, reasoning, per_minute, price_in, price_out)]
            with HearkenClient(server, token) as client:
                done = label_over_http(
                    client, labelers, fixed, workers=workers, price_in=price_in, price_out=price_out, announce=announce
                )
        elif labeler == "ai":
            done = opened.ai_labels(
                judge, url=url, constitution=constitution, reasoning=reasoning, revise=revise, workers=workers,
                per_minute=per_minute, price_in=price_in, price_out=price_out, seed=seed, dry_run=dry_run,
                announce=announce,
            )  # fmt: skip
        else:
            done = opened.label(labeler, seed=seed)
    emit(done, as_json, "Estimated" if dry_run else "Labelled")


def evaluate(
    ctx: typer.Context,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="An artifact, a folder or a Hub name; best-of-8@MODEL is the best of eight. May be repeated.",
            show_default="the newest policy",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The policy to compare with.", show_default="the first policy")
    ] = None,
    prompts: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only so many held-out prompts.", show_default="loop.evaluate"),
    ] = None,
    judge: Annotated[
        Literal["auto", "gold", "reward", "people", "ai", "simulated"],
        typer.Option(help="Who decides; auto: gold where a world knows it, else the reward model."),
    ] = "auto",
    everything: Annotated[bool, typer.Option("--all", help="All policies of the project, on one leaderboard.")] = False,
    best_of: Annotated[
        list[int] | None,
        typer.Option(min=2, metavar="N", help="Add the best of N of the baseline's responses. May be repeated."),
    ] = None,
    pessimism: PessimismOption = 0.0,
    width: Annotated[
        Literal["linear", "heads"], typer.Option(help="With --pessimism: of linear theory, or of 5 bootstrapped heads.")
    ] = "linear",
    seeds: Annotated[
        bool, typer.Option("--seeds", help="The policies are one training with several seeds: show their spread.")
    ] = False,
    perplexity: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Held-out text to measure too. May be repeated.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="YAML", help="A task file, as lm-eval's, to try too. May be repeated.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Prompts from a file, for --card comparisons; no project is needed then."),
    ] = None,
    reward: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The reward model.", show_default="the one in use")
    ] = None,
    plan: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Say how many comparisons tell a win rate of RATE from .5, and stop."),
    ] = None,
    ties: Annotated[float, typer.Option(min=0, max=0.99, help="With --plan: the share of ties to expect.")] = 0.0,
    power: Annotated[float, typer.Option(min=0.01, max=0.99, help="With --plan: the chance of finding it.")] = 0.8,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for people; else ask, and look again another time.")
    ] = True,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-o", metavar="KEY=VALUE", help="A setting of hearken.yaml: sample.temperature=.7"),
    ] = None,
    card: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Only a card of this reward model, on --data or what was held out."),
    ] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Card: train it again on parts of its labels, which takes a while.")
    ] = False,
    larger: Annotated[
        str, typer.Option(metavar="MODEL", help="Card: train this model on the same labels, to see if size helps.")
    ] = "",
    held_out_labelers: Annotated[
        bool,
        typer.Option("--held-out-labelers", help="Card: train it again without a quarter of the labelers, try theirs."),
    ] = False,
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Which policy is better? On held-out prompts, by the true reward, a reward model, people or an AI.

    Inside a project, or on bare models with --data. Win rates are with intervals by bootstrap over prompts.
    The project's reward model is measured on held-out judgments as well: its card.
    """
    if plan is not None:
        emit(_plan(plan, ties, power), as_json, "Before you start")
        return
    how: dict[str, Any] = {
        "learning_curve": learning_curve, "larger": larger, "held_out_labelers": held_out_labelers,
        "announce": lambda text: typer.echo(text, err=True),
    }  # fmt: skip
    if card is not None:
        emit(_card(project, card, data or (), how, reading(ctx)), as_json, "On held-out comparisons")
        return
    with clean_stdout():
        from hearken.cli.loop import open_project
        from hearken.config import assign
        from hearken.loop.asking import Waiting
        from hearken.loop.evaluating import Bare
        from hearken.loop.evaluating import evaluate as run
        from hearken.loop.project import CONFIG, ProjectConfig

        outside = not (project / CONFIG).is_file() and bool(policy) and bool(data or perplexity or task)
        if outside:
            values: dict[str, Any] = {"model": against or (policy or [""])[0]}
            for words in override or []:
                assign(values, words)
            opened: Any = Bare(ProjectConfig.parse(values, where="--set"))
        else:
            opened = open_project(project, override or [])
        missing, reward_model = 0, {}
        try:
            found = run(
                opened, policy or (), against=against, prompts=prompts, data=data or (), reward=reward, judge=judge,
                everything=everything, best_of=best_of or (), pessimism=pessimism, width=width,
                perplexity=perplexity or (), tasks=task or (), seeds=seeds, seed=seed, wait=wait,
                announce=how["announce"], reading=reading(ctx),
            )  # fmt: skip
            if not outside:
                from hearken.loop import cards

                reward_model = {"reward_model": cards.summary(cards.project_card(opened, **how))}
        except Waiting as waiting:
            missing = waiting.missing
    if missing and as_json:
        emit({"waiting_for": missing}, True)
    elif missing:
        typer.echo(f"{missing} judgments are waited for. Run the same command again later.")
    elif as_json:
        emit(found.model_dump(mode="json") | reward_model, True)
    else:
        from hearken.cli.standings import show

        show(found)


def _card(
    project: Path, name: str, data: Sequence[str], how: dict[str, Any], reading: ReadingOptions
) -> dict[str, Any]:
    """What `hearken evaluate --card` says: of a reward model's folder, or of an artifact of the project."""
    with clean_stdout():
        from hearken.loop import cards
        from hearken.loop.project import Project

        if data or not (project / "artifacts" / name).is_dir():
            return cards.summary(cards.evaluate_reward(name, data, reading=reading, **how))
        measured = cards.project_card(Project(project), name, **how)
    if measured is None:
        raise UserError(f"nothing is held out to measure {name} on", "Label prompts of the validation split")
    return cards.summary(measured)


def _plan(rate: float, ties: float, power: float) -> dict[str, Any]:
    """What `hearken evaluate --plan` says."""
    from hearken.statistics.power import comparisons_needed, detectable

    try:
        found = comparisons_needed(rate, ties=ties, power=power)
    except ValueError as error:
        raise UserError(f"--plan {rate:g}: {error}", "For example: --plan .55 --ties .1") from None
    return {
        "win_rate": rate, "comparisons": found.comparisons, "prompts": found.prompts,
        "interval_half_width": found.half_width,
        "half_as_many_find": detectable(max(found.comparisons // 2, 1), ties=ties, power=power),
        "twice_as_many_find": detectable(2 * found.comparisons, ties=ties, power=power),
    }  # fmt: skip


def report(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Write report.html: what was done, what changed, whether it is better, and whether the reward is being fooled.

    With --json, everything that stands in the report is printed as well.
    """
    with clean_stdout():
        from hearken.loop.project import Project
        from hearken.loop.reporting import write_report

        path, found = write_report(Project(project))
    emit({"report": str(path), **(found.to_dict() if as_json else {})}, as_json)
