"""Watching a run with a judge that it is not trained on: where the reward is fooled, and which weights were best.

Every few iterations the policy answers held-out prompts, and the judge compares its answers with the reference's. The
weights that won most are kept; and where the win rate has fallen from its peak while the reward of the same answers
rose, beyond noise, the run is fooled (Gao et al. 2022 call it over-optimisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hearken.algorithms.ppo_options import PPOOptions
from hearken.algorithms.rollouts import rate, truncate
from hearken.domains.text.loading import TextPolicy
from hearken.feedback.examples import Content
from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.rewards.learned import Reward
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import Sample, SamplingParameters
from hearken.statistics.divergence import Divergence, find_divergence


class Prompts(NamedTuple):
    """The same prompts twice."""

    contents: list[Content]
    ids: list[list[int]]
    """Their tokens."""


NO_PROMPTS = Prompts([], [])


def set_apart(prompts: Prompts, count: int, seed: int) -> tuple[Prompts, Prompts]:
    """``count`` of the prompts (or all) at random, and the others; both in their old order."""
    order = np.random.default_rng([seed, 1]).permutation(len(prompts.ids))
    return tuple(  # type: ignore[return-value]
        Prompts([prompts.contents[i] for i in some], [prompts.ids[i] for i in some])
        for some in (sorted(order[:count].tolist()), sorted(order[count:].tolist()))
    )


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


class Watch:
    """A judge beside a run; part of its checkpoint.

    Args:
        judge: who compares; never the reward that is optimised.
        policy: whose trained weights are kept where they are best.
        reference: whom it is compared with.
        proxy: the reward that is optimised, to be held against the judge.
        prompts: held-out ones.
        options: how often to look, and how to sample.
    """

    def __init__(
        self, judge: Judge, policy: TextPolicy, reference: TokenScorer, proxy: Reward,
        prompts: Prompts, options: PPOOptions,
    ) -> None:  # fmt: skip
        self.judge, self.policy, self.proxy, self.prompts, self.options = judge, policy, proxy, prompts, options
        self.samplers = {False: NativeSampler(policy.scorer, policy.stop), True: NativeSampler(reference, policy.stop)}
        self.theirs: list[Sample] = []
        self.steps: list[int] = []
        self.rises: list[float] = []
        """By how much the mean reward of the policy's answers exceeds that of the reference's, at each of `steps`."""
        self.wins: list[float] = []
        """Their win rate."""
        self.heard: set[str] = set()
        """Ids of the judgments that were heard, where people or machines of a project watch."""
        self.best: dict[str, Tensor] = {}

    def look(self, step: int, *, last: bool = False) -> dict[str, float]:
        """Ask the judge, where it is time, about the policy as it stands; figures for the log."""
        if step % self.options.judge_every and not last:
            return {}
        if step in self.steps:  # the run was interrupted after this look
            at = self.steps.index(step)
            return {"judge": self.wins[at], "judge_proxy": self.rises[at]}
        self.theirs = self.theirs or self._sample(reference=True)
        mine = self._sample()
        # Against the reference's answers: a reward that is refitted on the way has its zero elsewhere.
        proxy = self._proxy(mine) - self._proxy(self.theirs)
        decode = self.policy.encoder.decode
        answered = [
            Answered(content, decode(a.tokens, content), decode(b.tokens, content), Group(ids, [a.tokens, b.tokens]))
            for content, ids, a, b in zip(*self.prompts, mine, self.theirs, strict=True)
        ]
        outcomes, judgments = self.judge(step, answered)
        self.heard |= set(judgments)
        if not outcomes:
            return {}
        self.record(step, proxy, value := float(np.mean(outcomes)))
        return {"judge": value, "judge_proxy": proxy}

    def record(self, step: int, proxy: float, value: float) -> None:
        """Note a look, and keep the weights where none was better."""
        if not self.wins or value > max(self.wins):
            self.best = {name: p.detach().cpu().clone() for name, p in self._weights()}
        self.steps.append(step)
        self.rises.append(proxy)
        self.wins.append(value)

    def _proxy(self, samples: Sequence[Sample]) -> float:
        groups = [Group(ids, [sample.tokens]) for ids, sample in zip(self.prompts.ids, samples, strict=True)]
        return rate(self.proxy, groups, samples, self.options).mean().item()

    def _sample(self, *, reference: bool = False) -> list[Sample]:
        """One answer a prompt, by the same draws whenever it is asked: what changes is the policy."""
        options = self.options
        how = SamplingParameters(
            max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p,
            top_k=options.top_k,
        )  # fmt: skip
        seeds = np.random.SeedSequence([options.seed, 1, 2]).generate_state(len(self.prompts.ids)).tolist()
        samples = self.samplers[reference].sample(self.prompts.ids, 1, how, seeds)
        return [truncate(s, self.policy, options.truncate_at) for s in samples] if options.truncate_at else samples

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
        return [(name, p) for name, p in self.policy.scorer.named_parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        heard = sorted(self.heard)
        return {"steps": self.steps, "proxy": self.rises, "wins": self.wins, "heard": heard, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.steps, self.rises, self.wins = (list(state[k]) for k in ("steps", "proxy", "wins"))
        self.heard = set(state["heard"])
        self.best = dict(state["best"])
