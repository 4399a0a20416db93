"""A constitution: the principles that an AI labeler judges and revises by, as a YAML file."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from hearken.config import Options, read_yaml
from hearken.errors import UserError


class Principle(Options):
    """One principle."""

    id: str = Field(min_length=1)
    """Stored with each judgment that went by it."""
    text: str = Field(min_length=1)
    """As the judge reads it."""
    weight: float = Field(1.0, gt=0)
    """How often it is drawn, relative to the others."""


class Constitution(Options):
    """Named principles, of which each judgment draws one."""

    name: str = Field(min_length=1)
    principles: list[Principle] = Field(min_length=1)

    def draw(self, key: str) -> Principle:
        """The principle for an item; the same for the same key."""
        weights = [p.weight for p in self.principles]
        return random.Random(f"principle:{key}").choices(self.principles, weights)[0]


def built_in() -> list[str]:
    """Names of the constitutions that come with the package."""
    folder = files("hearken.labelers") / "constitutions"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_constitution(name: str) -> Constitution:
    """A constitution of the package by name, or one's own as a YAML file.

    Raises:
        UserError: there is none of that name, or the file is not a constitution; the key is named.
    """
    if name in built_in():
        path = Path(str(files("hearken.labelers") / "constitutions" / f"{name}.yaml"))
    elif Path(name).is_file():
        path = Path(name)
    else:
        raise UserError(f"there is no constitution '{name}'", f"Name a YAML file, or one of: {', '.join(built_in())}")
    found = Constitution.parse(read_yaml(path), where=path.name)
    ids = [p.id for p in found.principles]
    if len(set(ids)) < len(ids):
        raise UserError(f"{path.name}: two principles have the same id", "Give each its own")
    return found
