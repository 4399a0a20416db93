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
    path = Path(reward) / CARD
    if trust or not path.is_file():
        return
    card = json.loads(path.read_text("utf-8"))
    if not card.get("passes", True):
        said = " ".join(card.get("reasons", [])[:2])
        raise UserError(
            f"--reward {reward}: its card ({path}) says that it is not good enough to train on. {said}",
            "Label more or train a better reward model, run 'hearken evaluate' again, or add --trust-reward",
        )
