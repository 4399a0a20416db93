"""Scores of single responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hearken.feedback.analysis.book import THUMB, Book, Bools, Floats, Ints, Rows
from hearken.feedback.records import Prompt, Response
from hearken.feedback.store import FeedbackStore
from hearken.statistics.bradley_terry import fit_davidson, outcome_table
from hearken.statistics.intervals import cluster_index

_WIDE = 8
"""So many responses to a prompt are compared at most where prompts are fitted together."""


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """What judgments make of one response."""

    response: Response
    prompt: Prompt
    score: float | None
    """Log-odds against the other responses to its prompt, shrunk by a standard normal prior; None without pairs."""
    wins: float
    ties: float
    losses: float
    rating: float | None
    """Mean rating, each scaled to 0..1."""
    thumbs_up: int
    thumbs_down: int


@dataclass(frozen=True)
class ResponseScores:
    """Judged responses, best score first. Scores compare responses to the same prompt, not across prompts."""

    seq: Ints
    """(N,) number of the response in the database."""
    policy: Ints
    """(N,) place in ``policies``; -1 for none."""
    policies: tuple[str, ...]
    score: Floats
    """(N,) see `ResponseRow`; NaN for None."""
    tally: Floats
    """(N, 3) won, tied, lost; of a share of votes that much."""
    rating: Floats
    """(N,) NaN for None."""
    thumbs: Ints
    """(N, 2) up, down."""

    @cached_property
    def _of(self) -> dict[str, Ints]:
        return {name: np.flatnonzero(self.policy == number) for number, name in enumerate(self.policies)}

    def chosen(self, policy: str | None = None) -> Ints:
        """Places of the responses of one policy, or of all, in order."""
        return np.arange(len(self.seq)) if policy is None else self._of.get(policy, np.arange(0))

    def rows(self, store: FeedbackStore, places: Sequence[int]) -> list[ResponseRow]:
        """The responses at these places with their texts; those that were erased in the meantime are left out."""
        responses = store.responses_by_number(int(self.seq[at]) for at in places)
        prompts = store.prompts_by_id(response.prompt_id for response in responses.values())
        found = []
        for at in places:
            response = responses.get(int(self.seq[at]))
            if response is None or response.prompt_id not in prompts:
                continue
            score, rating = float(self.score[at]), float(self.rating[at])
            wins, ties, losses = self.tally[at].tolist()
            found.append(
                ResponseRow(
                    response=response,
                    prompt=prompts[response.prompt_id],
                    score=None if np.isnan(score) else score,
                    wins=wins,
                    ties=ties,
                    losses=losses,
                    rating=None if np.isnan(rating) else rating,
                    thumbs_up=int(self.thumbs[at, 0]),
                    thumbs_down=int(self.thumbs[at, 1]),
                )
            )
        return found


def response_scores(book: Book) -> ResponseScores:
    """What the judgments make of each response that anybody judged."""
    pairs, count = book.work_pairs, len(book.responses)
    score = _scores(book, pairs)
    tally = np.zeros((count, 3))
    for place, share in enumerate(outcome_table(pairs["outcome"]).T):
        tally[:, place] += np.bincount(pairs["a"], share, count)
        tally[:, 2 - place] += np.bincount(pairs["b"], share, count)
    given = book.scores[book.work[book.scores["judgment"]]]
    thumb = np.array([name == THUMB for name in book.scales], dtype=bool)[given["scale"]]
    ratings, thumbs = given[~thumb], given[thumb]
    rated = np.bincount(ratings["response"], minlength=count)
    with np.errstate(invalid="ignore"):
        rating = np.bincount(ratings["response"], ratings["share"], count) / rated
    down = (thumbs["value"] == 0).astype(np.int64)
    up_down = np.bincount(thumbs["response"].astype(np.int64) * 2 + down, minlength=2 * count).reshape(-1, 2)
    judged = np.flatnonzero(~np.isnan(score) | (rated > 0) | (up_down.sum(1) > 0))
    worth = (
        up_down[judged, 1] - up_down[judged, 0],
        -np.nan_to_num(rating[judged], nan=-1.0),
        -np.nan_to_num(score[judged], nan=-np.inf),
    )
    order = judged[np.lexsort((judged, *worth))]
    return ResponseScores(
        seq=book.responses["seq"][order],
        policy=book.responses["policy"][order].astype(np.int64),
        policies=tuple(book.policies),
        score=score[order],
        tally=tally[order],
        rating=rating[order],
        thumbs=up_down[order],
    )


def _scores(book: Book, pairs: Rows) -> Floats:
    """(R,) strength of each response among those to its prompt; NaN where it was not compared."""
    found = np.full(len(book.responses), np.nan)
    if not len(pairs):
        return found
    compared = np.unique(np.concatenate([pairs["a"], pairs["b"]]))
    prompt = cluster_index(book.responses["prompt"][compared], len(compared))
    # Each response's place among the compared ones to its prompt, and how many these are.
    order = np.argsort(prompt, kind="stable")
    size = np.bincount(prompt)
    place = np.empty(len(compared), dtype=np.int64)
    place[order] = np.arange(len(compared)) - np.repeat(np.cumsum(size) - size, size)
    a, b = (np.searchsorted(compared, pairs[side]) for side in ("a", "b"))
    owner = prompt[a]
    tied = np.zeros(len(size), dtype=bool)
    tied[owner[pairs["outcome"] == 0.5]] = True
    for width in np.unique(size).tolist():
        for with_ties in (False, True):
            members = np.flatnonzero((size == width) & (tied == with_ties))
            # All pairs of many responses are too many; such prompts are few, and are fitted one by one.
            for part in [members] if width <= _WIDE else members[:, None]:
                if not len(part):
                    continue
                rows, mine = _among(owner, part, len(size)), _among(prompt, part, len(size))
                said = (np.searchsorted(part, owner[rows]), place[a[rows]], place[b[rows]], pairs["outcome"][rows])
                strengths = _fit(int(width), with_ties, len(part), *said)
                found[compared[mine]] = strengths[np.searchsorted(part, prompt[mine]), place[mine]]
    return found


def _among(values: Ints, members: Ints, count: int) -> Bools:
    """(N,) which of the values 0..count-1 are members."""
    found = np.zeros(count, dtype=bool)
    found[members] = True
    return found[values]


def _fit(width: int, with_ties: bool, prompts: int, owner: Ints, a: Ints, b: Ints, outcome: Floats) -> Floats:
    """(prompts, width) strengths, where each prompt has as many compared responses: one fit, whose rows are all that is
    said of any pair of places, weighted in each prompt by how often it is said there.
    """
    pairs, pair = np.unique(np.minimum(a, b) * width + np.maximum(a, b), return_inverse=True)
    kinds = (1.0, 0.5, 0.0) if with_ties else (1.0, 0.0)
    x = np.zeros((len(pairs) * len(kinds), width))
    rows = np.arange(len(x))
    x[rows, np.repeat(pairs // width, len(kinds))] = 1
    x[rows, np.repeat(pairs % width, len(kinds))] = -1
    outcome = np.where(a < b, outcome, 1 - outcome)
    tied = outcome == 0.5
    cell = (owner * len(pairs) + pair) * len(kinds)
    said = np.zeros(prompts * len(x))
    for row, kind in enumerate(kinds):  # a share of votes is so much of a win and the rest of a loss
        part = tied if kind == 0.5 else np.where(tied, 0.0, outcome if kind == 1 else 1 - outcome)
        said += np.bincount(cell + row, part, len(said))
    return fit_davidson(x, kinds * len(pairs), said.reshape(prompts, -1), ridge=1.0)[:, :width]
