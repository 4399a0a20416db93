"""How far labelers agree, and where they do not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from hearken.feedback.analysis.book import (
    LENGTH_GAPS,
    THUMB,
    Book,
    Bools,
    Ints,
    Rows,
)
from hearken.feedback.pairs import ADJUDICATION
from hearken.feedback.records import KINDS, ComparisonPayload, Judgment, Prompt, Response
from hearken.feedback.store import FeedbackStore
from hearken.statistics.agreement import (
    cohen_kappa,
    cohen_kappa_interval,
    krippendorff_alpha,
    raw_agreement,
    value_counts,
)
from hearken.statistics.diagnostics import UNKNOWN
from hearken.statistics.intervals import Interval, cluster_index


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far labelers agree on one class of units."""

    name: str
    units: int
    """Units judged by two or more."""
    judgments: int
    alpha: Interval
    raw: Interval


@dataclass(frozen=True, slots=True)
class Kappa:
    """Two labelers who judged the same pairs."""

    first: str
    second: str
    units: int
    kappa: float
    raw: float


@dataclass(frozen=True, slots=True)
class Voice:
    """What one labeler said of an item."""

    labeler: str
    verdict: str
    tags: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An item on which labelers contradict each other."""

    item_id: str
    prompt: Prompt
    responses: tuple[Response, ...]
    voices: tuple[Voice, ...]
    split: float
    """Share of pairs of judgments that differ, 0..1."""
    adjudicated: bool
    """The owner has decided it."""


@dataclass(frozen=True, slots=True)
class AgreementPage:
    """The page "agreement"."""

    kinds: list[Agreement]
    """Comparisons, thumbs, ratings by attribute: those that were judged."""
    by_tag: list[Agreement]
    by_length_gap: list[Agreement]
    kappas: list[Kappa]
    single: int
    """Units with a single judgment, which say nothing of agreement."""
    disagreements: list[Disagreement]
    again: list[Agreement] = field(default_factory=list)
    """Of labelers with themselves, on what they were asked twice: of the same kinds. Repeats are no further data."""

    @property
    def main(self) -> Agreement | None:
        """The first kind that has an α."""
        return next((kind for kind in self.kinds if kind.units), None)


def agreement_page(book: Book, store: FeedbackStore, limit: int = 50) -> AgreementPage:
    """Agreement beyond chance, and what is disputed. Adjudications are no labeler's opinion and stay out.

    Args:
        book: the judgments.
        store: where the texts of disputed items are.
        limit: how many disputed items at most, the most disputed first.
    """
    pairs = book.fair(book.opinions)
    unit, scores = book.unit(pairs), book.scores[book.work[book.scores["judgment"]]]
    tags = [(tag, _pair_agreement(book, tag, pairs[rows], unit[rows])) for tag, rows in _by_tag(book, pairs, unit)]
    gap = book.length_gap(pairs)
    gaps = [
        _pair_agreement(book, name, pairs[gap == number], unit[gap == number])
        for number, (name, _) in enumerate(LENGTH_GAPS)
    ]
    return AgreementPage(
        kinds=([_pair_agreement(book, "comparisons", pairs, unit)] if len(pairs) else [])
        + _by_scale(book, scores, scores["response"]),
        by_tag=[one for _, one in sorted(tags, key=lambda named: (-named[1].units, named[0])) if one.units][:12],
        by_length_gap=[one for one in gaps if one.units],
        kappas=_kappas(book, pairs[book.named(pairs)]),
        single=int((np.unique(unit, return_counts=True)[1] == 1).sum()),
        disagreements=_disagreements(book, store, limit),
        again=_asked_again(book),
    )


def _by_tag(book: Book, pairs: Rows, unit: Ints) -> Iterator[tuple[str, Bools]]:
    """The pairs that belong to each tag: all of a unit of which a judgment or the prompt has it."""
    prompt = book.prompt(pairs)
    for number, tag in enumerate(book.tags):
        said, about = (m["of"][m["tag"] == number] for m in (book.judgment_marks, book.prompt_marks))
        marked = np.isin(pairs["judgment"], said) | np.isin(prompt, about)
        if marked.any():
            yield tag, np.isin(unit, unit[marked])


def _pair_agreement(book: Book, name: str, pairs: Rows, units: Ints) -> Agreement:
    """Of comparisons: lost, tied, won, in order. Labelers do not know which response counts as the first, so each
    pair enters both ways round, and chance is the same for both sides. Of ``units`` (N,) that are the same, pairs are
    held against each other.
    """
    unit = cluster_index(units, len(pairs))
    prompts = np.empty(int(unit.max(initial=-1)) + 1, dtype=np.int64)
    prompts[unit] = book.prompt(pairs)
    counts = value_counts(unit, pairs["verdict"] + 1, 3)
    judged = counts.sum(1)
    both = np.concatenate([counts, counts[:, ::-1]])
    return Agreement(
        name=name,
        units=int((judged >= 2).sum()),
        judgments=int(judged[judged >= 2].sum()),
        alpha=krippendorff_alpha(both, "ordinal", np.concatenate([prompts, prompts]), n=1000),
        raw=raw_agreement(counts, prompts, n=1000),
    )


def _by_scale(book: Book, scores: Rows, units: Ints) -> list[Agreement]:
    """Of thumbs and ratings, in the order in which they were first given; ``units`` as in `_pair_agreement`."""
    found = []
    for number in dict.fromkeys(scores["scale"].tolist()):
        inside = scores["scale"] == number
        rows, name = scores[inside], book.scales[number]
        unit = cluster_index(units[inside], len(rows))
        prompts = np.empty(int(unit.max()) + 1, dtype=np.int64)
        prompts[unit] = book.responses["prompt"][rows["response"]]
        values, value = np.unique(rows["value"], return_inverse=True)
        counts = value_counts(unit, value, len(values))
        judged = counts.sum(1)
        found.append(
            Agreement(
                name=name,
                units=int((judged >= 2).sum()),
                judgments=int(judged[judged >= 2].sum()),
                alpha=krippendorff_alpha(counts, "nominal" if name == THUMB else "ordinal", prompts, n=1000),
                raw=raw_agreement(counts, prompts, n=1000),
            )
        )
    return found


def _asked_again(book: Book) -> list[Agreement]:
    """Test-retest: what labelers said at first, and when they were asked again; a unit is what one labeler saw."""
    time = np.full(len(book.judgments), -1)
    for place in book.repeated.T:
        time[place] = np.arange(len(place))
    pairs, scores = (rows[time[rows["judgment"]] >= 0] for rows in (book.pairs, book.scores))

    def own(rows: Rows, unit: Ints) -> Ints:
        found: Ints = time[rows["judgment"]] * len(rows) + cluster_index(unit, len(rows))
        return found

    found = [_pair_agreement(book, "comparisons", pairs, own(pairs, book.unit(pairs)))] if len(pairs) else []
    found += _by_scale(book, scores, own(scores, scores["response"]))
    return [one for one in found if one.units]


def _kappas(book: Book, pairs: Rows, least: int = 5) -> list[Kappa]:
    unit, said = book.unit(pairs), book.labeler(pairs)
    seen = list(dict.fromkeys(said.tolist()))
    people = sorted(seen, key=lambda number: book.labeler_name(book.people[number]))
    rank = np.zeros(len(book.people), dtype=np.int64)
    rank[people] = np.arange(len(people))
    order = np.lexsort((rank[said], unit))
    unit, who, verdict = unit[order], rank[said[order]], pairs["verdict"][order].astype(np.int64)
    _, start, size = np.unique(unit, return_index=True, return_counts=True)
    parts = []
    for count in np.unique(size[size >= 2]):
        members = start[size == count][:, None] + np.arange(count)
        i, j = np.triu_indices(count, 1)
        parts.append(np.stack([members[:, i].ravel(), members[:, j].ravel()]))
    if not parts:
        return []
    one, other = np.concatenate(parts, axis=1)
    key = who[one] * len(people) + who[other]
    order = np.argsort(key, kind="stable")
    keys, begin, shared = np.unique(key[order], return_index=True, return_counts=True)
    found = []
    for pair, at, count in zip(keys.tolist(), begin.tolist(), shared.tolist(), strict=True):
        if count < least:
            continue
        both = order[at : at + count]
        a, b = verdict[one[both]], verdict[other[both]]
        kappa = cohen_kappa(_both_ways(a), _both_ways(b))
        first, second = (book.labeler_name(book.people[people[number]]) for number in divmod(pair, len(people)))
        found.append(Kappa(first, second, count, kappa, float(np.mean(a == b))))
    return sorted(found, key=lambda one: -one.units)


def _both_ways(verdicts: Ints) -> list[int]:
    """Of pairs either way round, as for α: which response is the first means nothing."""
    return [*verdicts.tolist(), *(-verdicts).tolist()]


class PeopleAgreement(NamedTuple):
    """How far a labeler agrees with the people who judged the same pairs."""

    overlap: int
    """Pairs of a response pair and a person who judged it, too."""
    agreement: float
    """Share of them on which both say the same; NaN without any."""
    kappa: Interval
    """Cohen's κ, with its interval over prompts."""

    def figures(self) -> dict[str, Any]:
        """By name, for JSON; what is not known is left out."""
        names = ("overlap", "agreement", "kappa", "kappa_low", "kappa_high")
        values = (self.overlap, self.agreement, *self.kappa)
        return {name: value for name, value in zip(names, values, strict=True) if math.isfinite(value)}


def agreement_with_people(book: Book, labeler_id: str) -> PeopleAgreement:
    """Cohen's κ of a labeler (an AI, say) with all people together, here or where judgments were imported from."""
    pairs = book.fair(book.opinions)
    person = [who != labeler_id and _is_person(book, who) for who in book.people]
    said = book.labeler(pairs)
    mine = pairs[said == book.people.index(labeler_id)] if labeler_id in book.people else pairs[:0]
    theirs = pairs[np.array([*person, False])[said]]
    mine = mine[np.argsort(book.unit(mine))]
    at = np.searchsorted(book.unit(mine), book.unit(theirs))
    shared = np.append(book.unit(mine), -1)[at] == book.unit(theirs)
    theirs, at = theirs[shared], at[shared]
    if not len(theirs):
        return PeopleAgreement(0, math.nan, UNKNOWN)
    a, b = (rows["verdict"].astype(np.int64) for rows in (mine[at], theirs))
    prompts = np.tile(book.prompt(theirs), 2)
    kappa = cohen_kappa_interval(_both_ways(a), _both_ways(b), prompts)
    return PeopleAgreement(len(theirs), float(np.mean(a == b)), kappa)


def _is_person(book: Book, labeler_id: str) -> bool:
    return labeler_id in book.labelers and book.labelers[labeler_id].kind in ("person", "import")


def _disagreements(book: Book, store: FeedbackStore, limit: int) -> list[Disagreement]:
    """Items on which labelers contradict each other: undecided ones first, then the most disputed."""
    pairs = book.votes
    item = book.judgments["item"][pairs["judgment"]]
    pairs, item = pairs[item > 0], item[item > 0]
    if not len(pairs):
        return []
    # Of each item's units: how many pairs of judgments there are, how many of them are the same, and the extremes.
    groups, group = np.unique(np.stack([item, book.unit(pairs)], axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    judged = np.bincount(group)
    cells, alike = np.unique(np.stack([group, pairs["verdict"]], axis=1), axis=0, return_counts=True)
    same = np.bincount(cells[:, 0], alike * (alike - 1) / 2, len(groups))
    won, lost = (np.bincount(group, pairs["verdict"] == verdict, len(groups)) > 0 for verdict in (1, -1))
    items, of = np.unique(groups[:, 0], return_inverse=True)
    every = np.bincount(of, judged * (judged - 1) / 2)
    contradict = np.bincount(of, won & lost) > 0
    split = 1 - np.bincount(of, same) / np.maximum(every, 1)
    work = book.judgments[book.work & (book.judgments["kind"] == KINDS.index("comparison"))]
    settled = np.isin(items, work["item"][work["settles"]])
    asked, first = np.unique(work["item"], return_index=True)
    since = first[np.searchsorted(asked, items)]
    order = np.lexsort((since, -split, settled))
    chosen = order[contradict[order]][:limit]
    return _told(book, store, items[chosen].tolist(), split[chosen].tolist(), settled[chosen].tolist())


def with_decisions(page: AgreementPage, store: FeedbackStore) -> AgreementPage:
    """The page with what the owner has decided since it was computed; all else on it stays as it was."""
    judgments = store.judgments_of_items(one.item_id for one in page.disagreements if not one.adjudicated)
    decided = {item for item, said in judgments.items() if any(ADJUDICATION in one.tags for one in said)}
    if not decided:
        return page
    disputes = [replace(one, adjudicated=one.adjudicated or one.item_id in decided) for one in page.disagreements]
    return replace(page, disagreements=disputes)


def _told(
    book: Book, store: FeedbackStore, numbers: list[int], splits: list[float], settled: list[bool]
) -> list[Disagreement]:
    """Disputed items with their texts; those that were erased in the meantime are left out."""
    items = store.items_by_number(numbers)
    responses = store.responses_by_id(response for item in items.values() for response in item.response_ids)
    prompts = store.prompts_by_id(item.prompt_id for item in items.values())
    judgments = store.judgments_of_items(item.id for item in items.values())
    found = []
    for number, split, adjudicated in zip(numbers, splits, settled, strict=True):
        item = items[number]
        if item.prompt_id not in prompts or not responses.keys() >= set(item.response_ids):
            continue
        voices = tuple(
            Voice(book.labeler_name(j.labeler_id), verdict(j, item.response_ids), j.tags, j.seconds)
            for j in judgments.get(item.id, ())
            if j.kind == "comparison" and ADJUDICATION not in j.tags
        )
        shown = tuple(responses[response] for response in item.response_ids)
        found.append(Disagreement(item.id, prompts[item.prompt_id], shown, voices, split, adjudicated))
    return found


def verdict(judgment: Judgment, response_ids: Sequence[str]) -> str:
    """A comparison in letters, best first: "B", "A = B", "C > A > B"."""
    said = judgment.payload
    assert isinstance(said, ComparisonPayload)
    letter = {response: letters(i) for i, response in enumerate(response_ids)}
    ranked: dict[int, list[str]] = defaultdict(list)
    for response, rank in zip(said.response_ids, said.ranks, strict=True):
        if rank is not None:
            ranked[rank].append(letter.get(response, "?"))
    return " > ".join(" = ".join(sorted(ranked[rank])) for rank in sorted(ranked))


def letters(number: int) -> str:
    """0, 1, ... as A, B, ..., Z, AA, ..."""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
