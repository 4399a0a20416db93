"""``hearken quickstart``: the whole loop on the built-in tale world."""

from __future__ import annotations

import math
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hearken.cli.console import JsonOption, clean_stdout, emit
from hearken.progress import duration

if TYPE_CHECKING:
    from hearken.loop.goal import Goal
    from hearken.loop.project import Project


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken quickstart my-tales")(quickstart)


def quickstart(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="A new folder, or one to go on with.")] = Path(
        "my-tales"
    ),
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A smoke test of a minute; its figures mean little.")] = False,
    human: Annotated[bool, typer.Option("--human", help="You judge, on a page in your browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole loop on the built-in tale world, in minutes on two cores; ends with report.html.

    Trains a small language model on generated tales, fine-tunes it on demonstrations, samples responses, lets
    simulated labelers with two tastes rank them, fits a reward model, improves the policy with PPO-ptx and measures it
    by the true reward. Run the same command again to go on after an interruption.

    With --human the judgments are yours: a page opens at once, with some items to practise on while the model still
    trains. Stop whenever you like (Ctrl-C once, or "Train now"): simulated labelers do the rest. The report shows what
    was learned of your taste.
    """
    from hearken.loop.quickstart import quickstart as run

    with clean_stdout():
        summary = run(directory, seed=seed, fast=fast, **({"seat": _seat} if human else {}))
    if human and sys.stdout.isatty():
        webbrowser.open(Path(summary["report"]).resolve().as_uri())
    if as_json:
        emit(summary, as_json=True)
    else:
        emit(closing(summary), as_json=False, title="What changed")


@contextmanager
def _seat(project: Project, goal: Goal) -> Iterator[None]:
    """The labelling page for whoever started this command."""
    from hearken.server.run import Address
    from hearken.server.seat import seat

    def ready(address: Address) -> None:
        typer.echo(
            f"\n{goal.needed} judgments of yours are needed. Give them here:\n\n    {address.link}\n\n"
            "You can begin now: there are tales to judge while the model is still learning. Stop whenever you like, "
            "with Ctrl-C\nor the page's button; simulated labelers do the rest.\n",
            err=True,
        )

    with seat(project.path, goal, on_ready=ready, open_browser=sys.stderr.isatty()):
        yield


def closing(summary: dict[str, Any]) -> dict[str, str]:
    """The summary in a few plain words."""
    reward, ppo, perplexity = (summary[name] for name in ("reward", "ppo", "perplexity"))
    groups = ", ".join(f"{name} {_share(rate)}" for name, rate in ppo["win_rate_by_group"].items())
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in perplexity.items() if value)
    return _about_you(summary.get("human")) | {
        "Reward model": f"right in {_share(reward['accuracy'])} of held-out comparisons; "
        f"the labelers' noise allows {_share(reward['ceiling'])}",
        "PPO against SFT": f"wins {_share(ppo['win_rate'])} by the true reward "
        f"({_share(ppo['win_rate_low'])} to {_share(ppo['win_rate_high'])}); by group: {groups}",
        "Distance": f"KL {ppo['kl']:.1f} nats a tale",
        "Grammar": f"{_share(ppo['parse_rate'])} of the tales parse",
        "Perplexity of plain text": figures,
        "Time": duration(summary["seconds"]),
        "Report": str(summary["report"]),
    }


def _about_you(found: dict[str, Any] | None) -> dict[str, str]:
    if found is None:
        return {}
    said = f"{found['judgments']} of {found['needed']} judgments"
    if found["agreement"] is not None:
        said += (
            f"; the reward model prefers what you preferred in {_share(found['agreement'])} of "
            f"{found['held_out_pairs']} held-out pairs"
        )
    return {"You": said}


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"
