from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theory.rank_agreement import kendall_tau, tau_b


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.one_of(st.none(), st.integers(-1, 3))), min_size=2, max_size=7))
def test_tau_b_against_counted_pairs(ranking: list[tuple[int, int | None]]) -> None:
    kept = [(score, rank) for score, rank in ranking if rank is not None and rank >= 0]
    concordant = by_score = by_rank = 0
    for (score_a, rank_a), (score_b, rank_b) in itertools.combinations(kept, 2):
        by_score += score_a != score_b
        by_rank += rank_a != rank_b
        concordant += (score_a > score_b) - (score_a < score_b) if rank_a < rank_b else 0
        concordant += (score_b > score_a) - (score_b < score_a) if rank_b < rank_a else 0
    tau = tau_b([score for score, _ in ranking], [rank for _, rank in ranking])
    if by_rank == 0:
        assert math.isnan(tau)
    else:
        assert tau == pytest.approx(concordant / math.sqrt(by_score * by_rank) if by_score else 0.0)


def test_mean_and_interval_over_prompts() -> None:
    scores = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [1.0, 1.0], [1.0, 2.0]]
    ranks = [[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1], [0, 0]]
    result = kendall_tau(scores, ranks, ["a", "b", "c", "d", "d"])
    assert result.per_ranking[:4].tolist() == pytest.approx([1, -1, 1 / 3, 0])
    assert math.isnan(result.per_ranking[4])
    assert result.mean.estimate == pytest.approx(1 / 12)
    assert -1 <= result.mean.low < 1 / 12 < result.mean.high <= 1


def test_nothing_ordered() -> None:
    assert math.isnan(kendall_tau([[1.0, 2.0]], [[None, 0]]).mean.estimate)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scores but 3 ranks"):
        tau_b([1.0, 2.0], [0, 1, 2])
