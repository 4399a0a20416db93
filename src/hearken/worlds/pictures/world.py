"""The picture world: two tastes of labelers, who all want what the caption says, and agree on little else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from hearken.worlds.pictures.judge import Seen, judge
from hearken.worlds.pictures.scene import Picture, read_caption, scenes

TASTES: Mapping[str, Mapping[str, float]] = {
    "bold": {"size": 1.0, "light": -0.2},
    "airy": {"size": -0.2, "light": 1.0},
}
"""What each group gives for large things and a light ground, where the scene is right."""


class PictureWorld:
    """The worth of a picture to a group: 2·right - 0.8·dirt + right·taste (`judge.Seen`)."""

    title = "the picture world"
    leanings: Mapping[str, float] = {"side": 0.2}
    groups = tuple(TASTES)

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def utility(self, prompt: str, response: Any, group: str) -> float:
        """Of an array (height, width, 3) of bytes."""
        seen = _seen(prompt, response.tobytes(), response.shape)
        taste = sum(weight * float(getattr(seen, name)) for name, weight in TASTES[group].items())
        return 2 * seen.right - 0.8 * seen.dirt + seen.right * taste

    def gold(self, prompt: str, response: Any) -> float:
        """The groups' mean."""
        return sum(self.utility(prompt, response, group) for group in self.groups) / len(self.groups)

    def accepts(self, prompt: str, response: Any) -> bool:
        """Whether both things are there, in their relation."""
        return _seen(prompt, response.tobytes(), response.shape).match


@lru_cache(4096)
def _seen(prompt: str, pixels: bytes, shape: tuple[int, ...]) -> Seen:
    picture: Picture = np.frombuffer(pixels, np.uint8).reshape(shape)
    return judge(picture, read_caption(prompt))


def prompts(*, held_out: bool) -> list[str]:
    """The captions that are trained on, or the others."""
    return [scene.caption for scene in scenes() if scene.held_out == held_out]
