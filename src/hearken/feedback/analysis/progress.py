"""How far the labelling is, who does it, and when it will be finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from hearken.feedback.analysis.book import BREAK_SECONDS, Book, Floats, Ints, microseconds, moment
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import KINDS, Progress
from hearken.feedback.store import FeedbackStore
from hearken.statistics.intervals import Interval

_HOUR = 3_600_000_000
"""In microseconds."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one labeler has done."""

    labeler_id: str
    name: str
    kind: str
    status: str
    judgments: int
    skips: int
    flags: int
    median_seconds: float | None
    hours: float
    """Time spent judging."""
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """How much is left, and until when."""

    remaining: int
    """Slots that are still open."""
    work_hours: float | None
    """Hours of judging left: open slots times the mean seconds of an answer. None where nothing was timed."""
    pace: float | None
    """Judgments per hour, over the time in which anybody judged lately."""
    hours: Interval | None
    """Hours to finish at that pace, with the uncertainty of a Poisson count."""
    cost: float | None
    """Of what is left, in the budget's unit; None without a rate."""


class ProgressPage(Progress):
    """The page "progress"."""

    median_seconds: float | None
    skips: int
    flags: int
    hourly: list[tuple[datetime, int]]
    """Judgments by hour, without gaps, the current hour last; at most a week."""
    today: int
    load: list[Load]
    forecast: Forecast
    spent_hours: float

    @property
    def share(self) -> float:
        """Slots filled, 0..1."""
        return self.slots_filled / self.slots if self.slots else 0.0


def progress_page(store: FeedbackStore, book: Book, hourly_cost: float | None = None) -> ProgressPage:
    """How far the labelling has come, who does it, and when it will be finished.

    Args:
        store: for what changes without a judgment: open slots and leases.
        book: the judgments.
        hourly_cost: what an hour of judging costs, in the owner's currency.
    """
    state = store.queue_state()
    columns = {name: book.judgments[name].copy() for name in ("live", "check", "kind", "labeler", "seconds", "created")}
    kinds = _by_kind(columns["kind"][columns["live"] & ~columns["check"]])
    timed = _timed(columns["seconds"][book.fills])
    people = [who in book.labelers and book.labelers[who].kind != "import" for who in book.people]
    by_people = columns["created"][book.fills & np.array([*people, False])[columns["labeler"]]]
    live = np.flatnonzero(columns["live"])
    said = [columns[name][live] for name in ("kind", "seconds", "created")]
    load = [_load(book, who, *(column[rows] for column in said)) for who, rows in book.by_labeler(live).items()]
    silent = book.labelers.keys() - {one.labeler_id for one in load}
    load += [_load(book, who, *(column[:0] for column in said)) for who in silent]
    return ProgressPage(
        items=state.items,
        items_done=state.items_done,
        slots=state.slots,
        slots_filled=state.slots_filled,
        leased=state.leased,
        judgments=kinds,
        median_seconds=_median(timed),
        skips=kinds.get("skip", 0),
        flags=kinds.get("flag", 0),
        hourly=_hourly(by_people, book.now),
        today=int((by_people >= microseconds(book.now - timedelta(hours=24))).sum()),
        load=sorted(load, key=lambda one: (-one.judgments, one.name)),
        forecast=_forecast(state.open_slots, timed, by_people, hourly_cost),
        spent_hours=float(timed.sum()) / 3600,
    )


def _by_kind(kinds: Ints) -> dict[str, int]:
    counts = np.bincount(kinds, minlength=len(KINDS)).tolist()
    return {kind: count for kind, count in zip(KINDS, counts, strict=True) if count}


def _timed(seconds: Floats) -> Floats:
    """Those that were measured, without breaks."""
    return np.minimum(seconds[~np.isnan(seconds)], BREAK_SECONDS)


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None


def _load(book: Book, labeler_id: str, kinds: Ints, seconds: Floats, created: Ints) -> Load:
    labeler = book.labelers.get(labeler_id)
    timed, count = _timed(seconds), _by_kind(kinds)
    return Load(
        labeler_id=labeler_id,
        name=book.labeler_name(labeler_id),
        kind=labeler.kind if labeler else "erased",
        status=labeler.status if labeler else "erased",
        judgments=sum(number for kind, number in count.items() if kind not in FILLS_NO_SLOT),
        skips=count.get("skip", 0),
        flags=count.get("flag", 0),
        median_seconds=_median(timed),
        hours=float(timed.sum()) / 3600,
        last=moment(created.max()) if len(created) else None,
    )


def _hourly(created: Ints, now: datetime) -> list[tuple[datetime, int]]:
    if not len(created):
        return []
    hours, counts = np.unique(created // _HOUR, return_counts=True)
    count_of = dict(zip(hours.tolist(), counts.tolist(), strict=True))
    last = microseconds(now) // _HOUR
    first = max(min(count_of), last - 167)
    return [(moment(hour * _HOUR), count_of.get(hour, 0)) for hour in range(first, max(last, first) + 1)]


def _forecast(open_slots: int, timed: Floats, created: Ints, hourly_cost: float | None) -> Forecast:
    work = open_slots * float(timed.mean()) / 3600 if len(timed) else None
    cost = work * hourly_cost if work is not None and hourly_cost is not None else None
    recent = np.sort(created)[-200:]
    # Hours in which somebody judged: pauses longer than an hour are nobody's pace.
    steps = np.minimum(np.diff(recent), _HOUR)
    active = float(steps.sum()) / _HOUR
    if len(recent) < 5 or active <= 0:
        return Forecast(open_slots, work, None, None, cost)
    from scipy.stats import gamma

    events = len(steps)
    pace = events / active
    slow, fast = gamma.ppf([0.025, 0.975], events) / active
    return Forecast(
        open_slots, work, pace, Interval(open_slots / pace, float(open_slots / fast), float(open_slots / slow)), cost
    )
