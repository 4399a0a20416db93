"""`hearken quickstart --world NAME`: a robot learns a behaviour that its environment holds no reward for.

A round of `hearken loop` whose labels go on arriving while the policy trains (Christiano et al. 2017): clips of the
robot that acts at random are compared, a reward is fitted, and clips of what the policy does by then are compared while
it is improved. Simulated labelers see how much a clip shows of the behaviour; the person at this machine just looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hearken.config import Options
from hearken.domains.base import find_domain
from hearken.errors import UserError
from hearken.evaluation.results import FILE, read_evaluation, write_evaluation
from hearken.evaluation.reward_card import RewardCard
from hearken.evaluation.summary import BehaviourFigures, BehaviourSummary, Finished
from hearken.feedback.records import Prompt
from hearken.feedback.splits import side
from hearken.labelers.kinds import Who
from hearken.loop import human
from hearken.loop.asking import Waiting
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project, ProjectConfig, SampleConfig
from hearken.loop.quickstart_steps import open_project
from hearken.loop.reporting import write_report
from hearken.loop.rounds import Loop
from hearken.loop.rounds_options import LoopOptions, OnlineOptions
from hearken.statistics.intervals import Interval
from hearken.training.artifact import write_json
from hearken.worlds.behaviours.world import Behaviour
from hearken.worlds.world import open_world

START = "random"
"""The policy that acts at random: a folder of the project."""
TOLD = "Clips appear here while the robot trains: what you choose is what it is paid for from then on."


class BehaviourPlan(Options):
    """How much of everything."""

    first: int = 75
    """Comparisons before the first update."""
    held_out: int = 25
    """Comparisons that the reward model is tested on."""
    online: int = 300
    """Comparisons while the policy trains."""
    refit_every: int = 20
    evaluate: int = 40
    """Starts from which the policies are compared."""
    needed: int = 0
    """Judgments that the person at this machine is asked for; 0 where nobody is."""
    ppo: dict[str, Any] = {"steps": 120_000}


FAST = BehaviourPlan(
    first=12, held_out=4, online=12, refit_every=6, evaluate=6, ppo={"steps": 2_048, "rollout": 64, "log_every": 512}
)  # fmt: skip


def in_person(plan: BehaviourPlan) -> BehaviourPlan:
    """The plan with one person instead of a panel: as many comparisons as somebody has the patience for."""
    few = {"first": 8, "held_out": 2, "online": 8, "refit_every": 4}
    some = {"first": 40, "held_out": 10, "online": 100, "refit_every": 10}
    plan = plan.model_copy(update=few if plan.first < BehaviourPlan().first else some)
    return plan.model_copy(update={"needed": plan.first + plan.held_out + plan.online})


def quickstart_behaviour(
    directory: Path | str, name: str, *, seed: int = 0, fast: bool = False, seat: human.Seat | None = None
) -> Finished:
    """Run (or go on with) the whole loop in ``directory``.

    Args:
        directory: a new folder, or one that an interrupted quickstart left.
        name: of a world of one behaviour.
        seed: fixes every draw.
        fast: a smoke test.
        seat: opens the labelling page for the person at this machine (`server.seat`), who then judges; without it
            simulated labelers do.

    Raises:
        UserError: the folder holds something else, or the world is of another sort.
        Waiting: judgments of the person are missing, and they have left.
    """
    world = open_world(name, seed)
    if not isinstance(world, Behaviour):
        raise UserError(f"--world {name} is no behaviour of a robot", "For example: --world handstand")
    plan = FAST if fast else BehaviourPlan()
    plan = plan if seat is None else in_person(plan)
    project = _open(Path(directory), name, world, plan, seed)
    if seat is None or human.record(project) is not None:
        return _run(project, world, plan, None)
    setting = human.Setting(world.question, world.guideline, (), {})
    with human.seated(project, setting, plan.needed, seat) as goal:
        goal.say(TOLD)
        return _run(project, world, plan, goal)


def _open(path: Path, name: str, world: Behaviour, plan: BehaviourPlan, seed: int) -> Project:
    who: Who = "people" if plan.needed else "simulated"
    online = OnlineOptions(labels=plan.online, refit_every=plan.refit_every)
    loop = LoopOptions(
        rounds=1, prompts=plan.first, held_out=plan.held_out, labelers={who: 1.0}, online=online, trust_reward=True,
        evaluate=plan.evaluate, poll_seconds=0.5,
    )  # fmt: skip
    config = ProjectConfig(
        model=START, domain=world.domain, world=name, seed=seed, validation=0.1, sample=SampleConfig(k=2),
        stages={"ppo": plan.ppo}, loop=loop,
    )  # fmt: skip
    project = open_project(path, config)
    world.write(project.path / START)
    domain = find_domain(world.domain)
    with project.store() as store:
        store.add_prompts(
            Prompt(content=prompt, domain=world.domain, split=side(prompt, config.validation, seed))
            for prompt in domain.prompts(str(project.path / START))
        )
    return project


def _run(project: Project, world: Behaviour, plan: BehaviourPlan, goal: Goal | None) -> Finished:
    relieved = (lambda: goal.reached) if goal is not None else (lambda: bool(plan.needed))
    loop = Loop(project, relieved=relieved)
    if missing := loop.run(1)["waiting_for"]:
        raise Waiting(missing)
    if goal is not None:
        goal.closed = True
        write_json(project.path / "runs" / human.RECORD, {"judgments": goal.done, "needed": goal.needed})
    saved = project.path / FILE
    found = read_evaluation(saved)
    summary = found.summary or _summary(project, world, loop)
    if found.summary is None:
        write_evaluation(saved, found.but(summary=summary))
    report, _ = write_report(project)
    return Finished(summary, None, round(sum(project.step_seconds().values()), 1), report)


def _summary(project: Project, world: Behaviour, loop: Loop) -> BehaviourSummary:
    policies = read_evaluation(project.path / FILE).policies
    before, after = policies[START], policies[Path(loop.policy(1)).name]
    made = project.artifact(Path(loop.policy(1)).name)
    assert before.gold and after.gold and after.win_rate and made is not None
    with project.store() as store:
        labels = sum(1 for _ in store.judgments(kinds=("comparison",)))
    card = RewardCard.load(Path(loop.reward_in_use(1)))
    return BehaviourSummary(
        seed=project.config.seed, world=project.config.world, labels=labels, steps=int(made.metrics["steps"]),
        accuracy=None if card is None else card.accuracy.estimate,
        behaviour=BehaviourFigures(
            before=_in_units(world, before.gold), after=_in_units(world, after.gold), unit=world.unit,
            target=world.target, win_rate=after.win_rate,
        ),
    )  # fmt: skip


def _in_units(world: Behaviour, gold: Interval) -> Interval:
    return Interval(*(world.in_units(value) for value in (gold.estimate, gold.low, gold.high)))
