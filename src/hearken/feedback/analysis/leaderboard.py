"""Policies by how often their responses were preferred."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hearken.feedback.analysis.book import Book
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


@dataclass(frozen=True)
class PolicyComparison:
    """What the comparisons between policies come to, whichever of them is read against."""

    board: Leaderboard
    fair: Leaderboard | None
    """The same at equal length; None where all lengths are equal."""
    first: str
    """The policy with responses first."""
    elo: dict[str, list[float]]
    """Ratings after each part of the judgments."""
    mean_words: dict[str, float]
    pairs: int
    prompts: int

    def page(self, baseline: str | None = None) -> LeaderboardPage:
        """The page that reads win rates against ``baseline``, by default the policy with responses first."""
        board, fair = self.board, self.fair
        base = baseline if baseline in board.names else self.first
        fair_strength = {s.name: s.strength for s in fair.standings} if fair else {}
        rows = [
            PolicyRow(
                name=standing.name,
                place=standing.place,
                strength=standing.strength,
                win_rate=board.chance(standing.name, base) if standing.name != base else None,
                fair_strength=fair_strength.get(standing.name),
                fair_win_rate=fair.chance(standing.name, base) if fair and standing.name != base else None,
                elo=self.elo[standing.name][-1],
                elo_history=tuple(self.elo[standing.name]),
                wins=standing.wins,
                ties=standing.ties,
                losses=standing.losses,
                level_with=standing.level_with,
                mean_words=self.mean_words[standing.name],
            )
            for standing in board.standings
        ]
        effect = fair.covariate if fair else None
        return LeaderboardPage(rows, base, self.pairs, self.prompts, effect, _in_words(board, fair))


def compare_policies(
    book: Book, weights: Mapping[str, float] | None = None, resamples: int = 1000
) -> PolicyComparison | None:
    """Compare policies by the comparisons between them; None where no two were ever compared.

    Args:
        book: the judgments.
        weights: of each labeler's judgments, e.g. those of `coverage_page`.
        resamples: of the bootstrap over prompts.
    """
    pairs = book.work_pairs
    pairs = pairs[book.judgments["drawn"][pairs["judgment"]] == 1]  # `hearken evaluate` ranks those of evaluations
    one, other = (book.responses["policy"][pairs[side]] for side in ("a", "b"))
    games = (one >= 0) & (other >= 0) & (one != other)
    pairs, one, other = pairs[games], one[games], other[games]
    if not len(pairs):
        return None
    first, second = ([book.policies[number] for number in side.tolist()] for side in (one, other))
    prompts, outcomes = book.prompt(pairs), pairs["outcome"]
    lead = length_lead(book.words(pairs["a"]), book.words(pairs["b"]))
    worth = np.array([(weights or {}).get(labeler, 1.0) for labeler in book.people])[book.labeler(pairs)]
    board = leaderboard(first, second, outcomes, prompts, weights=worth, n=resamples)
    fair = (
        leaderboard(first, second, outcomes, prompts, covariate=lead, weights=worth, n=resamples)
        if np.any(lead)
        else None
    )
    written = book.responses[book.responses["policy"] >= 0]
    count = np.bincount(written["policy"], minlength=len(book.policies))
    words = np.bincount(written["policy"], written["words"], len(book.policies)) / np.maximum(count, 1)
    return PolicyComparison(
        board=board,
        fair=fair,
        first=next(name for name in book.policies if name in board.names),
        elo=_elo(first, second, outcomes.tolist()),
        mean_words=dict(zip(book.policies, words.tolist(), strict=True)),
        pairs=len(pairs),
        prompts=len(np.unique(prompts)),
    )


def _elo(first: Sequence[str], second: Sequence[str], outcomes: Sequence[float]) -> dict[str, list[float]]:
    ratings: dict[str, float] = {}
    history: dict[str, list[float]] = defaultdict(list)
    every = max(1, len(outcomes) // 60)
    for number, (a, b, outcome) in enumerate(zip(first, second, outcomes, strict=True), 1):
        ratings[a], ratings[b] = elo_update(ratings.get(a, START), ratings.get(b, START), outcome)
        if number % every == 0 or number == len(outcomes):
            for name, rating in ratings.items():
                history[name].append(rating)
    return history


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
