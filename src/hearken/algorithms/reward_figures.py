"""What a reward model's scores are like: their zero and scale, and how often they order responses as people did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.accuracy import pair_accuracy
from hearken.algorithms.reward_options import RewardConfig
from hearken.domains.text.data import Judged, by_responses
from hearken.errors import UserError
from hearken.models.layout import Group
from hearken.models.scorers import RewardScorer
from hearken.training.forward import gather


def calibrate(scorer: RewardScorer, references: Sequence[Group], options: RewardConfig) -> dict[str, float]:
    """Set gain and bias so that ``references`` score 0 on average; returns the mean afterwards and the raw figures.

    A random sample of them serves where there are more than ``calibrate_on``.
    """
    if (most := options.calibrate_on) and len(references) > most:
        chosen = np.random.default_rng([options.seed, 7]).choice(len(references), most, replace=False)
        references = [references[i] for i in sorted(chosen)]
    scorer.calibrate(1.0, 0.0)
    heads = pooled(scorer, references, options.tokens, "Centring the scores")
    raw = scorer.combine(heads)
    if not torch.isfinite(raw).all():
        raise UserError("the reward model scores some responses as NaN or infinite", "Train again with a lower lr")
    mean, spread = raw.mean().item(), raw.std(correction=0).item()
    gain = 1 / max(spread, 1e-6) if options.normalise == "unit" else 1.0
    if options.normalise != "none":
        if scorer.attributes:  # what other weights than these will need
            means = dict(zip(scorer.attributes, heads.mean(0).tolist(), strict=True))
            scorer.model.config.hearken_attribute_means = means
        scorer.calibrate(gain, -mean * gain)
    after = raw * scorer.gain + scorer.bias
    return {
        "reference_mean": after.mean().item(), "reference_sd": after.std(correction=0).item(), "raw_mean": mean,
        "reference_rows": len(references),
    }  # fmt: skip


def pooled(scorer: RewardScorer, groups: Sequence[Group], tokens: int, label: str) -> Tensor:
    """(R, A) what each head says of every response, before weights, gain and bias."""
    return gather(lambda layout: scorer(lambda net: net.heads(layout))[:, None], groups, tokens, scorer, label)[:, 0]


def evaluate(scorer: RewardScorer, held_out: Sequence[Judged], tokens: int) -> dict[str, float]:
    """Held-out accuracy on strictly ordered pairs, with an interval by bootstrap over prompts, and of "longer wins".

    Of ratings on several attributes, the correlation of each head with its own: ``correlation_ATTRIBUTE``. Of heads by
    labelers' groups, the accuracy of each labeler's judgments by its own head: ``own_accuracy``.
    """
    if not held_out:
        return {}
    elements = by_responses(held_out)
    heads = pooled(scorer, [judged[0].group for judged in elements], tokens, "Held-out judgments").cpu()
    judged = [j for same in elements for j in same]
    rows, at = [], 0
    for same in elements:  # judgments on the same responses read the same rows
        mine = range(at, at := at + len(same[0].group.responses))
        rows += [mine] * len(same)
    scores = scorer.combine(heads.to(scorer.device)).cpu() * scorer.gain + scorer.bias
    found = pair_accuracy([scores[i].item() for mine in rows for i in mine], judged)
    if scorer.by:
        return found | own_accuracy(scorer, judged, rows, heads)
    return found | correlations(scorer, judged, rows, heads)


def own_accuracy(
    scorer: RewardScorer, judged: Sequence[Judged], rows: Sequence[range], heads: Tensor
) -> dict[str, float]:
    """`pair_accuracy` where each judgment is foretold by the head of its labeler's group; empty where none is.

    Args:
        scorer: with heads by groups.
        judged: the judgments.
        rows: of each, the rows of its responses in ``heads``.
        heads: (R, A) what each head says.
    """
    column = {name: i for i, name in enumerate(scorer.attributes)}
    mine = [(j, where) for j, where in zip(judged, rows, strict=True) if j.who in column]
    scores = [heads[i, column[j.who or ""]].item() for j, where in mine for i in where]
    found = pair_accuracy(scores, [j for j, _ in mine])
    return {f"own_{key}": found[key] for key in ("accuracy", "accuracy_low", "accuracy_high") if key in found}


def correlations(
    scorer: RewardScorer, judged: Sequence[Judged], rows: Sequence[range], heads: Tensor
) -> dict[str, float]:
    """Pearson's r of every head with the ratings of its attribute, where three responses or more were rated on it.

    Arguments as of `own_accuracy`.
    """
    found: dict[str, float] = {}
    rated = [(j, where[0]) for j, where in zip(judged, rows, strict=True) if j.kind == "rating"]
    for column, name in enumerate(scorer.attributes):
        some = [(row, j.ratings[name]) for j, row in rated if name in j.ratings]
        both = torch.stack([heads[[row for row, _ in some], column], torch.tensor([rating for _, rating in some])])
        if len(some) > 2 and (both.std(1) > 0).all():
            found[f"correlation_{name}"] = torch.corrcoef(both)[0, 1].item()
    return found
