"""Sentence templates: one source both for making sentences and for recognising them.

In a template, ``(a|b)`` is a free choice and ``{slot}`` is filled from outside. Choices do not nest; a slot may stand
inside a choice.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cached_property
from importlib.resources import files

_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


class Template:
    """One sentence (or line) with free choices and slots."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    @cached_property
    def slots(self) -> frozenset[str]:
        """The names of the slots it may use."""
        return frozenset(_SLOT.findall(self.source))

    def fill(self, values: Mapping[str, str], rng: random.Random) -> str:
        """The sentence with its choices made by ``rng`` and its slots taken from ``values``."""
        chosen = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), self.source)
        return chosen.format_map(values)

    def pattern(self, domains: Mapping[str, str]) -> re.Pattern[str]:
        """A regular expression for everything `fill` can make, given one expression per slot.

        Slots are the groups ``name__0``, ``name__1``, ... in the order of the text; whether those of one name agree is
        for the reader of the match to say.
        """
        count = iter(range(self.source.count("{")))

        def slot(name: str) -> str:
            return f"(?P<{name}__{next(count)}>{domains[name]})"

        def plain(text: str) -> str:
            return "".join(slot(part) if i % 2 else re.escape(part) for i, part in enumerate(_SLOT.split(text)))

        def choice(text: str) -> str:
            return f"(?:{'|'.join(map(plain, text.split('|')))})"

        parts = enumerate(_CHOICE.split(self.source))
        return re.compile("".join(choice(part) if i % 2 else plain(part) for i, part in parts))


def read_sections(package: str, name: str) -> list[tuple[tuple[str, ...], Template]]:
    """Read a grammar file of a package: templates, one a line, under ``[section words]``; ``#`` starts a comment line.

    Returns:
        (section words, template) in the order of the file.
    """
    rows: list[tuple[tuple[str, ...], Template]] = []
    section: tuple[str, ...] = ()
    for line in files(package).joinpath(name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = tuple(line.strip("[]").split())
        elif line and not line.startswith("#"):
            rows.append((section, Template(line)))
    return rows
