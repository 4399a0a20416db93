"""What the world of messages has to offer: requests, what messages are worth to labelers of two tastes.

A request is a chat turn, e.g. "Write a short message to my neighbour. Thank her for watering the plants." Two
groups of labelers judge what a chat model writes: *brisk* readers want it said in a line, *warm* ones want a kind word
with it. Both want what was asked for to be in it, and a message that can be sent as it stands: whole, with no gaps to
fill in, no letter forms, and nothing about the message beside the message.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

import yaml

from hearken.errors import UserError

Split = Literal["train", "heldout"]
Kind = Literal["thank", "ask", "remind", "tell", "sorry"]

GROUPS = ("brisk", "warm")

PEOPLE = {
    "neighbour": "her", "brother": "him", "sister": "her", "mother": "her", "father": "him", "friend": "him",
    "flatmate": "him", "teacher": "her", "aunt": "her", "uncle": "him", "cousin": "her", "grandmother": "her",
}  # fmt: skip
FORMS = ("a short message", "a text message", "a note")

SAYS: dict[Kind, str] = {
    "thank": "Thank {who} for {matter}.",
    "ask": "Ask {who} to {matter}.",
    "remind": "Remind {who} to {matter}.",
    "tell": "Tell {who} that {matter}.",
    "sorry": "Say sorry that {matter}.",
}
"""How a request says what the message is for."""

SHOWN: dict[Kind, str] = {
    "thank": r"thank|grateful|appreciat",
    "ask": r"\?|please|would you|could you",
    "remind": r"remind|don'?t forget|remember|please",
    "tell": r"",
    "sorry": r"sorry|apolog|forgive",
}
"""By which words a message does what it is for; told news need none."""

_KIND = r"thank|please|sorry|hope|love|hugs|glad|happy|kind|enjoy|appreciat|best wishes|take care|see you|xo|dear|great"
_GAPS = r"\[[^\]]*\]|\{[^}]*\}|_{3,}|<[^>]*>|\byour name\b"
_ABOUT = (
    r"\b(here('s| is)|this (is a|message|note|response|sentence)|subject:|the message|rewrite|"
    r"i('m| am) an? (ai|assistant|chat)|smollm|hugging)"
)
_LETTER = (
    r"\bdear (mr|ms|mrs|dr|sir)\b|finds? you well|\b(kind|best|warm) regards|\bsincerely\b|\byours truly\b|"
    r"\bi am writing\b"
)
_WHOLE = r"""[.!?)"'*❤💕😊]$|\bx+$|\n[-–~]?\s*[A-Z]\w+( [A-Z]\w+)?$"""
_SMALL = frozenset(
    re.findall(
        r"\w+",
        "a an the i my me you your of on in at to for is are was were be it that and so some with has have this her "
        "him because out as",
    )
)


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    person: str
    form: str
    kind: Kind
    matter: str

    @property
    def text(self) -> str:
        """As the user says it."""
        who = PEOPLE[self.person]
        return f"Write {self.form} to my {self.person}. {SAYS[self.kind].format(who=who, matter=self.matter)}"


@cache
def _matters(split: str) -> tuple[tuple[Kind, str], ...]:
    text = files("hearken.worlds.notes").joinpath("matters.yaml").read_text("utf-8")
    topics = yaml.safe_load(text)[split]
    return tuple((kind, matter) for topic in topics.values() for kind, some in topic.items() for matter in some)


@cache
def read_request(prompt: str) -> Request:
    """The request behind its text.

    Raises:
        UserError: not a request of this world.
    """
    for kind, says in SAYS.items():
        pattern = re.escape(says).replace(r"\{who\}", "(?:her|him)").replace(r"\{matter\}", "(?P<matter>.+)")
        found = re.fullmatch(rf"Write (?P<form>.+) to my (?P<person>\w+)\. {pattern}", prompt)
        if found and found["person"] in PEOPLE:
            return Request(found["person"], found["form"], kind, found["matter"])
    raise UserError(f"'{prompt[:60]}' is not a request for a message", "Take the prompts of the world of messages")


def stem(word: str) -> str:
    """A word without its ending, roughly: enough to see that 'watered' is 'watering'."""
    word = word.lower()
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z']+", text)


@dataclass(frozen=True)
class Traits:
    """What labelers see in a message."""

    said: float
    """Share of the words that carry the matter, 0..1."""
    does: bool
    """It thanks, asks, reminds or is sorry, whichever was asked for."""
    whole: bool
    """It ends like a message and not in the middle of a sentence."""
    gaps: bool
    """Something is left to be filled in: "[Your name]"."""
    beside: bool
    """It speaks about the message, or of the writer as an assistant."""
    letter: bool
    """The forms of a business letter."""
    kind: bool
    """A kind word."""
    copied: bool
    """The request itself is in it."""
    words: int
    lines: int


def traits(prompt: str, text: str) -> Traits:
    """What labelers see in a message.

    Raises:
        UserError: not a request of this world.
    """
    request = read_request(prompt)
    low, body = text.lower(), text.strip()
    have = {stem(w) for w in _words(text)}
    keys = {stem(w) for w in _words(request.matter) if w.lower() not in _SMALL}
    return Traits(
        said=len(keys & have) / len(keys),
        does=re.search(SHOWN[request.kind], low) is not None,
        whole=re.search(_WHOLE, body) is not None,
        gaps=re.search(_GAPS, low) is not None,
        beside=re.search(_ABOUT, low) is not None,
        letter=re.search(_LETTER, low) is not None,
        kind=re.search(_KIND, low) is not None,
        copied=request.text.lower()[6:30] in low or SAYS[request.kind].format(
            who=PEOPLE[request.person], matter=request.matter
        ).lower()[:-1] in low,
        words=len(body.split()),
        lines=len([line for line in body.splitlines() if line.strip()]),
    )  # fmt: skip


class NoteWorld:
    """A world of short messages; everything it makes follows from the seed.

    Args:
        seed: same seed, same requests.
    """

    title = "the world of short messages"
    leanings: Mapping[str, float] = {"length": 0.0, "side": 0.4}
    """Whoever reads short messages has no weakness for long ones."""
    groups: tuple[str, ...] = GROUPS

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """``n`` distinct requests; those of the two splits share no topic. Every matter comes once before any twice.

        Raises:
            UserError: there is no such split, or there are not so many.
        """
        if split not in get_args(Split):
            raise UserError(
                f"the world of messages has no split '{split}'", f"Name one of: {', '.join(get_args(Split))}"
            )
        rng = random.Random(f"{self.seed}:notes:{split}")
        matters, made = list(_matters(split)), dict[str, None]()
        if n > len(matters) * len(PEOPLE):
            raise UserError(f"the world of messages has no {n} requests", "Ask for fewer")
        people: dict[str, list[str]] = {}
        while len(made) < n:
            rng.shuffle(matters)
            for kind, matter in matters:
                left = people.setdefault(matter, rng.sample(list(PEOPLE), len(PEOPLE)))
                made[Request(left.pop(), rng.choice(FORMS), kind, matter).text] = None
        return list(made)[:n]

    def accepts(self, prompt: str, text: str) -> None:
        """It has no parser."""

    @staticmethod
    def utility(prompt: str, text: str, group: str) -> float:
        """What a message is worth to one of `groups`.

        Raises:
            UserError: no such group, or not a request of this world.
        """
        if group not in GROUPS:
            raise UserError(f"the world of messages has no group '{group}'", f"Name one of: {', '.join(GROUPS)}")
        seen = traits(prompt, text)
        worth = 3.0 * seen.said + 1.2 * seen.does
        worth -= 1.2 * (not seen.whole) + 1.0 * seen.gaps + 1.0 * seen.beside + 0.7 * seen.letter + 2.5 * seen.copied
        worth -= 1.5 * (seen.words < 4) + 0.15 * max(seen.lines - 3, 0)
        if group == "brisk":
            return worth - 0.04 * max(seen.words - 12, 0)
        return worth + 0.5 * seen.kind - 0.03 * max(seen.words - 25, 0)

    @classmethod
    def gold(cls, prompt: str, text: str) -> float:
        """The mean utility of the groups."""
        return sum(cls.utility(prompt, text, group) for group in GROUPS) / len(GROUPS)


def good_message(prompt: str, number: int = 0) -> str:
    """A message that does what was asked, plainly: for checking judges, never for training."""
    request = read_request(prompt)
    ways: dict[Kind, Sequence[str]] = {
        "thank": ("Hi! Thank you so much for {m}. It helped a lot.", "Thanks a lot for {m}!"),
        "ask": ("Hi! Could you please {m}? Thank you!", "Hey, would you {m}, please?"),
        "remind": ("Hi! Please don't forget to {m}.", "Just a quick reminder: please remember to {m}. Thanks!"),
        "tell": ("Hi! Just so you know, {m}.", "Hello! I wanted to let you know that {m}. See you soon!"),
        "sorry": ("Hi! I am so sorry that {m}. I will make up for it.", "Sorry that {m}!"),
    }
    return ways[request.kind][number % 2].format(m=request.matter)
