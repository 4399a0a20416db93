"""Hearken: reinforcement learning from human feedback, the whole loop in one package.

The names of the Python API stand in ``__init__.pyi``; ``docs/api.md`` says what each is. Every one is loaded when it is
first used, so that ``import hearken`` loads neither torch nor transformers.
"""

from __future__ import annotations

import re
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

_IMPORTS = re.findall(r"^from (\S+) import (\w+) as", Path(__file__).with_suffix(".pyi").read_text("utf-8"), re.M)
_WHERE = {name: module for module, name in _IMPORTS}
_RENAMED = {"respond": "sample"}

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hearken")
    if name in _RENAMED:
        warnings.warn(f"hearken.{name} is now hearken.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name not in _WHERE:
        raise AttributeError(f"module 'hearken' has no attribute '{name}'")
    found = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
