"""Options of a stage that somebody may watch: see `watch`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.algorithms.stage import Input
from hearken.config import Options

ASKED = ("gold", "people", "ai", "simulated")
"""Judges that only a project has; whoever opens one passes it to `watch.watched`."""

HELD_OUT = Input(
    "validation", "Held-out prompts for --judge; without them, some of --data's are set aside for it.", required=False
)


class WatchOptions(Options):
    """Who compares the policy with its reference while it trains."""

    reported: ClassVar[tuple[str, ...]] = ("judge", "early_stop")

    judge: str = ""
    """Who watches, and is never optimised: a reward model of other labels, or module:function (as for --reward)."""
    judge_every: int = Field(5, ge=1)
    """Iterations between two looks; the policy that wins most against the reference is what is kept."""
    judge_prompts: int = Field(64, ge=1)
    """Held-out prompts answered at each look: of --validation, else set aside from --data (a fifth of it at most)."""
    early_stop: Literal["", "overoptimization"] = ""
    """overoptimization: end the run once the judge's win rate falls while the reward rises, beyond noise."""
