"""Watching a run with a judge that it is not trained on: where the reward is fooled, and which weights were best.

Every few iterations the policy answers held-out prompts, and the judge compares its answers with the reference's. The
weights that won most are kept; and where the win rate has fallen from its peak while the reward of the same answers
rose, beyond noise, the run is fooled (Gao et al. 2022 call it over-optimisation).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from hearken.algorithms.rollouts import rate, sampling, truncate
from hearken.algorithms.sampled import Prompts, Setup
from hearken.algorithms.stage import Inputs
from hearken.algorithms.watch_options import ASKED, WatchOptions
from hearken.domains.text.rewarding import open_reward
from hearken.errors import UserError
from hearken.models.layout import Group
from hearken.rewards.learned import Reward
from hearken.rollout.sampler import Sample, Sampler
from hearken.statistics.divergence import FEWEST, Divergence, find_divergence
from hearken.training import distributed
from hearken.training.run import Callback

if TYPE_CHECKING:
    from hearken.feedback.examples import Content


def set_apart(prompts: Prompts, count: int, seed: int) -> tuple[Prompts, Prompts]:
    """``count`` of the prompts (or all) at random, and the others; both in their old order."""
    order = np.random.default_rng([seed, 1]).permutation(len(prompts.ids))
    return prompts.take(sorted(order[:count].tolist())), prompts.take(sorted(order[count:].tolist()))


@dataclass(frozen=True)
class Answered:
    """A held-out prompt with the policy's answer and the reference's."""

    content: Content
    mine: str
    theirs: str
    group: Group
    """The prompt's tokens with those of both answers, the policy's first."""


class Verdicts(NamedTuple):
    """What a judge says of the answers of one look."""

    outcomes: Sequence[float]
    """1 where the policy's answer wins, 0 where the reference's does, ½ for ties; what nobody judged is left out."""
    judgments: Sequence[str] = ()
    """Ids of the judgments in a project's database that they come from."""


Judge = Callable[[int, Sequence[Answered]], Verdicts]
"""(iteration, answers) to what is said of them. It may take its time, and raise `errors.Pause` to go on another day."""


@dataclass(frozen=True)
class ByScore:
    """Of two answers the one with the higher score wins."""

    reward: Reward

    def __call__(self, step: int, answered: Sequence[Answered]) -> Verdicts:
        """See `Judge`."""
        scores = self.reward([one.group for one in answered]).view(-1, 2)
        return Verdicts(((scores[:, 0] - scores[:, 1]).sign() / 2 + 0.5).tolist())


class Watch(Callback):
    """A judge beside a run: keeps the weights that win most, and may stop it.

    Args:
        judge: who compares; never the reward that is optimised.
        setup: whose policy is compared with its reference, and the optimised reward held against the judge.
        prompts: held-out ones.
        options: how often to look, and how to sample.
    """

    name = "watch"

    def __init__(self, judge: Judge, setup: Setup, prompts: Prompts, options: Any) -> None:
        self.judge, self.setup, self.prompts, self.options = judge, setup, prompts, options
        self.theirs: list[Sample] = []
        self.steps: list[int] = []
        self.rises: list[float] = []
        """By how much the mean reward of the policy's answers exceeds that of the reference's, at each of `steps`."""
        self.wins: list[float] = []
        """Their win rate."""
        self.heard: set[str] = set()
        """Ids of the judgments that were heard, where people or machines of a project watch."""
        self.best: dict[str, Tensor] = {}

    def before(self, step: int, *, last: bool = False) -> dict[str, float]:
        """Ask the judge, where it is time, about the policy as it stands; figures for the log."""
        if step % self.options.judge_every and not last:
            return {}
        if step in self.steps:  # the run was interrupted after this look
            at = self.steps.index(step)
            return {"judge": self.wins[at], "judge_proxy": self.rises[at]}
        policy = self.setup.policy
        self.theirs = self.theirs or self._sample(policy.sampler(self.setup.reference))
        self.setup.sampler.update_weights(policy.scorer, step)
        mine = self._sample(self.setup.sampler)
        # Against the reference's answers: a reward that is refitted on the way has its zero elsewhere.
        proxy = self._proxy(mine) - self._proxy(self.theirs)
        decode = policy.encoder.decode
        answered = [
            Answered(content, decode(a.tokens, content), decode(b.tokens, content), Group(ids, [a.tokens, b.tokens]))
            for content, ids, a, b in zip(self.prompts.contents, self.prompts.ids, mine, self.theirs, strict=True)
        ]
        outcomes, judgments = self.judge(step, answered)
        self.heard |= set(judgments)
        if not outcomes:
            return {}
        self.record(step, proxy, value := float(np.mean(outcomes)))
        return {"judge": value, "judge_proxy": proxy}

    @property
    def stop(self) -> bool:
        """Whether the run is to end here."""
        return self.options.early_stop == "overoptimization" and self.fooled

    def finish(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the policy its best weights back."""
        return self.restore(), {"watched": sorted(self.heard)} if self.heard else {}

    def record(self, step: int, proxy: float, value: float) -> None:
        """Note a look, and keep the weights where none was better."""
        if not self.wins or value > max(self.wins):
            self.best = {name: p.detach().cpu().clone() for name, p in self._weights()}
        self.steps.append(step)
        self.rises.append(proxy)
        self.wins.append(value)

    def _proxy(self, samples: Sequence[Sample]) -> float:
        groups = [Group(ids, [sample.tokens]) for ids, sample in zip(self.prompts.ids, samples, strict=True)]
        return distributed.mean(rate(self.setup, groups, samples, self.options)).item()

    def _sample(self, sampler: Sampler) -> list[Sample]:
        """One answer a prompt, by the same draws whenever it is asked: what changes is the policy."""
        seeds = np.random.SeedSequence([self.options.seed, 1, 2]).generate_state(len(self.prompts.ids)).tolist()
        samples = sampler.sample(self.prompts.ids, 1, sampling(self.options), seeds)
        cut = self.options.truncate_at
        return [truncate(s, self.setup, cut) for s in samples] if cut else samples

    def verdict(self) -> Divergence | None:
        """Reward against win rate so far; None while little is known."""
        return find_divergence(self.steps, self.rises, self.wins)

    @property
    def fooled(self) -> bool:
        """Whether the reward rises while the win rate falls."""
        found = self.verdict()
        return found is not None and found.fooled

    def restore(self) -> dict[str, Any]:
        """Give the policy its best weights back; figures for the manifest, and what happened in words."""
        if not self.wins:
            return {}
        top = max(range(len(self.wins)), key=self.wins.__getitem__)
        for name, parameter in self._weights():
            parameter.data.copy_(self.best[name])
        return {
            "judge": self.wins[top], "judge_last": self.wins[-1], "judge_prompts": len(self.prompts.ids),
            "best_step": self.steps[top], "fooled": self.fooled, "says": self.say(top),
        }  # fmt: skip

    def say(self, top: int) -> str:
        """What was seen, in plain words; ``top`` is the look at which the policy won most."""
        found = self.verdict()
        count, best, last = len(self.prompts.ids), self.wins[top], self.wins[-1]
        kept = (
            f"The policy after {self.steps[top]} iterations is kept: it wins {best:.0%} of {count} held-out prompts "
            f"against the reference by the judge, the last one {last:.0%}."
        )
        if found is None:
            return f"{len(self.steps)} looks are too few to tell whether the reward was fooled. {kept}"
        if not found.fooled:
            return f"No sign that the reward was fooled: where it rose, the judge's win rate did not fall. {kept}"
        return (
            f"The reward was fooled after {found.peak:.0f} iterations: from there on it rose by {found.proxy_rise:.2g} "
            f"on held-out prompts, while the win rate fell by {100 * found.gold_fall:.0f} points. {kept}"
        )

    def _weights(self) -> list[tuple[str, Any]]:
        return [(name, p) for name, p in self.setup.scorer.named_parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        heard = sorted(self.heard)
        return {"steps": self.steps, "proxy": self.rises, "wins": self.wins, "heard": heard, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.steps, self.rises, self.wins = (list(state[k]) for k in ("steps", "proxy", "wins"))
        self.heard = set(state["heard"])
        self.best = dict(state["best"])


# -- who watches ------------------------------------------------------------------------------------------------


AnySetup = TypeVar("AnySetup", bound=Setup)


def watched(
    load: Callable[[Inputs, Any], AnySetup], inputs: Inputs, options: Any, judge: Judge | None = None
) -> tuple[AnySetup, list[Callback]]:
    """A stage's setup, and who watches its run: nobody, or one `Watch` whose prompts are taken from the others.

    Args:
        load: opens everything.
        inputs: of the stage.
        options: of the stage; without `WatchOptions` nobody can.
        judge: who watches; by default what ``options.judge`` names.

    Raises:
        UserError: what is asked for cannot be; before anything is opened.
    """
    nobody = not isinstance(options, WatchOptions)
    if nobody:
        return load(inputs, options), []
    check(inputs, options, judge)
    setup = load(inputs, options)
    if not options.judge:
        return setup, []
    if setup.held_out.ids:
        mine, _ = set_apart(setup.held_out, options.judge_prompts, options.seed)
    else:
        every = setup.prompts
        mine, setup.prompts = set_apart(every, min(options.judge_prompts, len(every.ids) // 5), options.seed)
    if not mine.ids:
        raise UserError("no prompt is left for the judge", "Give --validation, or more prompts")
    plainly = options.model_copy(update={"pessimism": 0.0, "trust_reward": True})
    judge = judge or ByScore(open_reward(options.judge, setup.policy, setup.known, plainly))
    setup.facts |= {"prompts": len(setup.prompts.ids), "judge_prompts": len(mine.ids)}
    return setup, [Watch(judge, setup, mine, options)]


def check(inputs: Inputs, options: Any, judge: Judge | None) -> None:
    """Refuse a judge that cannot be asked here, and what makes no sense without one.

    Raises:
        UserError: any of these.
    """
    if options.early_stop and not options.judge:
        raise UserError(
            f"early_stop={options.early_stop} needs someone to ask",
            "Add --judge: another reward model or module:function",
        )
    if inputs.validation and not options.judge:
        raise UserError("--validation holds prompts for a judge, and there is none", "Add --judge, or leave it out")
    if options.early_stop and (looks := looks_of(options) - 1) < FEWEST:
        warnings.warn(
            f"early_stop={options.early_stop} can stop nothing: {looks} looks, and {FEWEST} are needed to tell. "
            "Lower judge_every",
            stacklevel=3,
        )
    if options.judge in ASKED and judge is None:
        raise UserError(
            f"judge={options.judge}: they can be asked in a project's rounds",
            f"Set loop.watch.judge to {options.judge} in hearken.yaml and run: hearken loop",
        )


def looks_of(options: Any) -> int:
    """How often a judge looks in a whole run, the last weights included."""
    return -(-options.iterations // options.judge_every) + 1


def questions(callbacks: Sequence[Callback]) -> dict[str, int]:
    """For a dry run: how many comparisons whoever watches will be asked for."""
    asked = sum(looks_of(one.options) * len(one.prompts.ids) for one in callbacks if isinstance(one, Watch))
    return {"judge_comparisons": asked} if asked else {}
