"""Whether a reward model may be trained on: what its card says, where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hearken.errors import UserError

CARD = "card.json"


class Verdict(BaseModel):
    """What those who optimise a reward read of its card."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    passes: bool = True
    failures: Sequence[str] = ()
    """Why not, in sentences; empty where it passes."""


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
    """Why the reward model in a folder fails its card; empty where it passes, or has none.

    Raises:
        UserError: the card is damaged.
    """
    path = reward / CARD
    try:
        verdict = Verdict.model_validate_json(path.read_bytes()) if path.is_file() else Verdict()
    except ValidationError:
        hint = f"Make it anew: hearken card {reward}"
        raise UserError(f"{path} is no card of a reward model", hint) from None
    return "" if verdict.passes else " ".join(verdict.failures) or "It says no more."
