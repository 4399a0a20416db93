"""The commands of a project folder: init, sample, label, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, SeedOption, clean_stdout, emit
from hearken.errors import UserError

PolicyOption = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="An artifact, a folder or a Hub name.", show_default="the newest policy"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example:  hearken init my-project --model my-sft --prompts prompts.jsonl")(init)
    app.command(epilog="Example:  hearken sample -k 4 --prompts 200")(sample)
    app.command(epilog="Example:  hearken label --with simulated")(label)
    app.command(epilog="Example:  hearken evaluate --policy r01-ppo")(evaluate)
    app.command(epilog="Example:  hearken report")(report)


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="The policy to begin with: a folder or a Hub name.")],
    prompts: Annotated[str, typer.Option(metavar="FILE", help="The prompts: a file, a folder or a Hub name.")],
    seed: Annotated[int, typer.Option(help="Fixes every draw of the project.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """A new project: a folder with hearken.yaml and the feedback database."""
    with clean_stdout():
        from hearken.loop.project import Project

        done = Project.init(directory, model=model, prompts=prompts, seed=seed)
    emit({"project": str(done.path)}, as_json, "Ready. Next: hearken sample")


def sample(
    k: Annotated[
        int | None, typer.Option("-k", min=2, help="Responses per prompt.", show_default="the project's")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many prompts.")] = None,
    policy: PolicyOption = None,
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Responses of a policy into the feedback database, queued for judgment."""
    with clean_stdout():
        from hearken.loop.project import Project

        done = Project(project).sample(k, prompts=prompts, policy=policy, seed=seed)
    emit(done, as_json, "Sampled")


def label(
    labeler: Annotated[Literal["simulated", "ai"], typer.Option("--with", help="Who answers the queue.")] = "simulated",
    server: Annotated[
        str, typer.Option(metavar="URL", help="A running 'hearken serve' whose queue is answered (simulated labelers).")
    ] = "",
    token: Annotated[
        str, typer.Option(metavar="TOKEN", envvar="HEARKEN_TOKEN", help="For --server: one that may write.")
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
        bool, typer.Option("--revise", help="ai: critique and rewrite responses instead (demonstrations for SFT).")
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
    with clean_stdout():
        from hearken.loop.project import Project

        opened = Project(project)
        if labeler == "ai":
            done = opened.ai_labels(
                judge, url=url, constitution=constitution, reasoning=reasoning, revise=revise, workers=workers,
                per_minute=per_minute, price_in=price_in, price_out=price_out, seed=seed, dry_run=dry_run,
                announce=lambda text: typer.echo(text, err=True),
            )  # fmt: skip
            if "overlap" in done:
                from hearken.labelers.answering import say

                typer.echo(say(done), err=True)
        elif server:
            from hearken.server.client import HearkenClient, label_over_http

            with HearkenClient(server, token) as client:
                done = label_over_http(client, opened.panel(), opened.config.seed if seed is None else seed)
        else:
            done = opened.label(labeler, seed=seed)
    emit(done, as_json, "Estimated" if dry_run else "Labelled")


def evaluate(
    policy: PolicyOption = None,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The policy to compare with.", show_default="the first policy")
    ] = None,
    prompts: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only so many held-out prompts.")] = None,
    reward: Annotated[
        str | None, typer.Option(metavar="DIR", help="Only a card of this reward model (also outside a project).")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Held-out comparisons for --reward; else those its training held out."),
    ] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Card: train it again on parts of its labels, which takes a while.")
    ] = False,
    larger: Annotated[
        str, typer.Option(metavar="MODEL", help="Card: train this model on the same labels, to see if size helps.")
    ] = "",
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Measure a policy against another on held-out prompts, and the reward model on held-out judgments (its card)."""
    with clean_stdout():
        from hearken.loop import cards

        if reward is not None and (data or not (project / "artifacts" / reward).is_dir()):
            card = cards.evaluate_reward(reward, data or (), learning_curve=learning_curve, larger=larger)
            done: dict[str, Any] = cards.summary(card)
        else:
            from hearken.loop.project import Project

            opened = Project(project)
            done = {} if reward else opened.evaluate(policy=policy, against=against, prompts=prompts, seed=seed)
            measured = cards.project_card(opened, reward, learning_curve=learning_curve, larger=larger)
            if reward and measured is None:
                raise UserError(f"nothing is held out to measure {reward} on", "Label prompts of the validation split")
            done |= cards.summary(measured) if reward and measured else {"reward_model": cards.summary(measured)}
    emit(done, as_json, "On held-out comparisons" if reward else "On held-out prompts")


def report(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Write report.html: what was done, what changed, whether it is better."""
    with clean_stdout():
        from hearken.loop.project import Project

        done = Project(project).report()
    emit({"report": str(done)}, as_json)
