"""Recording: what policies do while they are trained, kept for a while, so that clips can be cut of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import Environment, attempt, check_finite, gymnasium
from hearken.domains.control.playing import Episode, cut


class Recorded(gymnasium().Wrapper):  # type: ignore[misc]
    """An environment that remembers its last episodes, each with the seed of its start.

    Args:
        environment: which one it is.
        keep: whole episodes are forgotten where those after them have so many steps.
    """

    def __init__(self, environment: Environment, keep: int) -> None:
        super().__init__(environment.open())
        self.environment, self.keep = environment, keep
        self.episodes: deque[tuple[int, Episode]] = deque()
        self._starts = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode; where no seed is named, from one that follows from the last that was."""
        if seed is None:
            seed = int(self._starts.integers(2**31))
        else:
            self._starts = np.random.default_rng(seed)
        self._seen, about = attempt(self.environment.id, self.env.reset, seed=seed, options=options)
        check_finite(self.environment.id, self._seen)
        while len(self.episodes) > 1 and sum(len(one.rewards) for _, one in list(self.episodes)[1:]) >= self.keep:
            self.episodes.popleft()
        self.episodes.append((seed, Episode([], [], [], [], False)))
        return self._seen, about

    def step(self, action: Any) -> Any:
        """A step, which is remembered."""
        seed, episode = self.episodes[-1]
        core = self.env.unwrapped
        episode.observations.append(np.array(self._seen))
        episode.actions.append(np.array(action))
        if hasattr(core, "set_state") and hasattr(core, "data"):
            episode.states.append((core.data.qpos.copy(), core.data.qvel.copy()))
        self._seen, reward, terminated, truncated, about = attempt(self.environment.id, self.env.step, action)
        check_finite(self.environment.id, self._seen, reward)
        episode.rewards.append(float(reward))
        if terminated:
            self.episodes[-1] = (
                seed,
                Episode(episode.observations, episode.actions, episode.rewards, episode.states, True),
            )
        return self._seen, reward, terminated, truncated, about


def draw(recorded: Sequence[Recorded], n: int, length: int, rng: np.random.Generator) -> list[Clip]:
    """Clips at random places of what was recorded last, each place as likely.

    Args:
        recorded: environments that have made a step.
        n: clips.
        length: steps of a clip; of an episode that was shorter it is all.
        rng: of the places.
    """
    found: list[tuple[Recorded, int, Episode, int]] = []
    for one in recorded:
        left = one.keep
        for seed, episode in reversed(one.episodes):
            if (count := len(episode.rewards)) and left > 0:
                found.append((one, seed, episode, max(count - left, 0)))
                left -= count
    places = np.array([max(len(episode.rewards) - length - first + 1, 1) for _, _, episode, first in found])
    clips = []
    for chosen in rng.choice(len(found), n, p=places / places.sum()):
        one, seed, episode, first = found[chosen]
        clips.append(cut(one.environment, episode, seed, first + int(rng.integers(places[chosen])), length))
    return clips
