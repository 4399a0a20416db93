"""What the owner's pages show: plain data computed from the feedback store, without any web.

`Book.load` reads the store once; every page is a function of the book. All figures of quality (agreement, leaderboard,
scores) are computed on items that were chosen uniformly at random, so that active selection cannot bend them.
"""

from __future__ import annotations

from hearken.server.owner_data.agreement import ADJUDICATION, Agreement, agreement_page, letters, verdict
from hearken.server.owner_data.book import Book, pairs_of
from hearken.server.owner_data.cache import Pages
from hearken.server.owner_data.coverage import CoveragePage, coverage_page
from hearken.server.owner_data.labelers import LabelersPage, labelers_page
from hearken.server.owner_data.leaderboard import LeaderboardPage, leaderboard_page
from hearken.server.owner_data.progress import progress_page
from hearken.server.owner_data.responses import response_rows
from hearken.server.owner_data.weights import judgment_weights

__all__ = [
    "ADJUDICATION",
    "Agreement",
    "Book",
    "CoveragePage",
    "LabelersPage",
    "LeaderboardPage",
    "Pages",
    "agreement_page",
    "coverage_page",
    "judgment_weights",
    "labelers_page",
    "leaderboard_page",
    "letters",
    "pairs_of",
    "progress_page",
    "response_rows",
    "verdict",
]
