"""What policies answer to held-out prompts, with every figure that needs no labeler; every response is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.config import cache_folder
from hearken.domains.base import Domain, Measured, Scorer, find_domain, mean
from hearken.domains.best_of import asked_of, label_of
from hearken.evaluation.compare import HeadToHead, head_to_head
from hearken.evaluation.results import EvaluationResult, JudgedBy, PolicyResult
from hearken.feedback.examples import Content
from hearken.feedback.media import MediaFolder
from hearken.labelers.simulated import dialogue_text
from hearken.rollout.sampler import SamplingParameters

if TYPE_CHECKING:
    from hearken.worlds.world import World

Reads = Callable[[str], Any]
"""What a world reads of a response's content."""

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
    """

    prompts: Sequence[Content]
    sampling: SamplingParameters
    seed: int
    reward: str | None = None
    world: World | None = None
    facts: Mapping[Content, dict[str, Any]] = field(default_factory=dict)
    domain: Domain = field(default_factory=lambda: find_domain("text"))
    media: MediaFolder = field(default_factory=lambda: MediaFolder(cache_folder("evaluate")))

    def read(self, content: str) -> Any:
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
        if world is not None:
            policy = _known(policy, world, prompts, under.read)
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


def _known(policy: PolicyResult, world: World, prompts: Sequence[Content], read: Reads) -> PolicyResult:
    """With what the world knows of its responses."""
    given = [(dialogue_text(p), read(t)) for p, t in zip(prompts, policy.responses, strict=True)]
    golds = [world.gold(prompt, response) for prompt, response in given]
    policy = policy.but(golds=golds, gold=mean(golds, prompts))
    parses = [accepted for one in given if (accepted := world.accepts(*one)) is not None]
    if len(parses) == len(given):
        policy = policy.but(parses=parses, parse_rate=mean([float(x) for x in parses], prompts))
    return policy


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
