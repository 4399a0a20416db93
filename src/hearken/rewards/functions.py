"""Reward functions in Python: found by name, called with texts, and their answers checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hearken.errors import UserError
from hearken.models.layout import Group
from hearken.rewards.terms import Prompt, RewardFunction
from hearken.training.run import Interruption


class FunctionReward:
    """A reward function as a scorer of token groups.

    Args:
        function: see `RewardFunction`.
        name: for messages.
        decode: token ids of a response, and the prompt that it answers, to its text.
        known: the text and metadata of each prompt, by its token ids.
    """

    def __init__(
        self, function: RewardFunction, name: str, decode: Callable[[Sequence[int], Prompt], str],
        known: Mapping[tuple[int, ...], tuple[Prompt, dict[str, Any]]],
    ) -> None:  # fmt: skip
        self.function, self.name, self.decode, self.known = function, name, decode, known

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order.

        Raises:
            Interruption: the function raised, or returned the wrong count, or something that is not a finite number.
        """
        asked = [self.known[tuple(g.prompt)] for g in groups for _ in g.responses]
        prompts, metadata = [prompt for prompt, _ in asked], [data for _, data in asked]
        texts = [self.decode(r, self.known[tuple(g.prompt)][0]) for g in groups for r in g.responses]
        try:
            answer = list(self.function(prompts, texts, metadata))
        except UserError as error:
            raise Interruption(error.what, error.hint) from None
        except Exception as error:
            raise Interruption(
                f"--reward {self.name} raised {type(error).__name__}: {error}",
                "Mend the function and run the same command again: it goes on from here",
            ) from error
        if len(answer) != len(texts):
            raise Interruption(
                f"--reward {self.name} returned {len(answer)} numbers for {len(texts)} responses",
                "Return one number for each response, in order",
            )
        try:
            scores = torch.tensor([float(x) for x in answer])
        except (TypeError, ValueError) as error:
            raise Interruption(f"--reward {self.name}: {error}", "Return one number for each response") from None
        bad = (~torch.isfinite(scores)).nonzero()
        if len(bad):
            i = int(bad[0])
            raise Interruption(
                f"--reward {self.name} returned {answer[i]} for the response {texts[i][:60]!r}",
                "Return finite numbers: e.g. 0 where a response cannot be scored",
            )
        return scores
