"""Labels that keep arriving while the policy trains (Christiano et al. 2017; Ziegler et al. 2019, section 2.3).

repeat, after each batch:
    pairs of the batch's responses are put into the queue, as many as the schedule asks for by now
    where training is too far ahead of the labelers, it waits for them
    after every so many labels the reward model is refitted on all of them, and takes the place of the last one

The KL reference and the value model stay. With n of N batches done, 1 - (1 - n/N)² of the labels have been asked for:
more at the beginning, when the policy changes most.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hearken.algorithms.arriving import Pair, Verdict
from hearken.algorithms.refitted import RefittedReward
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.sampled import Setup
from hearken.algorithms.stage import Inputs, reward_stage, run_stage
from hearken.algorithms.watch import Judge
from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.examples import content_key
from hearken.feedback.pairs import judgment_pairs
from hearken.feedback.records import Prompt, QueueItem, Response, hash_id
from hearken.feedback.splits import side
from hearken.feedback.store import FeedbackStore
from hearken.labelers.kinds import Who
from hearken.loop.asking import ask, wait_for
from hearken.loop.human import leave_the_rest
from hearken.loop.project import as_responses
from hearken.loop.watching import train_watched
from hearken.rollout.sampler import SamplingParameters
from hearken.training.artifact import (
    MANIFEST,
    Artifact,
    claim_folder,
    finish,
    hash_files,
    read_record,
    release_folder,
    request_of,
)
from hearken.training.run import Callback

if TYPE_CHECKING:
    from hearken.loop.rounds import Loop


def due(step: int, steps: int, labels: int) -> int:
    """Labels that have been asked for when ``step`` of ``steps`` batches are done: N·(1 - (1 - n/N)²), rounded."""
    return round(labels * (1 - (1 - step / steps) ** 2))


@dataclass
class Queue:
    """Labels that a round's policy asks for while it trains: the project's store and labelers behind them."""

    loop: Loop
    number: int

    def put(self, items: Sequence[QueueItem]) -> None:
        """Share items out among the labelers, and have machines answer theirs at once."""
        project, config = self.loop.project, self.loop.config
        who = list(config.labelers)
        shares = list(config.labelers.values())
        theirs: dict[Who, list[QueueItem]] = {w: [] for w in who}
        for at, item in enumerate(items):
            mine = _pick(who, shares, f"{self.number} {item.metadata['step']} {at}")
            theirs[mine].append(item.model_copy(update={"metadata": item.metadata | {"asked": mine}}))
        for one in who:
            if one == "people" and not self.loop.relieved():
                with project.store() as store:
                    store.enqueue(theirs[one])
            else:
                by: Who = "simulated" if one == "people" else one
                seed = project.config.seed + self.number
                ask(project, theirs[one], by, label="Labels", seed=seed)

    def keep_pace(self, step: int) -> int:
        """Labels that have come for what was asked up to this step; waits where training is too far ahead of them."""
        loop, online = self.loop, self.loop.config.online
        ahead = online.ahead or online.refit_every
        with loop.project.store() as store:

            def asked() -> list[QueueItem]:
                return [i for i in store.items(round=self.number) if 0 <= i.metadata.get("step", -1) <= step]

            still = [i for i in asked() if not i.done]  # an AI alone fills one slot of several, and the rest is closed
            total = sum(i.slots for i in still)
            if total - sum(i.filled for i in still) > ahead:
                need = _Some((total - ahead) / total, loop.config.poll_seconds)
                wait_for(
                    store, still, need, label="Training waits for labels", wait=loop.wait, announce=loop.announce,
                    relieved=loop.relieved,
                )  # fmt: skip
        if loop.relieved():
            leave_the_rest(loop.project, {item.id for item in still})
        with loop.project.store() as store:
            return sum(i.filled for i in asked())


@dataclass
class Refits(Callback):
    """Asks for labels after each step, and refits the reward on them; what it knows of them is in the checkpoint."""

    name = "refits"

    loop: Loop
    number: int
    current: RefittedReward
    options: RolloutOptions
    parents: dict[str, str]
    policy_name: str
    how: SamplingParameters
    made: int = 0
    """Reward models refitted so far."""
    asked: int = 0
    """Labels asked for."""
    learnt: int = 0
    """Labels that the newest refit has seen."""

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"made": self.made, "asked": self.asked, "learnt": self.learnt}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Back to saved counts, with the reward model of that time."""
        self.made, self.asked, self.learnt = state["made"], state["asked"], state["learnt"]
        for number in range(1, self.made + 1):
            self.parents[f"refit {number}"] = str(self.path(number))
        if self.made:
            self.current.use(str(self.path(self.made)))

    @property
    def queue(self) -> Queue:
        """Where it asks."""
        return Queue(self.loop, self.number)

    def path(self, number: int) -> Path:
        """Where a refitted reward model is."""
        return Path(self.loop.refit_path(self.number, number))

    def after(self, step: int) -> None:
        """Ask for what is due, wait for the labelers, and refit where there are enough new labels."""
        online, steps = self.loop.config.online, self.options.iterations
        wanted = due(step + 1, steps, online.labels) - self.asked
        if wanted > 0:
            self.ask(step, wanted)
        have = self.queue.keep_pace(step)
        if have - self.learnt >= online.refit_every and step + 1 < steps:
            self.learnt = have
            self.refit()

    def ask(self, step: int, wanted: int) -> None:
        """Put ``wanted`` pairs of the last batch into the queue; the batch is in random order already."""
        project = self.loop.project
        responses: list[Response] = []
        items: list[QueueItem] = []
        overlap = project.config.sample.overlap
        with project.store() as store:
            for distinct in self.current.scored():
                if wanted <= 0:
                    break
                if len(distinct) < 2:
                    continue
                content = distinct[0].prompt
                prompt = Prompt(content=content, domain=project.domain.name)
                store.add_prompts([prompt])
                shown = as_responses(
                    project.domain, distinct, {content: prompt}, self.policy_name, self.how, self.number, step=step
                )
                items.append(
                    QueueItem(
                        prompt_id=prompt.id, response_ids=tuple(r.id for r in shown), round=self.number,
                        slots=overlap, metadata={"step": step},
                    )
                )  # fmt: skip
                responses += shown
                wanted -= overlap
                self.asked += overlap
            store.add_responses(responses)
        self.queue.put(items)

    def refit(self) -> None:
        """Fit the reward model anew on every judgment so far, and score by it from the next batch on."""
        loop, project, config = self.loop, self.loop.project, self.loop.config
        out = self.path(self.made + 1)
        if not (out / MANIFEST).is_file():
            with project.store() as store:
                as_of = store.last_seq()
            only = self.number if config.reward_data == "round" else None
            decay = config.decay if only is None else 1.0
            last = self.path(self.made) if self.made else Path(loop.reward_path(self.number))
            parents = {k: v for k, v in self.parents.items() if not k.startswith("refit ")}
            base = read_record(Path(loop.reward_path(self.number)) / MANIFEST)
            held_out = base["inputs"]["validation"] and (project.snapshot("validation", as_of=as_of),)
            inputs = Inputs(
                model=str(last) if config.reward_start == "last" else project.first_policy(),
                data=(project.snapshot("train", as_of=as_of, round=only, decay=decay, latest=self.number),),
                validation=tuple(held_out),
                references=tuple(base["inputs"]["references"]), parents=parents, round=self.number, role="refit",
            )  # fmt: skip
            stage = reward_stage()
            _, values = project.section(stage)
            options = stage.options.parse(values, where=f"hearken.yaml: stages.{stage.name}")
            begun = out / "run" / "request.json"
            wanted = request_of(stage.name, inputs, options)
            if out.exists() and not (begun.exists() and wanted.items() <= read_record(begun).items()):
                shutil.rmtree(out)  # it had hardly begun, or labels have come since it was interrupted
            with torch.random.fork_rng():
                run_stage(stage, inputs, options, out)
        self.made += 1
        self.parents[f"refit {self.made}"] = str(out)
        self.current.use(str(out))


@dataclass(frozen=True)
class _Some:
    enough: float
    poll_seconds: float


def _pick(who: Sequence[Who], shares: Sequence[float], key: str) -> Who:
    """One of the labelers, by their shares; the same for the same key."""
    at = int(content_key(key)[:8], 16) / 16**8 * sum(shares)
    for one, share in zip(who, shares, strict=True):
        at -= share
        if at < 0:
            return one
    return who[-1]


@dataclass
class Labels:
    """Where a stage asks that fits its reward by itself (see `algorithms.arriving.Desk`).

    What was asked and said is in the store, and given to an interrupted run as it begins again. Pairs whose prompts are
    held out are asked about like the others, and left to the reward model's card.
    """

    loop: Loop
    number: int
    name: str
    inputs: Inputs
    _first: dict[str, str] = field(default_factory=dict)
    """Of items that this run put into the queue, of training prompts: the id of the first response."""
    _place: dict[str, int] = field(default_factory=dict)
    """The same, the number of the pair."""
    _given: set[str] = field(default_factory=set)
    """Judgments that it has been given."""

    def __post_init__(self) -> None:
        project, config = self.loop.project, self.loop.config
        stage = reward_stage(project.domain.name)
        _, values = project.section(stage)
        self.reward: Options = stage.options.parse(values, where=f"hearken.yaml: stages.{stage.name}")
        self.files = project.media
        self.labels = config.online.labels // project.config.sample.overlap
        self.refit_every = config.online.refit_every
        with project.store() as store:
            before = [item for item in store.items(round=self.number) if "pair" in item.metadata]
            store.close_items(item.id for item in before if not item.done)  # of a policy that is no more
        self.asked = len(before)
        self.data = (project.snapshot("train"),)
        self._put = 0

    def ask(self, pairs: Sequence[Pair], step: int) -> list[Verdict]:
        """See `Desk`."""
        project, queue = self.loop.project, Queue(self.loop, self.number)
        domain, config = project.domain, project.config
        items: list[QueueItem] = []
        with project.store() as store:
            for pair in pairs:
                split = side(pair.prompt, config.validation, config.seed)
                prompt = Prompt(content=pair.prompt, domain=domain.name, split=split)
                both = [
                    Response(
                        id=hash_id("online", self.name, prompt.id, content), prompt_id=prompt.id,
                        **domain.fields(content), policy=self.name, round=self.number, sample=place,
                        metadata={"step": step},
                    )
                    for place, content in enumerate((pair.a, pair.b))
                ]  # fmt: skip
                store.add_prompts([prompt])
                store.add_responses(both)
                item = QueueItem(
                    prompt_id=prompt.id, response_ids=tuple(one.id for one in both), round=self.number,
                    slots=config.sample.overlap, propensity=1.0, metadata={"step": step, "pair": self.asked},
                )  # fmt: skip
                items.append(item)
                if split == "train":
                    self._first[item.id], self._place[item.id] = both[0].id, self._put
                self.asked, self._put = self.asked + 1, self._put + 1
        queue.put(items)
        queue.keep_pace(step)
        with project.store() as store:
            return list(self._verdicts(store))

    def _verdicts(self, store: FeedbackStore) -> Iterator[Verdict]:
        """What was said since this was last asked."""
        for item, judgments in store.judgments_of_items(self._first).items():
            for judgment in judgments:
                if judgment.id not in self._given:
                    self._given.add(judgment.id)
                    for pair in judgment_pairs(judgment):
                        yield Verdict(
                            self._place[item], pair.outcome if pair.a == self._first[item] else 1 - pair.outcome
                        )

    def fitted(self, save: Callable[[Path], None], figures: Mapping[str, object]) -> None:
        """See `Desk`: the round's newest refit, which the policy's manifest names among its parents."""
        began = time.monotonic()
        project, out = self.loop.project, Path(self.loop.refit_path(self.number, 1))
        shutil.rmtree(out, ignore_errors=True)  # of an interrupted run
        data = (project.snapshot("train"),)
        inputs = Inputs(
            model=self.inputs.model, data=data, parents={k: v for k, v in self.inputs.parents.items()},
            round=self.number, role="refit",
        )  # fmt: skip
        stage = reward_stage(project.domain.name)
        claim_folder(out, stage.name, inputs, self.reward)
        save(out)
        about = {"hash": hash_files(data), "judgments": len(self._given)}
        finish(
            out, stage.name, inputs=inputs, options=self.reward, data=about, metrics=dict(figures),
            seconds=time.monotonic() - began,
        )  # fmt: skip
        self.inputs.parents["refit 1"] = str(out)


def train_online(
    loop: Loop, number: int, inputs: Inputs, options: Options, out: Path, judge: Judge | None = None
) -> Artifact:
    """PPO as ever, with a reward model that learns on the way. The manifest's parents name every refit.

    Raises:
        UserError: one response a prompt leaves nothing to compare.
    """
    stage = loop.project.stage(loop.config.improve)
    method = import_module(stage.module)
    if hasattr(method, "run_online"):
        claim_folder(out, stage.name, inputs, options)
        try:
            made: Artifact = method.run_online(inputs, options, out, Labels(loop, number, out.name, inputs))
        except UserError:
            release_folder(out)
            raise
        return made
    assert isinstance(options, RolloutOptions)
    if options.num_generations < 2:
        raise UserError(
            "labels on the way need two responses to a prompt",
            f"Set stages.{options.stage}.num_generations to 2 or more",
        )

    def refits(setup: Setup) -> list[Callback]:
        current = RefittedReward(setup, options)
        how = SamplingParameters(**{key: getattr(options, key) for key in SamplingParameters.model_fields})
        return [Refits(loop, number, current, options, inputs.parents, out.name, how)]

    return train_watched(loop, inputs, options, out, judge, refits)
