"""Policies by how often their responses were preferred."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from hearken.server.owner_data.book import Book, Pair
from hearken.statistics.bradley_terry import Leaderboard, leaderboard, length_lead
from hearken.statistics.elo import START, elo_update
from hearken.statistics.intervals import Interval


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One policy on the leaderboard."""

    name: str
    place: int
    strength: Interval
    """Log-odds relative to the mean of all."""
    win_rate: Interval | None
    """Against the policy that all are read against; None for itself."""
    fair_strength: Interval | None
    """The same at equal length."""
    fair_win_rate: Interval | None
    elo: float
    elo_history: tuple[float, ...]
    wins: float
    ties: float
    losses: float
    level_with: tuple[str, ...]
    mean_words: float


@dataclass(frozen=True, slots=True)
class LeaderboardPage:
    """The page "leaderboard"."""

    rows: list[PolicyRow]
    baseline: str
    pairs: int
    prompts: int
    length_effect: Interval | None
    """How much length persuades: log-odds at a length lead of 1 (see `statistics.bradley_terry.length_lead`)."""
    plain_words: list[str]
    """What can be said, and what cannot be said yet."""


def leaderboard_page(
    book: Book, baseline: str | None = None, weights: Mapping[str, float] | None = None, resamples: int = 1000
) -> LeaderboardPage | None:
    """Policies by the comparisons between them, or None where no two were ever compared.

    Args:
        book: the judgments.
        baseline: the policy that win rates are against; by default the one with responses first.
        weights: of each labeler's judgments, e.g. those of `coverage_page`.
        resamples: of the bootstrap over prompts.
    """
    policy = {response.id: response.policy for response in book.responses.values()}
    games = []
    for pair in book.fair_pairs:
        a, b = policy.get(pair.a), policy.get(pair.b)
        if a is not None and b is not None and a != b:
            games.append((a, b, pair))
    if not games:
        return None
    first, second = [a for a, _, _ in games], [b for _, b, _ in games]
    outcomes = [pair.outcome for _, _, pair in games]
    prompts = [pair.prompt_id for _, _, pair in games]
    lead = length_lead([book.words[p.a] for _, _, p in games], [book.words[p.b] for _, _, p in games])
    weight = [(weights or {}).get(pair.labeler_id, 1.0) for _, _, pair in games]
    board = leaderboard(first, second, outcomes, prompts, weights=weight, n=resamples)
    fair = (
        leaderboard(first, second, outcomes, prompts, covariate=lead, weights=weight, n=resamples)
        if any(lead)
        else None
    )
    seen = [name for name in dict.fromkeys(policy.values()) if name in board.names]
    base = baseline if baseline in board.names else seen[0]
    assert base is not None
    ratings, history = _elo(games)
    of_policy: dict[str, list[int]] = defaultdict(list)
    for response in book.responses.values():
        if response.policy is not None:
            of_policy[response.policy].append(book.words[response.id])
    fair_strength = {s.name: s.strength for s in fair.standings} if fair else {}
    rows = [
        PolicyRow(
            name=standing.name,
            place=standing.place,
            strength=standing.strength,
            win_rate=board.chance(standing.name, base) if standing.name != base else None,
            fair_strength=fair_strength.get(standing.name),
            fair_win_rate=fair.chance(standing.name, base) if fair and standing.name != base else None,
            elo=ratings[standing.name],
            elo_history=tuple(history[standing.name]),
            wins=standing.wins,
            ties=standing.ties,
            losses=standing.losses,
            level_with=standing.level_with,
            mean_words=fmean(of_policy[standing.name]),
        )
        for standing in board.standings
    ]
    return LeaderboardPage(
        rows, base, len(games), len(set(prompts)), fair.covariate if fair else None, _in_words(board, fair)
    )


def _elo(games: Sequence[tuple[str, str, Pair]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    ratings: dict[str, float] = {}
    history: dict[str, list[float]] = defaultdict(list)
    every = max(1, len(games) // 60)
    for number, (a, b, pair) in enumerate(games, 1):
        ratings[a], ratings[b] = elo_update(ratings.get(a, START), ratings.get(b, START), pair.outcome)
        if number % every == 0 or number == len(games):
            for name, rating in ratings.items():
                history[name].append(rating)
    return ratings, history


def _in_words(board: Leaderboard, fair: Leaderboard | None) -> list[str]:
    """The order that the data support, said plainly."""
    standings = board.standings
    found = []
    best = standings[0]
    if not best.level_with:
        found.append(f"{best.name} is ahead of all others.")
    if len(standings) > 2 and not standings[-1].level_with:
        found.append(f"{standings[-1].name} is behind all others.")
    for one, other in itertools.pairwise(standings):
        if other.name in one.level_with:
            found.append(f"{one.name} and {other.name} are not yet distinguishable.")
    if fair is not None:
        for one, other in itertools.combinations(standings, 2):
            if other.name not in one.level_with and not fair.difference(one.name, other.name).low > 0:
                found.append(f"{one.name} is ahead of {other.name} by its length: at equal length it is not.")
    return found
