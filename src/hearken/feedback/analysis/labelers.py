"""How reliable each labeler is, and what their judgments weigh."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from hearken.feedback.analysis.book import Book, Rows
from hearken.statistics.crowd_bt import crowd_bt
from hearken.statistics.dawid_skene import right_verdicts
from hearken.statistics.diagnostics import NOTHING, UNKNOWN, LabelerDiagnostics, consistency, diagnose
from hearken.statistics.intervals import Interval, cluster_index, clustered_wilson
from hearken.statistics.weighting import training_weights


@dataclass(frozen=True, slots=True)
class LabelerRow:
    """How one labeler judges."""

    labeler_id: str
    name: str
    kind: str
    status: str
    judgments: int
    reliability: Interval
    """Dawid and Skene: expected share of verdicts that are the true one, on pairs that others judged too."""
    crowd_bt: float | None
    """Crowd-BT: 1 goes by the strengths, 0.5 tosses a coin; None while responses have too few comparisons for it."""
    diagnostics: LabelerDiagnostics
    consistency: Interval
    gold: Interval
    """Share of gold items answered as expected."""
    weight: float
    """For training, mean 1 over all judgments; see `training_weights`."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelersPage:
    """The page "labelers"."""

    rows: list[LabelerRow]
    everyone: LabelerDiagnostics
    overlap: int
    """Pairs judged by two labelers or more: what reliability rests on."""

    @property
    def weights(self) -> dict[str, float]:
        """By labeler, for training; see `training_weights`."""
        return {row.labeler_id: row.weight for row in self.rows}


def labelers_page(book: Book) -> LabelersPage:
    """Reliability, biases, ties and self-consistency of each labeler who compared anything."""
    pairs = book.opinions
    biases = diagnostics(book)
    everyone = _diagnose(book, pairs)
    named = pairs[book.named(pairs)]
    reliable, chance, overlap = _dawid_skene(book, named)
    skill = _crowd_bt(book, named)
    counts = {labeler_id: found.pairs for labeler_id, found in biases.items()}
    weights = training_weights({who: share.estimate for who, share in reliable.items()}, counts, chance)
    judged = np.bincount(book.judgments["labeler"][book.work], minlength=len(book.people)).tolist()
    judgments = dict(zip(book.people, judged, strict=True))
    same, gold = _consistency(book), _gold(book)
    rows = []
    for labeler_id in {**biases, **gold, **same}:
        labeler = book.labelers.get(labeler_id)
        row = LabelerRow(
            labeler_id=labeler_id,
            name=book.labeler_name(labeler_id),
            kind=labeler.kind if labeler else "erased",
            status=labeler.status if labeler else "erased",
            judgments=judgments[labeler_id],
            reliability=reliable.get(labeler_id, UNKNOWN),
            crowd_bt=skill.get(labeler_id),
            diagnostics=biases.get(labeler_id, NOTHING),
            consistency=same.get(labeler_id, UNKNOWN),
            gold=gold.get(labeler_id, UNKNOWN),
            weight=weights.get(labeler_id, 1.0),
            warnings=(),
        )
        rows.append(_warned(row, everyone))
    return LabelersPage(sorted(rows, key=lambda row: -row.judgments), everyone, overlap)


def _warned(row: LabelerRow, everyone: LabelerDiagnostics) -> LabelerRow:
    """The row with what stands out, in words."""
    side, longer = row.diagnostics.first_side, row.diagnostics.longer
    found = []
    if side.low > 0.5:
        found.append("prefers what is shown first")
    if side.high < 0.5:
        found.append("prefers what is shown last")
    if longer.low > everyone.longer.high:
        found.append("prefers longer responses more than the others do")
    if longer.high < everyone.longer.low:
        found.append("prefers shorter responses more than the others do")
    if row.diagnostics.tie.low > everyone.tie.high:
        found.append("ties more often than the others")
    if row.reliability.high < 0.5:
        found.append("mostly contradicts the others")
    if row.gold.high < 0.8:
        found.append("misses gold items")
    if row.consistency.high < 0.7:
        found.append("often answers differently when asked again")
    return replace(row, warnings=tuple(found))


def diagnostics(book: Book) -> dict[str, LabelerDiagnostics]:
    """Position and length bias and ties of each labeler who compared anything, in the order of their first ones."""
    pairs = book.opinions
    return {who: _diagnose(book, pairs[rows]) for who, rows in book.by_labeler(pairs["judgment"]).items()}


def _diagnose(book: Book, pairs: Rows) -> LabelerDiagnostics:
    a, b = book.words(pairs["a"]), book.words(pairs["b"])
    return diagnose(
        pairs["outcome"], a, b, book.prompt(pairs), shown_first=pairs["shown_first"], tied=pairs["verdict"] == 0
    )


def _dawid_skene(book: Book, pairs: Rows) -> tuple[dict[str, Interval], float, int]:
    """Expected share of right verdicts by labeler, that of guessing, and the number of pairs both rest on."""
    _, unit, judged = np.unique(book.unit(pairs), return_inverse=True, return_counts=True)
    shared = judged[unit] >= 2
    pairs, unit = pairs[shared], cluster_index(unit[shared], int(shared.sum()))
    if not len(pairs):
        return {}, 0.0, 0
    right, chance = right_verdicts(unit, cluster_index(book.labeler(pairs), len(pairs)), pairs["verdict"])
    share = {
        labeler: clustered_wilson(right[rows], book.prompt(pairs[rows]))
        for labeler, rows in book.by_labeler(pairs["judgment"]).items()
    }
    return share, chance, int(unit.max()) + 1


def _crowd_bt(book: Book, pairs: Rows, least: int = 10) -> dict[str, float]:
    """Reliability by labeler; none where a response has fewer than ``least`` comparisons in the mean."""
    responses = cluster_index(np.stack([pairs["a"], pairs["b"]], axis=1).ravel(), 2 * len(pairs)).reshape(-1, 2)
    if 2 * len(pairs) < least * (int(responses.max(initial=-1)) + 1) or not len(pairs):
        return {}
    number = book.labeler(pairs)
    found = crowd_bt(responses[:, 0], responses[:, 1], cluster_index(number, len(pairs)), pairs["outcome"])
    seen = dict.fromkeys(number.tolist())
    return {book.people[labeler]: float(found.reliability[i]) for i, labeler in enumerate(seen)}


def _consistency(book: Book) -> dict[str, Interval]:
    """By labeler: how often a repeated item got the same verdict, pair by pair."""
    begin = np.searchsorted(book.pairs["judgment"], np.arange(len(book.judgments) + 1))

    def said(at: int) -> dict[int, float]:
        pairs = book.pairs[begin[at] : begin[at + 1]]
        return dict(zip(book.unit(pairs).tolist(), pairs["outcome"].tolist(), strict=True))

    asked: dict[str, tuple[list[float], list[float], list[int]]] = defaultdict(lambda: ([], [], []))
    for before, at in book.repeated.tolist():
        then = said(before)
        for unit, outcome in said(at).items():
            if unit in then:
                rows = asked[book.people[book.judgments["labeler"][at]]]
                rows[0].append(then[unit])
                rows[1].append(outcome)
                rows[2].append(at)
    return {labeler: consistency(*rows) for labeler, rows in asked.items()}


def _gold(book: Book) -> dict[str, Interval]:
    """By labeler: share of gold items answered as expected."""
    answers = book.judgments[book.fills & (book.judgments["gold"] >= 0)]
    seen = dict.fromkeys(answers["labeler"].tolist())
    return {book.people[number]: clustered_wilson(answers["gold"][answers["labeler"] == number]) for number in seen}
