"""Weights of judgments for a training run."""

from __future__ import annotations

from collections.abc import Mapping

from hearken.errors import UserError
from hearken.feedback.analysis.book import Book
from hearken.feedback.analysis.coverage import coverage_page
from hearken.feedback.analysis.labelers import labelers_page
from hearken.feedback.store import FeedbackStore


def judgment_weights(
    store: FeedbackStore, by: str, population: Mapping[str, Mapping[str, float]] | None = None
) -> Mapping[str, float]:
    """Weights by labeler for a training run.

    Args:
        store: the feedback database.
        by: ``reliability`` (see `training_weights`), or ``population`` (see `coverage_page`).
        population: the target of the latter: shares by attribute and value.

    Raises:
        UserError: there is nothing to weight by.
    """
    book = Book.load(store)
    if by == "reliability":
        page = labelers_page(book)
        if not page.overlap:
            raise UserError(
                "reliability needs items that several labelers judged", "Sample with an overlap of 2 or more"
            )
        return page.weights
    weights = coverage_page(book, population).weights
    if not weights:
        raise UserError("no target population is named", "Name one in the owner's settings, or PATCH /api/v1/settings")
    return weights
