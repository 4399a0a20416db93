"""Elo ratings: a live ticker. They depend on the order of the games; for a verdict use `bradley_terry.leaderboard`."""

from __future__ import annotations

from collections.abc import Iterable

START, K, SCALE = 1000.0, 16.0, 400.0
"""A newcomer's rating; the most that one game moves it; the lead at which one is ten times as likely to win."""


def elo_update(first: float, second: float, outcome: float, k: float = K) -> tuple[float, float]:
    """Ratings after one game (Elo 1978): r ← r + k·(outcome - 1/(1 + 10^{(r' - r)/400})).

    Args:
        first: rating of the first before the game.
        second: rating of the second.
        outcome: of the first: 1 won, 0.5 tied, 0 lost.
        k: the most that a rating moves.
    """
    expected = 1 / (1 + 10 ** ((second - first) / SCALE))
    change = k * (outcome - expected)
    return first + change, second - change


def elo(games: Iterable[tuple[str, str, float]], k: float = K, start: float = START) -> dict[str, float]:
    """Ratings after all games, (first, second, outcome of the first) in the order they were played."""
    ratings: dict[str, float] = {}
    for first, second, outcome in games:
        before = ratings.get(first, start), ratings.get(second, start)
        ratings[first], ratings[second] = elo_update(*before, outcome, k)
    return ratings
