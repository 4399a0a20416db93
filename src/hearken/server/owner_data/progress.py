"""How far the labelling is, who does it, and when it will be finished."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean, median

from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import Judgment
from hearken.feedback.store import FeedbackStore
from hearken.server.owner_data.book import BREAK_SECONDS, Book
from hearken.statistics.intervals import Interval


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


@dataclass(frozen=True, slots=True)
class ProgressPage:
    """The page "progress"."""

    items: int
    items_done: int
    slots: int
    slots_filled: int
    leased: int
    judgments: dict[str, int]
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
    state = store.progress()
    said = [j for j in book.judgments if j.kind not in FILLS_NO_SLOT]
    people = {labeler.id for labeler in book.labelers.values() if labeler.kind != "import"}
    timed = [min(j.seconds, BREAK_SECONDS) for j in said if j.seconds is not None]
    hours = Counter(j.created.replace(minute=0, second=0, microsecond=0) for j in said if j.labeler_id in people)
    by_labeler: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in book.judgments:
        by_labeler[judgment.labeler_id].append(judgment)
    load = [_load(book, labeler_id, by_labeler[labeler_id]) for labeler_id in by_labeler]
    load += [_load(book, labeler.id, []) for labeler in book.labelers.values() if labeler.id not in by_labeler]
    asked = (item for item in book.items.values() if not (item.is_gold or item.repeat_of))
    open_slots = sum(item.slots - item.filled for item in asked if not item.done)
    day = book.now - timedelta(hours=24)
    return ProgressPage(
        items=state.items,
        items_done=state.items_done,
        slots=state.slots,
        slots_filled=state.slots_filled,
        leased=state.leased,
        judgments=state.judgments,
        median_seconds=median(timed) if timed else None,
        skips=state.judgments.get("skip", 0),
        flags=state.judgments.get("flag", 0),
        hourly=_hourly(hours, book.now),
        today=sum(j.created >= day for j in said if j.labeler_id in people),
        load=sorted(load, key=lambda one: -one.judgments),
        forecast=_forecast(open_slots, timed, [j.created for j in said if j.labeler_id in people], hourly_cost),
        spent_hours=sum(timed) / 3600,
    )


def _load(book: Book, labeler_id: str, judgments: Sequence[Judgment]) -> Load:
    labeler = book.labelers.get(labeler_id)
    timed = [min(j.seconds, BREAK_SECONDS) for j in judgments if j.seconds is not None]
    kinds = Counter(j.kind for j in judgments)
    return Load(
        labeler_id=labeler_id,
        name=book.labeler_name(labeler_id),
        kind=labeler.kind if labeler else "erased",
        status=labeler.status if labeler else "erased",
        judgments=sum(count for kind, count in kinds.items() if kind not in FILLS_NO_SLOT),
        skips=kinds["skip"],
        flags=kinds["flag"],
        median_seconds=median(timed) if timed else None,
        hours=sum(timed) / 3600,
        last=max((j.created for j in judgments), default=None),
    )


def _hourly(hours: Counter[datetime], now: datetime) -> list[tuple[datetime, int]]:
    if not hours:
        return []
    last = now.replace(minute=0, second=0, microsecond=0)
    first = max(min(hours), last - timedelta(hours=167))
    count = int((last - first) / timedelta(hours=1)) + 1
    return [(hour, hours[hour]) for hour in (first + timedelta(hours=i) for i in range(max(count, 1)))]


def _forecast(open_slots: int, timed: Sequence[float], times: list[datetime], hourly_cost: float | None) -> Forecast:
    work = open_slots * fmean(timed) / 3600 if timed else None
    cost = work * hourly_cost if work is not None and hourly_cost is not None else None
    recent = sorted(times)[-200:]
    # Hours in which somebody judged: pauses longer than an hour are nobody's pace.
    steps = [min((b - a).total_seconds(), 3600.0) for a, b in itertools.pairwise(recent)]
    active = sum(steps) / 3600
    if len(recent) < 5 or active <= 0:
        return Forecast(open_slots, work, None, None, cost)
    from scipy.stats import gamma

    events = len(steps)
    pace = events / active
    slow, fast = gamma.ppf([0.025, 0.975], events) / active
    return Forecast(
        open_slots, work, pace, Interval(open_slots / pace, float(open_slots / fast), float(open_slots / slow)), cost
    )
