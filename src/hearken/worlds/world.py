"""What every built-in world offers to those who judge, and where it is found by name."""

from __future__ import annotations

from typing import Protocol

from hearken.errors import UserError


class World(Protocol):
    """A world that knows the true reward of its prompts' answers."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Of labelers, by taste."""

    def utility(self, prompt: str, text: str, group: str) -> float:
        """What the answer is worth to a group."""

    def gold(self, prompt: str, text: str) -> float:
        """The mean utility of the groups."""


def open_world(name: str, seed: int) -> World:
    """The world of that name.

    Raises:
        UserError: there is none.
    """
    if name == "tales":
        from hearken.worlds.tales.world import TaleWorld

        return TaleWorld(seed)
    if name == "notes":
        from hearken.worlds.notes.world import NoteWorld

        return NoteWorld(seed)
    raise UserError(f"there is no world '{name}'", "Name one of: tales, notes")
