"""What the quickstarts of both worlds do alike: open the project, have answers judged, compare, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hearken.config import read_yaml
from hearken.errors import UserError
from hearken.evaluation.results import FILE, EvaluationResult, read_evaluation, write_evaluation
from hearken.evaluation.summary import Finished, Summary
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import read_examples
from hearken.feedback.pairs import decided, hits
from hearken.loop import human, taste
from hearken.loop.cards import project_card
from hearken.loop.labelling_target import Goal
from hearken.loop.project import CONFIG, Project, ProjectConfig, model_in
from hearken.loop.quickstart_plans import NotesPlan, Plan, settled
from hearken.loop.reporting import write_report
from hearken.rewards.trust import CARD
from hearken.training.artifact import Artifact

Step = Callable[[str], AbstractContextManager[None]]


def open_project(path: Path, config: ProjectConfig) -> Project:
    """A new project, or the one that an interrupted quickstart with the same settings left.

    Raises:
        UserError: the folder holds something else.
    """
    if not (path / CONFIG).exists():
        return Project.create(path, config)
    before = ProjectConfig.parse(read_yaml(path / CONFIG), CONFIG)
    same = {"stages": config.stages, "model": config.model}
    alike = before.model_copy(update=same) == config and before.stages.keys() == config.stages.keys()
    alike = alike and model_in(path, before.model) == model_in(path, config.model)
    if not alike or any(
        settled(name, before.stages[name], config.domain) != settled(name, config.stages[name], config.domain)
        for name in config.stages
    ):
        raise UserError(
            f"{path} holds a project with other settings",
            "Use the same --model, --seed, --fast and --human, or another folder",
        )
    return Project(path)


def steps(project: Project, goal: Goal | None, said: Mapping[str, str]) -> Step:
    """A step of the run: timed, and told in the words of ``said`` to the person who waits."""

    @contextmanager
    def step(name: str) -> Iterator[None]:
        if goal is not None:
            goal.say(said[name])
        with project.timed(name):
            yield

    return step


def judged(project: Project, step: Step, plan: Plan | NotesPlan, policy: str, goal: Goal | None) -> None:
    """Responses of a policy, ranked by the person at this machine, else (and what they left) by simulated labelers."""
    with step("Sampling"):
        for split, count in (("train", plan.judged), ("validation", plan.heldout_judged)):
            project.sample(prompts=count, policy=policy, split=split)
    if goal is not None:
        with step("Your judgments"):
            human.ask(project, goal)
    with step("Judgments"):
        if plan.needed:
            human.leave_the_rest(project)
        else:
            project.label("simulated")


def concluded(
    project: Project, step: Step, reward: Artifact, compare: Callable[[], EvaluationResult],
    summarise: Callable[[EvaluationResult], Summary], person: taste.View | None,
) -> Finished:  # fmt: skip
    """Compare policies, once; measure the reward model and, where a ``person`` judged, their taste; write the report.

    Raises:
        UserError: an evaluation stands there already that no quickstart made.
    """
    saved = project.path / FILE
    with step("Evaluation"):
        if not saved.exists():
            found = compare()
            found = found.but(ceiling=ceiling(project))
            write_evaluation(saved, found.but(summary=summarise(found)))
        summary = read_evaluation(saved).summary
        if summary is None:
            raise UserError(f"{saved} is not a quickstart's", "Remove it, and go on with the same command")
        yours = taste.summary(project, person) if person is not None else None
    with step("Card of the reward model"):
        if not (reward.path / CARD).exists():
            project_card(project)
    report, _ = write_report(project)
    seconds = round(sum(project.step_seconds().values()), 1)
    return Finished(summary, yours, seconds, report)


def ceiling(project: Project) -> float:
    """Accuracy of the exact vote probability on the held-out comparisons: what no reward model can beat on average."""
    panel = project.panel()
    rows = [r for r in read_examples(project.snapshot("validation")) if isinstance(r, Comparison)]
    pairs = decided(rows)
    margins = [panel.vote_probability(rows[p.judgment].prompt, p.a, p.b) - 0.5 for p in pairs]
    return float(hits(pairs, margins).mean())


def held_out_figures(reward: Artifact) -> dict[str, float]:
    """What a reward model's training found on the comparisons that it held out."""
    return {key: reward.metrics[key] for key in ("accuracy", "accuracy_low", "accuracy_high", "length_accuracy")}
