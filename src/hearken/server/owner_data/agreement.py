"""How far labelers agree, and where they do not."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from hearken.feedback.records import ComparisonPayload, Judgment, Prompt, RatingPayload, Response, ThumbPayload
from hearken.server.owner_data.book import LENGTH_GAPS, Book, Pair, pairs_of
from hearken.statistics.agreement import Level, cohen_kappa, krippendorff_alpha, raw_agreement, value_counts
from hearken.statistics.intervals import Interval


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

    @property
    def main(self) -> Agreement | None:
        """The first kind that has an α."""
        return next((kind for kind in self.kinds if kind.units), None)


ADJUDICATION = "adjudication"
"""Tag of the owner's own judgment on an item on which labelers disagree."""


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
