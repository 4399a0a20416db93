"""A domain, a world and two stages without a neural network: to test what goes on around training in milliseconds.

    from hearken import testing

    testing.register()
    project = testing.make_project("my-project", rounds=2)
    hearken.Loop(project).run()

A policy writes words, of which a share (its *skill*) is ``good``; people of this world like good words. The stage
``words-reward`` fits what a good word is worth, ``words-policy`` raises the skill by it. Like any other they write
a checkpoint after each step, and a run that was killed ends as one that ran through. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hearken.algorithms import stage as stages
from hearken.algorithms.stage import DATA, MODEL, REF, REWARD, Input, Inputs, Stage
from hearken.config import Options
from hearken.domains import base as domains
from hearken.domains.base import Domain, Drawn, Facts, Measured, Scorer, mean
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content
from hearken.feedback.formats import read_examples
from hearken.feedback.media import MediaFolder
from hearken.feedback.pairs import decided
from hearken.feedback.records import Prompt
from hearken.loop.project import Project, ProjectConfig
from hearken.training.artifact import Artifact, finish, hash_files, write_json
from hearken.worlds import world as worlds

POLICY, REWARD_MODEL, CHECKPOINT = "words.json", "worth.json", "run/checkpoint.json"
PLAIN = ("a", "fox", "owl", "sat", "and", "sang")
LENGTH = 8
"""Words of a response."""


def make_policy(folder: Path | str, skill: float = 0.3) -> Path:
    """A policy of this skill, 0 to 1."""
    write_json(Path(folder) / POLICY, {"skill": skill})
    return Path(folder)


def skill(policy: Path | str) -> float:
    """The share of good words in what a policy writes."""
    return float(json.loads((Path(policy) / POLICY).read_text("utf-8"))["skill"])


def make_project(
    folder: Path | str, *, prompts: int = 12, stages: Mapping[str, Any] | None = None, **loop: Any
) -> Project:
    """A project of this domain with simulated labelers; ``stages`` and ``loop`` are sections of ``hearken.yaml``.

    A quarter of the prompts is held out. Its policy stands beside it, in ``FOLDER-policy``.
    """
    model = make_policy(f"{folder}-policy")
    config = ProjectConfig.parse({
        "model": str(model.resolve()), "world": "words", "seed": 1, "stages": dict(stages or {}), "sample": {"k": 3},
        "loop": {"improve": "words-policy", "labelers": "simulated", "evaluate": 4, "trust_reward": True, **loop},
    })  # fmt: skip
    project = Project.create(folder, config)
    with project.store() as store:
        store.add_prompts(
            Prompt(content=f"Write {i}.", domain="words", split="train" if i % 4 else "validation")
            for i in range(prompts)
        )
    return project


class Words(Domain):
    """Responses are words, good ones and others."""

    name = "words"
    figures: Mapping[str, str] = {"good": "Share of good words"}

    def recognises(self, model: str) -> bool:
        """Whether `make_policy` or ``words-policy`` made it."""
        return (Path(model) / POLICY).is_file()

    def sample(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, files: MediaFolder, *,
        facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """One prompt at a time."""
        share = skill(policy)
        for prompt in prompts:
            draws = random.Random(f"{seed} {prompt}")
            texts = [
                " ".join("good" if draws.random() < share else draws.choice(PLAIN) for _ in range(LENGTH))
                for _ in range(k)
            ]
            yield [Drawn(prompt, text, seed, number, "stop") for number, text in enumerate(texts)]

    def scorer(self, reward: str, files: MediaFolder, facts: Facts | None = None) -> Scorer:
        """What ``words-reward`` fitted.

        Raises:
            UserError: it did not make this.
        """
        if not (Path(reward) / REWARD_MODEL).is_file():
            raise UserError(f"{reward} is no reward model of words", "Train one with: hearken train words-reward")
        worth = float(json.loads((Path(reward) / REWARD_MODEL).read_text("utf-8"))["worth"])

        def score(
            prompts: Sequence[Content], responses: Sequence[Sequence[Any]],
            finished: Sequence[Sequence[bool]] | None = None,
        ) -> list[list[float]]:  # fmt: skip
            return [[worth * text.split().count("good") for text in some] for some in responses]

        return score

    def measure(self, policy: str, reference: str, prompts: Sequence[Content], *how: Any, **more: Any) -> Measured:
        """With the share of good words, and how much likelier each response is than under the reference."""
        seen = super().measure(policy, reference, prompts, *how, **more)
        counts = [text.split().count("good") for text in seen.responses]
        mine, theirs = skill(policy), skill(reference)
        good, other = _log_ratio(mine, theirs), _log_ratio(1 - mine, 1 - theirs)
        ratios = tuple(count * good + (LENGTH - count) * other for count in counts)
        return Measured(
            seen.responses, seen.finished, {"good": mean([c / LENGTH for c in counts], prompts)}, ratios
        )  # fmt: skip


def _log_ratio(mine: float, theirs: float) -> float:
    return math.log(mine / theirs) if mine else 0.0  # what never happens counts nowhere


class WordWorld:
    """Knows what good words are worth: to one group half as much as to the other."""

    title = "the world of words"
    groups: tuple[str, ...] = ("eager", "calm")
    leanings: Mapping[str, float] = {"side": 0.2}

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def utility(self, prompt: str, response: str, group: str) -> float:
        """To a group."""
        return response.split().count("good") * (1.0 if group == "eager" else 0.5)

    def gold(self, prompt: str, response: str) -> float:
        """The groups' mean."""
        return 0.75 * response.split().count("good")

    def accepts(self, prompt: str, response: str) -> bool:
        """Whether there is a word at all."""
        return bool(response.strip())


class WordsConfig(Options):
    """Of both stages."""

    stage: ClassVar[str]

    seed: int = 0
    """Of the draws."""
    steps: int = 3
    """After each of them there is a checkpoint."""
    trust_reward: bool = False
    """Improve by a reward model whose card fails."""


class WordsRewardConfig(WordsConfig):
    """What a good word is worth, from comparisons."""

    stage: ClassVar[str] = "words-reward"


class WordsPolicyConfig(WordsConfig):
    """A policy with more good words."""

    stage: ClassVar[str] = "words-policy"

    gain: float = 0.2
    """By how much a step raises the skill, for each unit that a good word is worth."""


_HELD_OUT = Input("validation", "Held-out comparisons.", required=False)
STAGES = (
    Stage(
        "What a good word is worth, from comparisons", WordsRewardConfig, __name__, (MODEL, DATA, _HELD_OUT),
        reads=("comparison",), domain="words", makes="reward", done="Fitted what a good word is worth",
    ),
    Stage(
        "More good words", WordsPolicyConfig, __name__, (MODEL, DATA, REWARD, REF), domain="words",
        done="Learnt to write good words",
    ),
)  # fmt: skip


def run(inputs: Inputs, options: WordsConfig, out: Path) -> Artifact:
    """Either stage, step by step from its checkpoint."""
    began, saved = time.perf_counter(), out / CHECKPOINT
    state = json.loads(saved.read_text("utf-8")) if saved.exists() else {"step": 0, "value": _start(inputs, options)}
    worth = 0.0
    if isinstance(options, WordsPolicyConfig):
        worth = float(json.loads((Path(inputs.reward or "") / REWARD_MODEL).read_text("utf-8"))["worth"])
    while state["step"] < options.steps:
        noise = random.Random(f"{options.seed} {state['step']}").uniform(0, 0.01)
        gain = options.gain * worth if isinstance(options, WordsPolicyConfig) else 0.0
        state = {"step": state["step"] + 1, "value": state["value"] + gain + noise}
        write_json(saved, state)
    if isinstance(options, WordsPolicyConfig):
        make_policy(out, min(state["value"], 1.0))
    else:
        write_json(out / REWARD_MODEL, {"worth": state["value"]})
    data = {"hash": hash_files(inputs.data), "rows": sum(1 for path in inputs.data for _ in read_examples(path))}
    seconds = time.perf_counter() - began
    metrics = {"value": state["value"]}
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=metrics, seconds=seconds)


def _start(inputs: Inputs, options: WordsConfig) -> float:
    """A policy's skill before the first step; of a reward, the share of pairs in which more good words won."""
    if isinstance(options, WordsPolicyConfig):
        return skill(inputs.model)
    rows = [row for path in inputs.data for row in read_examples(path) if isinstance(row, Comparison)]
    leads = [(p.verdict, p.a.split().count("good") - p.b.split().count("good")) for p in decided(rows)]
    return sum(verdict * lead > 0 for verdict, lead in leads) / max(len(leads), 1)


def register() -> None:
    """Make the domain, the world and the stages known in this process."""
    domains.register(Words())
    worlds.register("words", WordWorld)
    for stage in STAGES:
        stages.register(stage)
