"""Whole episodes of a policy, to look at: as a video, or in a window."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearken.domains.control import drawing
from hearken.domains.control.environment import Environment, check_finite
from hearken.domains.control.playing import horizon
from hearken.domains.control.policy import load_policy
from hearken.domains.control.video import FASTEST, encode, whole
from hearken.errors import UserError


def watch(
    policy: str, out: Path | None, *, episodes: int, seed: int, steps: int = 0, greedy: bool = True
) -> dict[str, Any]:  # fmt: skip
    """Play episodes and show them.

    Args:
        policy: a folder, or an environment's id.
        out: the video to write; None: a window.
        episodes: how many.
        seed: of the first one's start; each further one has the next.
        steps: the most of an episode; 0: as many as it takes.
        greedy: take the likeliest action.

    Returns:
        ``return``, ``steps`` and ``ended`` (by itself) of each episode, and ``file``.

    Raises:
        UserError: the policy cannot be read, the environment cannot be drawn, or there is no display for a window.
    """
    environment = Environment.named(policy)
    done: dict[str, Any] = {"environment": environment.id, "return": [], "steps": [], "ended": []}
    if out is None:
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError("there is no display for a window", "Write a file: leave --window out")
        with closing(environment.open(render="human")) as opened:
            for _ in _played(environment, opened, policy, episodes, seed, steps, greedy, done):
                pass
        return done

    def film() -> None:
        opened = drawing.opened(environment)
        fps = float(opened.metadata.get("render_fps") or FASTEST)
        every = max(round(fps / FASTEST), 1)
        moments = _played(environment, opened, policy, episodes, seed, steps, greedy, done)
        pictures = (opened.render() for number, _ in enumerate(moments) if not number % every)
        try:
            with whole(out) as partial:
                encode(pictures, round(fps / every), partial)
        except BaseException:
            drawing.forget(environment)
            raise

    drawing.drawn(film)
    return done | {"file": str(out)}


def _played(
    environment: Environment, opened: Any, policy: str, episodes: int, seed: int, steps: int, greedy: bool,
    done: dict[str, Any],
) -> Iterator[None]:  # fmt: skip
    """Each step, before it is taken."""
    acts = load_policy(policy, environment, opened)
    limit = min(steps or horizon(opened), horizon(opened))
    for number in range(episodes):
        rng = np.random.default_rng([seed + number])
        observation: NDArray[Any]
        observation, _ = opened.reset(seed=seed + number)
        total, count, terminated, truncated = 0.0, 0, False, False
        while count < limit and not (terminated or truncated):
            yield
            observation, reward, terminated, truncated, _ = opened.step(acts(np.array(observation), rng, greedy))
            check_finite(environment.id, observation, reward)
            total, count = total + float(reward), count + 1
        done["return"].append(round(total, 3))
        done["steps"].append(count)
        done["ended"].append(bool(terminated))
