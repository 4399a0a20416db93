"""Playing: a policy acts in its environment from a start that a seed fixes, and a clip is cut of what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import HORIZON, Environment, attempt, check_finite
from hearken.domains.control.policy import Acts
from hearken.errors import UserError


@dataclass(frozen=True)
class Episode:
    """What was done from a start on."""

    observations: list[Any]
    actions: list[Any]
    rewards: list[float]
    states: list[tuple[Any, Any]]
    """MuJoCo's positions and velocities before each step; empty of other environments."""
    terminated: bool
    """It ended other than by its time limit, or by ours."""


def play(
    environment: Environment, opened: Any, policy: Acts, seed: int, rng: np.random.Generator, *, greedy: bool,
    until: int = 0,
) -> Episode:  # fmt: skip
    """Act until the episode ends.

    Args:
        environment: what is opened.
        opened: it.
        policy: who acts.
        seed: of the start.
        rng: of the actions.
        greedy: the likeliest action is taken.
        until: end after so many steps; 0: at the environment's limit, or after 1000.

    Raises:
        UserError: an observation or reward that is no finite number.
    """
    observation, _ = attempt(environment.id, opened.reset, seed=seed)
    core, limit = opened.unwrapped, until or horizon(opened)
    physics = hasattr(core, "set_state") and hasattr(core, "data")
    seen: list[Any] = []
    acted: list[Any] = []
    paid: list[float] = []
    states: list[tuple[Any, Any]] = []
    terminated = truncated = False
    while len(acted) < limit and not (terminated or truncated):
        check_finite(environment.id, observation)
        seen.append(np.array(observation))
        if physics:
            states.append((core.data.qpos.copy(), core.data.qvel.copy()))
        action = policy(seen[-1], rng, greedy)
        acted.append(action)
        observation, reward, terminated, truncated, _ = attempt(environment.id, opened.step, action)
        check_finite(environment.id, observation, reward)
        paid.append(float(reward))
    return Episode(seen, acted, paid, states, bool(terminated))


def horizon(opened: Any) -> int:
    """Most steps of an episode."""
    return int((opened.spec.max_episode_steps if opened.spec else None) or HORIZON)


def cut(environment: Environment, episode: Episode, seed: int, first: int, length: int) -> Clip:
    """The clip of ``length`` steps from the ``first`` on; of an episode that ended before, its last steps."""
    count = len(episode.rewards)
    if not count:
        raise UserError(f"{environment.id} ended before its first step", "Mend the environment")
    first = max(0, min(first, count - length))
    part = slice(first, first + length)
    positions, velocities = zip(*episode.states[part], strict=True) if episode.states else ((), ())
    return Clip(
        environment, np.array(episode.observations[part]), np.array(episode.actions[part]),
        np.array(episode.rewards[part]), episode.terminated and first + length >= count, seed,
        np.array(episode.actions[:first]), np.array(positions, float), np.array(velocities, float),
    )  # fmt: skip
