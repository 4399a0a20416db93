"""Scores of single responses."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from hearken.feedback.records import Prompt, RatingPayload, Response, ThumbPayload
from hearken.server.owner_data.book import Book, Pair
from hearken.statistics.bradley_terry import fit_davidson


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

    @property
    def judged(self) -> bool:
        """Whether anybody said anything about it."""
        return self.score is not None or self.rating is not None or bool(self.thumbs_up + self.thumbs_down)


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
    return sorted((row for row in rows if row.judged), key=_worth, reverse=True)


def _worth(row: ResponseRow) -> tuple[float, float, int]:
    return (
        row.score if row.score is not None else -math.inf,
        row.rating if row.rating is not None else -1.0,
        row.thumbs_up - row.thumbs_down,
    )
