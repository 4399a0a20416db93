"""The environment that a policy acts in: which one it is, what can be learnt there, and how it is opened."""

from __future__ import annotations

import difflib
import importlib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hearken.domains.control.drawing import choose_gl, gl_fault
from hearken.errors import UserError

T = TypeVar("T")

FILE = "environment.json"
"""Beside a policy and a reward model; alone in a folder it is a policy that acts at random."""
OWN = "environment"
"""In place of a reward model: what the environment pays itself is learnt from. To compare with."""
EXTRA = 'Install it: pip install "hearken[control]"'
SECONDS = 1.5
SHORTEST, LONGEST = 15, 60
"""Steps of a clip: 1.5 seconds, but no fewer and no more (Christiano et al. 2017, appendix A.1)."""
HORIZON = 1000
"""Steps of an episode where the environment names no limit."""
QUESTION = "Which clip is better?"

_ID = re.compile(r"([a-z_][\w.]*:)?[A-Z][A-Za-z0-9]*-v\d+")
_ELSEWHERE = {"ALE/": "ale-py", "highway": "highway-env", "merge": "highway-env", "MiniGrid": "minigrid"}
"""Environments that packages of their own bring."""


@dataclass(frozen=True)
class Environment:
    """What ``gymnasium.make`` is given, and what people are asked about it."""

    id: str
    """As ``HalfCheetah-v5``, or ``module:Name-v0`` of one's own."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    question: str = QUESTION
    """Of the labelers."""
    clip: int = 0
    """Steps of a clip; 0: of 1.5 seconds, at least 15 and at most 60."""

    @classmethod
    def named(cls, name: str) -> Self:
        """That of a policy: what its folder's ``environment.json`` says, or the environment of that id.

        Raises:
            UserError: the file is not what it should be.
        """
        folder = Path(name)
        if not folder.is_dir():
            return cls(name)
        file = folder / FILE
        try:
            content = json.loads(file.read_text("utf-8"))
        except OSError:
            raise UserError(f"{name} holds no {FILE}", 'Write one: {"id": "HalfCheetah-v5"}') from None
        except ValueError as error:
            raise UserError(f"{file} is not JSON ({error})", 'As in: {"id": "HalfCheetah-v5"}') from None
        known = cls.__dataclass_fields__
        if not isinstance(content, dict) or not isinstance(content.get("id"), str):
            raise UserError(f"{file} names no environment", 'As in: {"id": "HalfCheetah-v5"}')
        if unknown := set(content) - set(known):
            raise UserError(f"{file}: unknown key '{min(unknown)}'", f"Known keys: {', '.join(known)}")
        wrong = [
            key for key, kind in (("kwargs", dict), ("question", str), ("clip", int))
            if key in content and not isinstance(content[key], kind)
        ]  # fmt: skip
        if wrong or content.get("clip", 0) < 0:
            raise UserError(f"{file}: {(wrong or ['clip'])[0]} is of the wrong kind", "kwargs: {}, question: a text")
        return cls(**content)

    @property
    def key(self) -> str:
        """What tells it from others: id and keywords."""
        return json.dumps([self.id, self.kwargs], sort_keys=True)

    def write(self, folder: Path) -> None:
        """Into ``environment.json`` of a folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1), "utf-8")

    def open(self, *, render: Literal["", "rgb_array", "human"] = "") -> Any:
        """The environment itself, checked for what can be learnt here.

        Args:
            render: how it is shown: as frames, or in a window; by default not at all.

        Raises:
            UserError: there is none of that id or with these keywords, or its spaces are of another sort.
        """
        gym = gymnasium()
        more = {"render_mode": render} if render else {}
        try:
            opened = gym.make(self.id, disable_env_checker=True, **self.kwargs, **more)
        except (gym.error.UnregisteredEnv, ModuleNotFoundError) as error:
            raise self._unknown(error) from None
        except UserError:
            raise
        except Exception as error:  # whatever an environment's own constructor raises
            if (fault := _mujoco_fault()) is not None and type(fault) is type(error):
                raise gl_fault(fault) from None
            raise UserError(f"{self.id} cannot be opened: {error}", "Look at its kwargs, and what it needs") from error
        try:
            check_spaces(self.id, opened)
        except UserError:
            opened.close()
            raise
        return opened

    def _unknown(self, error: Exception) -> UserError:
        for start, package in _ELSEWHERE.items():
            if self.id.startswith(start) and find_spec(package.replace("-", "_")) is None:
                return UserError(f"{self.id} is an environment of {package}", f"Install it: pip install {package}")
        near = difflib.get_close_matches(self.id, gymnasium().registry, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else "Name one that gymnasium.make knows, or module:Name-v0"
        return UserError(f"there is no environment '{self.id}' ({error})", hint)

    def steps(self, opened: Any) -> int:
        """Steps of a clip of it."""
        fps = float(opened.metadata.get("render_fps") or 0)
        return self.clip or int(np.clip(round(SECONDS * fps), SHORTEST, LONGEST))


def gymnasium() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    choose_gl()
    try:
        found = importlib.import_module("gymnasium")
    except ModuleNotFoundError:
        raise UserError("policies that act need Gymnasium, which is not installed", EXTRA) from None
    _mujoco_fault()
    return found


@cache
def _mujoco_fault() -> Exception | None:
    """Why MuJoCo, which is installed, cannot be loaded; other environments do without.

    Its warnings become Python's: else it prints each again and again, and writes a file where it stands.
    """
    if find_spec("mujoco") is None:
        return None
    try:
        mujoco = importlib.import_module("mujoco")
    except Exception as error:  # OpenGL's bindings raise of every sort
        return error
    mujoco.set_mju_user_warning(_warn)
    return None


def _warn(text: str) -> None:
    if "deprecated" not in text:  # in files of Gymnasium's, which nobody here can mend
        warnings.warn(f"MuJoCo: {text}", stacklevel=2)


def is_id(name: str) -> bool:
    """Whether a model's name looks like an environment's id, as ``HalfCheetah-v5`` or ``my_module:MyRobot-v0``."""
    return _ID.fullmatch(name) is not None


def check_spaces(name: str, opened: Any) -> None:
    """Refuse what is not learnt here.

    Raises:
        UserError: observations are no numbers in a Box, or actions neither a Box nor Discrete.
    """
    spaces = gymnasium().spaces
    seen, acts = opened.observation_space, opened.action_space
    if not isinstance(seen, spaces.Box):
        what = f"{name}: its observations are {type(seen).__name__}, not Box"
        raise UserError(what, "Wrap it: gymnasium.wrappers.FlattenObservation")
    if len(seen.shape) == 3 and seen.dtype == np.uint8:
        raise UserError(f"{name}: it is seen as pictures, which are not learnt from yet", "Observe numbers instead")
    if not isinstance(acts, spaces.Box | spaces.Discrete):
        what = f"{name}: its actions are {type(acts).__name__}, neither Box nor Discrete"
        raise UserError(what, "Wrap it so that an action is one of these")
    if isinstance(acts, spaces.Box) and not (np.isfinite(acts.low).all() and np.isfinite(acts.high).all()):
        raise UserError(f"{name}: its actions have no bounds", "Wrap it: gymnasium.wrappers.ClipAction")


def features(space: Any, observations: NDArray[Any], actions: NDArray[Any]) -> NDArray[np.float32]:
    """(N, F) what a reward model sees of N steps: observation and action, as executed; of a choice its one-hot code.

    Args:
        space: of the actions.
        observations: (N, ...).
        actions: (N, ...) or, of a Discrete space, (N,).
    """
    n = len(observations)
    if hasattr(space, "n"):
        actions = np.eye(int(space.n), dtype=np.float32)[np.asarray(actions, int) - int(space.start)]
    return np.concatenate([observations.reshape(n, -1), actions.reshape(n, -1)], 1).astype(np.float32)


def attempt(name: str, call: Callable[..., T], *given: Any, **how: Any) -> T:
    """What an environment's own code gives, whatever it raises.

    Raises:
        UserError: it raised something.
    """
    try:
        return call(*given, **how)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} failed ({type(error).__name__}: {error})", "Mend the environment") from error


def check_finite(name: str, observation: NDArray[Any], reward: Any = 0.0) -> None:
    """Refuse what nothing can be learnt from.

    Raises:
        UserError: an observation or reward is infinite or no number.
    """
    if not (np.isfinite(observation).all() and np.isfinite(reward).all()):
        raise UserError(f"{name} gave an observation or reward that is no finite number", "Mend the environment")
