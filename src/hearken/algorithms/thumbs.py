"""Responses that are good or bad, each with one that answers another prompt: what KTO learns from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from hearken.algorithms.kto_options import KTOConfig
from hearken.algorithms.recorded import Encoded, unfit
from hearken.domains.text.data import Judged
from hearken.errors import UserError
from hearken.models.layout import Group

UNDECIDED, BETWEEN = "comparisons without a preference", "ranked responses beside the best and the worst"
"""What opinions are not made of."""


@dataclass(frozen=True)
class Opinion:
    """One response with a thumb, and the same prompt with another row's response."""

    group: Group
    mismatched: Group
    label: bool
    weight: float

    @property
    def both(self) -> Group:
        """The prompt, to be computed once, with its own response and the other."""
        return Group(self.group.prompt, [*self.group.responses, *self.mismatched.responses])


def opinions(found: Sequence[Judged], seed: int, max_length: int) -> Encoded[Opinion]:
    """Thumbs with their mismatched pairs. A comparison becomes a thumb up for its best response, down for its worst.

    Raises:
        UserError: a rating, which is neither good nor bad.
    """
    thumbs: list[tuple[Group, bool, float]] = []
    converted = 0
    left_out = dict.fromkeys((UNDECIDED, BETWEEN), 0)
    for number, judged in enumerate(found, 1):
        if judged.kind == "thumb":
            thumbs.append((judged.group, bool(judged.target), judged.weight))
        elif judged.kind == "comparison":
            ranked = sorted((rank, i) for i, rank in enumerate(judged.ranks) if rank >= 0)
            if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
                left_out[UNDECIDED] += 1
                continue
            converted += 1
            left_out[BETWEEN] += len(ranked) - 2
            for (_, i), label in ((ranked[0], True), (ranked[-1], False)):
                thumbs.append((Group(judged.group.prompt, [judged.group.responses[i]]), label, judged.weight))
        else:
            raise unfit(number, judged, "thumb", "Ratings train: hearken train reward")
    remark = (
        f"{converted} comparisons were made thumbs: up for the best response, down for the worst; "
        "hearken train dpo uses more of what they say"
    )
    after = partners([tuple(group.prompt) for group, _, _ in thumbs], seed)
    made = []
    for i, (group, label, weight) in enumerate(thumbs):
        room = max(max_length - len(group.prompt), 1)
        made.append(Opinion(group, Group(group.prompt, [thumbs[after[i]][0].responses[0][:room]]), label, weight))
    return Encoded(made, [group for group, _, _ in thumbs], left_out, remark if converted else "")


def partners(prompts: Sequence[Hashable], seed: int) -> list[int]:
    """Whose response each row is paired with: that of another prompt (of another row, where one prompt has most).

    Every response is somebody's partner once: in a shuffle with the rows of each prompt side by side, it is the row
    that stands as far ahead as a prompt has rows at most.
    """
    shuffled = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    first: dict[Hashable, int] = {}
    for place, row in enumerate(shuffled):
        first.setdefault(prompts[row], place)
    order = sorted(shuffled, key=lambda row: first[prompts[row]])
    step = min(max(Counter(prompts).values(), default=1), max(len(order) // 2, 1))
    after = dict(zip(order, order[step:] + order[:step], strict=True))
    return [after[row] for row in range(len(order))]


def balance(thumbs: Sequence[Opinion], options: KTOConfig, files: str) -> tuple[float, float]:
    """λ_D and λ_U: as given, else so that the good and the bad weigh alike.

    Raises:
        UserError: there are only good ones, or only bad ones, in ``files``.
    """
    good = sum(o.label for o in thumbs)
    bad = len(thumbs) - good
    if not good or not bad:
        raise UserError(
            f"{files}: every thumb is {'up' if good else 'down'}",
            "KTO needs both kinds: add the other, or train on the good responses alone with: hearken train sft",
        )
    return options.desirable or max(bad / good, 1.0), options.undesirable or max(good / bad, 1.0)
