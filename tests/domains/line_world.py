"""An environment that is learnt in seconds: go to 1 on a line. Drawn by hand, so that it needs no OpenGL."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env[Any, Any]):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, kind: str = "box", broken: str = "", ends: int = 0, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Box(-3.0, 3.0, (2,), np.float32)
        self.action_space = spaces.Discrete(3) if kind == "choice" else spaces.Box(-1.0, 1.0, (1,), np.float32)
        if kind == "dict":
            self.observation_space = spaces.Dict({"x": spaces.Box(-3.0, 3.0)})
        if kind == "many":
            self.action_space = spaces.MultiDiscrete([2, 2])
        if kind == "raises":
            raise RuntimeError("no such track")
        self.broken, self.ends, self.render_mode = broken, ends, render_mode

    def _seen(self) -> Any:
        return np.array([self.x, self.v], np.float32) + (np.nan if self.broken == "observation" else 0)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.v, self.t = self.np_random.uniform(-2, 2), 0.0, 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        if self.broken == "step":
            raise RuntimeError("the wheel came off")
        push = float(np.ravel(action)[0]) - 1 if isinstance(self.action_space, spaces.Discrete) else float(action[0])
        self.v = 0.8 * self.v + 0.1 * push
        self.x, self.t = float(np.clip(self.x + self.v, -3, 3)), self.t + 1
        reward = np.inf if self.broken == "reward" else -abs(self.x - 1)
        return self._seen(), reward, bool(self.ends and self.t >= self.ends), False, {}

    def render(self) -> Any:
        picture = np.zeros((65, 120, 3), np.uint8)
        if self.broken == "picture":
            return picture[..., 0]
        picture[:, 80] = (0, 120, 0)
        at = int(60 + 19 * self.x)
        picture[25:40, max(at - 4, 0) : at + 4] = 255
        return picture


class Blind(Line):
    metadata = {"render_modes": [], "render_fps": 20}


gymnasium.register("Line-v0", Line, max_episode_steps=60)
gymnasium.register("Blind-v0", Blind, max_episode_steps=60)
