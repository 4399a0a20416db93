from __future__ import annotations

import math

import choix
import evalica
import numpy as np
import pytest

from hearken.statistics.bradley_terry import fit_davidson, leaderboard, length_lead, outcome_table
from hearken.statistics.intervals import cluster_index, resampled_counts


def games(random: np.random.Generator, strengths: np.ndarray, n: int, tie: float = 0.0) -> list[np.ndarray]:
    """Comparisons drawn from Davidson's model."""
    a = random.integers(0, len(strengths), size=n)
    b = (a + random.integers(1, len(strengths), size=n)) % len(strengths)
    half = (strengths[a] - strengths[b]) / 2
    odds = np.stack([np.exp(half), np.full(n, tie), np.exp(-half)])
    at = random.random(n) * odds.sum(0)
    return [a, b, np.where(at < odds[0], 1.0, np.where(at < odds[0] + odds[1], 0.5, 0.0))]


def design(a: np.ndarray, b: np.ndarray, size: int) -> np.ndarray:
    return np.eye(size)[a] - np.eye(size)[b]


def test_without_ties_it_is_choix_and_evalica() -> None:
    true = np.array([0.0, 0.5, 1.0, -1.0])
    a, b, y = games(np.random.default_rng(0), true, 400)
    ours = fit_davidson(design(a, b, 4), y, ridge=1e-9)[0]
    assert ours[-1] == -math.inf
    pairs = [(i, j) if won else (j, i) for i, j, won in zip(a.tolist(), b.tolist(), y.tolist(), strict=True)]
    assert ours[:4] == pytest.approx(choix.opt_pairwise(4, pairs, alpha=1e-9), abs=1e-3)
    winners = [evalica.Winner.X if won else evalica.Winner.Y for won in y]
    scores = evalica.bradley_terry(a.tolist(), b.tolist(), winners, tolerance=1e-12, limit=10_000).scores
    theirs = np.log(scores.sort_index().to_numpy())
    assert ours[:4] == pytest.approx(theirs - theirs.mean(), abs=1e-4)


def test_davidson_satisfies_its_own_equations() -> None:
    """At the maximum, expected and observed scores are equal for each player, and so are the ties."""
    true = np.array([0.8, 0.0, -0.8])
    a, b, y = games(np.random.default_rng(1), true, 600, tie=0.7)
    *beta, log_tie = fit_davidson(design(a, b, 3), y, ridge=1e-9)[0]
    half = (np.array(beta)[a] - np.array(beta)[b]) / 2
    odds = np.stack([np.exp(half), np.full(len(a), np.exp(log_tie)), np.exp(-half)])
    win, tie, loss = odds / odds.sum(0)
    assert tie.sum() == pytest.approx((y == 0.5).sum())
    for player in range(3):
        expected = (win + tie / 2)[a == player].sum() + (loss + tie / 2)[b == player].sum()
        assert expected == pytest.approx(y[a == player].sum() + (1 - y)[b == player].sum())
    assert np.array(beta) == pytest.approx(true, abs=0.25) and np.exp(log_tie) == pytest.approx(0.7, abs=0.15)


def test_closed_form_of_two() -> None:
    """60 wins, 20 ties, 20 losses: e^β = wins/losses and ν = ties/√(wins·losses)."""
    y = [1.0] * 60 + [0.5] * 20 + [0.0] * 20
    beta, log_tie = fit_davidson(np.ones((100, 1)), y, ridge=1e-9)[0]
    assert math.exp(beta) == pytest.approx(3) and math.exp(log_tie) == pytest.approx(20 / math.sqrt(1200))


def test_weights_are_repetitions_and_shares_are_votes() -> None:
    a, b, y = games(np.random.default_rng(2), np.array([0.0, 1.0, 2.0]), 30, tie=0.5)
    times = np.random.default_rng(3).integers(0, 4, size=30)
    x = design(a, b, 3)
    weighted = fit_davidson(x, y, np.stack([times, np.ones(30)]))
    assert weighted[0] == pytest.approx(fit_davidson(np.repeat(x, times, 0), np.repeat(y, times))[0])
    assert weighted[1] == pytest.approx(fit_davidson(x, y)[0])
    assert outcome_table([0.7, 0.5]).tolist() == [[0.7, 0.0, pytest.approx(0.3)], [0.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match="from 0"):
        outcome_table([1.2])


def test_never_beaten_and_never_met_stay_finite() -> None:
    board = leaderboard(["a"] * 30 + ["c"] * 5, ["b"] * 30 + ["d"] * 5, [1.0] * 35, range(35), n=50)
    assert all(math.isfinite(v) for s in board.standings for v in s.strength)
    assert board.standings[0].name == "a" and board.standings[0].wins == 30
    # Two groups that never met: each adds up to 0.
    strength = {s.name: s.strength.estimate for s in board.standings}
    assert strength["a"] == pytest.approx(-strength["b"]) and strength["c"] == pytest.approx(-strength["d"])


def test_what_cannot_be_told_apart_says_so() -> None:
    random = np.random.default_rng(4)
    names = np.array(["low", "middle", "near", "high"])
    a, b, y = games(random, np.array([-2.0, 0.0, 0.05, 2.0]), 300, tie=0.3)
    board = leaderboard(names[a].tolist(), names[b].tolist(), y, random.integers(0, 100, size=300), n=200)
    by_name = {s.name: s for s in board.standings}
    assert [s.place for s in board.standings] == [1, 2, 3, 4]
    assert by_name["high"].place == 1 and by_name["low"].place == 4
    assert by_name["near"].level_with == ("middle",) and by_name["middle"].level_with == ("near",)
    assert by_name["high"].level_with == ()
    chance, back = board.chance("high", "low"), board.chance("low", "high")
    assert chance.estimate == pytest.approx(1 - back.estimate) and chance.low > 0.8
    assert board.difference("high", "low").low > 0


def test_one_prompt_has_no_interval_and_nothing_is_told_apart() -> None:
    board = leaderboard(["a", "a"], ["b", "b"], [1, 1], ["p", "p"])
    assert math.isnan(board.standings[0].strength.low) and board.standings[0].level_with == ("b",)


def test_length_controlled_fit_takes_length_out() -> None:
    """Two equal policies, one wordier, judged by people who like words: it leads, and at equal length it does not."""
    random = np.random.default_rng(5)
    n = 1500
    words = random.poisson(60, size=n), random.poisson(40, size=n)
    lead = length_lead(*words)
    y = (random.random(n) < 1 / (1 + np.exp(-2 * lead))).astype(float)
    plain = leaderboard(["wordy"] * n, ["terse"] * n, y, n=200)
    fair = leaderboard(["wordy"] * n, ["terse"] * n, y, covariate=lead, n=200)
    assert plain.difference("wordy", "terse").low > 0.5 and plain.covariate is None
    assert abs(fair.difference("wordy", "terse").estimate) < 0.35
    assert fair.covariate is not None and fair.covariate.low < 2 < fair.covariate.high
    assert length_lead([3, 3], [3, 3]).tolist() == [0, 0]


def test_no_games() -> None:
    with pytest.raises(ValueError, match="leaderboard of 0"):
        leaderboard([], [], [])


@pytest.mark.slow
def test_interval_of_a_difference_covers() -> None:
    """Prompts of unequal size with an effect of their own: the bootstrap over prompts covers 92 to 97 %."""
    random = np.random.default_rng(6)

    def sample(prompts: int) -> tuple[np.ndarray, np.ndarray]:
        owner = np.repeat(np.arange(prompts), random.integers(1, 7, size=prompts))
        half = (0.6 + 0.8 * random.normal(size=prompts)[owner]) / 2
        odds = np.stack([np.exp(half), np.full(len(owner), 0.5), np.exp(-half)])
        at = random.random(len(owner)) * odds.sum(0)
        return owner, np.where(at < odds[0], 1.0, np.where(at < odds[0] + odds[1], 0.5, 0.0))

    _, many = sample(400_000)
    wins, losses = (many == 1).sum(), (many == 0).sum()
    true = math.log(wins / losses)
    trials, covered = 600, 0
    for trial in range(trials):
        owner, y = sample(100)
        found = leaderboard(["a"] * len(y), ["b"] * len(y), y, owner, n=300, seed=trial).difference("a", "b")
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / trials <= 0.97


def test_comparisons_that_are_alike_count_as_often_as_there_are_of_them() -> None:
    """The leaderboard fits distinct rows with weights; here every comparison is a row, resampled with its prompt."""
    random = np.random.default_rng(3)
    names = np.array(["a", "b", "c"])
    pairs = np.array([random.permutation(3)[:2] for _ in range(90)])
    outcomes = random.choice([0.0, 0.5, 1.0, 0.7], size=90)
    weights = random.choice([0.5, 1.0, 2.0], size=90)
    lead = random.choice([-0.4, 0.0, 0.3], size=90)
    prompts = random.integers(0, 30, size=90)
    first, second = names[pairs[:, 0]].tolist(), names[pairs[:, 1]].tolist()
    board = leaderboard(first, second, outcomes, prompts, lead, weights, n=50, seed=4)
    order = [board.names.index(name) for name in names]
    x = np.zeros((90, 4))
    x[np.arange(90), pairs[:, 0]], x[np.arange(90), pairs[:, 1]], x[:, 3] = 1, -1, lead
    _, owner = np.unique(cluster_index(prompts.tolist(), 90), return_inverse=True)
    drawn = resampled_counts(int(owner.max()) + 1, 50, seed=4)[:, owner] * weights
    fits = np.concatenate([fit_davidson(x, outcomes, weights[None]), fit_davidson(x, outcomes, drawn)])
    strengths = fits[:, :3] - fits[:, :3].mean(1, keepdims=True)
    assert board.fitted[:, order] == pytest.approx(strengths, abs=1e-6)
    assert board.fitted[:, 3] == pytest.approx(fits[:, 4], abs=1e-6)
