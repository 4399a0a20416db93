"""Ways a tale goes wrong: stand-ins for the slips of an unfinished policy, for tests and measurements without one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from hearken.worlds.tales.facts import HE, SHE

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def drop_word(tale: str, rng: random.Random) -> str:
    """One word is missing."""
    words = tale.split()
    del words[rng.randrange(len(words))]
    return " ".join(words)


def double_word(tale: str, rng: random.Random) -> str:
    """One word stands twice."""
    words = tale.split()
    i = rng.randrange(len(words))
    return " ".join(words[: i + 1] + words[i:])


def swap_words(tale: str, rng: random.Random) -> str:
    """Two neighbouring words, not the same, change places."""
    words = tale.split()
    i = rng.choice([i for i in range(len(words) - 1) if words[i] != words[i + 1]])
    words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)


def shuffle_words(tale: str, rng: random.Random) -> str:
    """All words in random order."""
    words = tale.split()
    return " ".join(rng.sample(words, len(words)))


def change_name(tale: str, rng: random.Random) -> str:
    """The character's name changes somewhere in the tale."""
    places = [match for match in re.finditer("|".join(SHE + HE), tale)]
    match = rng.choice(places)
    other = rng.choice([name for name in SHE + HE if name != match[0]])
    return tale[: match.start()] + other + tale[match.end() :]


def repeat_sentence(tale: str, rng: random.Random) -> str:
    """One sentence comes again right away."""
    sentences = _SENTENCE_END.split(tale)
    i = rng.randrange(len(sentences))
    return " ".join(sentences[: i + 1] + sentences[i:])


def drop_sentence(tale: str, rng: random.Random) -> str:
    """The opening, the trouble or the ending is missing."""
    sentences = _SENTENCE_END.split(tale)
    del sentences[rng.choice([0, len(sentences) > 1, -1])]
    return " ".join(sentences)


def cut(tale: str, rng: random.Random) -> str:
    """It breaks off."""
    words = tale.split()
    return " ".join(words[: rng.randrange(len(words) // 3, len(words))])


def go_on(tale: str, rng: random.Random) -> str:
    """It goes on after its end."""
    words = tale.split()
    return f"{tale} {words[0]} {' '.join(rng.sample(words, 5))}"


FLAWS: Mapping[str, Callable[[str, random.Random], str]] = {
    flaw.__name__: flaw
    for flaw in (
        drop_word, double_word, swap_words, shuffle_words, change_name, repeat_sentence, drop_sentence, cut, go_on,
    )
}  # fmt: skip
"""All flaws by name."""


def flawed(tale: str, rng: random.Random) -> str:
    """The tale with one flaw, or one time in three with two."""
    for flaw in rng.choices(list(FLAWS.values()), k=1 if rng.random() < 2 / 3 else 2):
        tale = flaw(tale, rng) if len(tale.split()) > 8 else tale
    return tale
