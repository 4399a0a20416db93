"""Assess policies on held-out prompts and keep every response, so that the report can show and anyone can check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.evaluation.compare import head_to_head
from hearken.evaluation.drift import drift, entropy
from hearken.evaluation.measure import ByReward, asked_of, label_of, mean, measure
from hearken.feedback.examples import Content
from hearken.labelers.simulated import dialogue_text
from hearken.worlds.tales.world import TaleWorld
from hearken.worlds.world import open_world

if TYPE_CHECKING:
    from hearken.loop.project import Project


def assess(
    project: Project, policies: Sequence[str], prompts: Sequence[Content], seed: int, reward: str | None = None,
    metadata: Mapping[Content, dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Responses and figures of each policy, the first being the baseline of win rates and the reference of KL.

    Args:
        project: whose world or reward model judges.
        policies: paths or Hub names; ``best-of-8@NAME`` is the best of eight responses by the reward model.
        prompts: held-out ones.
        seed: of the samples.
        reward: the proxy, as ``--reward`` takes it; by default the project's reward model in use.
        metadata: of prompts, for rewards that are rules or functions.

    Returns:
        JSON: ``prompts``, ``judge`` (who decided), and per policy figures as [estimate, low, high] with its responses.
    """
    reward = reward or (project.reward() if project.rewards() else None)
    how = project.config.sample.parameters
    proxy = ByReward(reward, metadata or {}) if reward else None
    world = open_world(project.config.world, project.config.seed) if project.config.world else None

    found: dict[str, Any] = {}
    answers: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    for name in dict.fromkeys(policies):
        short = label_of(name)
        seen = measure(name, asked_of(policies[0]).source, prompts, how, seed, by=reward, metadata=metadata)
        answers[short] = seen.texts
        figures: dict[str, Any] = {
            "kl": mean(seen.kl, prompts), "length": mean(seen.lengths, prompts),
            "eos_share": mean([float(f) for f in seen.finished], prompts),
        }  # fmt: skip
        if asked_of(name).many == 1:
            figures["entropy"] = entropy(seen.entropy, seen.lengths, prompts)
        if proxy is not None:
            scores[short] = [s[0] for s in proxy(prompts, [[t] for t in seen.texts], [[f] for f in seen.finished])]
            figures["proxy"] = mean(scores[short], prompts)
        if world is not None:
            golds = [world.gold(dialogue_text(p), t) for p, t in zip(prompts, seen.texts, strict=True)]
            found[short] = {**figures, "gold": mean(golds, prompts), "golds": golds}
            if isinstance(world, TaleWorld):
                parses = [world.parse(dialogue_text(p), t).parses for p, t in zip(prompts, seen.texts, strict=True)]
                found[short] |= {"parse_rate": mean([float(x) for x in parses], prompts), "parses": parses}
        else:
            found[short] = figures
        found[short] |= {"responses": seen.texts, "scores": scores.get(short)}

    base = label_of(policies[0])
    for short in answers:
        found[short] |= _drift(prompts, answers[short], answers[base])
    judge = "the gold reward" if world is not None else "the reward model (a proxy: ask people before you believe it)"
    for short in answers:
        if short == base:
            continue
        if world is not None:
            groups = {g: (lambda p, t, g=g: world.utility(dialogue_text(p), t, g)) for g in world.groups}  # type: ignore[misc]
            won = head_to_head(
                prompts, answers[short], answers[base], lambda p, t: world.gold(dialogue_text(p), t), groups
            )
            found[short] |= {"win_rate": won.win_rate, "win_rate_by_group": won.by_group}
        elif proxy is not None:
            mine = dict(zip(zip(map(repr, prompts), answers[short], strict=True), scores[short], strict=True))
            mine |= dict(zip(zip(map(repr, prompts), answers[base], strict=True), scores[base], strict=True))
            won = head_to_head(prompts, answers[short], answers[base], lambda p, t, by=mine: by[repr(p), t])  # type: ignore[misc]
            found[short] |= {"win_rate": won.win_rate}
    return {
        "baseline": base, "judge": judge, "prompts": [_plain(p) for p in prompts], "policies": found,
        "artifacts": {label_of(name): name for name in policies}, "reward": Path(reward).name if reward else None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _drift(prompts: Sequence[Content], texts: Sequence[str], before: Sequence[str]) -> dict[str, Any]:
    """How varied a policy's texts are, and what the baseline's did not say."""
    moved = drift(prompts, texts, before)
    return {
        "distinct_1": moved.distinct_1[1], "distinct_2": moved.distinct_2[1], "distinct_3": moved.distinct_3[1],
        "self_bleu": moved.self_bleu[1], "repetition": moved.repetition[1], "length_drift": moved.length,
        "phrases": [phrase._asdict() for phrase in moved.phrases],
    }  # fmt: skip


def _plain(prompt: Content) -> Any:
    return prompt if isinstance(prompt, str) else [m.to_row() for m in prompt]
