"""Labels that arrive while a policy trains (Christiano et al. 2017, section 2.2): clips of what it does are compared.

Where no reward model is given, a share of the labels is asked for of clips of the policy as it starts; of the others
1 - (1 - n/N)² when n of N steps are done: more at the beginning, when the policy changes most. After every so many
answers the ensemble is fitted on, to all of them, and what is remembered for replay is paid anew (Lee et al. 2021).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from hearken.algorithms.arriving import Desk, Pair
from hearken.algorithms.control_reward import Choices, Fitting, read
from hearken.algorithms.control_reward_options import ClipRewardConfig
from hearken.algorithms.control_training import Paid, size_of
from hearken.domains.control.clips import SUFFIX, Clip
from hearken.domains.control.environment import features
from hearken.domains.control.recording import draw
from hearken.domains.control.rewarding import Ensemble

if TYPE_CHECKING:
    from hearken.algorithms.stage import Inputs

BEFORE = 8_000
"""Steps of the policy as it starts, of which the first clips are cut."""
RECENT = 200
"""Clips of what was done last, on which the members are normalised."""
REFITS = "refits.jsonl"
"""In a run's folder: a row of figures after each fit."""
CANDIDATES = 10
"""Pairs among which the ones are chosen on which the ensemble disagrees most, for each that is asked about."""


class Answer(NamedTuple):
    """What a labeler chose."""

    pair: int
    """Number of the pair, from 0, in the order in which they were asked about."""
    share: float
    """1: the first clip is better, 0: the second, 1/2: neither."""


class Ask(Protocol):
    """Puts pairs of clips before labelers, and gives the answers that have come since it was last called.

    It is called after each rollout, also with no pairs. Answers may be to earlier pairs, several to a pair, or never
    come; it waits for them where training shall not run ahead.
    """

    def __call__(self, pairs: Sequence[tuple[Clip, Clip]], step: int) -> Sequence[Answer]: ...


@dataclass(frozen=True)
class Online:
    """How labels are asked for on the way.

    Attributes:
        ask: whom.
        labels: how many in all.
        refit_every: new answers after which the reward model is fitted on; as many are asked for at once.
        first: share of the labels that are asked for before the first update; 0 where a reward model is given.
        reward: options of the fit.
        uniform: share of the pairs that are drawn at random; the others are those of `CANDIDATES` times as many on
            which the ensemble disagrees most. 1: all at random.
        data: files of comparisons that are known before, beside those of the inputs.
        asked: pairs that an interrupted run asked about; they count among the labels.
        keep: is given what writes the reward model into a folder as it is in the end, and its figures.
    """

    ask: Ask
    labels: int
    refit_every: int = 20
    first: float = 0.25
    reward: ClipRewardConfig = field(default_factory=ClipRewardConfig)
    uniform: float = 1.0
    data: tuple[str, ...] = ()
    asked: int = 0
    keep: Callable[[Callable[[Path], None], dict[str, Any]], None] | None = None

    def start(self, inputs: Inputs, paid: Paid, ensemble: Ensemble | None, seed: int, out: Path) -> Labels:
        """The callback of an algorithm of Stable-Baselines3 that does it.

        Args:
            inputs: ``data`` holds comparisons that are known before.
            paid: the environments.
            ensemble: the reward model that is there; None: a new one.
            seed: of the pairs that are asked about.
            out: the artifact's folder.
        """
        return Labels(self, inputs, paid, ensemble, seed, out)


class Labels(BaseCallback):
    """Asks after each rollout for what is due, and fits the reward model on."""

    def __init__(
        self, online: Online, inputs: Inputs, paid: Paid, ensemble: Ensemble | None, seed: int, out: Path
    ) -> None:
        super().__init__()
        self.online, self.paid, self.out = online, paid, out
        self.rng = np.random.default_rng([seed, 1])
        torch.manual_seed(seed)
        options = online.reward
        self.begun = ensemble is not None
        self.ensemble = ensemble or Ensemble(size_of(paid.recorded[0]), options.ensemble, options.hidden)
        self.fitting = Fitting(self.ensemble, options)
        with closing(paid.environment.open()) as opened:
            self.length = paid.environment.steps(opened)
            known = read((*inputs.data, *online.data), paid.environment, opened)
        made = known.choices(self.ensemble.members, options.seed) if known.pairs else None
        self.steps: list[NDArray[np.float32]] = list(made.steps) if made else []
        self.ends = [] if made is None else list(zip(made.first, made.second, strict=True))
        """Places in ``steps`` of the clips of each pair that is known or was asked about."""
        self.known = len(self.ends)
        self.answers = [] if made is None else [(at, float(share)) for at, share in enumerate(made.share)]
        """Place in ``ends``, and share."""
        self.counts = [] if made is None else list(made.counts.T)
        self.asked = online.asked
        self.learnt = 0 if online.asked else len(self.answers)
        (out / "run" / REFITS).unlink(missing_ok=True)  # of an interrupted run
        self.figures: dict[str, Any] = {}

    def begin(self, algorithm: Any, act: Callable[[Any], Any]) -> None:
        """Ask for the first labels, where no reward model is there: of clips of a policy as it starts.

        Args:
            algorithm: that will be trained.
            act: observations of all environments -> actions.
        """
        if self.begun:
            return
        self.model = algorithm
        env = algorithm.get_env()
        seen = env.reset()
        for _ in range(-(-BEFORE // self.paid.num_envs)):
            seen, *_ = env.step(act(seen))
        self.ask(max(round(self.online.labels * self.online.first), 1))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        online, done = self.online, self.num_timesteps / self.locals["total_timesteps"]
        first = 0.0 if self.begun else online.first
        due = round(online.labels * (first + (1 - first) * (1 - (1 - min(done, 1.0)) ** 2)))
        self.ask(due - self.asked if done < 1 and due - self.asked >= online.refit_every else 0)

    def ask(self, n: int) -> None:
        """Ask about ``n`` pairs, take in the answers that have come, and fit where there are enough."""
        pairs = self.pairs(n)
        space = self.paid.action_space
        for pair in pairs:
            at = len(self.steps)
            self.steps += [clip.seen(space) for clip in pair]
            self.ends.append((at, at + 1))
        self.asked += n
        for answer in self.online.ask(pairs, self.num_timesteps):
            self.answers.append((self.known + answer.pair, answer.share))
            self.counts.append(self.rng.poisson(1.0, self.ensemble.members))
        new, first = len(self.answers) - self.learnt, not self.begun
        if new >= self.online.refit_every or (new and first):
            self.refit(first)

    def pairs(self, n: int) -> list[tuple[Clip, Clip]]:
        """Pairs of clips of what was done last."""
        online = self.online
        at_random = math.ceil(n * online.uniform) if self.begun else n
        count = at_random + CANDIDATES * (n - at_random)
        clips = draw(self.paid.recorded, 2 * count, self.length, self.rng) if n else []
        found = list(zip(clips[::2], clips[1::2], strict=True))
        if count > n:
            space = self.paid.action_space
            sums = self.ensemble.sums([clip.seen(space) for pair in found[at_random:] for clip in pair])
            chance = 1 / (1 + np.exp(sums[:, 1::2] - sums[:, ::2]))
            most = np.argsort(-chance.var(0))[: n - at_random]
            found = found[:at_random] + [found[at_random + place] for place in most]
        return found

    def refit(self, first: bool) -> None:
        """Fit the ensemble on, to all answers, and pay by it from now on."""
        options, places = self.online.reward, np.array([self.ends[at] for at, _ in self.answers])
        data = Choices(
            self.steps, places[:, 0], places[:, 1], np.array([share for _, share in self.answers]),
            np.stack(self.counts, 1),
        )  # fmt: skip
        lately = draw(self.paid.recorded, RECENT, self.length, self.rng)
        recent = np.concatenate([clip.seen(self.paid.action_space) for clip in lately])
        figures = self.fitting.fit(data, options.steps if first else options.refit_steps, recent=recent)
        self.learnt, self.begun = len(self.answers), True
        self.paid.pay = self.ensemble.pay
        buffer = getattr(self.model, "replay_buffer", None)
        if buffer is not None:
            relabel(self.model, buffer, self.ensemble)
        sums = self.ensemble.sums([clip.seen(self.paid.action_space) for clip in lately])
        figures["disagreement"] = disagreement(sums[:, ::2] - sums[:, 1::2])
        self.figures = {"labels": len(self.answers)} | figures
        with (self.out / "run" / REFITS).open("a") as file:
            file.write(json.dumps({"step": self.num_timesteps} | self.figures) + "\n")


def disagreement(margins: NDArray[np.float64]) -> float:
    """Share of (M, P) members' verdicts on pairs that differ from that of the members' mean."""
    return float((np.sign(margins) != np.sign(margins.mean(0))).mean())


def at_desk(desk: Desk, question: str) -> Online:
    """Labels that are asked for where a project's labelers sit."""

    def kept(clip: Clip) -> str:
        return desk.files.keep(clip.to_bytes(), SUFFIX).path

    def ask(pairs: Sequence[tuple[Clip, Clip]], step: int) -> list[Answer]:
        named = [
            Pair(f"{question} ({desk.name}, pair {desk.asked + at})", kept(a), kept(b))
            for at, (a, b) in enumerate(pairs, 1)
        ]
        return [Answer(*said) for said in desk.ask(named, step)]

    reward = desk.reward
    assert isinstance(reward, ClipRewardConfig)
    return Online(
        ask, desk.labels, desk.refit_every, reward=reward, data=desk.data, asked=desk.asked, keep=desk.fitted
    )  # fmt: skip


def relabel(model: Any, buffer: Any, ensemble: Ensemble) -> None:
    """Pay all that a replay buffer holds by the reward model as it is now."""
    count = buffer.buffer_size if buffer.full else buffer.pos
    if not count:
        return
    space = model.action_space
    n = count * buffer.n_envs
    seen = buffer.observations[:count].reshape(n, *buffer.observations.shape[2:])
    acts = buffer.actions[:count].reshape(n, *buffer.actions.shape[2:])
    if not hasattr(space, "n"):
        acts = model.policy.unscale_action(acts)
    paid = ensemble.pay(features(space, seen, acts.reshape(n, *space.shape)))
    buffer.rewards[:count] = paid.reshape(count, buffer.n_envs)
