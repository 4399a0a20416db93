"""What a tale says, and sentences about it that are checked against that."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from hearken.errors import UserError
from hearken.worlds.tales.facts import CURES, DOMAINS, HELPERS, KIN, KINDS, PLACES, PRONOUNS, SHE, THINGS, TRAITS
from hearken.worlds.tales.grammar import ending_of, named_slots, read_sentence, split_sentences
from hearken.worlds.templates import Template, read_sections

CONTENT: Mapping[str, tuple[str, ...]] = {
    "kind": KINDS, "trait": TRAITS, "place": PLACES, "thing": THINGS, "friend": HELPERS, "kin": KIN, "cure": CURES,
}  # fmt: skip
"""Slots that a sentence can be wrong in, with everything they can hold."""


@dataclass(frozen=True)
class Truth:
    """What a tale says.

    Attributes:
        facts: slots of its sentences (name, kind, trait, place, ...), its plot and its ending.
        deeds: the features of what happens in it (kindness, danger, ...).
    """

    facts: Mapping[str, str]
    deeds: frozenset[str]

    def claims(self, claims: Mapping[str, str]) -> bool:
        """Whether all of these claims are true; "deed" claims that something of the kind happens."""
        return all(v in self.deeds if k == "deed" else self.facts.get(k) == v for k, v in claims.items())


@lru_cache(maxsize=1 << 14)
def read_truth(tale: str) -> Truth:
    """What a tale of this world says.

    Raises:
        UserError: one of its sentences is none that the grammar of tales makes.
    """
    facts: dict[str, str] = {}
    deeds: set[str] = set()
    for text in split_sentences(tale):
        sentence = read_sentence(text)
        if sentence.rule is None:
            raise UserError(f"not a sentence of a tale: '{text[:80]}'", "Use the prompts that the tale world makes")
        for slot, value in named_slots(sentence.slots):
            facts.setdefault(slot, value)
        if sentence.rule.role == "trouble":
            facts["plot"] = sentence.rule.plot
        elif sentence.rule.role == "ending":
            facts["ending"] = ending_of(sentence.rule)
        elif sentence.rule.role == "body":
            deeds.update(sentence.rule.features)
    if not {"name", "plot", "ending"} <= facts.keys():
        raise UserError(f"not a whole tale: '{tale[:80]}'", "Use the prompts that the tale world makes")
    gender = "she" if facts["name"] in SHE else "he"
    facts |= dict(zip(("sub", "obj", "pos"), PRONOUNS[gender], strict=True))
    return Truth(facts, frozenset(deeds))


# -- sentences about a tale ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Line:
    """A template of `tasks.txt`: what it speaks of, and what it claims besides its slots."""

    topic: str
    claims: Mapping[str, str]
    unsure: bool
    template: Template
    pattern: re.Pattern[str]

    @property
    def content(self) -> list[str]:
        """Its slots that can be wrong, in order of name."""
        return sorted(self.template.slots & CONTENT.keys())

    def true_to(self, truth: Truth) -> bool:
        """Whether it can be said truly of this tale."""
        return truth.claims(self.claims) and all(slot in truth.facts for slot in self.content)


@cache
def lines(task: str) -> tuple[Line, ...]:
    """All lines of a task."""
    made = []
    for (owner, topic, *words), template in read_sections(__package__, "tasks.txt"):
        if owner == task:
            claims = dict(word.split("=") for word in words if "=" in word)
            made.append(Line(topic, claims, "unsure" in words, template, template.pattern(DOMAINS)))
    return tuple(made)


def write_line(line: Line, truth: Truth, rng: random.Random, *, lie: str = "") -> str:
    """The line said of a tale; what the tale does not tell is made up, and so is the slot ``lie``."""
    values = {slot: rng.choice(known) for slot, known in CONTENT.items()} | dict(truth.facts)
    if lie:
        values[lie] = rng.choice([value for value in CONTENT[lie] if value != truth.facts.get(lie)])
    return line.template.fill(values | {"Sub": values["sub"].capitalize()}, rng)


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence about a tale: the line that makes it (None: there is none), and whether it is true."""

    text: str
    line: Line | None
    false: tuple[str, ...] = ()
    """What it claims wrongly, in words."""


@lru_cache(maxsize=1 << 14)
def read_line(task: str, text: str) -> tuple[Line, tuple[tuple[str, str], ...]] | None:
    """The line of a task that makes this sentence, with its slots."""
    for line in lines(task):
        if match := line.pattern.fullmatch(text):
            found = ((group.split("__")[0], value) for group, value in match.groupdict().items() if value)
            return line, tuple(named_slots(found))
    return None


def check_line(task: str, text: str, truth: Truth) -> Said:
    """Read a sentence of a task and compare all that it says with the tale."""
    found = read_line(task, text)
    if found is None:
        return Said(text, None)
    line, slots = found
    false = [f"{slot} '{value}'" for slot, value in slots if truth.facts.get(slot) != value]
    false += [f"{key} '{value}'" for key, value in line.claims.items() if not truth.claims({key: value})]
    return Said(text, line, tuple(false))


@dataclass(frozen=True)
class Reply:
    """What the gold judgment makes of a response about a tale.

    Attributes:
        said: its sentences.
        errors: everything wrong with its form, in words: sentences that the grammar cannot make, repetition, no answer.
        features: what groups care about, counted; "false" counts sentences that claim something untrue.
    """

    said: tuple[Said, ...]
    errors: tuple[str, ...]
    features: Counter[str]

    @property
    def false(self) -> tuple[str, ...]:
        """Everything that it claims wrongly."""
        return tuple(claim for one in self.said for claim in one.false)

    @property
    def parses(self) -> bool:
        """Whether all of it is in form and true."""
        return not self.errors and not self.false
