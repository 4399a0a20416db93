"""What policies answer to held-out prompts, with every figure that needs no labeler; every response is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hearken.config import cache_folder
from hearken.domains.base import Domain, Drawn, Facts, Measured, Scorer, find_domain, mean
from hearken.domains.best_of import asked_of, label_of
from hearken.evaluation.allowed import Allowed
from hearken.evaluation.compare import HeadToHead, head_to_head
from hearken.evaluation.results import EvaluationResult, JudgedBy, PolicyResult
from hearken.feedback.examples import Content
from hearken.feedback.media import MediaFolder
from hearken.labelers.simulated import dialogue_text
from hearken.progress import progress
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.allowance import allowance, share_reached
from hearken.statistics.intervals import Interval, cluster_bootstrap, clustered_wilson
from hearken.training.artifact import MANIFEST, Artifact

if TYPE_CHECKING:
    from hearken.worlds.world import World

Reads = Callable[[str], object]
"""What a world reads of a response's content."""

POOL, OWN = 1009, 2003
"""Apart from the seed of the policies' responses that are compared."""

GOLD = JudgedBy(kind="gold", words="the gold reward")


def by_reward_model(name: str) -> JudgedBy:
    """The reward model as the judge, where the gold reward is unknown."""
    return JudgedBy(
        kind="reward", name=name, words="the reward model", remark="a proxy: ask people before you believe it"
    )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what policies are compared, the same for all.

    Attributes:
        prompts: held-out ones.
        sampling: how responses are drawn.
        seed: of the samples.
        reward: the proxy, as ``--reward`` takes it; None where there is none.
        world: that knows the gold reward, if there is one.
        facts: metadata of prompts, for samplers and rewards that read them.
        domain: what the responses are.
        media: where those that are files are kept.
        pool: so many responses of the baseline to each prompt show what the reward allows; 0 leaves that out.
    """

    prompts: Sequence[Content]
    sampling: SamplingParameters
    seed: int
    reward: str | None = None
    world: World | None = None
    facts: Facts = field(default_factory=dict)
    domain: Domain = field(default_factory=lambda: find_domain("text"))
    media: MediaFolder = field(default_factory=lambda: MediaFolder(cache_folder("evaluate")))
    pool: int = 0

    def read(self, content: str) -> object:
        """What a world reads of a response."""
        return self.domain.read(content, self.media)


def assess(policies: Sequence[str], under: Conditions) -> EvaluationResult:
    """Responses and figures of each policy, the first being the baseline of win rates and the reference of KL.

    Args:
        policies: paths or Hub names; ``best-of-8@NAME`` is the best of eight responses by the reward model.
        under: the conditions.

    Raises:
        UserError: a policy or the reward cannot be opened.
    """
    prompts, reward, world = under.prompts, under.reward, under.world
    domain, files = under.domain, under.media
    proxy = domain.scorer(reward, files, under.facts) if reward else None
    base = label_of(policies[0])
    allows = _Allowance(policies[0], under, proxy)

    found: dict[str, PolicyResult] = {}
    for name in dict.fromkeys(policies):
        asked = asked_of(name)
        seen = domain.measure(
            asked.source, asked_of(policies[0]).source, prompts, under.sampling, under.seed, files,
            choice=asked.by(reward), facts=under.facts,
        )  # fmt: skip
        policy = PolicyResult(responses=seen.responses).measured(seen.figures)
        if proxy is not None:
            policy = _scored(policy, proxy, prompts, seen)
            policy = policy.but(allowed=allows.of(name, policy.scores, seen.log_ratios))
        if world is not None:
            policy = _known(policy, world, prompts, under.read)
            if reward and asked.source == name:
                policy = policy.but(own_accuracy=_own_accuracy(name, reward, proxy, world, under))
        before = found.get(base, policy)  # the baseline is the first
        policy = policy.measured(domain.compare(prompts, policy.responses, before.responses, files))
        if label_of(name) != base and (won := _won(policy, before, world, prompts, under.read)) is not None:
            policy = policy.but(win_rate=won.win_rate, win_rate_by_group=won.by_group)
        found[label_of(name)] = policy
    named = Path(reward).name if reward else None
    judge = GOLD if world is not None else by_reward_model(named) if named else None
    return EvaluationResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"), baseline=base, judge=judge, reward=named,
        artifacts={label_of(name): name for name in policies}, prompts=tuple(prompts), policies=found,
        domain=domain.name, titles=dict(domain.figures),
    )  # fmt: skip


def _scored(policy: PolicyResult, proxy: Scorer, prompts: Sequence[Content], seen: Measured) -> PolicyResult:
    """With the reward model's scores."""
    scores = [s[0] for s in proxy(prompts, [[one] for one in seen.responses], [[f] for f in seen.finished])]
    return policy.but(scores=scores, proxy=mean(scores, prompts))


class _Allowance:
    """What the reward allows near the baseline; its pool is drawn and scored once, for the first policy that asks."""

    def __init__(self, baseline: str, under: Conditions, proxy: Scorer | None) -> None:
        self.baseline, self.under, self.proxy = baseline, under, proxy
        self.pool: list[list[float]] = []

    def of(self, name: str, scores: Sequence[float], log_ratios: Sequence[float]) -> Allowed | None:
        """The share that a policy reached; None where reward or reference are others."""
        beta = self._held(name)
        if beta is None or not log_ratios:
            return None
        allowed = allowance(self.pool or self._draw(), beta)
        keys = [repr(prompt) for prompt in self.under.prompts]
        objective = np.asarray(scores) - beta * np.asarray(log_ratios)
        return Allowed(
            beta=beta, share=share_reached(objective, allowed, keys), objective=cluster_bootstrap(objective, keys),
            start=allowed.start.mean(), best=allowed.best.mean(), best_kl=allowed.kl.mean(), pool=self.under.pool,
        )  # fmt: skip

    def _held(self, name: str) -> float | None:
        """β of the policy's training."""
        if not (self.under.pool and self.under.reward) or name == self.baseline or not (Path(name) / MANIFEST).exists():
            return None
        artifact = Artifact.load(name)
        trained = _same(artifact.inputs.get("reward") or "", self.under.reward)
        beta = artifact.metrics.get("beta", artifact.options.get("beta"))
        return float(beta) if trained and beta is not None and _same(artifact.reference, self.baseline) else None

    def _draw(self) -> list[list[float]]:
        assert self.proxy is not None
        under, drawn = self.under, []
        with progress("What the reward allows", len(under.prompts) * under.pool, "response") as bar:
            for part in under.domain.sample(
                self.baseline, under.prompts, under.pool, under.sampling, under.seed + POOL, under.media,
                facts=under.facts,
            ):  # fmt: skip
                drawn += part
                bar.advance(len(part))
        every = [drawn[i : i + under.pool] for i in range(0, len(drawn), under.pool)]
        self.pool = self.proxy(
            under.prompts, [[one.content for one in some] for some in every],
            [[one.finish_reason != "length" for one in some] for some in every],
        )  # fmt: skip
        return self.pool


def _same(one: str, other: str) -> bool:
    """Whether two names are one model: folders by where they are, others by their names."""
    return one == other or (bool(one and other) and Path(one).resolve() == Path(other).resolve())


def _known(policy: PolicyResult, world: World, prompts: Sequence[Content], read: Reads) -> PolicyResult:
    """With what the world knows of its responses."""
    given = [(dialogue_text(p), read(t)) for p, t in zip(prompts, policy.responses, strict=True)]
    golds = [world.gold(prompt, response) for prompt, response in given]
    policy = policy.but(golds=golds, gold=mean(golds, prompts))
    parses = [accepted for one in given if (accepted := world.accepts(*one)) is not None]
    if len(parses) == len(given):
        policy = policy.but(parses=parses, parse_rate=mean([float(x) for x in parses], prompts))
    return policy


def _own_accuracy(
    name: str, reward: str, proxy: Scorer | None, world: World, under: Conditions
) -> Interval | None:  # fmt: skip
    """How often the reward model orders two fresh responses to a prompt as the gold reward does.

    A policy goes where its reward is high: there a reward model that is right elsewhere may be wrong.
    """
    if under.domain.viewer != "text":  # files that nobody is to see: not among the project's
        with tempfile.TemporaryDirectory(prefix="hearken-") as folder:
            apart = replace(under, media=MediaFolder(Path(folder)))
            return _own_accuracy_of(name, under.domain.scorer(reward, apart.media, under.facts), world, apart)
    assert proxy is not None
    return _own_accuracy_of(name, proxy, world, under)


def _own_accuracy_of(name: str, proxy: Scorer, world: World, under: Conditions) -> Interval | None:
    drawn: list[Drawn] = []
    with progress("The reward on its own responses", 2 * len(under.prompts), "response") as bar:
        for part in under.domain.sample(
            name, under.prompts, 2, under.sampling, under.seed + OWN, under.media, facts=under.facts
        ):
            drawn += part
            bar.advance(len(part))
    both = [drawn[i : i + 2] for i in range(0, len(drawn), 2)]
    scores = proxy(
        under.prompts, [[one.content for one in some] for some in both],
        [[one.finish_reason != "length" for one in some] for some in both],
    )  # fmt: skip
    asked = [dialogue_text(prompt) for prompt in under.prompts]
    golds = [[world.gold(p, under.read(one.content)) for one in some] for p, some in zip(asked, both, strict=True)]
    margins = [(a - b, c - d) for (a, b), (c, d) in zip(scores, golds, strict=True) if c != d]
    hits = [0.5 if not by_score else float((by_score > 0) == (by_gold > 0)) for by_score, by_gold in margins]
    return clustered_wilson(hits) if hits else None


def _won(
    policy: PolicyResult, before: PolicyResult, world: World | None, prompts: Sequence[Content], read: Reads
) -> HeadToHead | None:
    """Against the baseline by the gold reward, else by the reward model; None where there is neither."""
    both = (policy.responses, before.responses)
    if world is not None:
        groups = {
            g: (lambda p, t, g=g: world.utility(dialogue_text(p), read(t), g))  # type: ignore[misc]
            for g in world.groups
        }
        return head_to_head(prompts, *both, lambda p, t: world.gold(dialogue_text(p), read(t)), groups)
    if not policy.scores:
        return None
    scores = {
        (repr(prompt), text): score
        for side in (policy, before)
        for prompt, text, score in zip(prompts, side.responses, side.scores, strict=True)
    }
    return head_to_head(prompts, *both, lambda p, t: scores[repr(p), t])
