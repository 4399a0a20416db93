"""``hearken evaluate``, ``card``, ``power``: which policy is better, is a reward model good enough, how many to ask."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, SeedOption, clean_stdout, emit
from hearken.cli.reading import ReadingCommand, reading
from hearken.errors import UserError

if TYPE_CHECKING:
    from hearken.evaluation.request import EvaluationRequest
    from hearken.evaluation.results import EvaluationResult
    from hearken.evaluation.reward_card import RewardCard
    from hearken.feedback.reading import ReadingOptions
    from hearken.loop.project import Project

PessimismOption = Annotated[
    float, typer.Option(min=0, metavar="C", help="For --best-of: take C widths of its confidence off each score.")
]
CurveOption = Annotated[
    bool, typer.Option("--learning-curve", help="Train it again on parts of its labels, which takes a while.")
]
LargerOption = Annotated[
    str, typer.Option(metavar="MODEL", help="Train this model on the same labels, to see if size helps.")
]
StrangersOption = Annotated[
    bool, typer.Option("--held-out-labelers", help="Train it again without a quarter of the labelers, try theirs.")
]
TiesOption = Annotated[float, typer.Option(min=0, max=0.99, help="The share of ties to expect.")]
ChanceOption = Annotated[float, typer.Option("--power", min=0.01, max=0.99, help="The chance of finding it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=ReadingCommand, epilog="Example:  hearken evaluate --policy r01-ppo")(evaluate)
    app.command(cls=ReadingCommand, epilog="Example:  hearken card my-reward --data held-out.jsonl")(card)
    app.command(epilog="Example:  hearken power .55 --ties .1")(power)


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
        list[str] | None, typer.Option(metavar="FILE", help="Prompts from a file; no project is needed then.")
    ] = None,
    reward: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The reward model.", show_default="the one in use")
    ] = None,
    pool: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Of how many of the baseline's responses a prompt what the reward allows is found; 0 leaves it out.",
        ),
    ] = 32,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for people; else ask, and look again another time.")
    ] = True,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", "-o", metavar="KEY=VALUE", help="A setting of hearken.yaml: sample.temperature=.7"),
    ] = None,
    plan: Annotated[float | None, typer.Option(hidden=True)] = None,
    ties: Annotated[float, typer.Option(min=0, max=0.99, hidden=True)] = 0.0,
    chance: Annotated[float, typer.Option("--power", min=0.01, max=0.99, hidden=True)] = 0.8,
    only_card: Annotated[str | None, typer.Option("--card", hidden=True)] = None,
    learning_curve: Annotated[bool, typer.Option("--learning-curve", hidden=True)] = False,
    larger: Annotated[str, typer.Option(hidden=True)] = "",
    held_out_labelers: Annotated[bool, typer.Option("--held-out-labelers", hidden=True)] = False,
    seed: SeedOption = None,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Which policy is better? On held-out prompts, by the true reward, a reward model, people or an AI.

    Inside a project, or on bare models with --data. Win rates are with intervals by bootstrap over prompts.
    The project's reward model is measured on held-out judgments as well: its card, as by hearken card.
    """
    if plan is not None:
        _moved("--plan", "hearken power RATE")
        power(plan, ties, chance, as_json)
        return
    again = _Trained(learning_curve, larger, held_out_labelers)
    if only_card is not None:
        _moved("--card", "hearken card MODEL")
        emit(_card(project, only_card, data or (), again, reading(ctx)), as_json, "On held-out comparisons")
        return
    if again.wanted:
        _moved("--learning-curve, --larger and --held-out-labelers", "hearken card, which takes them")
    with clean_stdout():
        from hearken.evaluation.request import EvaluationRequest, evaluate_models
        from hearken.loop.asking import Waiting
        from hearken.loop.project import CONFIG, ProjectConfig

        request = EvaluationRequest(
            policies=policy or (), against=against, prompts=prompts, data=data or (), reward=reward, judge=judge,
            everything=everything, best_of=best_of or (), pessimism=pessimism, width=width,
            perplexity=perplexity or (), tasks=task or (), seeds=seeds, seed=seed, pool=pool, reading=reading(ctx),
        )  # fmt: skip
        missing, measured = 0, None
        if not (project / CONFIG).is_file() and policy and (data or perplexity or task):
            from hearken.config import assign

            values: dict[str, Any] = {"model": against or policy[0]}
            for words in override or []:
                assign(values, words)
            config = ProjectConfig.parse(values, where="--set")
            found = evaluate_models(request, config.sample.parameters, config.seed + 1)
        else:
            from hearken.cli.loop import open_project

            try:
                found, measured = _in_project(open_project(project, override or []), request, again, wait)
            except Waiting as waiting:
                missing = waiting.missing
    if missing and as_json:
        emit({"waiting_for": missing}, True)
    elif missing:
        typer.echo(f"{missing} judgments are waited for. Run the same command again later.")
    elif as_json:
        emit(found.model_dump(mode="json") | ({} if measured is None else {"reward_model": measured}), True)
    else:
        from hearken.cli.standings import show

        show(found)


@dataclass(frozen=True)
class _Trained:
    """What a card may ask a reward model's training for once more."""

    learning_curve: bool
    larger: str
    held_out_labelers: bool

    @property
    def wanted(self) -> bool:
        return self.learning_curve or bool(self.larger) or self.held_out_labelers

    def options(self) -> dict[str, Any]:
        """For `cards.project_card` and `cards.evaluate_reward`."""
        return {**vars(self), "announce": _announce}


def _announce(text: str) -> None:
    typer.echo(text, err=True)


def _moved(option: str, instead: str) -> None:
    warnings.warn(f"{option} of hearken evaluate will go: use {instead}", stacklevel=2)


def _in_project(
    project: Project, request: EvaluationRequest, again: _Trained, wait: bool
) -> tuple[EvaluationResult, dict[str, Any]]:
    """The policies, and the head of the reward model's card."""
    from hearken.loop import cards
    from hearken.loop.evaluating import evaluate as run

    found = run(project, request, wait=wait, announce=_announce)
    return found, cards.summary(cards.project_card(project, **again.options()))


def card(
    ctx: typer.Context,
    reward: Annotated[str, typer.Argument(metavar="[MODEL]", help="A reward model: an artifact or a folder.")] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Comparisons to measure it on.", show_default="those held out"),
    ] = None,
    learning_curve: CurveOption = False,
    larger: LargerOption = "",
    held_out_labelers: StrangersOption = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Is a reward model good enough to train a policy on? Its card, by held-out comparisons.

    Accuracy beside what length alone gives and what labelers agree on, calibration, weak slices, probes. It is kept as
    card.json beside the model. In a project MODEL is by default the reward model in use.
    """
    again = _Trained(learning_curve, larger, held_out_labelers)
    emit(_card(project, reward, data or (), again, reading(ctx)), as_json, "On held-out comparisons")


def _card(folder: Path, name: str, data: Sequence[str], again: _Trained, reading: ReadingOptions) -> dict[str, Any]:
    """The head of the card of a reward model's folder, or of an artifact of the project."""
    with clean_stdout():
        from hearken.loop import cards
        from hearken.loop.project import Project

        measured: RewardCard | None
        if name and (data or not (folder / "artifacts" / name).is_dir()):
            measured = cards.evaluate_reward(name, data, reading=reading, **again.options())
        else:
            measured = cards.project_card(Project(folder), name or None, **again.options())
    if measured is None:
        raise UserError(
            f"nothing is held out to measure {name or 'a reward model'} on", "Label prompts of the validation split"
        )
    return cards.summary(measured)


def power(
    rate: Annotated[float, typer.Argument(metavar="RATE", help="The win rate to be told from .5, such as .55.")],
    ties: TiesOption = 0.0,
    chance: ChanceOption = 0.8,
    as_json: JsonOption = False,
) -> None:
    """How many comparisons tell a win rate from one half? Before anybody is asked; it needs no project."""
    from hearken.statistics.power import comparisons_needed, detectable

    try:
        found = comparisons_needed(rate, ties=ties, power=chance)
    except ValueError as error:
        raise UserError(f"a win rate of {rate:g}: {error}", "For example: hearken power .55 --ties .1") from None
    told = {
        "win_rate": rate, "comparisons": found.comparisons, "prompts": found.prompts,
        "interval_half_width": found.half_width,
        "half_as_many_find": detectable(max(found.comparisons // 2, 1), ties=ties, power=chance),
        "twice_as_many_find": detectable(2 * found.comparisons, ties=ties, power=chance),
    }  # fmt: skip
    emit(told, as_json, "Before you start")
