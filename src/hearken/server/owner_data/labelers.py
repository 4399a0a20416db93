"""How reliable each labeler is, and what their judgments weigh."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hearken.feedback.checks import agrees
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import Judgment
from hearken.server.owner_data.agreement import ADJUDICATION
from hearken.server.owner_data.book import Book, Pair, pairs_of
from hearken.statistics.crowd_bt import crowd_bt
from hearken.statistics.dawid_skene import dawid_skene
from hearken.statistics.diagnostics import UNKNOWN, LabelerDiagnostics, consistency, diagnose
from hearken.statistics.intervals import Interval, clustered_wilson
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
    pairs = [pair for pair in book.pairs if ADJUDICATION not in pair.tags]
    by_labeler: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_labeler[pair.labeler_id].append(pair)
    everyone = _diagnose(book, pairs)
    reliable, chance, overlap = _dawid_skene(pairs)
    skill = _crowd_bt(pairs)
    counts = {labeler_id: len(found) for labeler_id, found in by_labeler.items()}
    weights = training_weights({who: share.estimate for who, share in reliable.items()}, counts, chance)
    judged = Counter(judgment.labeler_id for judgment in book.work)
    same, gold = _consistency(book), _gold(book)
    rows = []
    for labeler_id in {**by_labeler, **gold, **same}:
        labeler = book.labelers.get(labeler_id)
        found = _diagnose(book, by_labeler.get(labeler_id, []))
        row = LabelerRow(
            labeler_id=labeler_id,
            name=book.labeler_name(labeler_id),
            kind=labeler.kind if labeler else "erased",
            status=labeler.status if labeler else "erased",
            judgments=judged[labeler_id],
            reliability=reliable.get(labeler_id, UNKNOWN),
            crowd_bt=skill.get(labeler_id),
            diagnostics=found,
            consistency=same.get(labeler_id, UNKNOWN),
            gold=gold.get(labeler_id, UNKNOWN),
            weight=weights.get(labeler_id, 1.0),
            warnings=(),
        )
        rows.append(_warned(row, everyone))
    return LabelersPage(sorted(rows, key=lambda row: -row.judgments), everyone, overlap)


def _warned(row: LabelerRow, everyone: LabelerDiagnostics) -> LabelerRow:
    """The row with what stands out, in words."""
    from dataclasses import replace

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


def _diagnose(book: Book, pairs: Sequence[Pair]) -> LabelerDiagnostics:
    shown = [(p if p.a_first else _turned(p)) for p in pairs if p.a_first is not None and p.outcome in (0.0, 0.5, 1.0)]
    return diagnose(
        [pair.outcome for pair in shown],
        [book.words.get(pair.a, 0) for pair in shown],
        [book.words.get(pair.b, 0) for pair in shown],
        [pair.judgment_id for pair in shown],
    )


def _turned(pair: Pair) -> Pair:
    from dataclasses import replace

    return replace(pair, a=pair.b, b=pair.a, outcome=1 - pair.outcome, a_first=pair.a_first is False)


def _dawid_skene(pairs: Sequence[Pair]) -> tuple[dict[str, Interval], float, int]:
    """Expected share of right verdicts by labeler, that of guessing, and the number of pairs both rest on."""
    judged = Counter(pair.unit for pair in pairs)
    shared = [pair for pair in pairs if judged[pair.unit] >= 2]
    if not shared:
        return {}, 0.0, 0
    units = {unit: i for i, unit in enumerate(dict.fromkeys(pair.unit for pair in shared))}
    who = {labeler: i for i, labeler in enumerate(dict.fromkeys(pair.labeler_id for pair in shared))}
    unit = np.array([units[pair.unit] for pair in shared])
    said = np.array([0 if p.outcome < 0.5 else 1 if p.outcome == 0.5 else 2 for p in shared])
    found = dawid_skene(unit, [who[pair.labeler_id] for pair in shared], said, 3, smoothing=1.0)
    right = found.truth[unit, said]
    mine: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(shared):
        mine[pair.labeler_id].append(row)
    share = {
        labeler: clustered_wilson(right[rows], [shared[row].judgment_id for row in rows])
        for labeler, rows in mine.items()
    }
    return share, float(found.prior @ found.prior), len(units)


def _crowd_bt(pairs: Sequence[Pair], least: int = 10) -> dict[str, float]:
    """Reliability by labeler; none where a response has fewer than ``least`` comparisons in the mean."""
    responses = {response: i for i, response in enumerate(dict.fromkeys(r for p in pairs for r in p.unit))}
    if 2 * len(pairs) < least * len(responses) or not pairs:
        return {}
    who = {labeler: i for i, labeler in enumerate(dict.fromkeys(pair.labeler_id for pair in pairs))}
    found = crowd_bt(
        [responses[pair.a] for pair in pairs],
        [responses[pair.b] for pair in pairs],
        [who[pair.labeler_id] for pair in pairs],
        [pair.outcome for pair in pairs],
    )
    return {labeler: float(found.reliability[i]) for labeler, i in who.items()}


def _consistency(book: Book) -> dict[str, Interval]:
    """By labeler: how often a repeated item got the same verdict, pair by pair."""
    first: dict[tuple[str, str], Judgment] = {(j.item_id, j.labeler_id): j for j in book.judgments if j.item_id}
    asked: dict[str, tuple[list[float], list[float], list[str]]] = defaultdict(lambda: ([], [], []))
    for judgment in book.judgments:
        item = book.items.get(judgment.item_id or "")
        before = first.get((item.repeat_of, judgment.labeler_id)) if item and item.repeat_of else None
        if before is None:
            continue
        then = {pair.unit: pair.outcome for pair in pairs_of(before)}
        for pair in pairs_of(judgment):
            if pair.unit in then:
                rows = asked[judgment.labeler_id]
                rows[0].append(then[pair.unit])
                rows[1].append(pair.outcome)
                rows[2].append(judgment.id)
    return {labeler: consistency(*rows) for labeler, rows in asked.items()}


def _gold(book: Book) -> dict[str, Interval]:
    """By labeler: share of gold items answered as expected."""
    hits: dict[str, list[float]] = defaultdict(list)
    for judgment in book.judgments:
        item = book.items.get(judgment.item_id or "")
        if item is None or not item.is_gold or item.expected is None or "practice" in item.metadata:
            continue
        if judgment.kind not in FILLS_NO_SLOT:
            right = agrees(judgment.payload, item.expected, exact=item.metadata.get("gold") == "exact")
            hits[judgment.labeler_id].append(float(right))
    return {labeler: clustered_wilson(found) for labeler, found in hits.items()}
