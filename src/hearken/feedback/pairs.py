"""The pairs of a ranking: what one judgment says of two responses. Every figure about feedback counts these.

The rules are the same wherever pairs are counted:

* **Which.** Any two responses of a comparison that both have a rank: six of four, one of four where two are ranked.
* **Outcome.** 1 where the first is ranked above the other, 0 where below, ½ for equal ranks; where the judgment holds a
  share of votes, that share. So a vote of .55 : .45 counts .55 in every rate (win rates, position and length bias,
  accuracy), not 1.
* **Verdict.** Where one of three answers is needed (κ, α, reliability, how many ties): a tie where the ranks are equal
  or the votes are even, else the side that has more of them. A pair that is no tie is *decided*.
* **Order of display.** `Pair.shown_first` is None where nobody knows it, and such a pair says nothing of position.
* **Several judgments of one labeler on the same two responses.** The last one counts; see `latest`. In a database
  responses are the same by their ids, in files by their texts. Rows of a file that name nobody are a vote each.
* **Adjudications** are the owner's decisions on disputed items: data, but no labeler's opinion; see `opinions`.
* **Length** is in words; see `words`. Pairs of equal length say nothing of length.

`hearken.feedback.analysis` holds a database's pairs as arrays, made by the same `ranked_pairs`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hearken.feedback.examples import Comparison, content_key
from hearken.feedback.records import ComparisonPayload, Judgment
from hearken.feedback.splits import labeler_value

if TYPE_CHECKING:
    from hearken.feedback.store import FeedbackStore

ADJUDICATION = "adjudication"
"""Tag of the owner's own judgment on an item on which labelers disagree."""

UNNAMED = "import-import"
"""Id of the labeler to whom `hearken import` ascribes rows that name none: any number of people."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What one judgment says of two responses, named in an order that is the same for every labeler."""

    prompt: str
    """Id of the prompt, or its content key."""
    a: str
    """The response whose id (in files: whose text) comes first."""
    b: str
    outcome: float
    """Of ``a``, 0 to 1."""
    verdict: int
    """1 where ``a`` is the better one, -1 where ``b`` is, 0 for a tie."""
    labeler: str | None
    """None where a file did not say."""
    judgment: Any
    """Id of the judgment, or number of the row."""
    shown_first: bool | None
    """Whether ``a`` was shown before ``b``."""
    places: tuple[int, int]
    """Of ``a`` and ``b`` among the judgment's responses."""

    @property
    def better(self) -> tuple[int, int]:
        """Places of the better and of the worse response of a decided pair."""
        return self.places if self.verdict > 0 else self.places[::-1]


def words(text: str) -> int:
    """Length of a response: the words between white space."""
    return len(text.split())


Ranked: TypeAlias = tuple[int, int, float, int, bool | None]
"""Places i and j of two ranked responses, outcome and verdict of i, and whether i was shown before j."""


def ranked_pairs(
    ranks: Sequence[int | None],
    share: float | None = None,
    order: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Ranked]:
    """Every pair of ranked responses.

    Args:
        ranks: (K,) 0 is best, equal numbers are ties; None or below 0 was not ranked.
        share: of the votes for the first of two responses.
        order: ``order[place]`` is the response shown at that place; None where nobody knows.
        names: (K,) by whose order one of the two is i; by default by places, i < j.
    """
    shown = {response: place for place, response in enumerate(order)} if order else {}
    ranked = [(i, rank) for i, rank in enumerate(ranks) if rank is not None and rank >= 0]
    for (i, mine), (j, its) in combinations(ranked, 2):
        outcome = (1 + (mine < its) - (mine > its)) / 2 if share is None else share
        if names is not None and names[i] > names[j]:
            i, j, outcome = j, i, 1 - outcome
        verdict = 0 if mine == its else (outcome > 0.5) - (outcome < 0.5)
        yield i, j, outcome, verdict, shown[i] < shown[j] if i in shown and j in shown else None


def better_pairs(ranks: Sequence[int | None], share: float | None = None) -> list[tuple[int, int]]:
    """Places (better, worse) of the decided pairs of a ranking; see `ranked_pairs`."""
    return [(i, j) if verdict > 0 else (j, i) for i, j, _, verdict, _ in ranked_pairs(ranks, share) if verdict]


def best_and_worst(ranks: Sequence[int | None], share: float | None = None) -> tuple[int, int] | None:
    """Places of the (first) best and the (last) worst ranked response; None where all are tied."""
    decided = better_pairs(ranks, share)
    if not decided:
        return None
    ranked = sorted((rank, i) for i, rank in enumerate(ranks) if rank is not None and rank >= 0)
    return decided[0] if len(ranked) == 2 else (ranked[0][1], ranked[-1][1])


def judgment_pairs(judgment: Judgment) -> Iterator[Pair]:
    """The pairs of a judgment of the database; none where it is no comparison."""
    said = judgment.payload
    if isinstance(said, ComparisonPayload):
        names, prompt, who = said.response_ids, judgment.prompt_id, _named(judgment.labeler_id)
        for i, j, outcome, verdict, first in ranked_pairs(said.ranks, said.share, judgment.order, names):
            yield Pair(prompt, names[i], names[j], outcome, verdict, who, judgment.id, first, (i, j))


def example_pairs(rows: Iterable[Comparison]) -> Iterator[Pair]:
    """The pairs of self-contained comparisons, whose numbers are those of the rows; equal texts are no pair."""
    for number, row in enumerate(rows):
        order, names, who = row.metadata.get("order"), row.responses, _named(labeler_value(row, "labeler"))
        known = isinstance(order, list | tuple) and set(order) == set(range(len(row.ranks)))
        prompt = content_key(row.prompt)
        for i, j, outcome, verdict, first in ranked_pairs(row.ranks, row.share, order if known else None, names):
            if names[i] != names[j]:
                yield Pair(prompt, names[i], names[j], outcome, verdict, who, number, first, (i, j))


def _named(labeler: str | None) -> str | None:
    return None if labeler == UNNAMED else labeler


def latest(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs that count: of each labeler the last on the same two responses, in order; all of unnamed labelers."""
    last: dict[Hashable, int] = {}
    every = list(pairs)
    for at, pair in enumerate(every):
        who = ("row", pair.judgment) if pair.labeler is None else pair.labeler
        last[who, pair.prompt, pair.a, pair.b] = at
    return [every[at] for at in sorted(last.values())]


def decided(rows: Iterable[Comparison]) -> list[Pair]:
    """The pairs of self-contained comparisons that are no ties, once for each labeler and pair."""
    return [pair for pair in latest(example_pairs(rows)) if pair.verdict]


def hits(pairs: Sequence[Pair], margins: ArrayLike) -> NDArray[np.float64]:
    """(N,) the share of votes for the response that something scores higher, ½ where it scores both alike.

    The mean over decided pairs is its accuracy.

    Args:
        pairs: N of them.
        margins: (N,) score of `Pair.a` minus score of `Pair.b`.
    """
    outcomes = np.array([pair.outcome for pair in pairs], dtype=np.float64)
    return 0.5 + np.sign(np.asarray(margins, dtype=np.float64)) * (outcomes - 0.5)


def margins_of(pairs: Sequence[Pair], table: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """(N,) by how much ``a`` exceeds ``b``, from one number for each response of each row (see `example_pairs`)."""
    rows = ((table[pair.judgment], *pair.places) for pair in pairs)
    return np.array([row[a] - row[b] for row, a, b in rows], dtype=np.float64)


def opinions(judgments: Iterable[Judgment]) -> list[Pair]:
    """What labelers said of pairs, once for each labeler and pair; without adjudications."""
    said = (judgment for judgment in judgments if ADJUDICATION not in judgment.tags)
    return latest(pair for judgment in said for pair in judgment_pairs(judgment))


def pairs_of(store: FeedbackStore, kinds: Collection[str]) -> list[Pair]:
    """The pairs that labelers of some kinds compared, each labeler's last word on each."""
    known = {labeler.id for labeler in store.labelers() if labeler.kind in kinds}
    said = (judgment for judgment in store.judgments(kinds=("comparison",)) if judgment.labeler_id in known)
    return latest(pair for judgment in said for pair in judgment_pairs(judgment))
