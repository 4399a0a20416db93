"""Who labelled, against whom they should stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hearken.feedback.analysis.book import Book
from hearken.feedback.records import Labeler
from hearken.statistics.weighting import rake


@dataclass(frozen=True, slots=True)
class Cell:
    """Labelers who say one value of one attribute."""

    value: str
    labelers: int
    judgments: int
    share: float
    """Of the judgments of labelers who say a value of this attribute."""
    target: float | None
    """Share in the target population; None where it does not name this value."""


@dataclass(frozen=True, slots=True)
class CoveragePage:
    """The page "coverage"."""

    attributes: dict[str, list[Cell]]
    silent: dict[str, int]
    """Judgments of labelers who do not say, by attribute."""
    weights: dict[str, float]
    """By labeler, for judgments that stand for the target population; empty without one."""
    judgments: int
    effective: float | None
    """How many equally weighted judgments the weighted ones are worth."""
    missing: dict[str, tuple[str, ...]]
    """Values of the target that nobody has."""


def coverage_page(book: Book, target: Mapping[str, Mapping[str, float]] | None = None) -> CoveragePage:
    """Who judged, by what they chose to say about themselves, beside a target population.

    Args:
        book: the judgments.
        target: shares of the population by attribute and value.
    """
    target = target or {}
    judged = np.bincount(book.judgments["labeler"][book.work], minlength=len(book.people)).tolist()
    counts = {who: count for who, count in zip(book.people, judged, strict=True) if count and who in book.labelers}
    people = [book.labelers[labeler] for labeler in counts]
    total = sum(counts.values())
    names = [*target, *sorted({name for one in people for name in one.attributes} - set(target))]
    attributes: dict[str, list[Cell]] = {}
    silent: dict[str, int] = {}
    for name in names:
        said = {one.id: _said(one, name) for one in people}
        known = sum(counts[labeler] for labeler, value in said.items() if value is not None)
        silent[name] = total - known
        shares = target.get(name, {})
        whole = sum(shares.values()) or 1.0
        values = [*shares, *sorted({value for value in said.values() if value is not None} - set(shares))]
        attributes[name] = [
            Cell(
                value=value,
                labelers=sum(v == value for v in said.values()),
                judgments=(judged := sum(counts[labeler] for labeler, v in said.items() if v == value)),
                share=judged / known if known else 0.0,
                target=shares[value] / whole if value in shares else None,
            )
            for value in values
        ]
    if not target or not people:
        return CoveragePage(attributes, silent, {}, total, None, {})
    raked = rake(
        {name: [_said(one, name) for one in people] for name in target}, target, [counts[one.id] for one in people]
    )
    weights = {one.id: float(weight) for one, weight in zip(people, raked.weights, strict=True)}
    return CoveragePage(attributes, silent, weights, total, raked.effective, raked.missing)


def _said(labeler: Labeler, attribute: str) -> str | None:
    value = labeler.attributes.get(attribute)
    return None if value is None or value == "" else str(value)
