"""What a feedback database says: agreement, labelers' biases and reliability, coverage, policies, single responses.

A `Book` holds the judgments as arrays, and is brought up to date with the new ones; every figure is a function of the
book. The owner's pages, the report, the HTTP API and weighted exports show these, and compute none of their own. What
counts as a pair, and how much, is said in `feedback.pairs`; agreement and leaderboard are computed on items that were
chosen uniformly at random, so that active selection cannot bend them.
"""

from __future__ import annotations

from hearken.feedback.analysis.agreement import (
    Agreement,
    agreement_page,
    agreement_with_people,
    letters,
    verdict,
    with_decisions,
)
from hearken.feedback.analysis.book import Book
from hearken.feedback.analysis.coverage import CoveragePage, coverage_page
from hearken.feedback.analysis.labelers import LabelersPage, labelers_page
from hearken.feedback.analysis.leaderboard import LeaderboardPage, PolicyComparison, compare_policies
from hearken.feedback.analysis.progress import progress_page
from hearken.feedback.analysis.responses import ResponseScores, response_scores
from hearken.feedback.analysis.weights import judgment_weights
from hearken.feedback.pairs import ADJUDICATION

__all__ = [
    "ADJUDICATION",
    "Agreement",
    "Book",
    "CoveragePage",
    "LabelersPage",
    "LeaderboardPage",
    "PolicyComparison",
    "ResponseScores",
    "agreement_page",
    "agreement_with_people",
    "compare_policies",
    "coverage_page",
    "judgment_weights",
    "labelers_page",
    "letters",
    "progress_page",
    "response_scores",
    "verdict",
    "with_decisions",
]
