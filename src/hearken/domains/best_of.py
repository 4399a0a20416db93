"""The best of several responses as a policy of its own: ``best-of-8@my-sft`` (Nakano et al. 2021)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hearken.errors import UserError

Width = Literal["linear", "heads", "models"]
"""How widely a reward model's score may miss: by linear theory, 5 bootstrapped heads, or several models' spread."""

_BEST_OF = re.compile(r"best-of-(\d+)(?:-pessimism-(\d+(?:\.\d+)?(?:e[-+]\d+)?)-(linear|heads))?@(.+)")


@dataclass(frozen=True, slots=True)
class BestOf:
    """Who chooses among how many.

    Args:
        n: of so many responses the best is taken.
        reward: as ``--reward`` takes it.
        pessimism: so many widths of the reward model's confidence are taken off each score.
        width: which.
    """

    n: int
    reward: str
    pessimism: float = 0.0
    width: Width = "linear"

    @property
    def name(self) -> str:
        """Before ``@`` in the policy's name."""
        return best_of_name(self.n, self.pessimism, self.width)


class Asked(NamedTuple):
    """What a policy's name asks for."""

    source: str
    """The policy that is sampled from."""
    many: int = 1
    """Of how many responses the best is chosen."""
    pessimism: float = 0.0
    width: Width = "linear"

    def by(self, reward: str | None) -> BestOf | None:
        """Who chooses; None where nothing is chosen.

        Raises:
            UserError: best of several, and nobody to choose.
        """
        if self.many == 1:
            return None
        if reward is None:
            what = f"the best of {self.many} needs a reward model to choose by"
            raise UserError(what, "Train one, or name it: --reward")
        return BestOf(self.many, reward, self.pessimism, self.width)


def asked_of(name: str) -> Asked:
    """``best-of-8@my-sft`` is ("my-sft", 8); ``best-of-8-pessimism-2-heads@my-sft`` ("my-sft", 8, 2.0, "heads").

    Raises:
        UserError: the best of none.
    """
    found = _BEST_OF.fullmatch(name)
    if found is None:
        return Asked(name)
    if int(found[1]) < 1:
        raise UserError(f"--policy {name}: the best of none", "For example: best-of-8@r00-sft")
    width: Width = "heads" if found[3] == "heads" else "linear"
    return Asked(found[4], int(found[1]), float(found[2] or 0), width)


def label_of(name: str) -> str:
    """A policy's name for people: the folder's own, without where it stands."""
    source = asked_of(name).source
    return name.removesuffix(source) + Path(source).name


def best_of_name(n: int, pessimism: float = 0.0, width: Width = "linear") -> str:
    """What choosing the best of ``n`` is called: ``best-of-8``, or ``best-of-8-pessimism-2-heads``."""
    return f"best-of-{n}" + (f"-pessimism-{pessimism:g}-{width}" if pessimism else "")


def check_choice(n: int, pessimism: float) -> None:
    """Refuse pessimism where no reward chooses.

    Raises:
        UserError: pessimism, and ``n`` is 1.
    """
    if pessimism and n < 2:
        raise UserError(f"pessimism {pessimism:g}: no reward chooses among responses here", "Add --best-of N")
