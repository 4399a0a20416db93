"""The reward function of RLOO and GRPO, for both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def mean_letters(prompts: Sequence[str], completions: Sequence[str], *_: Any, **__: Any) -> list[float]:
    """The mean length of a response's words, over 16: of real text."""
    return [len(text.replace(" ", "")) / (16 * max(len(text.split()), 1)) for text in completions]


def mean_number(prompts: Sequence[str], completions: Sequence[str], *_: Any, **__: Any) -> list[float]:
    """The mean number of a response's words (they read w3 to w2047), from 0 to 1: hardly ever equal in a group."""
    found = []
    for text in completions:
        numbers = [int(word[1:]) for word in text.split()]
        found.append(sum(numbers) / (2048 * max(len(numbers), 1)))
    return found
