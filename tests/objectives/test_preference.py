from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.objectives.preference import (
    bradley_terry,
    kwise,
    ordered_pairs,
    plackett_luce,
    rating_regression,
    thumb_bce,
)

Ranking = list[tuple[float, int]]  # (score, rank) of each response

rankings = st.lists(st.tuples(st.floats(-8, 8, width=32), st.integers(-1, 3)), min_size=1, max_size=6)


def tensors(ranking: Ranking) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.tensor([[score for score, _ in ranking]], dtype=torch.float64)
    return scores, torch.tensor([[rank for _, rank in ranking]])


def pair_loss(lead: float, probability: float) -> float:
    win = 1 / (1 + math.exp(-lead))
    return -probability * math.log(win) - (1 - probability) * math.log(1 - win)


# -- Bradley-Terry ---------------------------------------------------------------------------------------------------


def test_bradley_terry_closed_forms() -> None:
    chosen, rejected = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([0.0, -1.0, 3.0])
    expected = [math.log(2), math.log1p(math.exp(-3)), math.log1p(math.exp(4))]
    torch.testing.assert_close(bradley_terry(chosen, rejected), torch.tensor(expected))
    tie = torch.full((3,), 0.5)
    torch.testing.assert_close(bradley_terry(chosen, rejected, target=tie), bradley_terry(rejected, chosen, target=tie))
    assert bradley_terry(torch.tensor([900.0]), torch.tensor([-900.0])).item() == 0
    assert bradley_terry(torch.tensor([-900.0]), torch.tensor([900.0])).item() == 1800


@settings(max_examples=40, deadline=None)
@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.4]), st.floats(-2, 2))
def test_bradley_terry_against_plain_python(
    chosen: float, rejected: float, target: float, smoothing: float, margin: float
) -> None:
    probability = (1 - smoothing) * target + smoothing * (1 - target)
    loss = bradley_terry(
        torch.tensor([chosen], dtype=torch.float64),
        torch.tensor([rejected], dtype=torch.float64),
        target=torch.tensor([target], dtype=torch.float64),
        label_smoothing=smoothing,
        margin=torch.tensor([margin], dtype=torch.float64),
    )
    assert loss.item() == pytest.approx(pair_loss(chosen - rejected - margin, probability), abs=1e-9)


def test_soft_label_is_met_by_its_probability() -> None:
    lead = torch.tensor([math.log(0.7 / 0.3)], dtype=torch.float64, requires_grad=True)
    loss = bradley_terry(lead, torch.zeros_like(lead), target=torch.tensor([0.7], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss.sum(), lead)
    assert abs(gradient.item()) < 1e-12


# -- K-wise ----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    rankings, st.sampled_from(["drop", "half"]), st.sampled_from(["ordered", "all"]),
    st.sampled_from([0.0, 0.1]), st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_kwise_is_the_mean_of_its_pairs(
    ranking: Ranking, ties: str, divisor: str, smoothing: float, margin: float | None
) -> None:
    losses = []
    ranked = [(score, rank) for score, rank in ranking if rank >= 0]
    for (score_a, rank_a), (score_b, rank_b) in itertools.combinations(ranked, 2):
        if rank_a == rank_b:
            if ties == "half":
                losses.append(pair_loss(score_a - score_b, 0.5))
        else:
            lead = score_a - score_b if rank_a < rank_b else score_b - score_a
            losses.append(pair_loss(lead - (margin or 0.0), 1 - smoothing))
    count = math.comb(len(ranked), 2) if divisor == "all" else len(losses)
    expected = sum(losses) / count if losses else 0.0

    scores, ranks = tensors(ranking)
    loss = kwise(
        scores, ranks, ties=ties, divisor=divisor, label_smoothing=smoothing,  # type: ignore[arg-type]
        margin=None if margin is None else torch.tensor([margin], dtype=torch.float64),
    )  # fmt: skip
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_kwise_of_two_is_bradley_terry() -> None:
    scores = torch.tensor([[1.0, -0.5], [2.0, 3.0], [0.3, 0.1]])
    ranks = torch.tensor([[0, 1], [1, 0], [0, 0]])
    first = bradley_terry(scores[:, 0], scores[:, 1], target=torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(kwise(scores, ranks), first)


def test_tied_rows_weigh_less_only_under_all() -> None:
    scores, ranks = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0, 1, 1]])
    lone = math.log1p(math.exp(-2))
    assert kwise(scores, ranks, ties="drop", divisor="ordered").item() == pytest.approx(lone)
    assert kwise(scores, ranks, ties="drop", divisor="all").item() == pytest.approx(lone * 2 / 3)


@pytest.mark.parametrize("objective", [kwise, plackett_luce])
def test_nothing_to_compare_is_exactly_zero(objective: object) -> None:
    assert callable(objective)
    scores = torch.tensor([[3.0, float("nan"), float("inf")], [1.0, 2.0, 3.0]], requires_grad=True)
    ranks = torch.tensor([[0, -1, -1], [-1, -1, -1]])
    loss = objective(scores, ranks)
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert torch.equal(loss, torch.zeros(2)) and torch.equal(gradient, torch.zeros(2, 3))


def test_all_tied_and_dropped_is_exactly_zero() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    loss = kwise(scores, torch.zeros(1, 3, dtype=torch.long), ties="drop", divisor="ordered")
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert loss.item() == 0 and torch.equal(gradient, torch.zeros(1, 3))


# -- Plackett-Luce ---------------------------------------------------------------------------------------------------


def order_loss(scores: list[float], below: float = 0.0) -> float:
    """Loss of one strict order, best first, with weight ``below`` under all of it."""
    return -sum(
        math.log(math.exp(score) / (sum(math.exp(rest) for rest in scores[k:]) + below))
        for k, score in enumerate(scores)
    )


def consistent_orders(ranking: Ranking) -> list[list[float]]:
    groups = [
        [score for score, rank in ranking if rank == value] for value in sorted({r for _, r in ranking if r >= 0})
    ]
    return [
        list(itertools.chain(*parts))
        for parts in itertools.product(*(map(list, itertools.permutations(g)) for g in groups))
    ]


@settings(max_examples=60, deadline=None)
@given(rankings)
def test_plackett_luce_against_enumeration_of_orders(ranking: Ranking) -> None:
    orders = consistent_orders(ranking)
    losses = [order_loss(order) for order in orders]
    loss = plackett_luce(*tensors(ranking)).item()
    if len(orders) == 1:
        assert loss == pytest.approx(losses[0], abs=1e-9)
    else:  # a bound of the average, hence of the likelihood averaged over orders
        assert loss >= sum(losses) / len(losses) - 1e-9
        assert math.exp(-loss) <= sum(math.exp(-x) for x in losses) / len(losses) + 1e-12


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=6), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_plackett_luce_tie_bound_is_met_at_equal_scores(ranks: list[int], level: list[float]) -> None:
    ranking = [(level[rank], rank) for rank in ranks]
    losses = [order_loss(order) for order in consistent_orders(ranking)]
    assert plackett_luce(*tensors(ranking)).item() == pytest.approx(sum(losses) / len(losses), abs=1e-9)


def test_plackett_luce_does_not_depend_on_the_order_of_columns() -> None:
    scores, ranks = torch.tensor([[0.3, -1.0, 2.0, 0.7, 0.1]]), torch.tensor([[1, 0, 1, 2, 1]])
    for permutation in itertools.permutations(range(5)):
        torch.testing.assert_close(
            plackett_luce(scores[:, permutation], ranks[:, permutation]), plackett_luce(scores, ranks)
        )


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = torch.tensor([[1.0, -0.5], [2.0, 3.0]])
    pair = bradley_terry(scores[:, 0], scores[:, 1], target=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(plackett_luce(scores, torch.tensor([[0, 1], [4, 2]])), pair)


def test_plackett_luce_unranked_last() -> None:
    scores = torch.tensor([[1.0, 0.5, -0.2, 0.9]], dtype=torch.float64)
    ranks = torch.tensor([[0, 1, -1, -1]])
    present = torch.tensor([[True, True, True, False]])
    loss = plackett_luce(scores, ranks, unranked="last", present=present).item()
    assert loss == pytest.approx(order_loss([1.0, 0.5], below=math.exp(-0.2)))
    assert plackett_luce(scores, ranks).item() == pytest.approx(order_loss([1.0, 0.5]))
    with pytest.raises(ValueError, match="present"):
        plackett_luce(scores, ranks, unranked="last")


@pytest.mark.parametrize("objective", [kwise, plackett_luce])
def test_gradients_by_finite_differences(objective: object) -> None:
    assert callable(objective)
    torch.manual_seed(0)
    scores = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 0, 1, -1], [2, 2, 2, 2, 2], [3, -1, -1, -1, -1]])
    assert torch.autograd.gradcheck(lambda s: objective(s, ranks), (scores,))


def fit(objective: object, ranks: torch.Tensor, items: torch.Tensor, n: int, ridge: float) -> np.ndarray:
    """Maximum likelihood of the worths of ``n`` items, with the penalty ridge/2·‖s‖²."""
    assert callable(objective)
    worth = torch.zeros(n, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([worth], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = objective(worth[items], ranks).sum() + ridge / 2 * (worth**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return (worth - worth.mean()).detach().numpy()


def test_maximum_likelihood_agrees_with_choix() -> None:
    choix = pytest.importorskip("choix")
    generator = np.random.default_rng(0)
    worth = generator.normal(size=6)
    orders = [np.argsort(-(worth + generator.gumbel(size=6)))[:4] for _ in range(60)]
    oracle = choix.opt_rankings(6, [tuple(order) for order in orders], alpha=0.1)
    items = torch.tensor(np.stack(orders))
    ours = fit(plackett_luce, torch.arange(4).expand(60, 4), items, 6, ridge=0.2)
    np.testing.assert_allclose(ours, oracle - oracle.mean(), atol=1e-4)

    pairs = [(int(order[0]), int(order[-1])) for order in orders] + [(i, (i + 1) % 6) for i in range(6)]
    oracle = choix.opt_pairwise(6, pairs, alpha=0.1)
    ours = fit(kwise, torch.tensor([[0, 1]]).expand(len(pairs), 2), torch.tensor(pairs), 6, ridge=0.2)
    np.testing.assert_allclose(ours, oracle - oracle.mean(), atol=1e-4)


# -- accuracy, ratings, thumbs ----------------------------------------------------------------------------------------


def test_ordered_pairs() -> None:
    expected = [[[False, True, False], [False, False, False], [False, False, False]]]
    assert ordered_pairs(torch.tensor([[0, 5, -1]])).tolist() == expected


def test_rating_regression() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.5, 7.0], [3.0, 3.0]], requires_grad=True)
    target = torch.tensor([[0.0, 4.0], [1.0, float("nan")], [float("nan"), float("nan")]])
    loss = rating_regression(predicted, target, ~target.isnan())
    assert loss.tolist() == [2.5, 0.25, 0.0]
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    assert gradient.tolist() == [[1.0, -2.0], [-1.0, 0.0], [0.0, 0.0]]


def test_thumb_bce() -> None:
    loss = thumb_bce(torch.tensor([0.0, 3.0, 3.0]), torch.tensor([True, True, False]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), math.log1p(math.exp(-3)), math.log1p(math.exp(3))]))
