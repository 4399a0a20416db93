"""The corpus: tales, and other kinds of short plain text."""

from __future__ import annotations

import random
from functools import cache

from hearken.worlds.tales.facts import HE, SHE, Facts, Split, draw_facts, split_of, write_prompt
from hearken.worlds.tales.grammar import write_tale
from hearken.worlds.templates import Template, read_sections

GENRES = ("note", "letter", "recipe", "region", "weather", "talk")
TOWNS = ("Ashby", "Brook", "Calder", "Dunmore", "Elling", "Farrow", "Haven", "Kirby")
_TALE_SHARE = 0.6
_REQUEST_SHARE, _TITLE_SHARE = 0.5, 0.25  # what stands before a tale; else nothing
_ONE_PARAGRAPH = ("recipe", "region", "weather")
_TITLE = Template("The tale of {name}, a {trait} {kind} {place}.")


@cache
def _templates() -> dict[tuple[str, ...], list[Template]]:
    found: dict[tuple[str, ...], list[Template]] = {}
    for section, template in read_sections(__package__, "documents.txt"):
        found.setdefault(section, []).append(template)
    return found


def write_document(rng: random.Random, split: Split) -> str:
    """A document of the corpus that belongs to the split: by its facts for a tale, by its text for anything else."""
    if rng.random() < _TALE_SHARE:
        facts = draw_facts(rng, split)
        return _lead(facts, rng) + write_tale(facts, rng)
    while True:
        text = _write(rng.choice(GENRES), rng)
        if split_of(text) == split:
            return text


def _lead(facts: Facts, rng: random.Random) -> str:
    """What stands above a tale: somebody's request for it, its title, or nothing."""
    what = rng.random()
    if what < _REQUEST_SHARE:
        return write_prompt(facts, rng) + "\n"
    return _TITLE.fill(facts.slots(), rng) + "\n" if what < _REQUEST_SHARE + _TITLE_SHARE else ""


def _write(genre: str, rng: random.Random) -> str:
    name, other = rng.sample(SHE + HE, 2)
    town, town2 = rng.sample(TOWNS, 2)
    values = {"name": name, "other": other, "town": town, "town2": town2}
    templates = _templates()
    body = templates[(genre,)]
    chosen = sorted(rng.sample(range(len(body)), rng.randint(3, 6)))
    first, last = (rng.choice(templates[(genre, end)]) for end in ("first", "last"))
    written = [line.fill(values, rng) for line in (first, *(body[i] for i in chosen), last)]
    if genre in _ONE_PARAGRAPH:
        return " ".join(written)
    return "\n".join(written if genre == "talk" else [written[0], " ".join(written[1:-1]), written[-1]])
