"""Selection policies: exact probabilities, the uniform fifth, and designs checked against closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.feedback.selection import (
    Choice,
    by_weight,
    d_optimal,
    disagreement,
    duel_probabilities,
    inclusion,
    select,
    systematic,
    thompson,
)


def test_uniform_choices_are_distinct_and_say_how_likely_they_were() -> None:
    choices = select(None, 5, np.random.default_rng(0), count=20)
    assert len({choice.index for choice in choices}) == 5
    assert {(choice.selection, choice.propensity) for choice in choices} == {("uniform", 0.25)}


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    budget=st.integers(0, 40),
    uniform=st.floats(0.2, 1.0),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=80, deadline=None)
def test_a_fifth_or_more_is_uniform_and_nothing_is_chosen_twice(
    weights: list[float], budget: int, uniform: float, seed: int
) -> None:
    choices = select(np.array(weights), budget, np.random.default_rng(seed), policy="disagreement", uniform=uniform)
    assert len(choices) == min(budget, len(weights))
    assert len({choice.index for choice in choices}) == len(choices)
    assert sum(choice.selection == "uniform" for choice in choices) >= 0.2 * len(choices)
    assert all(0 < choice.propensity <= 1 for choice in choices)


def test_less_than_a_fifth_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="20%"):
        select(np.ones(3), 2, rng, uniform=0.1)
    with pytest.raises(ValueError, match="20%"):
        thompson([np.ones((2, 2))], rng, uniform=0.0)


def test_the_part_of_a_rule_alone() -> None:
    rng, hits = np.random.default_rng(0), np.zeros(4)
    for _ in range(500):
        choices = by_weight(np.array([1.0, 2.0, 3.0, 4.0]), 2, rng, "disputed")
        assert len(choices) == 2 and {choice.selection for choice in choices} == {"disputed"}
        assert all(choice.propensity == pytest.approx((choice.index + 1) / 5) for choice in choices)
        hits[[choice.index for choice in choices]] += 1
    np.testing.assert_allclose(hits / 500, [0.2, 0.4, 0.6, 0.8], atol=0.07)
    assert by_weight(np.ones(3), 0, rng, "disputed") == by_weight(np.array([]), 2, rng, "disputed") == []
    assert len(by_weight(np.ones(3), 9, rng, "disputed")) == 3


def test_inclusion_is_proportional_up_to_certainty() -> None:
    np.testing.assert_allclose(inclusion(np.array([1.0, 2.0, 3.0, 4.0]), 2), [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(inclusion(np.array([1.0, 1.0, 98.0]), 2), [0.5, 0.5, 1.0])
    np.testing.assert_allclose(inclusion(np.array([0.0, 0.0, 5.0, 0.0]), 2), [1 / 3, 1 / 3, 1.0, 1 / 3])
    np.testing.assert_allclose(inclusion(np.zeros(4), 1), np.full(4, 0.25))
    with pytest.raises(ValueError, match="not negative"):
        inclusion(np.array([1.0, -1.0, 1.0]), 1)


def test_systematic_sampling_includes_each_as_often_as_it_says() -> None:
    rng, wanted = np.random.default_rng(1), np.array([0.05, 0.5, 0.25, 0.9, 0.3])
    hits = np.zeros(5)
    for _ in range(20_000):
        sample = systematic(wanted, rng)
        assert len(sample) == 2
        hits[sample] += 1
    np.testing.assert_allclose(hits / 20_000, wanted, atol=0.015)


def test_inverse_propensity_weights_undo_the_selection() -> None:
    """The mean over all candidates is estimated without bias from those chosen, part by part."""
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=40), rng.gamma(1.0, size=40)
    by_part: dict[str, list[float]] = {"uniform": [], "disagreement": []}
    for _ in range(4_000):
        choices = select(weights, 10, rng, policy="disagreement")
        uniform = [c for c in choices if c.selection == "uniform"]
        others = [c for c in choices if c.selection != "uniform"]
        by_part["uniform"].append(_total(uniform, values) / 40)
        in_first = sum(values[c.index] for c in uniform)  # the second step estimates the sum over what was left
        by_part["disagreement"].append((_total(others, values) + in_first) / 40)
    for estimates in by_part.values():
        assert abs(np.mean(estimates) - values.mean()) < 4 * np.std(estimates) / np.sqrt(len(estimates))


def _total(choices: list[Choice], values: np.ndarray) -> float:
    return float(sum(values[choice.index] / choice.propensity for choice in choices))


def test_disagreement_is_the_variance_of_the_probability() -> None:
    first, second = np.array([[0.0, 50.0, 9.0], [0.0, -50.0, 9.0]]), np.zeros((2, 3))
    np.testing.assert_allclose(disagreement(first, second)[:2], [0.0, 0.25], atol=1e-12)
    assert disagreement(first, second)[2] < 1e-12


def test_duels_have_the_probability_of_the_two_draws() -> None:
    """Against the definition, member by member: first draw, then draws until another response is named."""
    rewards = np.array([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 1.0, 2.0]])
    share = np.array([0.5, 0.25, 0.25])
    found = duel_probabilities(rewards)
    for i, j in itertools.combinations(range(3), 2):
        expected = share[i] * share[j] / (1 - share[i]) + share[j] * share[i] / (1 - share[j])
        assert found[i, j] == pytest.approx(expected)
    assert np.triu(found).sum() == pytest.approx(1.0)
    agreed = duel_probabilities(np.array([[1.0, 0.0, 0.0]] * 3))
    np.testing.assert_allclose(np.triu(agreed), [[0, 0.5, 0.5], [0, 0, 0], [0, 0, 0]])


def test_thompson_draws_pairs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    rewards = [rng.normal(size=(6, 4))] * 8_000
    duels = thompson(rewards, rng)
    assert sum(duel.selection == "uniform" for duel in duels) == 1_600
    expected = duel_probabilities(rewards[0])
    drawn = [duel for duel in duels if duel.selection == "thompson"]
    for i, j in itertools.combinations(range(4), 2):
        these = [duel for duel in drawn if {duel.first, duel.second} == {i, j}]
        assert len(these) / len(drawn) == pytest.approx(expected[i, j], abs=0.02)
        assert all(duel.propensity == pytest.approx(expected[i, j]) for duel in these)
    assert 0.45 < np.mean([duel.first < duel.second for duel in duels]) < 0.55


def test_d_optimal_design_spreads_over_orthogonal_directions() -> None:
    """Three directions, one seen ten times: each direction gets a third of the weight."""
    z = np.vstack([np.tile([1.0, 0, 0], (10, 1)), [[0, 2.0, 0]], [[0, 0, 0.5]], [[0, 0, 0.0]]])
    weights = d_optimal(z, ridge=1e-9, tolerance=1e-4)
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(
        [weights[:10].sum(), weights[10], weights[11], weights[12]], [1 / 3] * 3 + [0], atol=0.01
    )


def test_d_optimal_design_meets_the_equivalence_theorem_and_beats_uniform() -> None:
    z = np.random.default_rng(4).normal(size=(60, 5)) * np.array([3.0, 1, 1, 0.3, 0.1])
    weights = d_optimal(z, ridge=1e-9, tolerance=0.01)

    def value(w: np.ndarray) -> float:
        return float(np.linalg.slogdet((z * w[:, None]).T @ z)[1])

    inverse = np.linalg.inv((z * weights[:, None]).T @ z)
    assert np.einsum("nd,de,ne->n", z, inverse, z).max() <= 5 * 1.011
    assert value(weights) > value(np.full(60, 1 / 60)) + 0.1


def test_d_optimal_of_nothing_to_learn_is_uniform() -> None:
    np.testing.assert_allclose(d_optimal(np.zeros((4, 2))), np.full(4, 0.25))
