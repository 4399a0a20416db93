"""Which prompts the next round asks about: at random, or where it learns most, a fifth at random all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from hearken.domains.base import Scorer
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.feedback.pairs import opinions
from hearken.feedback.records import Response
from hearken.feedback.selection import Array, disagreement
from hearken.feedback.store import FeedbackStore


def disputed(store: FeedbackStore, before: int) -> dict[str, float]:
    """How much labelers disagreed about each training prompt's responses in the rounds before ``before``.

    Returns:
        By prompt id: 4·p(1−p) on average over the pairs that several labelers judged, p being the share of votes for
        the first response, a tie counting half. 0 is agreement, 1 an even split (or nothing but ties).
    """
    votes: dict[str, dict[tuple[str, str], list[float]]] = {}
    said = (j for j in store.judgments(kinds=("comparison",), split="train") if (j.round or 0) < before)
    for pair in opinions(said):
        votes.setdefault(pair.prompt, {}).setdefault((pair.a, pair.b), []).append(pair.outcome)
    found = {}
    for prompt, pairs in votes.items():
        shares = [sum(v) / len(v) for v in pairs.values() if len(v) > 1]
        if shares:
            found[prompt] = sum(4 * p * (1 - p) for p in shares) / len(shares)
    if not found:
        raise UserError(
            "select: disputed needs prompts that several labelers have judged", "Set sample.overlap to 2 or more"
        )
    return found


def pair_disagreement(scores: Sequence[Array]) -> Array:
    """How much reward models disagree about each prompt: the mean over its pairs of responses.

    Args:
        scores: for each prompt (E, K), of its K responses by each of E reward models.

    Returns:
        (N,) mean variance of the Bradley-Terry probability, see `selection.disagreement`.
    """
    means = []
    for rewards in scores:
        pairs = np.array(list(combinations(range(rewards.shape[1]), 2)))
        means.append(float(disagreement(rewards[:, pairs[:, 0]], rewards[:, pairs[:, 1]]).mean()))
    return np.array(means)


def low_score(means: Array) -> Array:
    """Weights that fall with the mean score of a prompt's responses, e-fold for each standard deviation.

    Args:
        means: (N,) mean score of each prompt's responses.
    """
    spread = float(means.std())
    return np.exp((means.mean() - means) / spread) if spread > 0 else np.ones_like(means)


def score_all(
    scorers: Iterable[Scorer], prompts: Sequence[Content], answers: Sequence[Sequence[Response]]
) -> list[Array]:
    """(E, K) scores of each prompt's K responses by E reward models, opened one after the other."""
    contents = [[r.content for r in some] for some in answers]
    finished = [[r.finish_reason != "length" for r in some] for some in answers]
    by_model = [scorer(prompts, contents, finished) for scorer in scorers]
    return [np.array([scores[i] for scores in by_model]) for i in range(len(prompts))]
