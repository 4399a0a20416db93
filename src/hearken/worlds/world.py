"""What every built-in world offers to those who judge, and where it is found by name.

A package outside names what opens its worlds under the entry-point group ``hearken.worlds``, a program gives it to
`register`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

from hearken.errors import UserError


class World(Protocol):
    """A world that knows the true reward of its prompts' answers: of texts, or of what its domain reads of a file."""

    title: str
    """In a sentence: ``the tale world``."""
    leanings: Mapping[str, float]
    """How its simulated labelers differ from usual ones: options of `labelers.simulated.make_panel`."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Of labelers, by taste."""

    def utility(self, prompt: str, response: Any, group: str) -> float:
        """What the answer is worth to a group."""

    def gold(self, prompt: str, response: Any) -> float:
        """The mean utility of the groups."""

    def accepts(self, prompt: str, response: Any) -> bool | None:
        """Whether the answer is well formed; None where the world cannot tell."""


Opener = Callable[[int], World]
"""seed -> world."""

_BUILTIN = {
    "tales": "hearken.worlds.tales.world:TaleWorld", "notes": "hearken.worlds.notes.world:NoteWorld",
    "returns": "hearken.worlds.returns.world:Returns", "handstand": "hearken.worlds.behaviours.world:handstand",
    "whirl": "hearken.worlds.behaviours.world:whirl", "backwards": "hearken.worlds.behaviours.world:backwards",
    "pictures": "hearken.worlds.pictures.world:PictureWorld",
}  # fmt: skip
_registered: dict[str, Opener] = {}


def register(name: str, world: Opener) -> None:
    """Make a world known in this process; one of the same name is replaced."""
    _registered[name] = world


@cache
def _outside() -> dict[str, Opener]:
    """Worlds of other packages."""
    return {point.name: point.load() for point in entry_points(group="hearken.worlds")}


def open_world(name: str, seed: int) -> World:
    """The world of that name.

    Raises:
        UserError: there is none.
    """
    check_world(name)
    if name in _registered:
        return _registered[name](seed)
    if name in _BUILTIN:
        module, _, kind = _BUILTIN[name].partition(":")
        found: World = getattr(import_module(module), kind)(seed)
        return found
    return _outside()[name](seed)


def check_world(name: str) -> None:
    """Refuse a name that no world has.

    Raises:
        UserError: there is none.
    """
    if name not in _registered and name not in _BUILTIN and name not in _outside():
        known = ", ".join(dict.fromkeys([*_BUILTIN, *_registered, *_outside()]))
        raise UserError(f"there is no world '{name}'", f"Name one of: {known}")
