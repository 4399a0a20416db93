"""`hearken loop`: round after round, each step an artifact that is made once.

    sample  ->  judgments  ->  reward  ->  improve  ->  evaluation  ->  the next round

A step that is finished and whose settings are the same is skipped; one that was interrupted goes on. What people said
is never thrown away: samples and judgments are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from pydantic import JsonValue

from hearken.algorithms.stage import Inputs, Stage, reward_stage, stages
from hearken.config import Options
from hearken.errors import UserError
from hearken.evaluation.results import FILE, plain, write_evaluation
from hearken.evaluation.round_record import RoundRecord, read_round
from hearken.feedback.records import hash_id
from hearken.feedback.snapshot import inline_examples
from hearken.labelers.kinds import JudgeName
from hearken.loop.asking import Waiting, check_labelers
from hearken.loop.cards import project_card, renew_shift
from hearken.loop.collecting import judgments, samples
from hearken.loop.measured import keep_apart, known_before
from hearken.loop.project import Fading, Project
from hearken.loop.rounds_options import LoopOptions
from hearken.loop.step_cache import DataAndMetrics, Once
from hearken.progress import progress
from hearken.rewards.trust import CARD, failing
from hearken.training.artifact import MANIFEST, Artifact

if TYPE_CHECKING:
    from hearken.algorithms.watch import Judge as Watcher

STEPS = ("samples", "judgments", "reward", "improve", "evaluation")


class Finished(TypedDict):
    """What the rounds came to."""

    rounds: int
    """Finished ones."""
    policy: str
    """The newest."""
    waiting_for: int
    """Judgments of people that are missing; 0 where everything is done."""
    figures: list[dict[str, JsonValue]]
    """Of each round: see `RoundRecord`."""


class EvaluationOptions(Options):
    """How the policies are compared."""

    seed: int
    prompts: int
    judge: JudgeName
    perplexity: list[str]
    tasks: list[str]


@dataclass
class Loop:
    """Rounds in a project.

    Attributes:
        project: whose path should be absolute, so that manifests say the same wherever the command is run.
        wait: wait for people; else stop where they are needed, to go on another time.
        redo: make steps again whose settings have changed since.
        announce: takes lines for the person at the terminal.
        relieved: whether people have had enough: what is asked of them is left to simulated labelers.
    """

    project: Project
    wait: bool = True
    redo: bool = False
    announce: Callable[[str], None] = lambda _: None
    relieved: Callable[[], bool] = lambda: False
    records: list[RoundRecord] = field(default_factory=list)

    @property
    def config(self) -> LoopOptions:
        """The section ``loop`` of hearken.yaml."""
        return self.project.config.loop

    def run(self, rounds: int | None = None) -> Finished:
        """Run (or go on with) ``rounds`` rounds in all.

        Raises:
            UserError: settings that cannot work, or that have changed since a step was made.
        """
        rounds = rounds or self.config.rounds
        self._check()
        with _alone(self.project.path), progress("Rounds", rounds * len(STEPS), "step") as bar:
            for number in range(1, rounds + 1):
                try:
                    for step in self._round(number):
                        bar.advance(1, f"round {number} of {rounds}: {step}")
                except Waiting as waiting:
                    return self._summary(number - 1, waiting.missing)
        return self._summary(rounds, 0)

    @property
    def once(self) -> Once:
        """Makes this project's artifacts."""
        return Once(self.project, self.redo, self._follows)

    def _follows(self, number: int) -> list[Path]:
        """What a round makes after its reward models, in order."""
        refits = sorted(self.project.artifacts.glob(f"r{number:02d}-refit-*"))
        return [Path(self.policy(number)), *refits, self.project.artifacts / f"r{number:02d}-evaluation"]

    def _summary(self, rounds: int, missing: int) -> Finished:
        policy = self.policy(rounds) if rounds else self.project.first_policy()
        figures = [{"round": record.number, **record.told()} for record in self.records]
        return {"rounds": rounds, "policy": Path(policy).name, "waiting_for": missing, "figures": figures}

    def _check(self) -> None:
        config, stage = self.config, self.project.stage(self.config.improve)
        check_labelers(self.project, list(config.labelers))
        if config.judge == "simulated":
            check_labelers(self.project, ["simulated"])
        if config.judge == "gold" and not self.project.config.world:
            raise UserError("loop.judge: gold is known in a built-in world only", "Set it to reward, people or ai")
        if not stage.takes("model") or stage.makes != "policy" or not {"prompt", "comparison"} & set(stage.reads):
            raise UserError(
                f"loop.improve: '{stage.name}' improves no policy by comparisons", "For example: ppo, rloo, grpo, dpo"
            )
        known, _ = self.project.section(stage)
        for one in stage.inputs:
            if one.required and one.name not in {"model", "data", "reward", *known}:
                raise UserError(
                    f"loop.improve: train {stage.name} needs --{one.name}",
                    f"Name it in hearken.yaml: stages: {{{stage.name}: {{{one.name}: ...}}}}",
                )
        if config.pessimism and "pessimism" not in stage.options.model_fields:
            raise UserError(
                f"loop.pessimism: train {stage.name} optimises no reward", "Leave it out, or improve by ppo"
            )
        if config.watch.judge:
            self._check_watch(stage)
        if config.ptx and not stage.takes("ptx"):
            raise UserError(f"loop.ptx: train {stage.name} does not read it", "Leave it out")
        if config.online.labels and not stage.refitted:
            able = " or ".join(one.name for one in stages() if one.refitted and one.domain == self.project.domain.name)
            raise UserError(
                f"loop.online: labels can arrive while {able} trains", f"Set loop.improve to {able}, not {stage.name}"
            )

    def _check_watch(self, stage: Stage) -> None:
        judge = self.config.watch.judge
        if not stage.watched:
            able = " or ".join(one.name for one in stages() if one.watched and one.domain == self.project.domain.name)
            raise UserError(f"loop.watch: train {stage.name} asks nobody on its way", f"Improve by {able}")
        if judge == "gold" and not self.project.config.world:
            raise UserError("loop.watch.judge: gold is known in a built-in world only", "Set it to people or ai")
        if judge == "simulated":
            check_labelers(self.project, ["simulated"])

    # A round

    def _round(self, number: int) -> Iterator[str]:
        """The steps of a round, each named when it is done."""
        project = self.project
        with project.timed("Sampling"):
            samples(self, number)
        yield "samples"
        with project.timed("Judgments"):
            told = judgments(self, number)
        yield "judgments"
        if self.needs_reward:
            with project.timed("Reward model"):
                for member in range(self.config.ensemble):
                    self.reward(number, told, member)
                self.card(number)
        yield "reward"
        with project.timed(f"{self.config.improve.upper()}, round {number}"):
            new = not (Path(self.policy(number)) / MANIFEST).is_file()
            improved = self.improve(number, told).metrics
            if self.config.online.labels:  # what improved it last is what the next policy would be improved by
                self._measure(Path(self.reward_in_use(number)))
        if new and improved.get("says"):
            self.announce(f"{Path(self.policy(number)).name}: {improved['says']}")
        yield self.config.improve
        with project.timed("Evaluation"):
            evaluation = self.evaluation(number)
            if self.needs_reward:
                renew_shift(project, Path(self.reward_in_use(number)), Path(self.policy(number)).name)
        seen = {key: improved[key] for key in ("fooled", "best_step") if key in improved}
        self.records.append(read_round(evaluation).but(**seen))
        yield "evaluation"

    @property
    def needs_reward(self) -> bool:
        """Whether anything here reads a reward model."""
        stage, config = self.project.stage(self.config.improve), self.config
        judged_by_it = config.judge == "reward" or (config.judge == "auto" and not self.project.config.world)
        return stage.needs("reward") or config.select in ("disagreement", "low-score") or judged_by_it

    def policy(self, number: int) -> str:
        """The policy that round ``number`` leaves; for 0 the one that the first round samples from."""
        if number == 0:
            return self.project.first_policy()
        return str(self.project.artifacts / f"r{number:02d}-{self.config.improve}")

    def reward_path(self, number: int, member: int = 0) -> str:
        """The reward model of a round; the ensemble's others have numbers from 2."""
        return str(self.project.artifacts / f"r{number:02d}-reward{f'-{member + 1}' if member else ''}")

    def refit_path(self, number: int, refit: int) -> str:
        """A reward model refitted while the round's policy trained, from 1."""
        return str(self.project.artifacts / f"r{number:02d}-refit-{refit}")

    def reward_in_use(self, number: int) -> str:
        """The reward model that the round's policy was improved by in the end: its newest refit, if there was one."""
        policy = self.project.artifact(Path(self.policy(number)).name)
        refits = sum(role.startswith("refit ") for role, _ in policy.parents) if policy else 0
        return self.refit_path(number, refits) if refits else self.reward_path(number)

    # Reward model and policy

    def reward(self, number: int, judgments: Artifact, member: int = 0) -> Artifact:
        """Fit a reward model on what all rounds so far were told (or this one alone)."""
        config, project = self.config, self.project
        as_of = judgments.as_of
        only = number if config.reward_data == "round" else None
        faded = Fading(as_of=as_of, round=only, decay=config.decay if only is None else 1.0, latest=number)
        held_out = self._stored("comparison", as_of, "validation")

        def ready() -> None:
            project.snapshot("train", **faded)
            if held_out:
                project.snapshot("validation", as_of=as_of)
            if not config.references and references:
                self._make_once(references[0], "demonstration", as_of)

        last = config.reward_start == "last" and number > 1
        references = tuple(config.references) or self._stored("demonstration", as_of)
        inputs = Inputs(
            model=self.reward_path(number - 1, member) if last else project.first_policy(),
            data=(str(project.snapshot_path("train", **faded)),),
            validation=held_out, references=references, parents=self._judged(number, only),
            role="ensemble" if member else "reward",
        )  # fmt: skip
        seed, out = project.config.seed + 1000 * member, Path(self.reward_path(number, member))
        return self.once.train(reward_stage(project.domain.name).name, out, inputs, number, ready, seed=seed)

    def card(self, number: int) -> None:
        """Measure the round's reward model on held-out judgments, and refuse to go on where its card fails.

        Raises:
            UserError: it fails, and the owner has not said that it is trusted.
        """
        path, config = Path(self.reward_path(number)), self.config
        self._measure(path)
        stage, values = self.project.stage(config.improve), self.project.config.stages.get(config.improve, {})
        improved = (Path(self.policy(number)) / MANIFEST).is_file()
        if not stage.needs("reward") or improved or config.trust_reward or values.get("trust_reward"):
            return
        if said := failing(path):
            raise UserError(
                f"{path.name}: its card ({path / CARD}) says that it is not good enough to improve by. {said}",
                "Have more answers judged (hearken sample, serve, import) or change stages.reward, and run: "
                "hearken loop --redo. Or go on all the same: hearken loop -o loop.trust_reward=true",
            )

    def _measure(self, reward: Path) -> None:
        """Make a reward model's card, where it has none yet."""
        if (reward / CARD).is_file():
            return
        made = project_card(self.project, reward.name)
        if made is not None and made.passes:
            self.announce(f"{reward.name}: its card passes ({made.accuracy.estimate:.0%} of {made.pairs} pairs)")

    def _judged(self, number: int, only: int | None) -> dict[str, str]:
        rounds = [number] if only else range(1, number + 1)
        return {f"judgments {n}": str(self.project.artifacts / f"r{n:02d}-judgments") for n in rounds}

    def _stored(self, kind: str, as_of: int, split: str = "train") -> tuple[str, ...]:
        """Path of a data set of the database's examples of a kind, where it has some."""
        path = self.project.snapshot_path(split, kinds=(kind,), as_of=as_of)
        if path.exists():
            return (str(path),)
        with self.project.store() as store:
            some = next(inline_examples(store, (kind,), split, as_of, evaluations=False), None)
        return (str(path),) if some is not None else ()

    def _make_once(self, path: str, kind: str, as_of: int) -> None:
        """Prompts have no number by which a later look could leave new ones out: the first look stands."""
        if not Path(path).exists():
            self.project.snapshot("train", kinds=(kind,), as_of=as_of)

    def improve(self, number: int, judgments: Artifact) -> Artifact:
        """Improve the first policy, or the last round's, by the round's reward model (or by its judgments)."""
        config, project = self.config, self.project
        stage = project.stage(config.improve)
        as_of = judgments.as_of
        start = self.policy(number - 1 if config.policy_start == "last" else 0)
        inputs = Inputs(model=start, role="policy")
        kind = "comparison" if "comparison" in stage.reads else "prompt"
        faded = Fading(as_of=as_of, round=None, decay=config.decay, latest=number)
        if config.data:
            inputs = replace(inputs, data=tuple(config.data))
        elif kind == "prompt" and stage.takes("data"):
            inputs = replace(inputs, data=(str(project.snapshot_path("train", kinds=("prompt",), as_of=as_of)),))
        elif kind == "comparison":
            data = (str(project.snapshot_path("train", **faded)),)
            held_out = self._stored("comparison", as_of, "validation") if stage.takes("validation") else ()
            inputs = replace(inputs, data=data, validation=held_out, parents=self._judged(number, None))
        if stage.needs("reward"):
            inputs = replace(inputs, reward=self.reward_path(number))
            if config.pessimism and config.width == "models":
                members = [self.reward_path(number, m) for m in range(config.ensemble)]
                parents = {f"reward {m + 1}" if m else "reward": path for m, path in enumerate(members)}
                inputs = replace(inputs, reward=",".join(members), parents=parents)
        reference = self.policy(number - 1 if config.reference == "last" else 0)
        inputs = replace(inputs, ref=reference if stage.takes("ref") else None, ptx=tuple(config.ptx))
        judge: Watcher | None = None
        if config.watch.judge:
            from hearken.loop.watching import watcher

            inputs = replace(inputs, validation=(str(project.path / "snapshots" / f"watch-{as_of}.jsonl"),))
            judge = watcher(self, Path(self.policy(number)).name, reference)

        def ready() -> None:
            if kind == "prompt" and not config.data and stage.takes("data"):
                self._make_once(inputs.data[0], "prompt", as_of)
            elif kind == "comparison" and not config.data:
                project.snapshot("train", **faded)
                if inputs.validation:
                    project.snapshot("validation", as_of=as_of)
            if config.watch.judge:
                from hearken.loop.watching import hold_out

                hold_out(project, Path(inputs.validation[0]), config.evaluate, config.watch.prompts)

        out = Path(self.policy(number))

        def train(inputs: Inputs, options: Options) -> Artifact:
            if config.online.labels:
                from hearken.loop.online import train_online

                return train_online(self, number, inputs, options, out, judge)
            from hearken.loop.watching import train_watched

            return train_watched(self, inputs, options, out, judge)

        by = train if config.online.labels or judge else None
        seed = project.config.seed + number
        return self.once.train(config.improve, out, inputs, number, ready, by=by, seed=seed, **self._believed(stage))

    def _believed(self, stage: Stage) -> dict[str, object]:
        """Options of the stage that say how far the reward is believed, and who watches."""
        config, watch = self.config, self.config.watch
        found: dict[str, object] = {}
        if config.pessimism:
            found |= {"pessimism": config.pessimism, "width": config.width}
        if config.trust_reward and "trust_reward" in stage.options.model_fields:
            found["trust_reward"] = True
        if watch.judge:
            found |= {
                "judge": watch.judge, "judge_every": watch.every, "judge_prompts": watch.prompts,
                "early_stop": config.early_stop,
            }  # fmt: skip
        return found

    # Evaluation

    def evaluation(self, number: int) -> Artifact:
        """Compare the first policy with those of all rounds so far on held-out prompts; keeps every response."""
        config, project = self.config, self.project
        options = EvaluationOptions(
            seed=project.config.seed + 1, prompts=config.evaluate, judge=config.judge, perplexity=config.perplexity,
            tasks=config.tasks,
        )  # fmt: skip
        policies = [self.policy(n) for n in range(number + 1)]
        parents = {f"policy {n}": path for n, path in enumerate(policies)}
        if self.needs_reward:
            parents["reward"] = self.reward_in_use(number)

        def make(out: Path) -> DataAndMetrics:
            from hearken.evaluation.capability import texts_of
            from hearken.evaluation.policies import compare
            from hearken.loop.evaluating import conditions, judge

            prompts = project.held_out(options.prompts)
            found = compare(
                policies, conditions(project, prompts, options.seed, reward=parents.get("reward")),
                judge(project, options.judge, options.seed, wait=self.wait, announce=self.announce),
                perplexity=texts_of(options.perplexity), tasks=options.tasks,
            )  # fmt: skip
            write_evaluation(out / FILE, found)
            asked = [plain(prompt) for prompt in found.prompts]
            data = {"hash": hash_id(asked), "prompts": len(asked), "judge": str(found.judge)}
            mine = found.policies[Path(policies[-1]).name]
            with suppress(UserError):  # a damaged file is written anew
                found = keep_apart(found, known_before(project))
            write_evaluation(project.path / FILE, found)
            return data, RoundRecord(number=number, policy=Path(policies[-1]).name).reached(mine).told()

        name = f"r{number:02d}-evaluation"
        return self.once.record(name, "evaluation", Inputs(parents=parents), options, make, number)


def plan(project: Project, rounds: int | None = None) -> dict[str, str]:
    """Which steps of the loop are done, by artifact; nothing is made."""
    loop = Loop(project)
    loop._check()
    found: dict[str, str] = {}
    for number in range(1, (rounds or loop.config.rounds) + 1):
        names = [f"r{number:02d}-samples", f"r{number:02d}-judgments"]
        if loop.needs_reward:
            names += [Path(loop.reward_path(number, m)).name for m in range(loop.config.ensemble)]
        for name in [*names, Path(loop.policy(number)).name, f"r{number:02d}-evaluation"]:
            folder = project.artifacts / name
            begun = "begun" if folder.exists() else "to do"
            found[name] = "done" if (folder / MANIFEST).is_file() else begun
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One loop at a time in a project; the lock falls with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    (path / "runs").mkdir(exist_ok=True)
    with (path / "runs" / "loop.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another hearken loop is at work in {path}", "Let it finish, or end it first") from None
        yield
