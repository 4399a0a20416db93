"""What a pair of a ranking is, by hand; and that the arrays of a database hold the same."""

from __future__ import annotations

import pytest

from hearken.feedback.examples import Comparison
from hearken.feedback.pairs import (
    UNNAMED,
    Pair,
    best_and_worst,
    better_pairs,
    decided,
    example_pairs,
    hits,
    judgment_pairs,
    latest,
    margins_of,
    ranked_pairs,
    words,
)
from hearken.feedback.records import ComparisonPayload, CritiquePayload, Judgment


def test_partial_rankings_and_ties() -> None:
    assert list(ranked_pairs((2, None, 0, 2))) == [
        (0, 2, 0.0, -1, None), (0, 3, 0.5, 0, None), (2, 3, 1.0, 1, None)
    ]  # fmt: skip
    assert len(list(ranked_pairs((0, 1, 2, 3)))) == 6 and not list(ranked_pairs((0, None, None, -1)))


def test_a_share_of_votes_is_the_outcome_and_its_side_the_verdict() -> None:
    for share, ranks, outcome, verdict in (
        (0.55, (0, 1), 0.55, 1), (0.45, (0, 1), 0.45, -1), (0.5, (0, 1), 0.5, 0), (0.52, (0, 0), 0.52, 0),
        (1.0, (0, 1), 1.0, 1),
    ):  # fmt: skip
        assert list(ranked_pairs(ranks, share)) == [(0, 1, outcome, verdict, None)]


def test_the_order_of_display_is_known_or_not() -> None:
    assert [first for *_, first in ranked_pairs((0, 1, 2), order=(2, 0, 1))] == [True, False, False]
    assert [first for *_, first in ranked_pairs((0, 1), order=None)] == [None]


def test_names_turn_a_pair_round() -> None:
    assert list(ranked_pairs((0, 1), 0.7, (0, 1), ("y", "x"))) == [(1, 0, pytest.approx(0.3), -1, False)]
    said = ComparisonPayload(response_ids=("y", "x"), ranks=(1, 0))
    judgment = Judgment(id="j", prompt_id="p", labeler_id="ana", payload=said, order=(0, 1))
    assert list(judgment_pairs(judgment)) == [Pair("p", "x", "y", 1.0, 1, "ana", "j", False, (1, 0))]
    critique = CritiquePayload(response_id="x", text="too long")
    assert not list(judgment_pairs(judgment.model_copy(update={"payload": critique})))


def test_the_better_one_the_best_and_the_worst() -> None:
    assert better_pairs((1, 0, None, 1)) == [(1, 0), (1, 3)] and better_pairs((0, 1), 0.3) == [(1, 0)]
    assert [pair.better for pair in example_pairs([Comparison("p", ("b", "a"), (0, 1))])] == [(0, 1)]
    assert best_and_worst((2, 0, 0, 2, None)) == (1, 3) and best_and_worst((0, 1), 0.3) == (1, 0)
    assert best_and_worst((0, 0, None)) is None and best_and_worst((0, None)) is None


def test_rows_of_files() -> None:
    rows = [
        Comparison("p", ("b", "a", "b"), (0, 1, 2), metadata={"labeler": "ana", "order": [2, 1, 0]}),
        Comparison("p", ("a", "b"), (0, 1), share=0.8, metadata={"order": "ab"}),
    ]
    found = list(example_pairs(rows))
    assert [(p.a, p.b, p.outcome, p.labeler, p.judgment, p.shown_first) for p in found] == [
        ("a", "b", 0.0, "ana", 0, True), ("a", "b", 1.0, "ana", 0, False), ("a", "b", 0.8, None, 1, None)
    ]  # fmt: skip


def test_the_last_word_of_a_labeler_counts() -> None:
    def row(who: str | None, first: int, prompt: str = "p") -> Comparison:
        metadata = {} if who is None else {"labeler": who}
        return Comparison(prompt, ("a", "b"), (first, 1 - first), metadata=metadata)

    rows = [row("ana", 0), row("bo", 0), row(None, 0), row(None, 0), row(UNNAMED, 0), row(UNNAMED, 0)]
    rows += [row("ana", 0, "q"), row("ana", 1)]
    assert [pair.judgment for pair in latest(example_pairs(rows))] == [1, 2, 3, 4, 5, 6, 7]


def test_length_is_in_words() -> None:
    assert [words(text) for text in ("", "  \n", "a  tale\nof two", "in-between")] == [0, 0, 4, 1]


def test_how_right_a_score_is() -> None:
    rows = [
        Comparison("p", ("one two three", "one two", "one"), (0, 1, 1)),  # longer wins twice; the tie says nothing
        Comparison("q", ("one", "one two", "one two three"), (0, None, 1)),  # longer loses once
        Comparison("r", ("one two", "six seven"), (0, 1)),  # equal lengths: half
        Comparison("s", ("one two", "one"), (0, 1), share=0.55),  # .55 of the votes are for the longer one
    ]
    pairs, table = decided(rows), [[float(words(text)) for text in row.responses] for row in rows]
    found = hits(pairs, margins_of(pairs, table)).tolist()
    assert [pair.judgment for pair in pairs] == [0, 0, 1, 2, 3] and found == pytest.approx([1, 1, 0, 0.5, 0.55])
    assert not decided([Comparison("p", ("a", "b"), (0, 0))])
