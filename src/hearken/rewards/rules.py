"""Rule rewards: ``--reward rule:NAME``. Checkable truth, where the prompt's metadata hold it; no torch."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from hearken.errors import UserError

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def answer(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """1 where the last number of the response is metadata's ``answer`` (or, of a text, where it ends the response)."""
    found = []
    for response, facts in zip(responses, metadata, strict=True):
        truth = str(_needed(facts, "answer")).strip()
        numbers = [n.replace(",", "") for n in _NUMBER.findall(response)]
        try:
            value = float(truth)
            right = bool(numbers) and float(numbers[-1]) == value
        except ValueError:
            right = response.strip().rstrip(".").lower().endswith(truth.lower())
        found.append(float(right))
    return found


def matches(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """1 where the whole response matches metadata's regular expression ``pattern``."""
    return [
        float(re.fullmatch(str(_needed(facts, "pattern")), response.strip(), re.DOTALL) is not None)
        for response, facts in zip(responses, metadata, strict=True)
    ]


def length(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Minus the words beyond metadata's ``words`` (100 where it says nothing), in units of that many words.

    Fewer than ``least`` (a quarter of ``words``) cost alike, in units of ``least``, down to -1 for no word: else the
    shortest answer would win. ``least`` 0 asks for none.
    """
    found = []
    for response, facts in zip(responses, metadata, strict=True):
        count, limit = len(response.split()), float(facts.get("words", 100))
        least = float(facts.get("least", limit / 4))
        found.append(-max(count - limit, 0.0) / limit - (max(least - count, 0.0) / least if least else 0.0))
    return found


def distinct(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """Share of a response's word pairs that are different: low where it repeats itself."""
    found = []
    for response in responses:
        words = response.split()
        pairs = list(pairwise(words))
        found.append(len(set(pairs)) / len(pairs) if pairs else 1.0)
    return found


def _needed(facts: dict[str, Any], name: str) -> Any:
    if name not in facts:
        raise UserError(f"a prompt's metadata have no '{name}'", f'Give rows like {{"prompt": ..., "{name}": ...}}')
    return facts[name]
