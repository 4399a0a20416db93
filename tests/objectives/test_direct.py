from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hearken.objectives.direct import (
    cdpo,
    dpo,
    halo,
    hinge,
    ipo,
    kto,
    kto_reference_point,
    log_odds,
    orpo,
    over_pairs,
    pair_weights,
    psi_po,
    robust_dpo,
    sequence_logprobs,
    simpo,
)
from hearken.objectives.preference import plackett_luce

LEAD = torch.linspace(-6, 6, 13, dtype=torch.float64)


def test_scores_of_responses() -> None:
    policy = torch.tensor([[-1.0, -2.0, 9.0]])
    mask = torch.tensor([[1, 1, 0]])
    assert sequence_logprobs(policy, mask).item() == -3 and sequence_logprobs(policy, mask, average=True).item() == -1.5
    p = torch.tensor([0.2, 0.9], dtype=torch.float64)
    torch.testing.assert_close(log_odds(p.log()), torch.log(p / (1 - p)))
    sure = torch.zeros(1, requires_grad=True)
    log_odds(sure).backward()
    assert torch.isfinite(log_odds(sure)).all() and torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("h", LEAD.tolist())
def test_closed_forms(h: float) -> None:
    lead = torch.tensor(h, dtype=torch.float64)

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    up, down = log_sigmoid(0.3 * h), log_sigmoid(-0.3 * h)
    found = {
        "dpo": (dpo(lead, 0.3), -up),
        "margin": (dpo(lead, 0.3, offset=0.7), -log_sigmoid(0.3 * h - 0.7)),
        "cdpo": (cdpo(lead, 0.3, 0.2), -0.8 * up - 0.2 * down),
        "robust": (robust_dpo(lead, 0.3, 0.2), (-0.8 * up + 0.2 * down) / 0.6),
        "ipo": (ipo(lead, 0.3), (h - 1 / 0.6) ** 2),
        "hinge": (hinge(lead, 0.3), max(0.0, 1 - 0.3 * h)),
        "simpo": (simpo(lead, 0.3, 0.5), -log_sigmoid(0.3 * h - 0.5)),
        "orpo": (orpo(lead), -log_sigmoid(h)),
    }
    for name, (got, want) in found.items():
        assert got.item() == pytest.approx(want, abs=1e-12), name


def test_gradients_by_finite_differences() -> None:
    lead = (LEAD + 0.1).requires_grad_()
    for loss in (dpo, cdpo, robust_dpo, ipo, hinge, simpo, orpo):
        assert torch.autograd.gradcheck(loss, (lead,))
    labels = torch.arange(13) % 2 == 0
    assert torch.autograd.gradcheck(lambda r: kto(r, labels, 0.4, 0.3, desirable=1.2), (lead,))


def test_robust_dpo_is_unbiased_under_flips() -> None:
    epsilon = 0.3
    noisy = (1 - epsilon) * robust_dpo(LEAD, 0.5, epsilon) + epsilon * robust_dpo(-LEAD, 0.5, epsilon)
    torch.testing.assert_close(noisy, dpo(LEAD, 0.5))
    with pytest.raises(ValueError, match="epsilon"):
        robust_dpo(LEAD, 0.5, 0.5)


def test_cdpo_stops_where_the_labels_do() -> None:
    """Its minimum is where σ(βh) = 1-ε, DPO's nowhere."""
    h = torch.tensor([math.log(0.9 / 0.1) / 0.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cdpo(h, 0.5, 0.1).sum(), h)
    assert gradient.abs().item() < 1e-12
    (gradient,) = torch.autograd.grad(dpo(h, 0.5).sum(), h)
    assert gradient.item() < -0.01


# -- rankings, ties, votes -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4, width=32), st.integers(-1, 2)), min_size=2, max_size=5))
def test_over_pairs_against_plain_python(ranking: list[tuple[float, int]]) -> None:
    scores = torch.tensor([[s for s, _ in ranking]], dtype=torch.float64)
    ranks = torch.tensor([[r for _, r in ranking]])
    losses = []
    for (a, i), (b, j) in itertools.combinations(ranking, 2):
        if min(i, j) < 0:
            continue
        high, low = (a, b) if i <= j else (b, a)
        one, other = (ipo(torch.tensor(x, dtype=torch.float64), 0.5).item() for x in (high - low, low - high))
        losses.append(one if i != j else (one + other) / 2)
    got = over_pairs(lambda h: ipo(h, 0.5), scores, pair_weights(ranks).double())
    assert got.item() == pytest.approx(sum(losses) / len(losses) if losses else 0.0, rel=1e-6, abs=1e-9)


def test_votes_ties_and_padding() -> None:
    ranks = torch.tensor([[0, 1, -1], [0, 0, -1], [0, 1, -1], [0, -1, -1]])
    share = torch.tensor([math.nan, math.nan, 0.7, math.nan])
    weights = pair_weights(ranks, share=share)
    assert weights.sum((-2, -1)).tolist() == pytest.approx([1, 1, 1, 0])
    assert weights[2, 0, 1].item() == pytest.approx(0.7) and weights[1, 0, 1] == weights[1, 1, 0] == 0.5
    assert pair_weights(ranks, ties="drop")[1].sum() == 0
    scores = torch.tensor([[1.0, 0.0, math.nan]] * 4, requires_grad=True)
    losses = over_pairs(lambda h: dpo(h, 1.0), scores, weights)
    losses.sum().backward()
    assert losses[3] == 0 and torch.isfinite(scores.grad).all() and scores.grad[:, 2].abs().sum() == 0
    up, down = math.log1p(math.exp(-1)), math.log1p(math.exp(1))
    assert losses.tolist() == pytest.approx([up, (up + down) / 2, 0.7 * up + 0.3 * down, 0.0])


def test_kwise_dpo_of_two_is_dpo() -> None:
    rewards = torch.tensor([[0.3, -1.2]])
    got = plackett_luce(0.4 * rewards, torch.tensor([[0, 1]]))
    torch.testing.assert_close(got, dpo(rewards[:, 0] - rewards[:, 1], 0.4))


# -- KTO -----------------------------------------------------------------------------------------------------------


def test_kto_is_a_halo() -> None:
    rewards, labels = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([True, False, False])
    got = kto(rewards, labels, 0.25, 0.5, desirable=1.5, undesirable=0.5)
    want = [
        1.5 * (1 - 1 / (1 + math.exp(-0.5 * 0.75))),
        0.5 * (1 - 1 / (1 + math.exp(-0.5 * 2.25))),
        0.5 * (1 - 1 / (1 + math.exp(-0.5 * -0.25))),
    ]
    assert got.tolist() == pytest.approx(want)
    linear = halo(rewards, labels, 0.25, lambda gain: gain)
    assert linear.tolist() == pytest.approx([1 - 0.75, 1 - 2.25, 1 + 0.25])


def test_the_reference_point() -> None:
    mismatched = torch.tensor([0.4, 0.2], requires_grad=True)
    assert kto_reference_point(mismatched).item() == pytest.approx(0.3)
    assert not kto_reference_point(mismatched).requires_grad
    assert kto_reference_point(-mismatched) == 0
    with pytest.raises(ValueError, match="two or more"):
        kto_reference_point(mismatched[:1])


# -- exact check 1: the tabular optimum ----------------------------------------------------------------------------


def minimise(
    loss: Callable[[Tensor], Tensor], size: int, steps: int = 1500, lr: float = 0.05, start: Tensor | None = None
) -> Tensor:
    """Probabilities of a softmax policy that minimises ``loss`` of its log-probabilities, from ``start`` or uniform."""
    logits = (torch.zeros(size, dtype=torch.float64) if start is None else start.clone()).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(torch.log_softmax(logits, -1)).backward()
        optimiser.step()
        schedule.step()
    return torch.softmax(logits.detach(), -1)


def all_leads(logprobs: Tensor, reference: Tensor) -> Tensor:
    ratios = logprobs - reference
    return ratios[:, None] - ratios[None]


REFERENCE = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1], dtype=torch.float64).log()
REWARD = torch.tensor([0.0, 0.3, -0.2, 0.6, 1.0], dtype=torch.float64)


@pytest.mark.slow
def test_dpo_on_bradley_terry_pairs_reaches_the_optimum() -> None:
    beta = 0.5
    preferences = torch.sigmoid(REWARD[:, None] - REWARD[None])
    found = minimise(lambda p: (preferences * dpo(all_leads(p, REFERENCE), beta)).mean(), 5)
    optimum = torch.softmax(REFERENCE + REWARD / beta, -1)
    assert 0.5 * (REFERENCE.exp() - optimum).abs().sum() > 0.3
    assert 0.5 * (found - optimum).abs().sum() < 1e-3

    torch.manual_seed(0)  # from samples: total variation below .02
    pairs = torch.randint(0, 5, (40_000, 2))
    first = torch.rand(40_000, dtype=torch.float64) < preferences[pairs[:, 0], pairs[:, 1]]
    better, worse = torch.where(first[:, None], pairs, pairs.flip(-1)).unbind(-1)
    counts = torch.zeros(5, 5, dtype=torch.float64).index_put((better, worse), torch.ones(40_000).double(), True)
    found = minimise(lambda p: (counts * dpo(all_leads(p, REFERENCE), beta)).sum() / 40_000, 5)
    assert 0.5 * (found - optimum).abs().sum() < 0.02


def test_kwise_dpo_on_plackett_luce_rankings_reaches_the_optimum() -> None:
    beta, reward = 0.5, REWARD[:4]
    orders = torch.tensor(list(itertools.permutations(range(4))))
    scores = reward[orders]
    ranks = torch.arange(4).expand(len(orders), -1)
    likelihood = torch.exp(-plackett_luce(scores, ranks))
    assert likelihood.sum().item() == pytest.approx(1)
    reference = torch.log_softmax(REFERENCE[:4], -1)

    def loss(logprobs: Tensor) -> Tensor:
        return (likelihood * plackett_luce(beta * (logprobs - reference)[orders], ranks)).sum()

    optimum = torch.softmax(reference + reward / beta, -1)
    assert 0.5 * (minimise(loss, 4) - optimum).abs().sum() < 1e-3


@pytest.mark.slow
def psi_optimum(
    preferences: Tensor, behaviour: Tensor, ref_logprobs: Tensor, psi: Callable[[Tensor], Tensor], tau: float
) -> Tensor:
    """The policy that ΨPO wants: π ∝ π_ref·exp(E_{y'~μ}[Ψ(p*(y ≻ y'))]/τ) (Azar et al. 2023, section 4).

    With Ψ = logit and Bradley-Terry preferences it is RLHF's and DPO's optimum, with Ψ the identity IPO's.

    Args:
        preferences: (Y, Y), [i, j] = p*(y_i ≻ y_j); ½ on the diagonal.
        behaviour: (Y,) μ, probabilities.
        ref_logprobs: (Y,).
        psi: increasing on [0, 1].
        tau: strength of the regularisation.

    Returns:
        (Y,) log-probabilities.
    """
    return torch.log_softmax(ref_logprobs + (psi(preferences) * behaviour).sum(-1) / tau, -1)


@pytest.mark.slow
@pytest.mark.parametrize("psi", ["logit", "identity"])
def test_psi_po(psi: str) -> None:
    """Ψ = logit is DPO, Ψ = identity is IPO."""
    tau = 0.5
    preferences = torch.sigmoid(REWARD[:, None] - REWARD[None])
    behaviour = torch.full((5,), 0.2, dtype=torch.float64)
    function = {"logit": torch.logit, "identity": lambda p: p}[psi]
    optimum = psi_optimum(preferences, behaviour, REFERENCE, function, tau).exp()
    if psi == "logit":
        torch.testing.assert_close(optimum, torch.softmax(REFERENCE + REWARD / tau, -1))
        found = minimise(lambda p: (preferences * dpo(all_leads(p, REFERENCE), tau)).mean(), 5)
    else:
        found = minimise(lambda p: (preferences * ipo(all_leads(p, REFERENCE), tau)).mean(), 5)
    assert (found - optimum).abs().max() < 1e-3
    worth = function(preferences).mean(-1)
    found = minimise(lambda p: psi_po(all_leads(p, REFERENCE), worth[:, None] - worth[None], tau).mean(), 5)
    assert (found - optimum).abs().max() < 1e-3


# -- exact check 2: the bandits of the IPO paper ----------------------------------------------------------------------

D1, CYCLE, D3 = [(0, 1), (1, 2), (0, 2)], [(0, 1), (1, 2), (2, 0)], [(0, 1), (1, 0), (0, 2)]
UNIFORM = torch.full((3,), -math.log(3), dtype=torch.float64)


def pairs_loss(loss: Callable[[Tensor], Tensor], pairs: list[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
    better, worse = torch.tensor(pairs).unbind(-1)
    return lambda logprobs: loss(logprobs[better] - logprobs[worse]).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tau", "published"),
    [
        (0.1, (0.964, 0.034, 0.001)), (0.5, (0.563, 0.289, 0.148)), (1, (0.448, 0.321, 0.230)),
        (10, (0.345, 0.333, 0.322)),
    ],
)  # fmt: skip
def test_ipo_on_a_total_order(tau: float, published: tuple[float, ...]) -> None:
    closed = torch.softmax(torch.tensor([2 / (3 * tau), 1 / (3 * tau), 0.0], dtype=torch.float64), -1)
    assert closed.tolist() == pytest.approx(published, abs=6e-4)
    found = minimise(pairs_loss(lambda h: ipo(h, tau), D1), 3)
    assert (found - closed).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_dpo_collapses_where_ipo_does_not(tau: float) -> None:
    found = minimise(pairs_loss(lambda h: dpo(h, tau), D1), 3, steps=3000, lr=0.2)
    assert found[0] > 0.99


def test_both_are_uniform_on_a_cycle() -> None:
    start = 2 * torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (torch.softmax(start, -1) - 1 / 3).abs().max() > 0.1
    for loss in (ipo, dpo):
        found = minimise(pairs_loss(lambda h, f=loss: f(h, 0.5), CYCLE), 3, start=start)
        assert (found - 1 / 3).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("tau", "third"), [(0.1, 0.0034), (0.5, 0.155), (1, 0.233), (10, 0.322)])
def test_ipo_where_a_response_never_wins(tau: float, third: float) -> None:
    closed = torch.softmax(torch.tensor([0.0, 0.0, -1 / (2 * tau)], dtype=torch.float64), -1)
    assert closed[2].item() == pytest.approx(third, abs=6e-4)
    found = minimise(pairs_loss(lambda h: ipo(h, tau), D3), 3)
    assert (found - closed).abs().max() < 1e-3
    if tau <= 1:
        assert minimise(pairs_loss(lambda h: dpo(h, tau), D3), 3, steps=3000, lr=0.2)[2] < 1e-3


@pytest.mark.slow
def test_two_actions_and_a_certain_preference() -> None:
    found = minimise(pairs_loss(lambda h: ipo(h, 0.5), [(0, 1)]), 2)
    assert found[0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-3)
    assert minimise(pairs_loss(lambda h: dpo(h, 0.5), [(0, 1)]), 2, lr=0.2)[0] > 0.99


@pytest.mark.slow
def test_the_papers_minibatch_recipe() -> None:
    """Adam .01, 18,000 steps, minibatches of 9 with replacement; ten seeds at once, within three standard errors."""
    generator = torch.Generator().manual_seed(0)
    better, worse = torch.tensor(D1).unbind(-1)
    logits = torch.zeros(10, 3, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.01)
    rows = torch.arange(10)[:, None]
    for _ in range(18_000):
        drawn = torch.randint(0, 3, (10, 9), generator=generator)
        logprobs = torch.log_softmax(logits, -1)
        lead = logprobs[rows, better[drawn]] - logprobs[rows, worse[drawn]]
        optimiser.zero_grad()
        ipo(lead, 0.5).mean(-1).sum().backward()
        optimiser.step()
    found = torch.softmax(logits.detach(), -1)
    error = found.std(0) / math.sqrt(10)
    closed = torch.softmax(torch.tensor([4 / 3, 2 / 3, 0.0]), -1)
    assert ((found.mean(0) - closed).abs() < 3 * error).all()
    assert (found.mean(0) - closed).abs().max() < 0.01


# -- exact check 7: contradictory preferences --------------------------------------------------------------------------


def test_kto_follows_the_majority_where_dpo_does_not() -> None:
    """Theorem 4.3 of KTO: a share p of labelers says a beats b, the others the reverse."""
    beta, p = 0.5, 0.6
    reference = torch.tensor([0.1, 0.9], dtype=torch.float64).log()
    assert p ** (1 / beta) * 0.1 < (1 - p) ** (1 / beta) * 0.9

    def of_pairs(logprobs: Tensor) -> Tensor:
        lead = (logprobs - reference)[0] - (logprobs - reference)[1]
        return p * dpo(lead, beta) + (1 - p) * dpo(-lead, beta)

    assert minimise(of_pairs, 2)[1] > 0.5, "DPO prefers the minority's b"

    def of_thumbs(logprobs: Tensor) -> Tensor:
        # λ_D = λ_U and z0 = 0: gains and losses weigh alike. Every pair gives a thumb up and a thumb down.
        rewards = (logprobs - reference).repeat(2)
        losses = kto(rewards, torch.tensor([True, True, False, False]), 0.0, beta)
        return losses @ torch.tensor([p, 1 - p, 1 - p, p], dtype=torch.float64)

    assert minimise(of_thumbs, 2)[0] > 0.5, "KTO prefers the majority's a"
