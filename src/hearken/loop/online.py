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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hearken.algorithms.refitted import RefittedReward
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.sampled import Setup
from hearken.algorithms.stage import Inputs, reward_stage, run_stage
from hearken.algorithms.watch import Judge
from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.examples import content_key
from hearken.feedback.records import Prompt, QueueItem, Response
from hearken.labelers.kinds import Who
from hearken.loop.asking import ask, wait_for
from hearken.loop.project import as_responses
from hearken.loop.rounds_options import OnlineOptions
from hearken.loop.watching import train_watched
from hearken.rollout.sampler import SamplingParameters
from hearken.training.artifact import MANIFEST, Artifact, read_record, request_of
from hearken.training.run import Callback

if TYPE_CHECKING:
    from hearken.loop.rounds import Loop


def due(step: int, steps: int, labels: int) -> int:
    """Labels that have been asked for when ``step`` of ``steps`` batches are done: N·(1 - (1 - n/N)²), rounded."""
    return round(labels * (1 - (1 - step / steps) ** 2))


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

    def path(self, number: int) -> Path:
        """Where a refitted reward model is."""
        return Path(self.loop.refit_path(self.number, number))

    def after(self, step: int) -> None:
        """Ask for what is due, wait for the labelers, and refit where there are enough new labels."""
        online, steps = self.loop.config.online, self.options.iterations
        wanted = due(step + 1, steps, online.labels) - self.asked
        if wanted > 0:
            self.ask(step, wanted)
        have = self.keep_pace(step, online)
        if have - self.learnt >= online.refit_every and step + 1 < steps:
            self.learnt = have
            self.refit()

    def ask(self, step: int, wanted: int) -> None:
        """Put ``wanted`` pairs of the last batch into the queue; the batch is in random order already."""
        project, config = self.loop.project, self.loop.config
        who = list(config.labelers)
        shares = list(config.labelers.values())
        responses: list[Response] = []
        items: dict[Who, list[QueueItem]] = {w: [] for w in who}
        overlap = project.config.sample.overlap
        with project.store() as store:
            for at, distinct in enumerate(self.current.scored()):
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
                mine = _pick(who, shares, f"{self.number} {step} {at}")
                items[mine].append(
                    QueueItem(
                        prompt_id=prompt.id, response_ids=tuple(r.id for r in shown), round=self.number,
                        slots=overlap, metadata={"step": step, "asked": mine},
                    )
                )  # fmt: skip
                responses += shown
                wanted -= overlap
                self.asked += overlap
            store.add_responses(responses)
        for one in who:
            if one == "people":
                with project.store() as store:
                    store.enqueue(items[one])
            else:
                seed = project.config.seed + self.number
                ask(project, items[one], one, config, ai=config.ai, label="Labels", seed=seed)

    def keep_pace(self, step: int, online: OnlineOptions) -> int:
        """Labels that have come for batches up to this one; waits where training is too far ahead of them."""
        ahead = online.ahead or online.refit_every
        with self.loop.project.store() as store:

            def asked() -> list[QueueItem]:
                return [i for i in store.items(round=self.number) if 0 <= i.metadata.get("step", -1) <= step]

            still = [i for i in asked() if not i.done]  # an AI alone fills one slot of several, and the rest is closed
            total = sum(i.slots for i in still)
            if total - sum(i.filled for i in still) > ahead:
                need = _Some((total - ahead) / total, self.loop.config.poll_seconds)
                wait_for(
                    store, still, need, label="Training waits for labels", wait=self.loop.wait,
                    announce=self.loop.announce,
                )  # fmt: skip
            have = sum(i.filled for i in asked())
        return have

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


def train_online(
    loop: Loop, number: int, inputs: Inputs, options: Options, out: Path, judge: Judge | None = None
) -> Artifact:
    """PPO as ever, with a reward model that learns on the way. The manifest's parents name every refit.

    Raises:
        UserError: one response a prompt leaves nothing to compare.
    """
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
