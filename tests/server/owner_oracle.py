"""What a database says, computed from records one by one: slow, and near to the definitions. The oracle of
`hearken.feedback.analysis`, which computes the same from arrays.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from statistics import fmean, median
from typing import Any

import numpy as np
from owner_world import NOW

from hearken.feedback.analysis import ADJUDICATION, Agreement, verdict
from hearken.feedback.analysis.agreement import AgreementPage, Disagreement, Kappa, Voice
from hearken.feedback.analysis.book import BREAK_SECONDS, LENGTH_GAPS
from hearken.feedback.analysis.progress import Load
from hearken.feedback.analysis.responses import ResponseRow
from hearken.feedback.checks import agrees
from hearken.feedback.pairs import UNNAMED, Pair, judgment_pairs, latest, words
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import Judgment, Labeler, Prompt, QueueItem, RatingPayload, Response, ThumbPayload
from hearken.feedback.store import FeedbackStore
from hearken.statistics.agreement import Level, cohen_kappa, krippendorff_alpha, raw_agreement, value_counts
from hearken.statistics.bradley_terry import Leaderboard, fit_davidson, leaderboard, length_lead
from hearken.statistics.crowd_bt import crowd_bt
from hearken.statistics.dawid_skene import dawid_skene
from hearken.statistics.diagnostics import LabelerDiagnostics, consistency, diagnose
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
    name: str = ""

    @classmethod
    def load(cls, store: FeedbackStore, round: int | None = None, now: datetime | None = None) -> Book:
        """Read everything that is in force, of one round or of all."""
        return cls(
            prompts={prompt.id: prompt for prompt in store.prompts()},
            responses={response.id: response for response in store.responses()},
            labelers={labeler.id: labeler for labeler in store.labelers()},
            items={item.id: item for item in store.items(round=round)},
            judgments=tuple(store.judgments(round=round, checks=None)),
            now=now or NOW,
            name=store.name,
        )

    def is_check(self, judgment: Judgment) -> bool:
        """Whether it answers a gold or repeated item, and so measures the labeler only."""
        item = self.items.get(judgment.item_id or "")
        return item is not None and (item.is_gold or item.repeat_of is not None)

    @cached_property
    def work(self) -> tuple[Judgment, ...]:
        """Judgments that are data: no checks, no skips or flags."""
        return tuple(j for j in self.judgments if j.kind not in FILLS_NO_SLOT and not self.is_check(j))

    def drawn(self, pair: Pair) -> str:
        """How the item was chosen: "uniform" where there is none, as for judgments from files."""
        item = self.items.get(self.judgment[pair.judgment].item_id or "")
        return item.selection if item else "uniform"

    @cached_property
    def judgment(self) -> dict[Any, Judgment]:
        """By id."""
        return {judgment.id: judgment for judgment in self.judgments}

    @cached_property
    def pairs(self) -> list[Pair]:
        """Compared pairs of all judgments that are data."""
        return latest(pair for judgment in self.work for pair in judgment_pairs(judgment))

    @cached_property
    def opinions(self) -> list[Pair]:
        """Those of labelers."""
        said = (judgment for judgment in self.work if ADJUDICATION not in judgment.tags)
        return latest(pair for judgment in said for pair in judgment_pairs(judgment))

    @cached_property
    def words(self) -> dict[str, int]:
        """Length of each response in words."""
        return {response.id: words(response.text) for response in self.responses.values()}

    def labeler_name(self, labeler_id: str) -> str:
        """A labeler's name; "erased" where there is none any more."""
        labeler = self.labelers.get(labeler_id)
        return labeler.name if labeler else "erased"

    def length_gap(self, pair: Pair) -> str:
        """The pair's class of `LENGTH_GAPS`."""
        long, short = sorted((self.words.get(pair.a, 0), self.words.get(pair.b, 0)), reverse=True)
        gap = math.inf if short == 0 < long else (long - short) / max(short, 1)
        return next(name for name, limit in LENGTH_GAPS if gap <= limit)


def agreement_page(book: Book, limit: int = 50) -> AgreementPage:
    """Agreement beyond chance, and what is disputed. Adjudications are no labeler's opinion and stay out.

    Args:
        book: the judgments.
        limit: how many disputed items at most, the most disputed first.
    """
    pairs = [pair for pair in book.opinions if book.drawn(pair) in ("uniform", "evaluation")]
    kinds = [_pair_agreement("comparisons", pairs)] if pairs else []
    kinds += _other_agreement(book)
    tags: dict[str, list[Pair]] = defaultdict(list)
    marked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pair in pairs:
        marked[pair.a, pair.b] |= set(book.judgment[pair.judgment].tags) | set(
            _prompt_tags(book.prompts.get(pair.prompt))
        )
    for pair in pairs:
        for tag in marked[pair.a, pair.b]:
            tags[tag].append(pair)
    gaps: dict[str, list[Pair]] = {name: [] for name, _ in LENGTH_GAPS}
    for pair in pairs:
        gaps[book.length_gap(pair)].append(pair)
    by_tag = [_pair_agreement(tag, found) for tag, found in tags.items()]
    units = Counter((pair.a, pair.b) for pair in pairs)
    return AgreementPage(
        kinds=kinds,
        by_tag=sorted((one for one in by_tag if one.units), key=lambda one: -one.units)[:12],
        by_length_gap=[one for one in (_pair_agreement(name, found) for name, found in gaps.items()) if one.units],
        kappas=_kappas(book, pairs),
        single=sum(count == 1 for count in units.values()),
        disagreements=_disagreements(book, limit),
    )


def _prompt_tags(prompt: Prompt | None) -> Iterable[str]:
    """What the prompt's own metadata says it is about."""
    found = prompt.metadata.get("tags", prompt.metadata.get("category", ())) if prompt else ()
    return [found] if isinstance(found, str) else [str(tag) for tag in found] if isinstance(found, list) else ()


def _pair_agreement(name: str, pairs: Sequence[Pair]) -> Agreement:
    """Of comparisons: lost, tied, won, in order. Labelers do not know which response counts as the first, so each
    pair enters both ways round, and chance is the same for both sides.
    """
    index: dict[tuple[str, str], int] = {}
    prompts: list[str] = []
    for pair in pairs:
        if (pair.a, pair.b) not in index:
            index[(pair.a, pair.b)] = len(index)
            prompts.append(pair.prompt)
    value = np.array([p.verdict + 1 for p in pairs], dtype=np.int64)
    counts = value_counts([index[(pair.a, pair.b)] for pair in pairs], value, 3)
    judged = counts.sum(1)
    both = np.concatenate([counts, counts[:, ::-1]])
    return Agreement(
        name=name,
        units=int((judged >= 2).sum()),
        judgments=int(judged[judged >= 2].sum()),
        alpha=krippendorff_alpha(both, "ordinal", [*prompts, *prompts], n=1000),
        raw=raw_agreement(counts, prompts, n=1000),
    )


def _other_agreement(book: Book) -> list[Agreement]:
    rows: dict[tuple[str, Level], list[tuple[str, str, float]]] = defaultdict(list)
    for judgment in book.work:
        match judgment.payload:
            case ThumbPayload() as said:
                rows["thumbs", "nominal"].append((judgment.prompt_id, said.response_id, float(said.label)))
            case RatingPayload() as said:
                for name, value in said.ratings.items():
                    rows[f"rating: {name}", "ordinal"].append((judgment.prompt_id, said.response_id, value))
    found = []
    for (name, level), said_of in rows.items():
        units = {response: i for i, response in enumerate(dict.fromkeys(response for _, response, _ in said_of))}
        values = {value: i for i, value in enumerate(sorted({value for _, _, value in said_of}))}
        prompt_of = {response: prompt for prompt, response, _ in said_of}
        counts = value_counts([units[r] for _, r, _ in said_of], [values[v] for _, _, v in said_of], len(values))
        prompts = [prompt_of[response] for response in units]
        judged = counts.sum(1)
        found.append(
            Agreement(
                name=name,
                units=int((judged >= 2).sum()),
                judgments=int(judged[judged >= 2].sum()),
                alpha=krippendorff_alpha(counts, level, prompts, n=1000),
                raw=raw_agreement(counts, prompts, n=1000),
            )
        )
    return found


def _kappas(book: Book, pairs: Sequence[Pair], least: int = 5) -> list[Kappa]:
    said: dict[str, dict[tuple[str, str], int]] = defaultdict(dict)
    for pair in pairs:
        if pair.labeler:
            said[pair.labeler][pair.a, pair.b] = pair.verdict
    found = []
    for one, other in itertools.combinations(sorted(said, key=book.labeler_name), 2):
        shared = sorted(said[one].keys() & said[other].keys())
        if len(shared) < least:
            continue
        a, b = ([said[who][unit] for unit in shared] for who in (one, other))
        # Both ways round, as for α.
        kappa = cohen_kappa([*a, *(-v for v in a)], [*b, *(-v for v in b)])
        raw = fmean(x == y for x, y in zip(a, b, strict=True))
        found.append(Kappa(book.labeler_name(one), book.labeler_name(other), len(shared), kappa, raw))
    return sorted(found, key=lambda one: -one.units)


def _disagreements(book: Book, limit: int) -> list[Disagreement]:
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


def diagnostics(book: Book) -> dict[str, LabelerDiagnostics]:
    """Biases and ties by labeler."""
    by_labeler: dict[str, list[Pair]] = defaultdict(list)
    for pair in book.opinions:
        by_labeler[pair.labeler or UNNAMED].append(pair)
    return {labeler: diagnose_pairs(book, pairs) for labeler, pairs in by_labeler.items()}


def diagnose_pairs(book: Book, pairs: Sequence[Pair]) -> LabelerDiagnostics:
    """Biases and ties of some pairs."""
    return diagnose(
        [pair.outcome for pair in pairs],
        [book.words.get(pair.a, 0) for pair in pairs],
        [book.words.get(pair.b, 0) for pair in pairs],
        [pair.prompt for pair in pairs],
        shown_first=[-1 if pair.shown_first is None else pair.shown_first for pair in pairs],
        tied=[pair.verdict == 0 for pair in pairs],
    )


def reliability(book: Book) -> tuple[dict[str, Interval], int]:
    """Expected share of right verdicts by labeler, and the number of pairs that rests on: every pair both ways round,
    as which response is named first means nothing.
    """
    named = [pair for pair in book.opinions if pair.labeler]
    judged = Counter((pair.a, pair.b) for pair in named)
    shared = [pair for pair in named if judged[pair.a, pair.b] >= 2]
    if not shared:
        return {}, 0
    units = {unit: i for i, unit in enumerate(dict.fromkeys((pair.a, pair.b) for pair in shared))}
    who = {labeler: i for i, labeler in enumerate(dict.fromkeys(pair.labeler for pair in shared))}
    rows = [
        (2 * units[p.a, p.b] + way, who[p.labeler], 1 + turn * p.verdict)
        for way, turn in ((0, 1), (1, -1))
        for p in shared
    ]
    unit, labeler, said = np.array(rows).T
    right = dawid_skene(unit, labeler, said, 3, smoothing=2.0).truth[unit, said]
    mine: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(shared):
        mine[pair.labeler or UNNAMED].append(row)
    found = {name: clustered_wilson(right[rows], [shared[row].prompt for row in rows]) for name, rows in mine.items()}
    return found, len(units)


def skills(pairs: Sequence[Pair], least: int = 10) -> dict[str, float]:
    """Reliability by labeler; none where a response has fewer than ``least`` comparisons in the mean."""
    responses = {response: i for i, response in enumerate(dict.fromkeys(r for p in pairs for r in (p.a, p.b)))}
    if 2 * len(pairs) < least * len(responses) or not pairs:
        return {}
    who = {labeler: i for i, labeler in enumerate(dict.fromkeys(pair.labeler for pair in pairs))}
    found = crowd_bt(
        [responses[pair.a] for pair in pairs],
        [responses[pair.b] for pair in pairs],
        [who[pair.labeler] for pair in pairs],
        [pair.outcome for pair in pairs],
    )
    return {labeler: float(found.reliability[i]) for labeler, i in who.items()}


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


def boards(
    book: Book, weights: Mapping[str, float] | None = None, resamples: int = 1000
) -> tuple[Leaderboard, Leaderboard | None, int, int] | None:
    """Policies by the comparisons between them, plainly and at equal length; and of how many pairs and prompts."""
    policy = {response.id: response.policy for response in book.responses.values()}
    games = [
        (a, b, pair)
        for pair in book.pairs
        if (a := policy.get(pair.a)) and (b := policy.get(pair.b)) and a != b and book.drawn(pair) == "uniform"
    ]
    if not games:
        return None
    first, second, pairs = zip(*games, strict=True)
    lead = length_lead([book.words[p.a] for p in pairs], [book.words[p.b] for p in pairs])
    prompts, worth = [p.prompt for p in pairs], [(weights or {}).get(p.labeler or UNNAMED, 1.0) for p in pairs]
    plain, level = (
        leaderboard(first, second, [p.outcome for p in pairs], prompts, covariate=covariate, weights=worth, n=resamples)
        for covariate in (None, lead)
    )
    return plain, level if any(lead) else None, len(games), len(set(prompts))


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


def response_rows(book: Book, policy: str | None = None) -> list[ResponseRow]:
    """Judged responses, best score first. Scores compare responses to the same prompt, not across prompts."""
    by_prompt: dict[str, list[Pair]] = defaultdict(list)
    for pair in book.pairs:
        by_prompt[pair.prompt].append(pair)
    scores: dict[str, float] = {}
    tally: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for pairs in by_prompt.values():
        index = {response: i for i, response in enumerate(dict.fromkeys(r for p in pairs for r in (p.a, p.b)))}
        x = np.zeros((len(pairs), len(index)))
        for row, pair in enumerate(pairs):
            x[row, index[pair.a]], x[row, index[pair.b]] = 1, -1
            tied, won = float(pair.outcome == 0.5), pair.outcome * (pair.outcome != 0.5)
            for response, shares in ((pair.a, (won, tied, 1 - won - tied)), (pair.b, (1 - won - tied, tied, won))):
                tally[response] = [known + share for known, share in zip(tally[response], shares, strict=True)]
        beta = fit_davidson(x, [pair.outcome for pair in pairs], ridge=1.0)[0]
        scores |= {response: float(beta[i]) for response, i in index.items()}
    ratings: dict[str, list[float]] = defaultdict(list)
    thumbs: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for judgment in book.work:
        match judgment.payload:
            case RatingPayload() as said:
                width = (said.high - said.low) or 1.0
                ratings[said.response_id] += [(value - said.low) / width for value in said.ratings.values()]
            case ThumbPayload() as said:
                thumbs[said.response_id][0 if said.label else 1] += 1
    rows = [
        ResponseRow(
            response=response,
            prompt=book.prompts[response.prompt_id],
            score=scores.get(response.id),
            wins=tally[response.id][0],
            ties=tally[response.id][1],
            losses=tally[response.id][2],
            rating=fmean(ratings[response.id]) if ratings.get(response.id) else None,
            thumbs_up=thumbs[response.id][0],
            thumbs_down=thumbs[response.id][1],
        )
        for response in book.responses.values()
        if response.prompt_id in book.prompts and (policy is None or response.policy == policy)
    ]
    judged = [row for row in rows if row.score is not None or row.rating is not None or row.thumbs_up + row.thumbs_down]
    return sorted(judged, key=_worth, reverse=True)


def _worth(row: ResponseRow) -> tuple[float, float, int]:
    return (
        row.score if row.score is not None else -math.inf,
        row.rating if row.rating is not None else -1.0,
        row.thumbs_up - row.thumbs_down,
    )
