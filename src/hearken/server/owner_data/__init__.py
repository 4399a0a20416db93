"""What the owner's pages show: plain data computed from the feedback store, without any web.

A `Book` holds the judgments as arrays, and is brought up to date with the new ones; every page is a function of the
book, and `Pages` computes those that take long in the background. All figures of quality (agreement, leaderboard) are
computed on items that were chosen uniformly at random, so that active selection cannot bend them.
"""

from __future__ import annotations

from hearken.server.owner_data.agreement import Agreement, agreement_page, letters, verdict, with_decisions
from hearken.server.owner_data.book import ADJUDICATION, Book, compared
from hearken.server.owner_data.cache import Made, Pages
from hearken.server.owner_data.coverage import CoveragePage, coverage_page
from hearken.server.owner_data.labelers import LabelersPage, labelers_page
from hearken.server.owner_data.leaderboard import Contest, LeaderboardPage, contest
from hearken.server.owner_data.progress import progress_page
from hearken.server.owner_data.responses import ResponseScores, response_scores
from hearken.server.owner_data.weights import judgment_weights

__all__ = [
    "ADJUDICATION",
    "Agreement",
    "Book",
    "Contest",
    "CoveragePage",
    "LabelersPage",
    "LeaderboardPage",
    "Made",
    "Pages",
    "ResponseScores",
    "agreement_page",
    "compared",
    "contest",
    "coverage_page",
    "judgment_weights",
    "labelers_page",
    "letters",
    "progress_page",
    "response_scores",
    "verdict",
    "with_decisions",
]
