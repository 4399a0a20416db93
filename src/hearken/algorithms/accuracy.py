"""How often a policy or a reward model orders responses as people did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hearken.domains.text.data import Judged
from hearken.feedback.pairs import ranked_pairs
from hearken.statistics.intervals import cluster_bootstrap


def pair_accuracy(scores: Sequence[float], held_out: Sequence[Judged]) -> dict[str, float]:
    """Accuracy on decided pairs, with an interval by bootstrap over prompts, and of "more tokens win".

    A judgment counts by its weight, and a vote by its share (`feedback.pairs`): of .75 : .25, .75 is the most.

    Args:
        scores: of all responses of all judgments, in order.
        held_out: the judgments.

    Returns:
        Empty where no pair is decided.
    """
    right: list[float] = []
    longer: list[float] = []
    prompts: list[str] = []
    weights: list[float] = []
    at = 0
    for judged in held_out:
        mine = scores[at : (at := at + len(judged.group.responses))]
        lengths = [len(r) for r in judged.group.responses]
        for i, j, outcome, verdict, _ in ranked_pairs(judged.ranks, judged.share) if judged.weight > 0 else ():
            if not verdict:
                continue
            right.append(0.5 + (outcome - 0.5) * np.sign(mine[i] - mine[j]))
            longer.append(0.5 + (outcome - 0.5) * np.sign(lengths[i] - lengths[j]))
            prompts.append(repr(judged.key))
            weights.append(judged.weight)
    if not right:
        return {}
    found = cluster_bootstrap(np.array(right), np.array(prompts), weights=weights)
    return {
        "accuracy": float(found.estimate), "accuracy_low": float(found.low), "accuracy_high": float(found.high),
        "length_accuracy": float(np.average(longer, weights=weights)), "validation_pairs": len(right),
    }  # fmt: skip
