from __future__ import annotations

import math

import pytest

from hearken.statistics.diversity import distinct_n, ngrams, repeated_phrases, repetition, self_bleu, written


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


def test_self_bleu_rises_as_texts_become_alike() -> None:
    same = ["the fox runs home in the rain"] * 4
    different = ["the fox runs home in the rain", "a bear sings", "owls sleep on every hill by day", "rivers are wide"]
    assert self_bleu(same) == pytest.approx(1.0)
    assert self_bleu(different) < self_bleu([*different, *same]) < 1
    assert math.isnan(self_bleu(["alone"]))


def test_self_bleu_agrees_with_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = ["the fox runs home in the rain", "the fox sleeps at home in rain", "a fox runs in the rain at home today"]
    theirs = [
        sacrebleu.sentence_bleu(
            text, texts[:i] + texts[i + 1 :], smooth_method="add-k", smooth_value=1, lowercase=True
        ).score
        / 100
        for i, text in enumerate(texts)
    ]
    assert self_bleu(texts) == pytest.approx(sum(theirs) / 3, abs=1e-6)


def test_repeated_phrases_names_what_grew() -> None:
    before = ["the fox runs home", "one two three four", "in the deep dark wood"]
    now = ["in the deep dark wood", "in the deep dark sea", "in the deep dark night", "the fox runs home"]
    (first, *rest) = repeated_phrases(now, before)
    assert first.text == "in the deep dark" and first.share == 0.75 and first.before == pytest.approx(1 / 3)
    assert "the fox runs home" not in [p.text for p in rest]
    assert repeated_phrases([], before) == []


def test_pieces_of_one_phrase_are_put_together() -> None:
    now = [f"{word} hung by one rope above the water, {word} {word}" for word in "abcd"]
    assert [written(p.text) for p in repeated_phrases(now, ["a b c d"])] == ["hung by one rope above the water,"]
    now += [f"{word} fell in the black water" for word in "efghij"]
    said = [(p.text, p.share) for p in repeated_phrases(now, ["a b c d"])]
    assert said == [("fell in the black water", 0.6), ("hung by one rope above the water ,", 0.4)]
