"""How far a policy has drifted from its reference: in its texts, and in the likelihood of what people preferred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hearken.feedback.examples import Comparison, Content, answers, content_key
from hearken.feedback.pairs import best_and_worst, words
from hearken.statistics.diversity import Phrase, distinct_n, repeated_phrases, repetition, self_bleu
from hearken.statistics.intervals import Interval, cluster_bootstrap, paired_difference


@dataclass(frozen=True, slots=True)
class Drift:
    """A policy's texts beside the reference's, to the same prompts: (reference, policy) where two numbers stand."""

    length: Interval
    """Words of the policy's minus the reference's response, mean over prompts."""
    distinct_1: tuple[float, float]
    distinct_2: tuple[float, float]
    distinct_3: tuple[float, float]
    self_bleu: tuple[float, float]
    """It rises where the responses become alike."""
    repetition: tuple[float, float]
    """Share of four-word phrases that the same response has said before."""
    phrases: tuple[Phrase, ...]
    """What the policy says far more often than the reference."""
    entropy: tuple[Interval, Interval] | None = None
    """Nats a token, see `entropy`; None where only the texts are known."""


def drift(
    prompts: Sequence[Content],
    texts: Sequence[str],
    before: Sequence[str],
    *,
    entropies: tuple[Interval, Interval] | None = None,
) -> Drift:
    """Compare the texts of a policy with those of its reference (SFT), one of each for each prompt.

    Args:
        prompts: (N,).
        texts: (N,) of the policy.
        before: (N,) of the reference, sampled with the same parameters.
        entropies: of the reference and of the policy, where they are known (`entropy`).

    Raises:
        ValueError: nothing, or numbers that differ: diversity depends on how many texts there are.
    """
    if not len(prompts) == len(texts) == len(before) or not texts:
        raise ValueError(f"{len(texts)} texts and {len(before)} before them, for {len(prompts)} prompts")
    keys = [content_key(p) for p in prompts]
    now, then = ([float(words(t)) for t in some] for some in (texts, before))
    return Drift(
        paired_difference(now, then, keys),
        (distinct_n(before, 1), distinct_n(texts, 1)),
        (distinct_n(before, 2), distinct_n(texts, 2)),
        (distinct_n(before, 3), distinct_n(texts, 3)),
        (self_bleu(before), self_bleu(texts)),
        (repetition(before), repetition(texts)),
        tuple(repeated_phrases(texts, before)),
        entropies,
    )


def entropy(sums: Sequence[float], tokens: Sequence[int], prompts: Sequence[Content]) -> Interval:
    """Mean entropy, in nats a token, of the distributions that a policy drew its own responses from.

    It is what a KL penalty, or an entropy bonus, keeps up; near 0 the policy can say one thing only. Every token counts
    alike, as in the training's own curve, and prompts are what the interval resamples.

    Args:
        sums: (N,) entropies summed over each response's tokens, at the temperature of sampling (`measure`).
        tokens: (N,) of each response.
        prompts: (N,).

    Returns:
        NaN where no response has a token.

    Raises:
        ValueError: numbers that differ.
    """
    rows = np.stack([np.asarray(sums, dtype=float), np.asarray(tokens, dtype=float)], 1)

    def ratio(some: NDArray[np.float64]) -> float:
        total, count = some.sum(0)
        return float(total / count) if count else math.nan

    return cluster_bootstrap(rows, [content_key(p) for p in prompts], ratio)


def likelihood_change(policy: str, reference: str, rows: Sequence[Comparison]) -> tuple[Interval, Interval]:
    """Mean of log π(y|x) - log π_ref(y|x), in nats, over the preferred and over the other responses of ranked pairs.

    Direct methods raise the difference of the two; that both fall is the known sign of their over-optimisation
    (Rafailov et al. 2024).

    Args:
        policy: folder or Hub name.
        reference: the same.
        rows: comparisons; of each the best and the worst response are looked at.
    """
    import torch

    from hearken.domains.text.measuring import TOKENS
    from hearken.domains.text.sampling import open_frozen
    from hearken.models.layout import Group, Layout
    from hearken.training.forward import gather

    both = [open_frozen(name) for name in (policy, reference)]
    groups: list[Group] = []
    keys: list[str] = []
    for row in rows:
        if (ends := best_and_worst(row.ranks, row.share)) is None:
            continue
        texts = [answers(row)[end] for end in ends]
        if (group := both[0].encoder.group(row.prompt, texts)) is not None:
            groups.append(group)
            keys.append(content_key(row.prompt))

    def sums(which: int) -> torch.Tensor:
        scorer = both[which].scorer

        def answer(layout: Layout) -> torch.Tensor:
            return scorer(layout).logprobs.sum(1)

        return gather(answer, groups, TOKENS, scorer, "Log-probabilities")

    ratio = (sums(0) - sums(1)).double().cpu().numpy().reshape(-1, 2)
    better, worse = (cluster_bootstrap(ratio[:, side], np.array(keys)) for side in (0, 1))
    return better, worse
