"""Drawing: one thread that holds OpenGL's contexts, the environments that it has opened, and what stands in its way.

MuJoCo draws by OpenGL; without a graphics card that takes milliseconds a frame only without shadows, reflections and
smoothed edges, and opening an environment takes as long as some frames: one of each sort is kept open.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import current_thread
from typing import Any, TypeVar

from hearken.errors import UserError

T = TypeVar("T")

WIDTH, HEIGHT = 320, 240
"""Pixels of what MuJoCo draws; others draw as large as they like."""
OPEN = 3
"""Environments that are kept open."""
EGL = "apt install libegl1 libegl-mesa0 libgl1-mesa-dri"
_WAYS = ("egl", "glfw", "osmesa")
_THREAD = "hearken-drawing"


def choose_gl() -> None:
    """Have MuJoCo draw without a screen, where there is none, and the library for it is there.

    MuJoCo looks at ``MUJOCO_GL`` when it is first imported, and cannot be imported where it names what is not there.
    """
    if os.environ.get("DISPLAY") or "MUJOCO_GL" in os.environ:
        return
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return
    os.environ["MUJOCO_GL"] = "egl"


def gl_fault(error: Exception) -> UserError:
    """Why MuJoCo cannot draw, or be loaded, in a sentence that says what to install or set."""
    way, display = os.environ.get("MUJOCO_GL", ""), os.environ.get("DISPLAY")
    if way.lower() in ("disable", "disabled", "off", "false", "0"):
        return UserError(f"MuJoCo shall not draw: MUJOCO_GL={way}", f"Set MUJOCO_GL=egl, and: {EGL}")
    if way and way.lower() not in (*_WAYS, "glx"):
        return UserError(f"MUJOCO_GL={way} is no way to draw that MuJoCo has here", f"Set MUJOCO_GL=egl, and: {EGL}")
    if way.lower() == "osmesa":
        hint = f"apt install libosmesa6, or set MUJOCO_GL=egl, and: {EGL}"
        return UserError(f"MuJoCo cannot draw by OSMesa, as MUJOCO_GL asks for ({error})", hint)
    if way.lower() == "egl":
        return UserError(f"MuJoCo cannot draw without a screen: EGL does not work here ({error})", EGL)
    if display:
        hint = f"Unset DISPLAY, or set MUJOCO_GL=egl, and: {EGL}"
        return UserError(f"MuJoCo cannot draw: nothing answers on the display {display} ({error})", hint)
    return UserError(f"MuJoCo cannot draw: there is no display ({error})", f"Set MUJOCO_GL=egl, and: {EGL}")


def check_gl() -> None:
    """Refuse to draw by MuJoCo where OpenGL does not work; afterwards its own classes would complain at length.

    Raises:
        UserError: it does not.
    """
    way = os.environ.get("MUJOCO_GL", "glfw").lower()
    try:
        if way not in _WAYS:
            raise RuntimeError(way)
        context = importlib.import_module(f"mujoco.{way}").GLContext
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if way == "glfw" and not importlib.import_module("glfw").init():
                raise RuntimeError("GLFW finds none")
            context(WIDTH, HEIGHT).free()
    except Exception as error:  # OpenGL's bindings raise of every sort
        raise gl_fault(error) from None


@cache
def _thread() -> ThreadPoolExecutor:
    """OpenGL's contexts belong to the thread that made them."""
    return ThreadPoolExecutor(1, _THREAD)


def drawn(work: Callable[[], T]) -> T:
    """The result of ``work``, which is done in the one thread that draws."""
    return work() if current_thread().name.startswith(_THREAD) else _thread().submit(work).result()


_open: OrderedDict[str, Any] = OrderedDict()


def opened(environment: Any) -> Any:
    """An environment that gives frames, kept for the next time; to be called in `drawn`.

    Args:
        environment: a `control.environment.Environment`.

    Raises:
        UserError: it cannot be drawn.
    """
    if (key := environment.key) not in _open:
        _open[key] = _ready(environment)
    _open.move_to_end(key)
    while len(_open) > OPEN:
        _open.popitem(last=False)[1].close()
    return _open[key]


def forget(environment: Any) -> None:
    """Close it, where it is open: it is not what it should be any more."""
    if (made := _open.pop(environment.key, None)) is not None:
        made.close()


def _ready(environment: Any) -> Any:
    made = environment.open(render="rgb_array")
    try:
        if "rgb_array" not in made.metadata.get("render_modes", ()):
            raise UserError(f"{environment.id} cannot be drawn: it has no render mode rgb_array", "Give it one")
        core: Any = made.unwrapped
        model, renderer = getattr(core, "model", None), getattr(core, "mujoco_renderer", None)
        if model is not None and renderer is not None and hasattr(model, "vis"):
            check_gl()
            model.vis.quality.offsamples = model.vis.quality.shadowsize = 0  # before the first frame
            mujoco = importlib.import_module("mujoco")
            renderer.width, renderer.height = WIDTH, HEIGHT
            renderer.camera_id = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")  # else it is left behind
            made.reset(seed=0)
            made.render()
            flags, plain = renderer.viewer.scn.flags, mujoco.mjtRndFlag
            flags[plain.mjRND_SHADOW] = flags[plain.mjRND_REFLECTION] = 0
    except Exception:
        made.close()
        raise
    return made
