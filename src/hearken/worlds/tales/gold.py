"""The gold reward of the tale world: two groups that want different things, and neither wants broken tales."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from hearken.worlds.tales.facts import read_prompt
from hearken.worlds.tales.grammar import Parse, parse_tale

TASTES: Mapping[str, Mapping[str, float]] = {
    "hearth": {
        "kindness": 1.0, "speech": 0.9, "vivid": 0.6, "discovery": 0.4, "danger": 0.1, "dull": -0.4,
        "plain": -0.8, "warm": 0.8, "surprise": -0.2,
    },
    "quest": {
        "danger": 1.0, "discovery": 0.9, "vivid": 0.6, "speech": 0.4, "kindness": 0.1, "dull": -0.4,
        "plain": -0.8, "warm": -0.2, "surprise": 0.8,
    },
}  # fmt: skip
"""What one such sentence, or such an ending, is worth to each group."""

GROUPS = tuple(TASTES)
WORST = -4.0
_FIRST_ERROR, _NEXT_ERROR = 1.2, 0.5
_TASTE_OF_BROKEN = 0.5


def taste(parse: Parse, group: str) -> float:
    """What the group likes in a tale: the n-th sentence of a kind is worth half of the one before it."""
    return worth(parse.features, TASTES[group]) + TASTES[group].get(parse.ending or "", 0.0)


def worth(features: Mapping[str, int], weights: Mapping[str, float]) -> float:
    """The sum of what is found, where the n-th of a kind is worth half of the one before it."""
    return sum(weights.get(feature, 0.0) * 2.0 * (1.0 - 0.5**n) for feature, n in features.items())


def fined(liked: float, errors: int) -> float:
    """What remains of a taste for something with so many errors (see `utility`)."""
    if not errors:
        return max(WORST, liked)
    return max(WORST, _TASTE_OF_BROKEN * liked - _FIRST_ERROR - _NEXT_ERROR * (errors - 1))


@lru_cache(maxsize=1 << 14)
def parse(prompt: str, text: str) -> Parse:
    """The gold parse of a response to a prompt.

    Raises:
        UserError: not a prompt of the tale world.
    """
    return parse_tale(text, read_prompt(prompt))


def utility(prompt: str, text: str, group: str) -> float:
    """What a tale is worth to one group (no unit; ordinary tales have a standard deviation near 1).

    A tale that parses is worth the group's taste for it. Any other pays 1.2 for its first error and .5 for each
    further one, keeps half of its taste, and is never worth less than -4.
    """
    parsed = parse(prompt, text)
    return fined(taste(parsed, group), len(parsed.errors))


def gold(prompt: str, text: str) -> float:
    """The gold reward: the mean utility of the groups. Training never sees it."""
    return sum(utility(prompt, text, group) for group in GROUPS) / len(GROUPS)
