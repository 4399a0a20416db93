"""A clip: some steps of an episode, as a file that is named by the hash of what it holds."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hearken.domains.control.environment import Environment, features
from hearken.errors import UserError

SUFFIX = ".npz"
LARGEST = 256_000_000
"""Bytes of a clip, unpacked."""
_ARRAYS = ("observations", "actions", "rewards", "before", "positions", "velocities")


@dataclass(frozen=True, eq=False)
class Clip:
    """T steps of an episode, with what it takes to show them again."""

    environment: Environment
    observations: NDArray[Any]
    """(T, ...) before each step."""
    actions: NDArray[Any]
    """(T, ...) as executed."""
    rewards: NDArray[np.float64]
    """(T,) of the environment itself."""
    terminated: bool
    """The episode ended with it, other than by its time limit."""
    seed: int
    """Of the episode's start."""
    before: NDArray[Any]
    """(S, ...) actions of the episode before the clip: played again they lead to its beginning."""
    positions: NDArray[np.float64]
    """(T, ...) of MuJoCo's state before each step, so that it is drawn without playing; else empty."""
    velocities: NDArray[np.float64]
    """The same."""

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def total(self) -> float:
        """True return of the steps."""
        return float(self.rewards.sum())

    def seen(self, space: Any) -> NDArray[np.float32]:
        """(T, F) what a reward model sees; ``space`` is that of the actions."""
        return features(space, self.observations, self.actions)

    def to_bytes(self) -> bytes:
        """As a file: the same clip, the same bytes."""
        about = {
            "environment": self.environment.__dict__ | {"kwargs": dict(self.environment.kwargs)},
            "terminated": self.terminated, "seed": self.seed,
        }  # fmt: skip
        out = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(out, about=np.array(json.dumps(about, sort_keys=True)), **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a file; nothing in it is executed.

        Raises:
            UserError: it is no clip, or not whole.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if (size := sum(one.file_size for one in archive.infolist())) > LARGEST:
                    raise ValueError(f"it unpacks to {size:,} bytes")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: file[name] for name in _ARRAYS}
            clip = cls(
                Environment(**about["environment"]), terminated=about["terminated"], seed=about["seed"], **arrays
            )
            if not (len(clip) == len(clip.observations) == len(clip.actions) and len(clip)):
                raise ValueError("its arrays are of different lengths")
            if any(not np.issubdtype(one.dtype, np.number) for one in arrays.values()):
                raise ValueError("it holds something else than numbers")
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"this file is no clip, or not whole ({error})", "Sample again") from None
        return clip


def check_clip(clip: Clip, environment: Environment, observations: tuple[int, ...], actions: tuple[int, ...]) -> None:
    """Refuse a clip of another environment, or of other shapes than its observations and actions have.

    Raises:
        UserError: it is one.
    """
    if clip.environment.key != environment.key:
        raise UserError(
            f"a clip is of {clip.environment.id}, not of {environment.id} as it is set up here",
            "Compare and train clips of one environment, with the same kwargs",
        )
    if clip.observations.shape[1:] != observations or clip.actions.shape[1:] != actions:
        raise UserError(
            f"a clip holds observations {clip.observations.shape[1:]} and actions {clip.actions.shape[1:]}, "
            f"{environment.id} has {observations} and {actions}", "It was recorded with another version: sample again",
        )  # fmt: skip
