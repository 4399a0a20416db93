"""What the tale world has to offer: prompts, demonstrations, a corpus and the gold reward."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import get_args

from hearken.errors import UserError
from hearken.worlds.tales import gold as _gold
from hearken.worlds.tales import tasks as _tasks
from hearken.worlds.tales.corpus import write_document
from hearken.worlds.tales.facts import Split, draw_facts, read_prompt, write_prompt
from hearken.worlds.tales.grammar import Parse, write_tale
from hearken.worlds.tales.truth import Reply


class TaleWorld:
    """A world of short tales; everything it makes follows from the seed.

    Args:
        seed: same seed, same prompts, documents and demonstrations.
    """

    title = "the tale world"
    leanings: Mapping[str, float] = {}
    groups: tuple[str, ...] = _gold.GROUPS

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @staticmethod
    def _check(split: str) -> None:
        if split not in get_args(Split):
            raise UserError(f"the tale world has no split '{split}'", f"Name one of: {', '.join(get_args(Split))}")

    def _rng(self, *key: object) -> random.Random:
        return random.Random(":".join(map(str, (self.seed, *key))))

    def prompts(self, n: int, split: Split = "train") -> list[str]:
        """``n`` distinct prompts; those of the two splits never ask for the same character in the same place."""
        self._check(split)
        rng = self._rng("prompts", split)
        made: dict[str, None] = {}
        while len(made) < n:
            made[write_prompt(draw_facts(rng, split), rng)] = None
        return list(made)

    def corpus(self, n: int, split: Split = "train") -> list[str]:
        """``n`` distinct documents for pretraining, about 310 characters each: half tales, half other plain text."""
        self._check(split)
        rng = self._rng("corpus", split)
        made: dict[str, None] = {}
        while len(made) < n:
            made[write_document(rng, split)] = None
        return list(made)

    def demonstrations(self, prompts: Sequence[str]) -> list[tuple[str, str]]:
        """One (prompt, tale) for each prompt: all whole and grammatical, of mixed worth.

        Raises:
            UserError: not a prompt of this world.
        """
        return [(prompt, self.tale(prompt)) for prompt in prompts]

    def tale(self, prompt: str, number: int = 0) -> str:
        """The demonstration for a prompt, or another like it for each further ``number``."""
        return write_tale(read_prompt(prompt), self._rng("tale", prompt, number))

    def task(self, kind: _tasks.Kind) -> _tasks.Task:
        """What else can be asked about tales: "summarise", "answer" or "talk"; the gold reward judges them all."""
        return _tasks.Task(kind, self.seed)

    @staticmethod
    def parse(prompt: str, text: str) -> Parse | Reply:
        """The gold parse of the whole response."""
        return _tasks.parse(prompt, text) if _tasks.is_request(prompt) else _gold.parse(prompt, text)

    def accepts(self, prompt: str, text: str) -> bool:
        """Whether the whole response parses."""
        return self.parse(prompt, text).parses

    @staticmethod
    def utility(prompt: str, text: str, group: str) -> float:
        """What the response is worth to one of `groups`."""
        if _tasks.is_request(prompt):
            return _tasks.utility(prompt, text, group)
        return _gold.utility(prompt, text, group)

    @staticmethod
    def gold(prompt: str, text: str) -> float:
        """The gold reward: the mean utility of the groups."""
        return _tasks.gold(prompt, text) if _tasks.is_request(prompt) else _gold.gold(prompt, text)
