"""A reward that is fitted anew while a policy trains on text, and what it scored last, as responses to be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from hearken.algorithms.sampled import Setup
from hearken.domains.base import Drawn
from hearken.domains.text.domain import drawn
from hearken.domains.text.rewarding import Known, open_reward, plain
from hearken.domains.text.sampling import as_sampled
from hearken.models.layout import Group


class RefittedReward:
    """The reward model of the moment, in the place of a setup's own.

    Args:
        setup: of a stage that samples; its reward is this one from now on.
        options: the stage's.
    """

    def __init__(self, setup: Setup, options: Any) -> None:
        self._reward, self._policy, self._options = setup.reward, setup.policy, options
        self._contents = {
            tuple(ids): content for ids, content in zip(setup.prompts.ids, setup.prompts.contents, strict=True)
        }
        self._groups: Sequence[Group] = ()
        setup.reward = self

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses."""
        self._groups = groups
        return self._reward(groups)

    def use(self, name: str) -> None:
        """Score by another reward model from now on."""
        known: Known = {ids: (plain(content), {}) for ids, content in self._contents.items()}
        self._reward = open_reward(name, self._policy, known, self._options)

    def scored(self) -> Iterator[list[Drawn]]:
        """The distinct responses to each prompt of the batch that was scored last, in its order."""
        for group in self._groups:
            content = self._contents[tuple(group.prompt)]
            distinct: dict[str, Drawn] = {}
            for tokens in group.responses:
                sampled = as_sampled(self._policy.encoder, content, list(tokens), self._options.seed, len(distinct))
                distinct.setdefault(sampled.text, drawn(sampled))
            yield list(distinct.values())
