"""What a database says, from records one by one: slow, and near to the definitions. The oracle of what
`hearken.feedback.analysis` keeps as arrays, and of the figures that no closed form proves (tests/test_one_figure.py).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from statistics import fmean, median

import numpy as np

from hearken.feedback.analysis import ADJUDICATION, verdict
from hearken.feedback.analysis.agreement import Disagreement, Voice
from hearken.feedback.analysis.book import BREAK_SECONDS, LENGTH_GAPS
from hearken.feedback.analysis.progress import Load
from hearken.feedback.analysis.responses import ResponseRow
from hearken.feedback.checks import agrees
from hearken.feedback.pairs import Pair, judgment_pairs, latest, words
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import Judgment, Labeler, Prompt, QueueItem, RatingPayload, Response, ThumbPayload
from hearken.feedback.store import FeedbackStore
from hearken.statistics.bradley_terry import fit_davidson
from hearken.statistics.diagnostics import consistency
from hearken.statistics.intervals import Interval, clustered_wilson


@dataclass(frozen=True)
class Book:
    """The store as of one judgment, in memory."""

    prompts: dict[str, Prompt]
    responses: dict[str, Response]
    labelers: dict[str, Labeler]
    items: dict[str, QueueItem]
    judgments: tuple[Judgment, ...]
    """In force, in the order they were stored; answers to gold and repeated items too."""
    now: datetime

    @classmethod
    def load(cls, store: FeedbackStore, now: datetime) -> Book:
        """Read everything that is in force."""
        return cls(
            prompts={prompt.id: prompt for prompt in store.prompts()},
            responses={response.id: response for response in store.responses()},
            labelers={labeler.id: labeler for labeler in store.labelers()},
            items={item.id: item for item in store.items()},
            judgments=tuple(store.judgments(checks=None)),
            now=now,
        )

    def is_check(self, judgment: Judgment) -> bool:
        """Whether it answers a gold or repeated item, and so measures the labeler only."""
        item = self.items.get(judgment.item_id or "")
        return item is not None and (item.is_gold or item.repeat_of is not None)

    @cached_property
    def work(self) -> tuple[Judgment, ...]:
        """Judgments that are data: no checks, no skips or flags."""
        return tuple(j for j in self.judgments if j.kind not in FILLS_NO_SLOT and not self.is_check(j))

    @property
    def opinions(self) -> list[Judgment]:
        """Those of labelers."""
        return [judgment for judgment in self.work if ADJUDICATION not in judgment.tags]

    def drawn(self, judgment: Judgment) -> int:
        """How its item was chosen: 1 uniformly, or there is none, 2 to compare policies, 0 for what was made of it."""
        item = self.items.get(judgment.item_id or "")
        return {"uniform": 1, "evaluation": 2}.get(item.selection, 0) if item else 1

    def labeler_name(self, labeler_id: str) -> str:
        """A labeler's name; "erased" where there is none any more."""
        return self.labelers[labeler_id].name if labeler_id in self.labelers else "erased"


def pairs(judgments: Iterable[Judgment]) -> list[Pair]:
    """The pairs that count of some judgments."""
    return latest(pair for judgment in judgments for pair in judgment_pairs(judgment))


def fair(book: Book) -> list[Pair]:
    """Opinions from items that were not selected for what was made of them."""
    drawn = {judgment.id: book.drawn(judgment) for judgment in book.judgments}
    return [pair for pair in pairs(book.opinions) if drawn[pair.judgment]]


def scores(book: Book) -> list[tuple[str, str, str, float, float]]:
    """Of each thumb and rating: the judgment, the response, the scale, the value, and its share of the scale."""
    found = []
    for judgment in book.work:
        match judgment.payload:
            case ThumbPayload() as said:
                found.append((judgment.id, said.response_id, "thumbs", float(said.label), float(said.label)))
            case RatingPayload() as said:
                width = (said.high - said.low) or 1.0
                found += [
                    (judgment.id, said.response_id, f"rating: {name}", value, (value - said.low) / width)
                    for name, value in said.ratings.items()
                ]
    return found


def shared(pairs: Iterable[Pair]) -> tuple[int, int]:
    """How many pairs of responses were judged twice or more, and by how many judgments."""
    counts = [count for count in Counter((pair.a, pair.b) for pair in pairs).values() if count >= 2]
    return len(counts), sum(counts)


def by_tag(book: Book) -> dict[str, tuple[int, int]]:
    """`shared` by tag: all that was said of two responses of which a judgment or the prompt has it."""
    judgments = {judgment.id: judgment for judgment in book.judgments}
    marked: dict[tuple[str, str], set[str]] = defaultdict(set)
    every = fair(book)
    for pair in every:
        about = book.prompts[pair.prompt].metadata if pair.prompt in book.prompts else {}
        said = about.get("tags", about.get("category")) or []
        marked[pair.a, pair.b] |= {*judgments[pair.judgment].tags, *map(str, [said] if isinstance(said, str) else said)}
    tags = {tag for some in marked.values() for tag in some}
    found = {tag: shared(pair for pair in every if tag in marked[pair.a, pair.b]) for tag in tags}
    return {tag: counts for tag, counts in found.items() if counts[0]}


def by_length_gap(book: Book) -> dict[str, tuple[int, int]]:
    """`shared` by how much longer the longer response is."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for pair in fair(book):
        texts = (book.responses[one].text if one in book.responses else "" for one in (pair.a, pair.b))
        short, long = sorted(map(words, texts))
        gap = math.inf if short == 0 < long else (long - short) / max(short, 1)
        found[next(name for name, limit in LENGTH_GAPS if gap <= limit)].append(pair)
    return {name: counts for name, some in found.items() if (counts := shared(some))[0]}


def disagreements(book: Book, limit: int = 50) -> list[Disagreement]:
    """Items on which labelers contradict each other, the most disputed first."""
    by_item: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in book.work:
        if judgment.item_id and judgment.kind == "comparison":
            by_item[judgment.item_id].append(judgment)
    found = []
    for item_id, judgments in by_item.items():
        opinions = [j for j in judgments if ADJUDICATION not in j.tags]
        item = book.items.get(item_id)
        if item is None or len(opinions) < 2 or item.prompt_id not in book.prompts:
            continue
        outcomes: dict[tuple[str, str], list[int]] = defaultdict(list)
        for pair in (pair for judgment in opinions for pair in judgment_pairs(judgment)):
            outcomes[pair.a, pair.b].append(pair.verdict)
        differ = [a != b for said in outcomes.values() for a, b in itertools.combinations(said, 2)]
        contradict = any(max(said) > 0 > min(said) for said in outcomes.values())
        if not contradict or any(response not in book.responses for response in item.response_ids):
            continue
        found.append(
            Disagreement(
                item_id=item_id,
                prompt=book.prompts[item.prompt_id],
                responses=tuple(book.responses[response] for response in item.response_ids),
                voices=tuple(
                    Voice(book.labeler_name(j.labeler_id), verdict(j, item.response_ids), j.tags, j.seconds)
                    for j in opinions
                ),
                split=fmean(differ),
                adjudicated=len(opinions) < len(judgments),
            )
        )
    return sorted(found, key=lambda one: (one.adjudicated, -one.split))[:limit]


def same_again(book: Book) -> dict[str, Interval]:
    """By labeler: how often a repeated item got the same verdict, pair by pair."""
    first: dict[tuple[str, str], Judgment] = {(j.item_id, j.labeler_id): j for j in book.judgments if j.item_id}
    asked: dict[str, tuple[list[float], list[float], list[str]]] = defaultdict(lambda: ([], [], []))
    for judgment in book.judgments:
        item = book.items.get(judgment.item_id or "")
        before = first.get((item.repeat_of, judgment.labeler_id)) if item and item.repeat_of else None
        if before is None:
            continue
        then = {(pair.a, pair.b): pair.outcome for pair in judgment_pairs(before)}
        for pair in judgment_pairs(judgment):
            if (pair.a, pair.b) in then:
                rows = asked[judgment.labeler_id]
                rows[0].append(then[pair.a, pair.b])
                rows[1].append(pair.outcome)
                rows[2].append(judgment.id)
    return {labeler: consistency(*rows) for labeler, rows in asked.items()}


def gold_shares(book: Book) -> dict[str, Interval]:
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


def loads(book: Book) -> list[Load]:
    """What each labeler has done."""
    by_labeler: dict[str, list[Judgment]] = {judgment.labeler_id: [] for judgment in book.judgments}
    for judgment in book.judgments:
        by_labeler[judgment.labeler_id].append(judgment)
    return [_load(book, who, by_labeler.get(who, [])) for who in by_labeler | book.labelers]


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


def by_hour(book: Book) -> list[tuple[datetime, int]]:
    """Judgments of people by hour."""
    people = {labeler.id for labeler in book.labelers.values() if labeler.kind != "import"}
    said = [j for j in book.judgments if j.kind not in FILLS_NO_SLOT and j.labeler_id in people]
    hours = Counter(j.created.replace(minute=0, second=0, microsecond=0) for j in said)
    if not hours:
        return []
    last = book.now.replace(minute=0, second=0, microsecond=0)
    first = max(min(hours), last - timedelta(hours=167))
    count = int((last - first) / timedelta(hours=1)) + 1
    return [(hour, hours[hour]) for hour in (first + timedelta(hours=i) for i in range(max(count, 1)))]


def response_rows(book: Book) -> list[ResponseRow]:
    """Judged responses. Scores compare responses to the same prompt, not across prompts."""
    by_prompt: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs(book.work):
        by_prompt[pair.prompt].append(pair)
    strengths: dict[str, float] = {}
    tally: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for some in by_prompt.values():
        index = {response: i for i, response in enumerate(dict.fromkeys(r for p in some for r in (p.a, p.b)))}
        x = np.zeros((len(some), len(index)))
        for row, pair in enumerate(some):
            x[row, index[pair.a]], x[row, index[pair.b]] = 1, -1
            tied, won = float(pair.outcome == 0.5), pair.outcome * (pair.outcome != 0.5)
            for response, shares in ((pair.a, (won, tied, 1 - won - tied)), (pair.b, (1 - won - tied, tied, won))):
                tally[response] = [known + share for known, share in zip(tally[response], shares, strict=True)]
        beta = fit_davidson(x, [pair.outcome for pair in some], ridge=1.0)[0]
        strengths |= {response: float(beta[i]) for response, i in index.items()}
    ratings: dict[str, list[float]] = defaultdict(list)
    thumbs: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for _, response, scale, value, share in scores(book):
        if scale == "thumbs":
            thumbs[response][0 if value else 1] += 1
        else:
            ratings[response].append(share)
    rows = [
        ResponseRow(
            response=response,
            prompt=book.prompts[response.prompt_id],
            score=strengths.get(response.id),
            wins=tally[response.id][0],
            ties=tally[response.id][1],
            losses=tally[response.id][2],
            rating=fmean(ratings[response.id]) if ratings.get(response.id) else None,
            thumbs_up=thumbs[response.id][0],
            thumbs_down=thumbs[response.id][1],
        )
        for response in book.responses.values()
        if response.prompt_id in book.prompts
    ]
    judged = [row for row in rows if row.score is not None or row.rating is not None or row.thumbs_up + row.thumbs_down]
    return judged
