"""What policies answer to held-out prompts, with every figure that needs no labeler; every response is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.evaluation.compare import HeadToHead, head_to_head
from hearken.evaluation.drift import drift, entropy
from hearken.evaluation.measure import ByReward, Measured, asked_of, label_of, mean, measure
from hearken.evaluation.results import EvaluationResult, JudgedBy, PolicyResult
from hearken.feedback.examples import Content
from hearken.labelers.simulated import dialogue_text
from hearken.rollout.sampler import SamplingParameters
from hearken.worlds.tales.world import TaleWorld

if TYPE_CHECKING:
    from hearken.worlds.world import World

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
        facts: metadata of prompts, for rewards that are rules or functions.
    """

    prompts: Sequence[Content]
    sampling: SamplingParameters
    seed: int
    reward: str | None = None
    world: World | None = None
    facts: Mapping[Content, dict[str, Any]] = field(default_factory=dict)


def assess(policies: Sequence[str], under: Conditions) -> EvaluationResult:
    """Responses and figures of each policy, the first being the baseline of win rates and the reference of KL.

    Args:
        policies: paths or Hub names; ``best-of-8@NAME`` is the best of eight responses by the reward model.
        under: the conditions.

    Raises:
        UserError: a policy or the reward cannot be opened.
    """
    prompts, reward, world = under.prompts, under.reward, under.world
    proxy = ByReward(reward, under.facts) if reward else None
    base = label_of(policies[0])

    found: dict[str, PolicyResult] = {}
    for name in dict.fromkeys(policies):
        seen = measure(
            name, asked_of(policies[0]).source, prompts, under.sampling, under.seed, by=reward, metadata=under.facts
        )
        policy = PolicyResult(
            kl=mean(seen.kl, prompts), length=mean(seen.lengths, prompts),
            eos_share=mean([float(f) for f in seen.finished], prompts), responses=tuple(seen.texts),
            entropy=entropy(seen.entropy, seen.lengths, prompts) if asked_of(name).many == 1 else None,
        )  # fmt: skip
        if proxy is not None:
            policy = _scored(policy, proxy, prompts, seen)
        if world is not None:
            policy = _known(policy, world, prompts)
        before = found.get(base, policy)  # the baseline is the first
        policy = policy.drifted(drift(prompts, policy.responses, before.responses))
        if label_of(name) != base and (won := _won(policy, before, world, prompts)) is not None:
            policy = policy.but(win_rate=won.win_rate, win_rate_by_group=won.by_group)
        found[label_of(name)] = policy
    named = Path(reward).name if reward else None
    judge = GOLD if world is not None else by_reward_model(named) if named else None
    return EvaluationResult(
        created=datetime.now(UTC).isoformat(timespec="seconds"), baseline=base, judge=judge, reward=named,
        artifacts={label_of(name): name for name in policies}, prompts=tuple(prompts), policies=found,
    )  # fmt: skip


def _scored(policy: PolicyResult, proxy: ByReward, prompts: Sequence[Content], seen: Measured) -> PolicyResult:
    """With the reward model's scores."""
    scores = [s[0] for s in proxy(prompts, [[t] for t in seen.texts], [[f] for f in seen.finished])]
    return policy.but(scores=scores, proxy=mean(scores, prompts))


def _known(policy: PolicyResult, world: World, prompts: Sequence[Content]) -> PolicyResult:
    """With what the world knows of its responses."""
    told = [(dialogue_text(p), t) for p, t in zip(prompts, policy.responses, strict=True)]
    golds = [world.gold(prompt, text) for prompt, text in told]
    policy = policy.but(golds=golds, gold=mean(golds, prompts))
    if isinstance(world, TaleWorld):
        parses = [world.parse(prompt, text).parses for prompt, text in told]
        policy = policy.but(parses=parses, parse_rate=mean([float(x) for x in parses], prompts))
    return policy


def _won(
    policy: PolicyResult, before: PolicyResult, world: World | None, prompts: Sequence[Content]
) -> HeadToHead | None:
    """Against the baseline by the gold reward, else by the reward model; None where there is neither."""
    both = (policy.responses, before.responses)
    if world is not None:
        groups = {g: (lambda p, t, g=g: world.utility(dialogue_text(p), t, g)) for g in world.groups}  # type: ignore[misc]
        return head_to_head(prompts, *both, lambda p, t: world.gold(dialogue_text(p), t), groups)
    if not policy.scores:
        return None
    scores = {
        (repr(prompt), text): score
        for side in (policy, before)
        for prompt, text, score in zip(prompts, side.responses, side.scores, strict=True)
    }
    return head_to_head(prompts, *both, lambda p, t: scores[repr(p), t])
