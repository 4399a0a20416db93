"""The world of true returns: of two clips the better one is that with the higher return, which only labelers know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

RANDOM = 40
"""Clips of a policy that acts at random, by whose spread returns are measured."""


class Returns:
    """Labelers of one mind: return over twice its spread among clips of random actions (log-odds of 4 per spread)."""

    title = "the world of true returns"
    leanings: Mapping[str, float] = {"side": 0.2}
    groups = ("watchers",)

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._units: dict[tuple[str, int], float] = {}

    def utility(self, prompt: str, response: Any, group: str) -> float:
        """Of a `domains.control` clip."""
        return 2 * float(response.total) / self._unit(response)

    def gold(self, prompt: str, response: Any) -> float:
        """The same."""
        return self.utility(prompt, response, self.groups[0])

    def accepts(self, prompt: str, response: Any) -> None:
        """It cannot tell what is no clip."""
        return None

    def _unit(self, clip: Any) -> float:
        """Standard deviation of the return of as many steps under random actions, found once for an environment."""
        environment = clip.environment
        key = environment.key, environment.clip or len(clip)
        if key not in self._units:
            opened, length = environment.open(), key[1]
            opened.action_space.seed(self.seed)
            found: list[float] = []
            over, start = True, self.seed
            while len(found) < RANDOM:
                if over:
                    opened.reset(seed=start)
                    start += 1
                total, over = 0.0, False
                for _ in range(length):
                    _, reward, ended, cut_off, _ = opened.step(opened.action_space.sample())
                    total += float(reward)
                    if over := bool(ended or cut_off):
                        break
                found.append(total)
            opened.close()
            self._units[key] = max(float(np.std(found)), 1e-9)
        return self._units[key]
