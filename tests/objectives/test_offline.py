from __future__ import annotations

import math

import pytest
import torch

from hearken.objectives.offline import (
    Estimates,
    bellman_targets,
    expectile,
    guided_logits,
    ilql,
    polyak,
    terminal_rewards,
)

MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


def test_expectile_at_its_minimum() -> None:
    """Where τ of the squared pull comes from above."""
    sample = torch.tensor([0.0, 1.0, 2.0, 10.0], dtype=torch.float64)
    grid = torch.linspace(0, 10, 10_001, dtype=torch.float64)
    losses = expectile(sample[None] - grid[:, None], 0.7).mean(-1)
    v = grid[losses.argmin()]
    above, below = (sample - v).clamp(min=0).sum(), (v - sample).clamp(min=0).sum()
    assert (0.7 * above).item() == pytest.approx((0.3 * below).item(), rel=1e-3)
    torch.testing.assert_close(expectile(sample, 0.5), 0.5 * sample**2)


def test_targets_end_with_the_response() -> None:
    rewards = terminal_rewards(torch.tensor([5.0, 7.0]), MASK)
    assert rewards.tolist() == [[0, 0, 5], [7, 0, 0]]
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0]], requires_grad=True)
    targets = bellman_targets(rewards, values, MASK, 0.5)
    assert targets.tolist() == [[1, 1.5, 5], [7, 0, 0]] and not targets.requires_grad


def test_losses_against_plain_python() -> None:
    torch.manual_seed(0)
    q = tuple(torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    values = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    lagging = tuple(torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    actions = torch.randint(0, 4, (2, 3))
    rewards = terminal_rewards(torch.tensor([1.0, -1.0]), MASK).double()
    goals = bellman_targets(rewards, values, MASK, 0.9)
    estimates = Estimates(q, lagging, values, logits)
    got = ilql(estimates, actions, goals, MASK.double(), tau=0.7, cql=0.1, awac=0.5, beta=0.3)
    cells = [(0, 0), (0, 1), (0, 2), (1, 0)]
    want = {"q": 0.0, "v": 0.0, "cql": 0.0, "awac": 0.0}
    for r, t in cells:
        a = actions[r, t]
        for head in q:
            want["q"] += (head[r, t, a] - goals[r, t]).item() ** 2 / 4
            want["cql"] += -torch.log_softmax(head[r, t], -1)[a].item() / 4
        u = min(head[r, t, a].item() for head in lagging) - values[r, t].item()
        want["v"] += (0.7 if u >= 0 else 0.3) * u * u / 4
        want["awac"] += math.exp(0.3 * u) * -torch.log_softmax(logits[r, t], -1)[a].item() / 4
    for name, value in want.items():
        assert getattr(got, name).item() == pytest.approx(value), name
    assert got.total.item() == pytest.approx(want["q"] + want["v"] + 0.1 * want["cql"] + 0.5 * want["awac"])
    got.total.backward()
    assert (values.grad[1, 1:] == 0).all() and (logits.grad[1, 1:] == 0).all()


def test_weights_count_in_every_term() -> None:
    """A token of weight 2 is two tokens."""
    torch.manual_seed(0)
    q, values, logits = (torch.randn(2, 4),), torch.randn(2), torch.randn(2, 4)
    lagging, actions, goals = torch.randn(2, 4), torch.tensor([1, 3]), torch.randn(2)

    def losses(rows: list[int], *weights: float) -> list[float]:
        some = Estimates((q[0][rows],), (lagging[rows],), values[rows], logits[rows])
        return [x.item() for x in ilql(some, actions[rows], goals[rows], torch.tensor(weights), beta=0.3)]

    assert losses([0, 1], 2.0, 1.0) == pytest.approx(losses([0, 0, 1], 1.0, 1.0, 1.0))
    assert losses([0, 1], 1.0, 1.0) != pytest.approx(losses([0, 0, 1], 1.0, 1.0, 1.0))


def test_a_small_chain_is_solved() -> None:
    """Two tokens; the data hold good and bad ends: V goes to the best one, and decoding finds it."""
    actions = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(8, 1)
    scores = torch.tensor([0.0, 0.2, 0.1, 1.0]).repeat(8)
    mask = torch.ones_like(actions)
    rewards = terminal_rewards(scores, mask)
    state = torch.stack([torch.zeros(32, dtype=torch.long), 1 + actions[:, 0]], 1)  # start, or the first token
    q, v = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, requires_grad=True)
    lag = torch.zeros(3, 2)
    logits = torch.zeros(32, 2, 2)
    optimiser = torch.optim.Adam([q, v], lr=0.05)
    for _ in range(800):
        goals = bellman_targets(rewards, v[state], mask)
        estimates = Estimates((q[state],), (lag[state],), v[state], logits)
        loss = ilql(estimates, actions, goals, mask.float(), tau=0.95, cql=0.0, awac=0.0)
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        polyak(lag, q.detach(), 0.1)
    assert q[2, 1].item() == pytest.approx(1.0, abs=0.02)
    assert v[0].item() > 0.8
    guided = guided_logits(torch.zeros(3, 2), q.detach(), v.detach(), beta=20.0)
    assert guided.argmax(-1).tolist() == [1, 1, 1]
