"""The judge of the picture world: what of a scene any picture shows, however it was made.

Each pixel is projected on the line from the ground's colour to that of a thing, so that smooth edges count by their
share. Of what a thing covers, the shape that fits best at its centroid and mass is what it looks like.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hearken.worlds.pictures.scene import (
    AREA,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZE,
    Picture,
    Scene,
    Thing,
    cover,
    shrink,
)

SPREAD = 0.12
"""Distance in colour at which a pixel is still much the same."""
GREY = 0.25
"""Saturation at which a pixel is hardly ground any more."""
_NEAR = np.array(
    list(itertools.product((-0.5, -0.25, 0, 0.25, 0.5), (-0.5, -0.25, 0, 0.25, 0.5), (0.88, 0.94, 1, 1.06)))
)
"""Places and radii about a thing's own at which shapes are tried."""
_DOWN, _RIGHT = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


class Seen(NamedTuple):
    """What is seen of a scene; shares are in [0, 1]."""

    match: bool
    """Both things are there, in their relation."""
    right: float
    """The same by degrees."""
    dirt: float
    """Of what is neither ground nor one of the two."""
    size: float
    light: float
    """Of the ground."""


class _Part(NamedTuple):
    """What is seen of one thing."""

    covered: NDArray[np.float32]
    fits: float
    is_right: bool
    centre: NDArray[np.float64] | None
    radius: float


def judge(picture: Picture, scene: Scene) -> Seen:
    """Look for a scene in a picture of whatever size."""
    pixels = shrink(picture)
    grey = np.exp(-(((pixels.max(1) - pixels.min(1)) / GREY) ** 2)) > 0.6
    ground = np.median(pixels[grey], 0) if grey.any() else np.full(3, 0.5, np.float32)
    parts = [_look(pixels, ground, thing) for thing in (scene.first, scene.second)]
    known = np.exp(-((pixels - ground.mean()) ** 2).sum(1) / (2 * SPREAD**2)) + sum(part.covered for part in parts)
    placed, centres = 0.0, [part.centre for part in parts if part.centre is not None]
    if len(centres) == 2:
        away, towards = centres[0] - centres[1], np.array(RELATIONS[scene.relation])
        aside = abs(away[0] * towards[1]) + abs(away[1] * towards[0])
        placed = float(np.clip((away @ towards - aside) / 2.5, 0, 1))
    fits = [part.fits for part in parts]
    return Seen(
        match=all(part.is_right for part in parts) and placed > 0.3,
        right=0.6 * sum(fits) / 2 + 0.4 * min(fits) * placed,
        dirt=float(np.clip(((1 - np.clip(known, 0, 1)).sum() - 8) / 40, 0, 1)),
        size=float(np.clip((np.mean([part.radius for part in parts]) - 2.3) / 1.4, 0, 1)),
        light=float(np.clip((ground.mean() - 0.15) / 0.75, 0, 1)),
    )


def _look(pixels: NDArray[np.float32], ground: NDArray[np.float32], thing: Thing) -> _Part:
    line = np.array(COLOURS[thing.colour], np.float32) / 255 - ground
    along = np.clip((pixels - ground) @ line / (line**2).sum(), 0, 1)
    off = ((pixels - ground - along[:, None] * line) ** 2).sum(1)
    covered = (along * np.exp(-off / (2 * SPREAD**2))).astype(np.float32)
    mass = float(covered.sum())
    if mass < 1:
        return _Part(covered, 0.0, False, None, 0.0)
    image = covered.reshape(SIZE, SIZE)
    down, right = float((_DOWN * image).sum()) / mass, float((_RIGHT * image).sum()) / mass
    overlap = {shape: _overlap(image, shape, down, right, mass) for shape in SHAPES}
    best = max(overlap, key=lambda shape: overlap[shape])
    fits = overlap[thing.shape]
    is_right = best == thing.shape and fits > 0.65
    degree, radius = float(np.clip((fits - 0.5) / 0.4, 0, 1)), float((mass / AREA[best]) ** 0.5)
    return _Part(covered, degree, is_right, np.array([down, right]), radius)


def _overlap(image: NDArray[np.float32], shape: str, down: float, right: float, mass: float) -> float:
    """Largest intersection over union with a shape of that mass, about that centroid."""
    radius = (mass / AREA[shape]) ** 0.5
    down -= 0.2 * radius if shape == "triangle" else 0.0
    tried = cover(shape, down + _NEAR[:, 0], right + _NEAR[:, 1], radius * _NEAR[:, 2])
    both = np.minimum(tried, image).sum((1, 2))
    return float((both / (tried.sum((1, 2)) + mass - both)).max())
