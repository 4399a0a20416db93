"""A clip as a video that browsers play: VP9 in WebM, made when somebody first asks to see it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from fractions import Fraction
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
FLASH = 3
"""White frames at the end, so that the loop is not taken for a movement."""


def write_video(clip: Clip, path: Path) -> None:
    """Draw a clip and write it; a reader sees the whole file or none.

    Raises:
        UserError: the environment cannot be drawn here, or plays otherwise than when the clip was recorded.
    """
    pictures, fps = drawing.drawn(lambda: pictures_of(clip))
    partial = path.with_name(f".{uuid.uuid4().hex}.webm")
    try:
        encode([*pictures, *[np.full_like(pictures[-1], 255)] * FLASH], fps, privacy.private(partial))
        partial.replace(path)
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


def encode(pictures: list[NDArray[np.uint8]], fps: int, path: Path) -> None:
    """Write pictures of one size as a video.

    Raises:
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise UserError("videos are written by PyAV, which is not installed", EXTRA) from None
    height, width = (size // 2 * 2 for size in pictures[0].shape[:2])
    with av.open(str(path), "w", format="webm") as file:
        stream: Any = file.add_stream("libvpx-vp9", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "40", "b": "0", "deadline": "realtime", "cpu-used": "8"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
