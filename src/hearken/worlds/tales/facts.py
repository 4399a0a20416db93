"""The facts of a tale (who, where, what about) and the prompts that ask for it."""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass
from typing import Literal

from hearken.errors import UserError
from hearken.worlds.templates import Template

Split = Literal["train", "heldout"]

KINDS = (
    "fox", "rabbit", "hedgehog", "squirrel", "badger", "otter", "goat", "mouse", "cat", "frog", "goose", "pony",
    "baker", "shepherd", "miller", "sailor", "weaver", "gardener",
)  # fmt: skip
SHE = ("Ruby", "Willow", "Hazel", "Clara", "Nell", "Daisy", "Ivy", "Poppy", "Mira", "Tilda", "Anna", "Rosa")
HE = ("Finn", "Oscar", "Hugo", "Rowan", "Jasper", "Toby", "Milo", "Basil", "Felix", "Otto", "Ned", "Arlo")
TRAITS = (
    "brave", "clever", "gentle", "shy", "lonely", "proud", "curious", "merry", "patient", "stubborn", "quiet",
    "restless", "careful", "lazy",
)  # fmt: skip
PLACES = (
    "in the old forest", "in the deep valley", "by the green river", "by the cold sea", "on the windy hill",
    "near the sleepy village", "in the wide meadow", "beside the still lake", "under the tall mountain",
    "in the wild garden", "on the lonely island", "beside the great marsh",
)  # fmt: skip
THINGS = (
    "silver bell", "golden key", "red kite", "blue lantern", "wooden flute", "glass bead", "copper ring", "paper crown",
    "round mirror", "woolen scarf", "painted box", "green ribbon", "brass compass", "clay cup", "striped feather",
    "velvet hat",
)  # fmt: skip
HELPERS = ("owl", "mole", "heron", "beaver", "donkey", "crane", "toad", "raven", "pilgrim", "tinker")
HELPER_LOOKS = ("an old", "a small", "a tired", "a friendly")
KIN = ("mother", "father", "brother", "sister", "grandmother", "grandfather")
THEMES = {
    "way": "losing the way", "lonely": "being lonely", "hunger": "being hungry", "ill": "someone ill",
    "feast": "a great feast",
}  # fmt: skip
"""What a prompt calls each plot but that of the lost thing, which it names."""
PLOTS = ("thing", *THEMES)
CURES = ("moon flower", "winter rose", "silver herb", "black honey")

PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
"""Subject, object and possessive form."""

PROMPTS = tuple(
    Template(text + wish)
    for text in (
        "Tell a tale about a {trait} {kind} named {name} {place}",
        "Tell me a tale about {name}, a {trait} {kind} who lives {place}",
        "Write a short tale about a {trait} {kind} called {name} who lives {place}",
        "I would like a tale {place}, about a {trait} {kind} named {name}",
    )
    for wish in (". There should be a {thing} in it.", ". It should be about {theme}.", ".")
)


def split_of(key: str) -> Split:
    """The part of the world that something belongs to, by a hash of its key: a tenth is held out."""
    return "heldout" if zlib.crc32(key.encode()) % 10 == 0 else "train"


def _one_of(words: tuple[str, ...]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


DOMAINS = {
    "name": _one_of(SHE + HE),
    "kind": _one_of(KINDS),
    "trait": _one_of(TRAITS),
    "place": _one_of(PLACES),
    "Place": _one_of(tuple(place.capitalize() for place in PLACES)),
    "thing": _one_of(THINGS),
    "friend": _one_of(HELPERS),
    "new": f"(?:{_one_of(HELPER_LOOKS)}) (?:{_one_of(HELPERS)})",
    "kin": _one_of(KIN),
    "cure": _one_of(CURES),
    "theme": _one_of(tuple(THEMES.values())),
    "sub": "she|he",
    "Sub": "She|He",
    "obj": "her|him",
    "pos": "her|his",
}
"""What each slot of a template can hold, as a regular expression."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a prompt asks for. ``plot`` is one of `PLOTS`, or None where any will do; ``thing`` goes with its plot."""

    name: str
    kind: str
    trait: str
    place: str
    plot: str | None = None
    thing: str | None = None

    @property
    def gender(self) -> str:
        """``"she"`` or ``"he"``: the pronoun that goes with the name."""
        return "she" if self.name in SHE else "he"

    @property
    def split(self) -> Split:
        """Which part of the world these facts belong to, whatever the wording of the prompt."""
        return split_of(f"{self.name} {self.kind} {self.trait} {self.place}")

    def slots(self) -> dict[str, str]:
        """Values for the slots of a template that these facts decide."""
        sub, obj, pos = PRONOUNS[self.gender]
        place = self.place
        return {
            "name": self.name, "kind": self.kind, "trait": self.trait, "place": place, "Place": place.capitalize(),
            "sub": sub, "Sub": sub.capitalize(), "obj": obj, "pos": pos,
        }  # fmt: skip


def draw_facts(rng: random.Random, split: Split) -> Facts:
    """Facts of the split, drawn uniformly but for the plot: mostly named, most often that of a lost thing."""
    while True:
        plot = rng.choices((*PLOTS, None), (5, *(3 for _ in THEMES), 1))[0]
        thing = rng.choice(THINGS) if plot == "thing" else None
        facts = Facts(rng.choice(SHE + HE), rng.choice(KINDS), rng.choice(TRAITS), rng.choice(PLACES), plot, thing)
        if facts.split == split:
            return facts


def write_prompt(facts: Facts, rng: random.Random) -> str:
    """A prompt that asks for these facts, in one of several wordings."""
    wish = {"thing": facts.thing} if facts.thing else {"theme": THEMES[facts.plot]} if facts.plot else {}
    fitting = [template for template in PROMPTS if set(wish) == set(template.slots) & {"thing", "theme"}]
    return rng.choice(fitting).fill(facts.slots() | wish, rng)


_PROMPT_PATTERNS: list[re.Pattern[str]] = [template.pattern(DOMAINS) for template in PROMPTS]


def read_prompt(prompt: str) -> Facts:
    """The facts a prompt of the tale world asks for.

    Raises:
        UserError: the text is not a prompt of this world, so nothing can be said about how well a tale answers it.
    """
    for pattern in _PROMPT_PATTERNS:
        if match := pattern.fullmatch(prompt.strip()):
            found = {group.split("__")[0]: value for group, value in match.groupdict().items()}
            theme = found.pop("theme", None)
            plot = next((plot for plot, name in THEMES.items() if name == theme), "thing" if "thing" in found else None)
            return Facts(**found, plot=plot)
    raise UserError(
        f"not a prompt of the tale world: '{prompt.strip()[:80]}'",
        "Its gold reward knows only prompts made by TaleWorld.prompts",
    )
