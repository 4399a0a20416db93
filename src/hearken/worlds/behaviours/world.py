"""Behaviours of robots that nobody has written a reward for, and everybody sees at once.

The labelers of such a world go by what a clip shows of one, step by step, as its physics say. The reward model is told
nothing but which of two clips they prefer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shows = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(T, nq) MuJoCo's positions and (T, nv) velocities of a clip's steps -> (T,) how much each shows of the behaviour."""


@dataclass(frozen=True)
class Behaviour:
    """Labelers of one mind: they want to see more of it, with log-odds of 4 for each ``spread``."""

    title: str
    environment: str
    """Its id, of Gymnasium's."""
    question: str
    guideline: str
    """Of whoever judges in person."""
    shows: Shows
    unit: str
    """Of what ``shows`` gives, in words."""
    spread: float
    """Standard deviation of the mean over a clip, among clips of a robot that acts at random."""
    target: float
    """A policy that has learned it shows so much on average."""
    clip: int
    """Steps."""
    leanings: Mapping[str, float] = field(default_factory=lambda: {"side": 0.2})
    groups: tuple[str, ...] = ("watchers",)
    domain: str = "control"

    def mean(self, clip: Any) -> float:
        """How much a `domains.control` clip shows of it, on average over its steps."""
        return float(self.shows(clip.positions, clip.velocities).mean())

    def utility(self, prompt: str, response: Any, group: str) -> float:
        """The same, in half the log-odds of a usual labeler."""
        return 2 * self.mean(response) / self.spread

    def gold(self, prompt: str, response: Any) -> float:
        """The same."""
        return self.utility(prompt, response, self.groups[0])

    def in_units(self, gold: float) -> float:
        """What `gold` says, as ``shows`` gives it."""
        return gold * self.spread / 2

    def accepts(self, prompt: str, response: Any) -> None:
        """It cannot tell what is no clip."""
        return None

    def write(self, folder: Path) -> None:
        """The policy that acts at random, into a folder (see docs/control.md)."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"id": self.environment, "question": self.question, "clip": self.clip}
        (folder / "environment.json").write_text(json.dumps(about, indent=1), "utf-8")


def handstand(seed: int) -> Behaviour:
    """The cheetah stands on its forelegs, its tail in the air."""
    return Behaviour(
        title="the world of handstands", environment="HalfCheetah-v5",
        question="Which one is nearer to a handstand?",
        guideline="Choose the clip in which the cheetah's back is **nearer to upright, head down**, for longer. "
        "Nothing else counts.",
        shows=lambda positions, velocities: np.sin(positions[:, 2]),
        unit="of 1, which is upright with the head down", spread=0.3, target=0.5, clip=30,
    )  # fmt: skip


def whirl(seed: int) -> Behaviour:
    """The arm on the table, which is made to point at something, goes round and round instead."""
    return Behaviour(
        title="the world of whirling arms", environment="Reacher-v5",
        question="Which arm goes round faster, anticlockwise?",
        guideline="Choose the clip in which the arm goes round **anticlockwise** more often. Nothing else counts.",
        shows=lambda positions, velocities: velocities[:, 0] / (2 * np.pi),
        unit="turns a second", spread=1.1, target=3.0, clip=40,
    )  # fmt: skip


def backwards(seed: int) -> Behaviour:
    """The cheetah, which is made to run, goes the other way."""
    return Behaviour(
        title="the world of backward runners", environment="HalfCheetah-v5",
        question="Which one runs backwards better?",
        guideline="Choose the clip in which the cheetah gets **further to the left**. Nothing else counts.",
        shows=lambda positions, velocities: -velocities[:, 0],
        unit="metres a second backwards", spread=0.4, target=1.0, clip=30,
    )  # fmt: skip
