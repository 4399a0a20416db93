"""A judge of short texts that no labeler and no reward model has a part in: an untuned model reads them.

Of two answers to a request it prefers the one that wins more of three readings (a tie where neither does):

* *understood*: how likely the untuned model finds the request again in the answer, log p(request | answer);
* *complete*: how likely it is, to the untuned model, that the answer ends where it ends, log p(end | request, answer);
* *easy*: the Flesch-Kincaid grade level (Kincaid et al. 1975), the lower the easier.

An answer in which the request is hardly more likely than in none (`LOST` nats), or that repeats a sentence of it
word for word, says nothing to the reader: it loses to any that does. Both "No." and an echo are ruled out by that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hearken.domains.base import find_domain
from hearken.feedback.examples import Content, Message
from hearken.labelers.simulated import prompt_text
from hearken.models.layout import Group, Layout
from hearken.statistics.intervals import Interval
from hearken.statistics.winrate import win_rate
from hearken.training.forward import gather

LOST = 2.0
"""Nats by which an answer must make the request likelier to say anything at all."""
TOKENS = 8192
READINGS = ("understood", "complete", "easy")

_ASKED = 'Somebody wrote this:\n\n"{text}"\n\nWhat was asked for?'


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader makes of one answer."""

    understood: float
    """log p(request | answer) - log p(request | an empty answer), in nats."""
    complete: float
    """log p(end | request, answer) in nats."""
    easy: float
    """Minus the Flesch-Kincaid grade level."""
    says: bool
    """Whether it says anything that was asked for, and is no echo of the request."""


class Reader:
    """Reads answers with an untuned model.

    Args:
        model: a chat model's folder; of the same family as the policies or not, but none of those that are judged.
    """

    def __init__(self, model: str) -> None:
        self.policy = find_domain("text").language_model(model)

    def read(self, prompts: Sequence[Content], texts: Sequence[str]) -> list[Reading]:
        """One reading for each answer, in order."""
        again = self._request_from([*texts, *[""] * len(prompts)], [*prompts, *prompts])
        ends = self._ends(prompts, texts)
        return [
            Reading(
                found - nothing, end, -grade_level(text),
                found - nothing > LOST and not echoes(prompt_text(prompt), text),
            )
            for prompt, text, found, nothing, end in zip(
                prompts, texts, again[: len(texts)], again[len(texts) :], ends, strict=True
            )
        ]  # fmt: skip

    def _request_from(self, texts: Sequence[str], prompts: Sequence[Content]) -> list[float]:
        """Log p(the request | the answer alone)."""
        groups = []
        for text, prompt in zip(texts, prompts, strict=True):
            asked = self._prompt((Message("user", _ASKED.format(text=text.strip())),))
            groups.append(Group(asked, [self._tokens(prompt_text(prompt))]))
        return self._logprobs(groups).sum(1).tolist()

    def _ends(self, prompts: Sequence[Content], texts: Sequence[str]) -> list[float]:
        """Log p(the answer ends here | request, answer): the end may be any of the model's own stop tokens."""
        groups = []
        for prompt, text in zip(prompts, texts, strict=True):
            groups.append(Group([*self._prompt(prompt), *self._tokens(text)], [[self.policy.encoder.eos]]))
        return self._logprobs(groups).sum(1).tolist()

    def _prompt(self, content: Content) -> list[int]:
        return self.policy.encoder.prompt(content) or [self.policy.encoder.eos]

    def _tokens(self, text: str) -> list[int]:
        return list(self.policy.tokenizer(text, add_special_tokens=False).input_ids) or [self.policy.encoder.eos]

    def _logprobs(self, groups: Sequence[Group]) -> torch.Tensor:
        def answer(layout: Layout) -> torch.Tensor:
            return self.policy.scorer(layout).logprobs

        return gather(answer, groups, TOKENS, self.policy.scorer)


def prefer(a: Reading, b: Reading) -> float:
    """1 where the reader prefers ``a``, 0 where ``b``, 0.5 where neither."""
    if a.says != b.says:
        return float(a.says)
    won = sum((getattr(a, name) > getattr(b, name)) - (getattr(a, name) < getattr(b, name)) for name in READINGS)
    return 0.5 if won == 0 else float(won > 0)


def reader_win_rates(
    mine: Sequence[Reading], theirs: Sequence[Reading], keys: Sequence[str]
) -> tuple[Interval, dict[str, Interval]]:
    """How often the reader prefers ``mine``, overall and by each reading; intervals over prompts."""

    def rate(outcomes: Sequence[float]) -> Interval:
        return win_rate(list(outcomes), list(keys))

    pairs = list(zip(mine, theirs, strict=True))
    single = {name: rate([_compared(getattr(a, name), getattr(b, name)) for a, b in pairs]) for name in READINGS}
    return rate([prefer(a, b) for a, b in pairs]), single


def _compared(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def echoes(request: str, text: str) -> bool:
    """Whether the text repeats a whole sentence of the request."""

    def plain(some: str) -> str:
        return " ".join(re.findall(r"[a-z0-9']+", some.lower()))

    said = f" {plain(text)} "
    return any(f" {one} " in said for sentence in re.split(r"[.!?\n]+", request) if (one := plain(sentence)))


def grade_level(text: str) -> float:
    """Flesch-Kincaid grade level: .39 words per sentence + 11.8 syllables per word - 15.59; 0 without words.

    Kincaid, Fishburne, Rogers and Chissom (1975). Syllables are counted by groups of vowels, a silent e left out.
    """
    words = re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)
    if not words:
        return 0.0
    sentences = max(len([s for s in re.split(r"[.!?]+(?:\s|$)|\n+", text) if re.search(r"[A-Za-z]", s)]), 1)
    return 0.39 * len(words) / sentences + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


def syllables(word: str) -> int:
    """Of an English word, roughly: groups of vowels, without a silent e at the end."""
    low = word.lower()
    count = len(re.findall(r"[aeiouy]+", low))
    if low.endswith("e") and not low.endswith(("le", "ee", "ye")) and count > 1:
        count -= 1
    return max(count, 1)


__all__ = ["READINGS", "Reader", "Reading", "echoes", "grade_level", "prefer", "reader_win_rates", "syllables"]
