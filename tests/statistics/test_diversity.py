from __future__ import annotations

import math

import pytest

from hearken.statistics.diversity import distinct_n, ngrams, repetition


def test_ngrams_split_punctuation_and_fold_case() -> None:
    assert ngrams("The fox ran. The", 2) == [("the", "fox"), ("fox", "ran"), ("ran", "."), (".", "the")]
    assert ngrams("fox", 2) == []


def test_distinct_counts_over_all_texts_together() -> None:
    assert distinct_n(["a b c", "a b d"], 2) == 3 / 4
    assert distinct_n(["a b c", "a b d"], 1) == 4 / 6
    assert distinct_n(["best " * 11], 2) == pytest.approx(1 / 10)
    assert math.isnan(distinct_n(["one", ""], 2))


def test_repetition_is_within_a_text() -> None:
    assert repetition(["a b c d e", "a b c d e"], 2) == 0
    assert repetition(["a b a b a"], 2) == 1 / 2
    assert repetition(["a b a b a", "c d e", "x"], 2) == 1 / 4
    assert math.isnan(repetition(["short"], 4))
