"""Options of whoever optimises a reward: how far it is believed."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hearken.config import Options


class TrustOptions(Options):
    """Refusing a bad reward model, and caution where it has seen little."""

    reported: ClassVar[tuple[str, ...]] = ("pessimism", "combine")

    trust_reward: bool = False
    """Train on a reward model whose card (hearken evaluate) says that it is not good enough."""
    pessimism: float = Field(0.0, ge=0)
    """Take off this many widths of the reward model's confidence from each score; 0 believes the score."""
    width: Literal["linear", "heads", "models"] = "linear"
    """linear: theory on last-layer features; heads: spread of 5 bootstrapped heads; models: of --reward a,b,c."""
    combine: Literal["sum", "min", "worst_group"] = "sum"
    """Several terms of --reward, e.g. one for each group: their mixture by weights; each response by the group that
    likes it least (min); or all by the group that is worst off in the mean of the batch (max-min)."""
