"""Scenes of two shapes, as captions and as pictures of 16 by 16 pixels."""

from __future__ import annotations

import itertools
import math
import random
import re
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.errors import UserError

Picture = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""
Mask = NDArray[np.float32]
"""(..., 16, 16) in [0, 1]: how much of each pixel is covered."""

SIZE = 16
SHAPES = ("circle", "square", "triangle")
COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (235, 205, 40)}
RELATIONS = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}
"""(down, right): where the first thing is as seen from the second."""
SQUARE = 0.88
"""Half a square's side, as a share of the radius."""
AREA = {"circle": math.pi, "square": 4 * SQUARE**2, "triangle": 2.1 * 0.6 * 2.1}
"""Of shapes of radius 1."""
CLUTTER = 0.4
"""Share of the drawn pictures that have stray specks."""
HELD_OUT = 6
"""One in so many pairs of things is held out, in every relation."""

_DOWN, _RIGHT = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_THING = rf"an? ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_CAPTION = re.compile(rf"\s*{_THING} ({'|'.join(RELATIONS)}) {_THING}\.?\s*", re.IGNORECASE)


class Thing(NamedTuple):
    """One of the two."""

    colour: str
    shape: str


class Scene(NamedTuple):
    """What a caption asks for."""

    first: Thing
    second: Thing
    relation: str
    """Of the first to the second."""

    @property
    def caption(self) -> str:
        """As ``a red circle above a blue square``."""
        return f"a {' '.join(self.first)} {self.relation} a {' '.join(self.second)}"

    @property
    def held_out(self) -> bool:
        """Whether the pair of things is never trained on, in whatever relation."""
        return zlib.crc32(" ".join(sorted(map(" ".join, (self.first, self.second)))).encode()) % HELD_OUT == 0


def read_caption(caption: str) -> Scene:
    """What a caption asks for.

    Raises:
        UserError: it is not one of this world.
    """
    found = _CAPTION.fullmatch(caption)
    if found is None:
        raise UserError(
            f"the picture world cannot read the prompt {caption[:60]!r}",
            'Its prompts are of the form "a red circle above a blue square"',
        )
    a, b, relation, c, d = (word.lower() for word in found.groups())
    return Scene(Thing(a, b), Thing(c, d), relation)


def scenes() -> list[Scene]:
    """All 432: two things of different colours, one of four relations."""
    things = [Thing(colour, shape) for colour, shape in itertools.product(COLOURS, SHAPES)]
    pairs = [(a, b) for a, b in itertools.permutations(things, 2) if a.colour != b.colour]
    return [Scene(a, b, relation) for a, b in pairs for relation in RELATIONS]


def cover(shape: str, down: ArrayLike, right: ArrayLike, radius: ArrayLike) -> Mask:
    """What a shape covers, by a ramp of the signed distance; the places and the radius broadcast."""
    y, x, r = (np.asarray(value, np.float32)[..., None, None] for value in (down, right, radius))
    dy, dx = _DOWN - y, _RIGHT - x
    if shape == "circle":
        distance = np.sqrt(dy**2 + dx**2) - r
    elif shape == "square":
        distance = np.maximum(abs(dy), abs(dx)) - r * SQUARE
    else:
        distance = np.maximum(dy - r * 0.9, (abs(dx) - (dy + 1.2 * r) * 0.6) * 0.857)
    found: Mask = np.clip(0.5 - distance, 0, 1).astype(np.float32)
    return found


def draw(scene: Scene, rng: random.Random, clutter: float = CLUTTER) -> Picture:
    """A picture of a scene: places, sizes and the ground's lightness are drawn, ``clutter`` of them have specks."""
    towards, light, big = np.array(RELATIONS[scene.relation]), rng.random(), rng.random()
    first, second = (2.5 + big + 0.3 * (rng.random() - 0.5) for _ in "ab")
    gap, aside = first + second + 0.4 + 1.5 * rng.random(), (rng.random() - 0.5) * 4
    centre = (SIZE - 1) / 2 + (np.array([rng.random(), rng.random()]) - 0.5) * 2
    away = towards * gap / 2 + towards[::-1] * aside / 2
    picture = np.full((SIZE, SIZE, 3), 0.15 + 0.75 * light)
    for _ in range(rng.randint(3, 8) if rng.random() < clutter else 0):
        picture[rng.randrange(SIZE), rng.randrange(SIZE)] = np.array(rng.choice(list(COLOURS.values()))) / 255
    for thing, at, radius in ((scene.second, centre - away, second), (scene.first, centre + away, first)):
        inside = np.clip(at, radius - 0.3, SIZE - 0.7 - radius)
        mask = cover(thing.shape, inside[0], inside[1], radius)[..., None]
        picture = picture * (1 - mask) + mask * np.array(COLOURS[thing.colour]) / 255
    drawn: Picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    return drawn


def shrink(picture: Picture) -> NDArray[np.float32]:
    """(256, 3) in [0, 1]: a picture of whatever size, each of the 16 by 16 fields by its mean."""
    fields = (picture / 255).astype(np.float32)
    for axis in (0, 1):
        n = fields.shape[axis]
        edges = np.arange(SIZE) * n // SIZE
        if n < SIZE:
            fields = fields.take(edges, axis)
        else:
            counts = np.diff([*edges, n]).reshape([-1 if a == axis else 1 for a in range(3)])
            fields = (np.add.reduceat(fields, edges, axis) / counts).astype(np.float32)
    return fields.reshape(-1, 3).astype(np.float32)
