"""Whether a reward model may be trained on: what its card says, where it has one."""

from __future__ import annotations

import json
from pathlib import Path

from hearken.errors import UserError

CARD = "card.json"


def check_card(reward: str, *, trust: bool = False) -> None:
    """Refuse a reward model whose card says that it is no better than a coin or than length alone.

    Args:
        reward: its folder; a Hub name or a folder without a card passes.
        trust: take it all the same (``--trust-reward``).

    Raises:
        UserError: the card fails.
    """
    if not trust and (said := failing(Path(reward))):
        raise UserError(
            f"--reward {reward}: its card ({Path(reward) / CARD}) says that it is not good enough to train on. {said}",
            "Label more or train a better reward model, run 'hearken evaluate' again, or add --trust-reward",
        )


def failing(reward: Path) -> str:
    """Why the reward model in a folder fails its card; empty where it passes, or has none."""
    path = reward / CARD
    card = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if card.get("passes", True):
        return ""
    return " ".join(card.get("failures", [])) or "It says no more."
