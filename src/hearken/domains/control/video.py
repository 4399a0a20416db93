"""A clip as a video that browsers play (VP9 in WebM), and as a film strip; made when somebody first asks to see it."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearken.domains.control import drawing
from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import EXTRA
from hearken.errors import UserError
from hearken.feedback import privacy

SLOWEST, FASTEST = 5, 30
"""Frames a second: faster environments are shown slowed down."""
STRIP = (2, 4)
"""Rows and columns of a film strip."""
FLASH = 3
"""Grey frames at the end, so that the loop is not taken for a movement."""


def write_video(clip: Clip, path: Path) -> None:
    """Draw a clip and write it as a video.

    Raises:
        UserError: the environment cannot be drawn here, or plays otherwise than when the clip was recorded; PyAV is not
            installed; there is no room for the file.
    """
    pictures, fps = drawing.drawn(lambda: pictures_of(clip))
    with whole(path) as partial:
        encode([*pictures, *[np.full_like(pictures[-1], 128)] * FLASH], fps, partial)


def write_strip(clip: Clip, path: Path) -> None:
    """Draw a clip and write some of its moments as one picture (JPEG), in the order of reading.

    Raises:
        UserError: as `write_video`.
    """
    pictures, _ = drawing.drawn(lambda: pictures_of(clip))
    with whole(path) as partial:
        partial.write_bytes(jpeg(film_strip(pictures)))


def film_strip(pictures: Sequence[NDArray[np.uint8]], shape: tuple[int, int] = STRIP) -> NDArray[np.uint8]:
    """T pictures (H, W, 3) -> some moments of them, in rows and columns, at half the size, a white line between."""
    rows, columns = shape
    moments = [pictures[at] for at in np.linspace(0, len(pictures) - 1, rows * columns).round().astype(int)]
    small = [np.pad(one[::2, ::2], ((0, 2), (0, 2), (0, 0)), constant_values=255) for one in moments]
    return np.concatenate([np.concatenate(small[row * columns :][:columns], 1) for row in range(rows)])


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write that takes its place when it is whole; a reader sees the whole file or none."""
    partial = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield privacy.private(partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error})", "Make room on the disk") from error
    finally:
        partial.unlink(missing_ok=True)


def pictures_of(clip: Clip) -> tuple[list[NDArray[np.uint8]], int]:
    """(H, W, 3) a picture for each step, and how many a second; to be called in `drawing.drawn`.

    Raises:
        UserError: as `write_video`.
    """
    opened = drawing.opened(clip.environment)
    try:
        return list(frames(clip, opened)), rate(opened)
    except BaseException:
        drawing.forget(clip.environment)
        raise


def rate(opened: Any) -> int:
    """Frames a second."""
    return int(np.clip(round(float(opened.metadata.get("render_fps") or FASTEST)), SLOWEST, FASTEST))


def frames(clip: Clip, opened: Any) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) a picture for each step: from MuJoCo's states, elsewhere by playing the episode again."""
    observation, _ = opened.reset(seed=clip.seed)
    if len(clip.positions):
        for position, velocity in zip(clip.positions, clip.velocities, strict=True):
            opened.unwrapped.set_state(position, velocity)
            yield _draw(clip, opened)
        return
    for action in clip.before:
        observation = opened.step(_as_acted(opened, action))[0]
    for recorded, action in zip(clip.observations, clip.actions, strict=True):
        if not np.allclose(observation, recorded, rtol=1e-3, atol=1e-4):
            raise UserError(
                f"{clip.environment.id} plays otherwise than when this clip was recorded",
                "Draw it with the version that it was recorded with; its seed and actions must fix what happens",
            )
        yield _draw(clip, opened)
        observation = opened.step(_as_acted(opened, action))[0]


def _as_acted(opened: Any, action: Any) -> Any:
    return int(action) if hasattr(opened.action_space, "n") else action


def _draw(clip: Clip, opened: Any) -> NDArray[np.uint8]:
    try:
        picture = opened.render()
    except Exception as error:  # of whatever it draws with
        what = f"{clip.environment.id} cannot be drawn ({error})"
        raise UserError(what, "Look at what its rendering needs") from error
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UserError(
            f"{clip.environment.id} draws no pictures: rgb_array gives (H, W, 3) bytes", "Mend its render()"
        )
    return picture


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError:
        raise UserError("videos are written by PyAV, which is not installed", EXTRA) from None


def encode(pictures: Iterable[NDArray[np.uint8]], fps: int, path: Path) -> None:
    """Write pictures of the first one's size as a video.

    Raises:
        UserError: PyAV is not installed.
    """
    av = _av()
    coming = iter(pictures)
    first = next(coming)
    height, width = (size // 2 * 2 for size in first.shape[:2])
    with av.open(str(path), "w", format="webm") as file:
        stream = file.add_stream("libvpx-vp9", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "40", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        for picture in chain([first], coming):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) a picture as a file.

    Raises:
        UserError: PyAV is not installed.
    """
    av = _av()
    height, width = (size // 2 * 2 for size in picture.shape[:2])
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
    codec.options = {"qmin": "3", "qmax": "3"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
