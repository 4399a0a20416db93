"""Labels that arrive while a policy trains, as a stage sees them that fits its reward model by itself. Torch-free.

Such a stage's module has ``run_online(inputs, options, out, desk)`` beside ``run`` (see `loop.online`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from hearken.config import Options
from hearken.feedback.media import MediaFolder


class Pair(NamedTuple):
    """Two responses to be compared."""

    prompt: str
    a: str
    b: str
    """Contents (see `domains.base`)."""


class Verdict(NamedTuple):
    """What a labeler said of a pair."""

    pair: int
    """Its number, from 0, in the order in which pairs were asked about."""
    share: float
    """1: the first response is better, 0: the second, 1/2: neither."""


class Desk(Protocol):
    """Where a stage asks for labels."""

    name: str
    """Of the policy that is trained, for prompts that are of one pair alone."""
    labels: int
    """How many pairs may be asked about in all."""
    refit_every: int
    """New answers after which the reward model is fitted anew."""
    reward: Options
    """Options of the stage that fits reward models."""
    files: MediaFolder
    """Where media are kept."""
    asked: int
    """Pairs that were asked about, also by a run that was interrupted."""
    data: tuple[str, ...]
    """Files of all comparisons so far, what was said to such a run among them."""

    def ask(self, pairs: Sequence[Pair], step: int) -> list[Verdict]:
        """Put pairs before the labelers, and give what they have said since the last call, of whichever pairs.

        Waits where training is too far ahead of them. Of pairs that are held out nothing is said.
        """

    def fitted(self, save: Callable[[Path], None], figures: Mapping[str, object]) -> None:
        """The reward model as it was in the end becomes an artifact: ``save`` writes it into a folder."""
