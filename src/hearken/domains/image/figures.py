"""What can be said of any picture without knowing what it should show: figures that no reward was fitted to."""

from __future__ import annotations

import numpy as np

from hearken.domains.image.codec import Picture

TITLES = {
    "brightness": "Mean brightness, 0 to 1",
    "saturation": "Mean saturation, 0 to 1",
    "sharpness": "Sharpness: mean difference of a pixel from its neighbours",
    "diversity": "Diversity: distance between two pictures of one prompt, 0 to 1",
}


def brightness(picture: Picture) -> float:
    """Mean of all pixels and colours."""
    return float(picture.mean() / 255)


def saturation(picture: Picture) -> float:
    """Mean of a pixel's largest less its smallest colour."""
    return float((picture.max(-1).astype(float) - picture.min(-1)).mean() / 255)


def sharpness(picture: Picture) -> float:
    """Mean absolute Laplacian of the brightness, by pixel; 0 of a plain picture and of what has fewer than 3 by 3."""
    grey = picture.astype(float).mean(-1) / 255
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    around = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
    return float(abs(middle - around).mean())


def distance(a: Picture, b: Picture) -> float:
    """Root mean square of the difference; 1 between black and white.

    Raises:
        ValueError: they are of different sizes.
    """
    return float(np.sqrt(((a.astype(float) - b) ** 2).mean()) / 255)
