"""How clips are drawn: what stands in the way is said in one sentence, and what was opened is used again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')

from hearken.domains.control import drawing
from hearken.domains.control.domain import DOMAIN, ClipSampling
from hearken.domains.control.environment import Environment
from hearken.domains.control.video import encode, pictures_of
from hearken.errors import UserError
from hearken.feedback.media import MediaFolder

APT = "apt install libegl1 libegl-mesa0 libgl1-mesa-dri"
DRAW = """
import sys
if sys.argv[1:]:
    import ctypes
    there = ctypes.CDLL.__init__
    def gone(self, name=None, *more, **how):
        if name and sys.argv[1] in str(name):
            raise OSError(name)
        there(self, name, *more, **how)
    ctypes.CDLL.__init__ = gone
from hearken.domains.control import drawing
from hearken.domains.control.environment import Environment
from hearken.errors import UserError
try:
    drawing.drawn(lambda: drawing.opened(Environment("Reacher-v5")))
    print("drawn")
except UserError as error:
    print(error.what, "|", error.hint)
"""


@pytest.mark.parametrize(
    ("settings", "without", "says", "hint"),
    [
        ({"MUJOCO_GL": "foo"}, "", "MUJOCO_GL=foo is no way to draw", APT),
        ({"MUJOCO_GL": "disabled"}, "", "shall not draw", APT),
        ({"MUJOCO_GL": "egl"}, "EGL", "without a screen: EGL does not work", APT),
        ({"MUJOCO_GL": "osmesa"}, "OSMesa", "by OSMesa", "apt install libosmesa6"),
        ({}, "EGL", "there is no display", "MUJOCO_GL=egl"),
        ({"DISPLAY": ":4711"}, "", "nothing answers on the display :4711", "Unset DISPLAY"),
    ],
)
def test_without_opengl(settings: dict[str, str], without: str, says: str, hint: str) -> None:
    pytest.importorskip("mujoco", reason='needs pip install "hearken[control]"')
    others = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MUJOCO_GL")}
    done = subprocess.run(
        [sys.executable, "-c", DRAW, *filter(None, [without])], env=others | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout and hint in done.stdout and len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_videos_need_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match="PyAV, which is not installed") as error:
        encode([np.zeros((4, 4, 3), np.uint8)], 20, tmp_path / "x.webm")
    assert "hearken[control]" in (error.value.hint or "")


@pytest.mark.parametrize("module", ["control_ppo"])
def test_training_needs_stable_baselines(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("hearken.algorithms.control_", "stable_baselines3"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match="Stable-Baselines3, which is not installed") as error:
        __import__(f"hearken.algorithms.{module}")
    assert "hearken[control]" in (error.value.hint or "")


def test_an_environment_is_opened_once(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason='needs pip install "hearken[control]"')
    environment = Environment("HalfCheetah-v5")
    try:
        drawing.drawn(lambda: drawing.opened(environment))
    except UserError as error:
        pytest.skip(str(error))
    drawn = next(DOMAIN.sample("HalfCheetah-v5", ["(start 1)"], 1, ClipSampling(), 0, MediaFolder(tmp_path)))
    clip = DOMAIN.read(drawn[0].content, MediaFolder(tmp_path))
    began = time.process_time()
    pictures, fps = drawing.drawn(lambda: pictures_of(clip))
    each = (time.process_time() - began) / len(pictures)
    assert pictures[0].shape == (drawing.HEIGHT, drawing.WIDTH, 3) and fps == 20
    assert each < 0.03, "milliseconds, without shadows and reflections"
    assert all(np.ptp(picture[100:200, 100:220].astype(int)) > 100 for picture in pictures), "it is kept in sight"
    first = drawing.drawn(lambda: drawing.opened(environment))
    assert drawing.drawn(lambda: drawing.opened(environment)) is first
    drawing.drawn(lambda: drawing.forget(environment))
    assert drawing.drawn(lambda: drawing.opened(environment)) is not first
