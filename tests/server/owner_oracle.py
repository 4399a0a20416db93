"""What the owner's pages say, computed from records one by one: slow, and near to the definitions. The oracle of
`hearken.server.owner_data`, which computes the same from arrays.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from statistics import fmean, median

import numpy as np
from owner_world import NOW

from hearken.feedback.checks import agrees
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import (
    ComparisonPayload,
    Judgment,
    Labeler,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    ThumbPayload,
)
from hearken.feedback.store import FeedbackStore
from hearken.server.owner_data import ADJUDICATION, Agreement, LeaderboardPage, verdict
from hearken.server.owner_data.agreement import AgreementPage, Disagreement, Kappa, Voice
from hearken.server.owner_data.book import BREAK_SECONDS, LENGTH_GAPS
from hearken.server.owner_data.labelers import LabelerRow, LabelersPage
from hearken.server.owner_data.leaderboard import PolicyRow
from hearken.server.owner_data.progress import Forecast, Load, ProgressPage
from hearken.server.owner_data.responses import ResponseRow
from hearken.statistics.agreement import Level, cohen_kappa, krippendorff_alpha, raw_agreement, value_counts
from hearken.statistics.bradley_terry import Leaderboard, fit_davidson, leaderboard, length_lead
from hearken.statistics.crowd_bt import crowd_bt
from hearken.statistics.dawid_skene import dawid_skene
from hearken.statistics.diagnostics import UNKNOWN, LabelerDiagnostics, consistency, diagnose
from hearken.statistics.elo import START, elo_update
from hearken.statistics.intervals import Interval, clustered_wilson
from hearken.statistics.weighting import training_weights


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses that one judgment compares, in the order of their ids: the same for every labeler."""

    prompt_id: str
    a: str
    b: str
    outcome: float
    """Of ``a``: 1 preferred, 0.5 tied, 0 not preferred."""
    labeler_id: str
    judgment_id: str
    item_id: str | None
    a_first: bool | None
    """Whether ``a`` was shown before ``b``; None where the order was not stored."""
    tags: tuple[str, ...] = ()

    @property
    def unit(self) -> tuple[str, str]:
        """What several labelers may have judged."""
        return self.a, self.b


def pairs_of(judgment: Judgment) -> Iterator[Pair]:
    """The pairs that a comparison ranks."""
    said = judgment.payload
    if not isinstance(said, ComparisonPayload):
        return
    place = {index: at for at, index in enumerate(judgment.order or ())}
    for i, j in itertools.combinations(range(len(said.response_ids)), 2):
        first, second = said.ranks[i], said.ranks[j]
        if first is None or second is None:
            continue
        outcome = said.share if said.share is not None else (0.5 if first == second else float(first < second))
        if said.response_ids[i] > said.response_ids[j]:
            i, j, outcome = j, i, 1 - outcome
        shown = place[i] < place[j] if i in place and j in place else None
        yield Pair(
            judgment.prompt_id, said.response_ids[i], said.response_ids[j], outcome, judgment.labeler_id, judgment.id,
            judgment.item_id, shown, judgment.tags,
        )  # fmt: skip


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

    def is_uniform(self, item_id: str | None) -> bool:
        """Whether the item was chosen uniformly at random (or there is none: judgments from files)."""
        item = self.items.get(item_id or "")
        return item is None or item.selection == "uniform"

    @cached_property
    def work(self) -> tuple[Judgment, ...]:
        """Judgments that are data: no checks, no skips or flags."""
        return tuple(j for j in self.judgments if j.kind not in FILLS_NO_SLOT and not self.is_check(j))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Compared pairs of all judgments that are data."""
        return tuple(pair for judgment in self.work for pair in pairs_of(judgment))

    @cached_property
    def fair_pairs(self) -> tuple[Pair, ...]:
        """Those of items that were chosen uniformly at random."""
        return tuple(pair for pair in self.pairs if self.is_uniform(pair.item_id))

    @cached_property
    def words(self) -> dict[str, int]:
        """Length of each response in words."""
        return {response.id: len(response.text.split()) for response in self.responses.values()}

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
    pairs = [pair for pair in book.fair_pairs if ADJUDICATION not in pair.tags]
    kinds = [_pair_agreement("comparisons", pairs)] if pairs else []
    kinds += _other_agreement(book)
    tags: dict[str, list[Pair]] = defaultdict(list)
    marked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pair in pairs:
        marked[pair.unit] |= set(pair.tags) | set(_prompt_tags(book.prompts.get(pair.prompt_id)))
    for pair in pairs:
        for tag in marked[pair.unit]:
            tags[tag].append(pair)
    gaps: dict[str, list[Pair]] = {name: [] for name, _ in LENGTH_GAPS}
    for pair in pairs:
        gaps[book.length_gap(pair)].append(pair)
    by_tag = [_pair_agreement(tag, found) for tag, found in tags.items()]
    units = Counter(pair.unit for pair in pairs)
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
        if pair.unit not in index:
            index[pair.unit] = len(index)
            prompts.append(pair.prompt_id)
    value = np.array([0 if p.outcome < 0.5 else 1 if p.outcome == 0.5 else 2 for p in pairs], dtype=np.int64)
    counts = value_counts([index[pair.unit] for pair in pairs], value, 3)
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
    said: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for pair in pairs:
        said[pair.labeler_id][pair.unit] = pair.outcome
    found = []
    for one, other in itertools.combinations(sorted(said, key=book.labeler_name), 2):
        shared = sorted(said[one].keys() & said[other].keys())
        if len(shared) < least:
            continue
        a, b = ([said[who][unit] for unit in shared] for who in (one, other))
        # Both ways round, as for α.
        kappa = cohen_kappa([*a, *(1 - v for v in a)], [*b, *(1 - v for v in b)])
        raw = fmean(x == y for x, y in zip(a, b, strict=True))
        found.append(Kappa(book.labeler_name(one), book.labeler_name(other), len(shared), kappa, raw))
    return sorted(found, key=lambda one: -one.units)


def _disagreements(book: Book, limit: int) -> list[Disagreement]:
    by_item: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in book.work:
        if judgment.item_id and isinstance(judgment.payload, ComparisonPayload):
            by_item[judgment.item_id].append(judgment)
    found = []
    for item_id, judgments in by_item.items():
        opinions = [j for j in judgments if ADJUDICATION not in j.tags]
        item = book.items.get(item_id)
        if item is None or len(opinions) < 2 or item.prompt_id not in book.prompts:
            continue
        outcomes: dict[tuple[str, str], list[float]] = defaultdict(list)
        for pair in (pair for judgment in opinions for pair in pairs_of(judgment)):
            outcomes[pair.unit].append(pair.outcome)
        differ = [a != b for said in outcomes.values() for a, b in itertools.combinations(said, 2)]
        contradict = any(max(said) > 0.5 > min(said) for said in outcomes.values())
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


def leaderboard_page(
    book: Book, baseline: str | None = None, weights: Mapping[str, float] | None = None, resamples: int = 1000
) -> LeaderboardPage | None:
    """Policies by the comparisons between them, or None where no two were ever compared.

    Args:
        book: the judgments.
        baseline: the policy that win rates are against; by default the one with responses first.
        weights: of each labeler's judgments, e.g. those of `coverage_page`.
        resamples: of the bootstrap over prompts.
    """
    policy = {response.id: response.policy for response in book.responses.values()}
    games = []
    for pair in book.fair_pairs:
        a, b = policy.get(pair.a), policy.get(pair.b)
        if a is not None and b is not None and a != b:
            games.append((a, b, pair))
    if not games:
        return None
    first, second = [a for a, _, _ in games], [b for _, b, _ in games]
    outcomes = [pair.outcome for _, _, pair in games]
    prompts = [pair.prompt_id for _, _, pair in games]
    lead = length_lead([book.words[p.a] for _, _, p in games], [book.words[p.b] for _, _, p in games])
    weight = [(weights or {}).get(pair.labeler_id, 1.0) for _, _, pair in games]
    board = leaderboard(first, second, outcomes, prompts, weights=weight, n=resamples)
    fair = (
        leaderboard(first, second, outcomes, prompts, covariate=lead, weights=weight, n=resamples)
        if any(lead)
        else None
    )
    seen = [name for name in dict.fromkeys(policy.values()) if name in board.names]
    base = baseline if baseline in board.names else seen[0]
    assert base is not None
    ratings, history = _elo(games)
    of_policy: dict[str, list[int]] = defaultdict(list)
    for response in book.responses.values():
        if response.policy is not None:
            of_policy[response.policy].append(book.words[response.id])
    fair_strength = {s.name: s.strength for s in fair.standings} if fair else {}
    rows = [
        PolicyRow(
            name=standing.name,
            place=standing.place,
            strength=standing.strength,
            win_rate=board.chance(standing.name, base) if standing.name != base else None,
            fair_strength=fair_strength.get(standing.name),
            fair_win_rate=fair.chance(standing.name, base) if fair and standing.name != base else None,
            elo=ratings[standing.name],
            elo_history=tuple(history[standing.name]),
            wins=standing.wins,
            ties=standing.ties,
            losses=standing.losses,
            level_with=standing.level_with,
            mean_words=fmean(of_policy[standing.name]),
        )
        for standing in board.standings
    ]
    return LeaderboardPage(
        rows, base, len(games), len(set(prompts)), fair.covariate if fair else None, _in_words(board, fair)
    )


def _elo(games: Sequence[tuple[str, str, Pair]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    ratings: dict[str, float] = {}
    history: dict[str, list[float]] = defaultdict(list)
    every = max(1, len(games) // 60)
    for number, (a, b, pair) in enumerate(games, 1):
        ratings[a], ratings[b] = elo_update(ratings.get(a, START), ratings.get(b, START), pair.outcome)
        if number % every == 0 or number == len(games):
            for name, rating in ratings.items():
                history[name].append(rating)
    return ratings, history


def _in_words(board: Leaderboard, fair: Leaderboard | None) -> list[str]:
    """The order that the data support, said plainly."""
    standings = board.standings
    found = []
    best = standings[0]
    if not best.level_with:
        found.append(f"{best.name} is ahead of all others.")
    if len(standings) > 2 and not standings[-1].level_with:
        found.append(f"{standings[-1].name} is behind all others.")
    for one, other in itertools.pairwise(standings):
        if other.name in one.level_with:
            found.append(f"{one.name} and {other.name} are not yet distinguishable.")
    if fair is not None:
        for one, other in itertools.combinations(standings, 2):
            if other.name not in one.level_with and not fair.difference(one.name, other.name).low > 0:
                found.append(f"{one.name} is ahead of {other.name} by its length: at equal length it is not.")
    return found


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


def response_rows(book: Book, policy: str | None = None) -> list[ResponseRow]:
    """Judged responses, best score first. Scores compare responses to the same prompt, not across prompts."""
    by_prompt: dict[str, list[Pair]] = defaultdict(list)
    for pair in book.pairs:
        by_prompt[pair.prompt_id].append(pair)
    scores: dict[str, float] = {}
    tally: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for pairs in by_prompt.values():
        index = {response: i for i, response in enumerate(dict.fromkeys(r for p in pairs for r in p.unit))}
        x = np.zeros((len(pairs), len(index)))
        for row, pair in enumerate(pairs):
            x[row, index[pair.a]], x[row, index[pair.b]] = 1, -1
            place = 1 if pair.outcome == 0.5 else 0 if pair.outcome > 0.5 else 2
            tally[pair.a][place] += 1
            tally[pair.b][2 - place] += 1
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
