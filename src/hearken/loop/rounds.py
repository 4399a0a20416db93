"""`hearken loop`: round after round, each step an artifact that is made once.

    sample  ->  judgments  ->  reward  ->  improve  ->  evaluation  ->  the next round

A step that is finished and whose settings are the same is skipped; one that was interrupted goes on. What people said
is never thrown away: samples and judgments are not made again.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hearken.algorithms.stage import Inputs, Stage, find_stage, run_stage
from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.records import Prompt, QueueItem, Response, hash_id
from hearken.feedback.selection import SelectionPolicy, by_weight
from hearken.feedback.snapshot import inline_examples
from hearken.feedback.store import FeedbackStore
from hearken.labelers.answering import agreement, verdicts
from hearken.loop.asking import KINDS, Waiting, ask, check_labelers
from hearken.loop.choosing import disputed, low_score, pair_disagreement, score_all
from hearken.loop.project import Project, SampleConfig, as_items, as_responses
from hearken.loop.rounds_options import Judge, LoopOptions, Selection, Who
from hearken.progress import progress
from hearken.rewards.trust import CARD, failing
from hearken.training.artifact import MANIFEST, Artifact, finish, hash_files, request_of, write_json

if TYPE_CHECKING:
    from hearken.algorithms.watch import Judge as Watcher

ITEMS = "items.jsonl"
STEPS = ("samples", "judgments", "reward", "improve", "evaluation")
WATCHED = ("ppo", "a2c")
"""Stages beside which somebody can watch."""
T = TypeVar("T")


class SamplesOptions(SampleConfig):
    """What a round asks."""

    seed: int
    prompts: int
    held_out: int
    labelers: dict[Who, float]
    select: Selection
    uniform: float
    candidates: float


class JudgmentsOptions(Options):
    """Whom it asks."""

    seed: int
    labelers: dict[Who, float]
    enough: float


class EvaluationOptions(Options):
    """How the policies are compared."""

    seed: int
    prompts: int
    judge: Judge
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
    """

    project: Project
    wait: bool = True
    redo: bool = False
    announce: Callable[[str], None] = lambda _: None
    figures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def config(self) -> LoopOptions:
        """The section ``loop`` of hearken.yaml."""
        return self.project.config.loop

    def run(self, rounds: int | None = None) -> dict[str, Any]:
        """Run (or go on with) ``rounds`` rounds in all.

        Returns:
            ``rounds`` that are finished, the newest ``policy``, ``figures`` of each round, and ``waiting_for``: how
            many judgments of people are missing (0 where everything is done).

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

    def _summary(self, rounds: int, missing: int) -> dict[str, Any]:
        policy = self.policy(rounds) if rounds else self.project.first_policy()
        return {"rounds": rounds, "policy": Path(policy).name, "waiting_for": missing, "figures": self.figures}

    def _check(self) -> None:
        config, stage = self.config, find_stage(self.config.improve)
        check_labelers(self.project, list(config.labelers))
        if config.judge == "simulated":
            check_labelers(self.project, ["simulated"])
        if config.judge == "gold" and not self.project.config.world:
            raise UserError("loop.judge: gold is known in a built-in world only", "Set it to reward, people or ai")
        if "model" not in stage.needs or stage.name == "reward" or not {"prompt", "comparison"} & set(stage.reads):
            raise UserError(
                f"loop.improve: '{stage.name}' improves no policy by comparisons", "For example: ppo, rloo, grpo, dpo"
            )
        if config.pessimism and "pessimism" not in stage.options.model_fields:
            raise UserError(
                f"loop.pessimism: train {stage.name} optimises no reward", "Leave it out, or improve by ppo"
            )
        if config.watch.judge:
            self._check_watch(stage)
        if config.ptx and "ptx" not in stage.takes:
            raise UserError(f"loop.ptx: train {stage.name} does not read it", "Leave it out")
        if config.online.labels and stage.name != "ppo":
            raise UserError(
                "loop.online: labels can arrive while ppo trains", f"Set loop.improve to ppo, not {stage.name}"
            )

    def _check_watch(self, stage: Stage) -> None:
        judge = self.config.watch.judge
        if stage.name not in WATCHED:
            raise UserError(f"loop.watch: train {stage.name} asks nobody on its way", f"Improve by {WATCHED[0]}")
        if judge == "gold" and not self.project.config.world:
            raise UserError("loop.watch.judge: gold is known in a built-in world only", "Set it to people or ai")
        if judge == "simulated":
            check_labelers(self.project, ["simulated"])

    # A round

    def _round(self, number: int) -> Iterator[str]:
        """The steps of a round, each named when it is done."""
        project = self.project
        with project.timed("Sampling"):
            self.samples(number)
        yield "samples"
        with project.timed("Judgments"):
            judgments = self.judgments(number)
        yield "judgments"
        if self.needs_reward:
            with project.timed("Reward model"):
                for member in range(self.config.ensemble):
                    self.reward(number, judgments, member)
                self.card(number)
        yield "reward"
        with project.timed(f"{self.config.improve.upper()}, round {number}"):
            new = not (Path(self.policy(number)) / MANIFEST).is_file()
            improved = self.improve(number, judgments).metrics
            if self.config.online.labels:  # what improved it last is what the next policy would be improved by
                self._measure(Path(self.reward_in_use(number)))
        if new and improved.get("says"):
            self.announce(f"{Path(self.policy(number)).name}: {improved['says']}")
        yield self.config.improve
        with project.timed("Evaluation"):
            evaluation = self.evaluation(number)
        seen = {key: improved[key] for key in ("fooled", "best_step") if key in improved}
        self.figures.append({"round": number} | evaluation.metrics | seen)
        yield "evaluation"

    @property
    def needs_reward(self) -> bool:
        """Whether anything here reads a reward model."""
        stage, config = find_stage(self.config.improve), self.config
        judged_by_it = config.judge == "reward" or (config.judge == "auto" and not self.project.config.world)
        return "reward" in stage.needs or config.select in ("disagreement", "low-score") or judged_by_it

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
        refits = sum(role.startswith("refit ") for role in policy.manifest["parents"]) if policy else 0
        return self.refit_path(number, refits) if refits else self.reward_path(number)

    # Samples

    def samples(self, number: int) -> Artifact:
        """Responses of the newest policy, and which of them shall be judged: ``items.jsonl`` of the artifact."""
        config, sampling = self.config, self.project.config.sample
        options = SamplesOptions(
            **sampling.model_dump(), seed=self.project.config.seed + number, prompts=config.prompts,
            held_out=config.held_out, labelers=config.labelers, select=config.select if number > 1 else "uniform",
            uniform=config.uniform, candidates=config.candidates,
        )  # fmt: skip
        policy, name = self.policy(number - 1), f"r{number:02d}-samples"
        read: dict[str, str] = {}
        if options.select in ("disagreement", "low-score"):
            members = range(config.ensemble if options.select == "disagreement" else 1)
            read = {f"reward {m + 1}": self.reward_path(number - 1, m) for m in members}

        def make(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
            with self.project.store() as store:
                chosen = self._train_items(store, number, policy, options, list(read.values()))
                held = self._held_out_items(store, number, policy, options)
            items = self._share_out([*chosen, *held], number)
            _write_lines(out / ITEMS, [item.model_dump(mode="json") for item in items])
            data = {"hash": hash_files((str(out / ITEMS),)), "items": len(items), "held_out": len(held)}
            rules = {item.selection for item in chosen}
            return data, {"asked": sum(i.slots for i in items)} | {
                f"chosen_{rule}": sum(i.selection == rule for i in chosen) for rule in sorted(rules)
            }

        return self._record(name, "samples", Inputs(model=policy, parents=read), options, make, number)

    def _answers(
        self, store: FeedbackStore, prompts: Sequence[Prompt], number: int, policy: str, options: SamplesOptions
    ) -> dict[str, list[Response]]:
        """``k`` responses of the policy to each prompt, in order, by prompt id; those that are stored stay."""
        from hearken.domains.text.sampling import open_frozen, sample

        how, k, label = options.parameters, options.k, Path(policy).name
        found: dict[str, list[Response]] = {}
        for response in store.responses(policy=label, round=number):
            if not response.metadata:  # those of an online policy's own training say at which step
                found.setdefault(response.prompt_id, []).append(response)
        todo = {p.content: p for p in prompts if len(found.get(p.id, ())) < k}
        if todo:
            opened = open_frozen(policy, reserve=how.max_new_tokens)
            with progress("Sampling responses", len(todo), "prompt") as bar:
                for part in sample(opened, list(todo), k, how, options.seed):
                    responses = as_responses(part, todo, label, how, number)
                    store.add_responses(responses)
                    for i in range(0, len(responses), k):
                        found[responses[i].prompt_id] = responses[i : i + k]
                    bar.advance(len(part) // k)
        return {p.id: sorted(found[p.id], key=lambda r: r.sample) for p in prompts}

    def _train_items(
        self, store: FeedbackStore, number: int, policy: str, options: SamplesOptions, rewards: Sequence[str]
    ) -> list[QueueItem]:
        """Items on training prompts, those first that were never asked about; a rule leaves a part to chance.

        That part is drawn before the rule's, and from all training prompts: figures from it are then of all of them.
        """
        prompts = {p.id: p for p in store.prompts(split="train", domain="text")}
        if not prompts:
            raise UserError("no training prompts in the database", "Bring some in: hearken import prompts.jsonl")
        every, by_rule = sorted(prompts), options.select != "uniform"
        wanted = min(options.prompts or len(every), len(every))
        asked = {item.prompt_id for item in store.items() if (item.round or 0) < number}
        rng = np.random.default_rng([options.seed, 1])

        def unasked(some: list[str], enough: int) -> list[str]:
            new = [p for p in some if p not in asked]
            return new if len(new) >= enough else some

        first = math.ceil(options.uniform * wanted) if by_rule else wanted
        source = every if by_rule else unasked(every, wanted)
        chosen: dict[str, tuple[SelectionPolicy, float]] = {
            source[i]: ("uniform", first / len(source)) for i in rng.permutation(len(source))[:first]
        }
        if by_rule and first < wanted:
            rest = [p for p in every if p not in chosen]
            if options.select == "disputed":
                weights = disputed(store, number)
                pool = [p for p in rest if p in weights]
                chance, worth = 1.0, np.array([weights[p] for p in pool])
            else:
                eligible = unasked(rest, wanted - first)
                size = math.ceil((wanted - first) * options.candidates)
                pool = [eligible[i] for i in rng.permutation(len(eligible))[:size]]
                chance = len(pool) / len(eligible)
                answers = self._answers(store, [prompts[p] for p in pool], number, policy, options)
                pool = [p for p in pool if len({r.text for r in answers[p]}) > 1]
                scored = [prompts[p] for p in pool], [answers[p] for p in pool]
                worth = self._weights(options.select, rewards, *scored) if pool else np.array([])
            for choice in by_weight(worth, wanted - first, rng, options.select):
                chosen[pool[choice.index]] = (choice.selection, choice.propensity * chance)
        answers = self._answers(store, [prompts[p] for p in chosen], number, policy, options)
        items = []
        for prompt, (selection, propensity) in chosen.items():
            more = {"selection": selection, "propensity": propensity}
            items += as_items(answers[prompt], options.k, number, options.overlap, **more)
        return items

    @staticmethod
    def _weights(
        rule: SelectionPolicy, rewards: Sequence[str], prompts: Sequence[Prompt], answers: Sequence[Sequence[Response]]
    ) -> Any:
        scores = score_all(rewards, [p.content for p in prompts], answers)  # type: ignore[misc]
        if rule == "disagreement":
            return pair_disagreement(scores)
        return low_score(np.array([float(s[0].mean()) for s in scores]))

    def _held_out_items(
        self, store: FeedbackStore, number: int, policy: str, options: SamplesOptions
    ) -> list[QueueItem]:
        """Items on the same uniformly drawn held-out prompts in every round."""
        prompts = sorted(store.prompts(split="validation", domain="text"), key=lambda p: p.id)
        if not prompts:
            raise UserError("no held-out prompts in the database", "Import prompts with a validation split")
        order = np.random.default_rng(self.project.config.seed).permutation(len(prompts))[: options.held_out]
        chosen = [prompts[i] for i in order]
        answers = self._answers(store, chosen, number, policy, options)
        share = len(chosen) / len(prompts)
        return [
            i for p in chosen for i in as_items(answers[p.id], options.k, number, options.overlap, propensity=share)
        ]

    def _share_out(self, items: Sequence[QueueItem], number: int) -> list[QueueItem]:
        """Say of each item who is asked: each sort of labelers gets its share, at random."""
        shares = self.config.labelers
        who = list(shares)
        total = sum(shares.values())
        rng = np.random.default_rng([self.project.config.seed + number, 2])
        drawn = rng.choice(len(who), size=len(items), p=[shares[w] / total for w in who])
        return [
            item.model_copy(update={"metadata": item.metadata | {"asked": who[i]}})
            for item, i in zip(items, drawn.tolist(), strict=True)
        ]

    # Judgments

    def judgments(self, number: int) -> Artifact:
        """Ask, wait until enough is answered, and pin what was said: ``as_of`` of the artifact's data."""
        config = self.config
        options = JudgmentsOptions(
            seed=self.project.config.seed + number, labelers=config.labelers, enough=config.enough
        )
        source, out = str(self.project.artifacts / f"r{number:02d}-samples"), f"r{number:02d}-judgments"
        if self.redo and self._more_was_said(number, self.project.artifact(out)):
            self._set_aside(number, self.project.artifacts / out)

        def make(_: Path) -> tuple[dict[str, Any], dict[str, Any]]:
            items = [QueueItem(**json.loads(row)) for row in (Path(source) / ITEMS).read_text("utf-8").splitlines()]
            for who in ("simulated", "ai", "people"):  # machines first: people may take their time
                mine = [item for item in items if item.metadata["asked"] == who]
                ask(
                    self.project, mine, who, config, ai=config.ai, label=f"Round {number}: waiting for judgments",
                    wait=self.wait, seed=options.seed, announce=self.announce,
                )  # fmt: skip
            with self.project.store() as store:
                return heard(store, number)

        return self._record(out, "judgments", Inputs(parents={"samples": source}), options, make, number)

    def _more_was_said(self, number: int, judgments: Artifact | None) -> bool:
        """Whether the round's reward model fails its card, and there are judgments that it has not seen."""
        if judgments is None or (self.project.artifacts / f"r{number + 1:02d}-samples").exists():
            return False
        with self.project.store() as store:
            more = store.last_seq() > judgments.manifest["data"]["as_of"]
        return more and bool(failing(Path(self.reward_path(number))))

    # Reward model and policy

    def reward(self, number: int, judgments: Artifact, member: int = 0) -> Artifact:
        """Fit a reward model on what all rounds so far were told (or this one alone)."""
        config, project = self.config, self.project
        as_of = judgments.manifest["data"]["as_of"]
        only = number if config.reward_data == "round" else None
        faded = {"as_of": as_of, "round": only, "decay": config.decay if only is None else 1.0, "latest": number}
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
        )  # fmt: skip
        seed = project.config.seed + 1000 * member
        return self._train("reward", Path(self.reward_path(number, member)), inputs, number, ready, seed=seed)

    def card(self, number: int) -> None:
        """Measure the round's reward model on held-out judgments, and refuse to go on where its card fails.

        Raises:
            UserError: it fails, and the owner has not said that it is trusted.
        """
        path, config = Path(self.reward_path(number)), self.config
        self._measure(path)
        stage, values = find_stage(config.improve), self.project.config.stages.get(config.improve, {})
        improved = (Path(self.policy(number)) / MANIFEST).is_file()
        if "reward" not in stage.needs or improved or config.trust_reward or values.get("trust_reward"):
            return
        if said := failing(path):
            raise UserError(
                f"{path.name}: its card ({path / CARD}) says that it is not good enough to improve by. {said}",
                "Have more answers judged (hearken sample, serve, import) or change stages.reward, and run: "
                "hearken loop --redo. Or go on all the same: hearken loop -o loop.trust_reward=true",
            )

    def _measure(self, reward: Path) -> None:
        """Make a reward model's card, where it has none yet."""
        from hearken.loop.cards import project_card

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
        stage = find_stage(config.improve)
        as_of = judgments.manifest["data"]["as_of"]
        start = self.policy(number - 1 if config.policy_start == "last" else 0)
        given: dict[str, Any] = {"model": start}
        kind = "comparison" if "comparison" in stage.reads else "prompt"
        faded: dict[str, Any] = {"as_of": as_of, "decay": config.decay, "latest": number}
        if config.data:
            given["data"] = tuple(config.data)
        elif kind == "prompt":
            given["data"] = (str(project.snapshot_path("train", kinds=("prompt",), as_of=as_of)),)
        else:
            given["data"] = (str(project.snapshot_path("train", **faded)),)
            if "validation" in stage.takes:
                given["validation"] = self._stored("comparison", as_of, "validation")
            given["parents"] = self._judged(number, None)
        if "reward" in stage.needs:
            given["reward"] = self.reward_path(number)
            if config.pessimism and config.width == "models":
                members = [self.reward_path(number, m) for m in range(config.ensemble)]
                given["reward"] = ",".join(members)
                given["parents"] = {f"reward {m + 1}" if m else "reward": path for m, path in enumerate(members)}
        if "ref" in stage.takes:
            given["ref"] = self.policy(number - 1 if config.reference == "last" else 0)
        if config.ptx:
            given["ptx"] = tuple(config.ptx)
        judge: Watcher | None = None
        if config.watch.judge:
            from hearken.loop.watching import watcher

            given["validation"] = (str(project.path / "snapshots" / f"watch-{as_of}.jsonl"),)
            judge = watcher(self, Path(self.policy(number)).name, given["ref"])

        def ready() -> None:
            if kind == "prompt" and not config.data:
                self._make_once(given["data"][0], "prompt", as_of)
            elif not config.data:
                project.snapshot("train", **faded)
                if given.get("validation"):
                    project.snapshot("validation", as_of=as_of)
            if config.watch.judge:
                from hearken.loop.watching import hold_out

                hold_out(project, Path(given["validation"][0]), config.evaluate, config.watch.prompts)

        out, inputs = Path(self.policy(number)), Inputs(**given)

        def train(_: Stage, options: Any) -> Artifact:
            if config.online.labels:
                from hearken.loop.online import train_online

                return train_online(self, number, inputs, options, out, judge)
            from hearken.loop.watching import train_watched

            return train_watched(self, inputs, options, out, judge)

        by = train if config.online.labels or judge else None
        return self._train(
            config.improve,
            out,
            inputs,
            number,
            ready,
            by=by,
            seed=project.config.seed + number,
            **self._believed(stage),
        )

    def _believed(self, stage: Stage) -> dict[str, Any]:
        """Options of the stage that say how far the reward is believed, and who watches."""
        config, watch = self.config, self.config.watch
        found: dict[str, Any] = {}
        if config.pessimism:
            found |= {"pessimism": config.pessimism, "width": config.width}
        if config.trust_reward and "trust_reward" in stage.options.model_fields:
            found["trust_reward"] = True
        if watch.judge:
            found |= {
                "judge": watch.judge, "judge_every": watch.every, "judge_prompts": watch.prompts,
                "stop_when": config.stop_when,
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

        def make(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
            from hearken.loop.contest import contest

            found = contest(
                project, policies, project.held_out(options.prompts), options.seed, judge=options.judge, loop=config,
                reward=parents.get("reward"), wait=self.wait, announce=self.announce,
                perplexity=options.perplexity, tasks=options.tasks,
            )  # fmt: skip
            write_json(out / "evaluation.json", found)
            write_json(project.path / "evaluation.json", found)
            mine = found["policies"][Path(policies[-1]).name]
            keys = ("win_rate", "gold", "proxy", "kl", "length", "distinct_2", "parse_rate", "perplexity", "tasks")
            figures = {key: mine[key] for key in keys if mine.get(key) is not None}
            data = {"hash": hash_id(found["prompts"]), "prompts": len(found["prompts"]), "judge": found["judge"]}
            return data, figures

        name = f"r{number:02d}-evaluation"
        return self._record(name, "evaluation", Inputs(parents=parents), options, make, number)

    # Making things once

    def _record(
        self, name: str, kind: str, inputs: Inputs, options: Options,
        make: Callable[[Path], tuple[dict[str, Any], dict[str, Any]]], number: int,
    ) -> Artifact:  # fmt: skip
        """An artifact that is no model, or the one that is there: ``make(folder)`` gives its data and metrics."""
        out = self.project.artifacts / name
        if (done := self._unchanged(out, kind, inputs, options, number)) is not None:
            return done
        out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        data, metrics = make(out)
        seconds = time.monotonic() - began
        finish(out, kind, inputs=inputs, options=options, data=data, metrics=metrics, seconds=seconds)
        return Artifact.load(out)  # as it will be read another time

    def _train(
        self, stage: str, out: Path, inputs: Inputs, number: int, ready: Callable[[], None], *,
        by: Callable[[Stage, Any], Artifact] | None = None, **overrides: Any,
    ) -> Artifact:  # fmt: skip
        """A stage's artifact, or the one that is there; ``ready`` makes what it reads, ``by`` may stand in for it."""
        found = find_stage(stage)
        values = self.project.config.stages.get(stage, {}) | overrides
        options = found.options.parse(values, where=f"hearken.yaml: stages.{stage}")
        if (done := self._unchanged(out, stage, inputs, options, number)) is not None:
            return done
        ready()
        return by(found, options) if by else run_stage(found, inputs, options, out)

    def _unchanged(self, out: Path, kind: str, inputs: Inputs, options: Options, number: int) -> Artifact | None:
        """The finished artifact in ``out``; None where there is none (any more).

        Raises:
            UserError: it was made, or begun, with other settings, and ``redo`` does not say to make it again, or
                judgments depend on it.
        """
        finished = (out / MANIFEST).is_file()
        saved = out / MANIFEST if finished else out / "run" / "request.json"
        if not saved.is_file():
            return None
        old, new = json.loads(saved.read_text("utf-8")), request_of(kind, inputs, options)
        changed = [
            f"{part}.{key}"
            for part in ("inputs", "options")
            for key in new[part]
            if key != "trust_reward"  # it changes nothing in what is made
            and _portable(old[part].get(key)) != _portable(json.loads(json.dumps(new[part][key])))
        ]
        if not changed:
            return Artifact.load(out) if finished else None
        what = f"{out.name} was {'made' if finished else 'begun'} with other settings ({', '.join(changed)})"
        built_on = kind != "evaluation" and (self.project.artifacts / f"r{number + 1:02d}-samples").exists()
        if kind in ("samples", "judgments") or built_on:
            raise UserError(
                f"{what}, and judgments depend on it",
                "They are not thrown away: put the settings back, or begin a new project",
            )
        if not self.redo:
            raise UserError(what, "Put the settings back, or make it and what follows again: hearken loop --redo")
        self._set_aside(number, out)
        return None

    def _set_aside(self, number: int, first: Path) -> None:
        """Move ``first`` and what was made of it in this round to ``replaced/``, the last first."""
        artifacts = self.project.artifacts
        refits = sorted(artifacts.glob(f"r{number:02d}-refit-*"))
        order = [Path(self.policy(number)), *refits, artifacts / f"r{number:02d}-evaluation"]
        if first not in order:  # a reward model
            order = [first, *order]
        aside = self.project.path / "replaced"
        aside.mkdir(exist_ok=True)
        for path in reversed(order[order.index(first) :]):
            if path.exists():
                shutil.move(path, aside / f"{path.name}-{datetime.now(UTC):%Y%m%d-%H%M%S%f}")


def plan(project: Project, rounds: int | None = None) -> dict[str, Any]:
    """Which steps of the loop are done, by artifact; nothing is made."""
    loop = Loop(project)
    loop._check()
    found: dict[str, Any] = {}
    for number in range(1, (rounds or loop.config.rounds) + 1):
        names = [f"r{number:02d}-samples", f"r{number:02d}-judgments"]
        if loop.needs_reward:
            names += [Path(loop.reward_path(number, m)).name for m in range(loop.config.ensemble)]
        for name in [*names, Path(loop.policy(number)).name, f"r{number:02d}-evaluation"]:
            folder = project.artifacts / name
            begun = "begun" if folder.exists() else "to do"
            found[name] = "done" if (folder / MANIFEST).is_file() else begun
    return found


def heard(store: FeedbackStore, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a round was told: the pin of its data, and figures.

    Returns:
        ``as_of``, ``hash`` over the ids of the judgments, ``labelers``, ``guidelines``; and counts, ties, the
        labelers' agreement on pairs that several judged (None where there are none), seconds a judgment, and how far
        each model among the labelers agrees with people on all that both have judged so far.
    """
    as_of = store.last_seq()
    kinds = {labeler.id: labeler.kind for labeler in store.labelers()}
    found = list(store.judgments(kinds=("comparison",), round=number, as_of=as_of))
    votes: dict[tuple[str, str], list[int]] = {}
    for judgment in found:
        for pair, verdict in verdicts(judgment):
            votes.setdefault(pair, []).append(verdict)
    several = [v for v in votes.values() if len(v) > 1]
    alike = [a == b for v in several for i, a in enumerate(v) for b in v[:i]]
    every = [verdict for v in votes.values() for verdict in v]
    seconds = sorted(j.seconds for j in found if j.seconds is not None)
    who = [next((w for w, some in KINDS.items() if kinds.get(j.labeler_id) in some), "people") for j in found]
    data: dict[str, Any] = {
        "round": number, "as_of": as_of, "hash": hash_id(sorted(j.id for j in found)), "judgments": len(found),
        "labelers": sorted({j.labeler_id for j in found}),
        "guidelines": sorted({j.guideline for j in found if j.guideline is not None}),
    }  # fmt: skip
    return data, {
        "judgments": len(found),
        "by": {w: who.count(w) for w in sorted(set(who))},
        "ties": every.count(0) / len(every) if every else None,
        "agreement": sum(alike) / len(alike) if alike else None,
        "seconds_median": seconds[len(seconds) // 2] if seconds else None,
        "ai": {name: agreement(store, name) for name in data["labelers"] if kinds.get(name) == "ai"},
    }


def _portable(value: Any) -> Any:
    """Paths within a project without what stands before them, so that a project can be moved or named otherwise."""
    if isinstance(value, dict):  # reward models refitted while the policy trained were not known when it began
        return {k: _portable(v) for k, v in value.items() if not k.startswith("refit ")}
    if isinstance(value, list | tuple):
        return [_portable(one) for one in value]
    if isinstance(value, str):
        parts = Path(value).parts
        for folder in ("artifacts", "snapshots"):
            if folder in parts:
                return "/".join(parts[len(parts) - 1 - parts[::-1].index(folder) :])
    return value


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    partial.replace(path)


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
