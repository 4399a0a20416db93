"""Pictures as files: written as PNG, read from what people bring, with everything refused that is no plain picture."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearken.errors import UserError
from hearken.feedback.media import sniff, viewer_of

Picture = NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

LARGEST = 4096
"""Pixels of a side."""
AGAIN = "Save it as PNG or JPEG"


def pillow() -> Any:
    """PIL.Image.

    Raises:
        UserError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("pictures need Pillow, which is not installed", 'pip install "hearken[image]"') from None
    return Image


def write_png(picture: Picture) -> bytes:
    """The same array gives the same bytes."""
    out = io.BytesIO()
    pillow().fromarray(np.ascontiguousarray(picture)).save(out, "PNG")
    return out.getvalue()


def read_picture(data: bytes) -> Picture:
    """What a PNG, JPEG, WebP or still GIF shows, turned as its EXIF says and on white, as a person sees it.

    Raises:
        UserError: it is something else, damaged, animated, or larger than 4096 pixels a side.
    """
    kind = sniff(data[:16])
    if viewer_of(kind) != "image":
        raise UserError(f"a file of the type {kind} is no picture", AGAIN)
    image = pillow()
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image.DecompressionBombWarning)  # its size is looked at before its pixels
            opened = image.open(io.BytesIO(data))
        width, height = opened.size
        if max(width, height) > LARGEST:
            raise UserError(f"a picture of {width} by {height} pixels is too large", f"At most {LARGEST} a side")
        if getattr(opened, "n_frames", 1) > 1:
            raise UserError("a picture that moves is no still picture", "Take one of its frames")
        turned = ImageOps.exif_transpose(opened)
        if turned.mode.startswith("I;16") or turned.mode == "I":
            deep = np.asarray(turned).astype(np.float64)
            turned = image.fromarray((deep / 257).round().clip(0, 255).astype(np.uint8))
        if "A" in turned.getbands() or "transparency" in turned.info:
            turned = turned.convert("RGBA")
            ground = image.new("RGBA", turned.size, (255, 255, 255, 255))
            turned = image.alpha_composite(ground, turned)
        return np.asarray(turned.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # Pillow raises many sorts
        raise UserError(f"this picture cannot be read ({error})", AGAIN) from None
