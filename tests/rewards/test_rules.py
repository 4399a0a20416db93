from __future__ import annotations

import pytest

from hearken.errors import UserError
from hearken.rewards import rules
from hearken.rewards.terms import Term, parse_terms


def test_answer() -> None:
    truths = [
        {"answer": 12},
        {"answer": "12"},
        {"answer": 1200},
        {"answer": "-3.5"},
        {"answer": "Paris"},
        {"answer": 7},
    ]
    said = ["3 + 9 = 12.", "It is 13", "about 1,200", "so x = -3.50", "The capital is paris.", "no idea"]
    assert rules.answer([""] * 6, said, truths) == [1, 0, 1, 1, 1, 0]
    with pytest.raises(UserError, match="have no 'answer'"):
        rules.answer([""], ["1"], [{}])


def test_matches_length_and_repetition() -> None:
    assert rules.matches([""] * 2, [" yes ", "yes, no"], [{"pattern": "yes|no"}] * 2) == [1, 0]
    assert rules.length([""] * 2, ["a b c", "a " * 6], [{"words": 4}] * 2) == [0, -0.5]
    assert rules.distinct([""] * 3, ["a b a b a b", "a b c", "a"], [{}] * 3) == [2 / 5, 1, 1]


def test_the_shortest_answer_does_not_win_by_its_length() -> None:
    texts = ["No.", " ".join(["word"] * 30), " ".join(["word"] * 150), ""]
    short, right, long, empty = rules.length([""] * 4, texts, [{}] * 4)
    assert (right, long, empty) == (0, -0.5, -1) and short == -24 / 25
    assert rules.length([""] * 3, texts[:3], [{"words": 20, "least": 10}] * 3) == [-0.9, -0.5, -6.5]
    assert rules.length([""], ["No."], [{"least": 0}]) == [0]


def test_terms(tmp_path) -> None:
    assert parse_terms("org/model") == [Term("org/model", "model")]
    assert parse_terms("rm#helpful,rule:length,rm#honest*0.5") == [
        Term("hearken.rewards.rules:length", "function"),
        Term("rm", "model", attributes=(("helpful", 1.0), ("honest", 0.5))),
    ]
    assert parse_terms("org/model*2, rule:length*-0.5,mine.sub:score") == [
        Term("org/model", "model", 2.0), Term("hearken.rewards.rules:length", "function", -0.5),
        Term("mine.sub:score", "function"),
    ]  # fmt: skip
    (tmp_path / "a,b").mkdir()
    assert parse_terms(str(tmp_path / "a,b")) == [Term(str(tmp_path / "a,b"), "model")]
    for wrong in ("a,,b", "a*x", ""):
        with pytest.raises(UserError):
            parse_terms(wrong)
