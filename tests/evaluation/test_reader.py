"""The independent judge: its likelihoods against plain transformers, its grade level against the formula by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from chat_folder import write_chat_folder

from hearken.evaluation.reader import Reader, Reading, echoes, grade_level, prefer, reader_win_rates, syllables
from hearken.feedback.examples import Message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model."""
    return write_chat_folder(tmp_path_factory.mktemp("chat"))


def test_readings_are_the_models_own_log_probabilities(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def logprob(asked: str, said: str, after: str) -> float:
        start = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
        )
        ids, more = (tokenizer(t, add_special_tokens=False).input_ids for t in (start + said, after))
        with torch.no_grad():
            logits = model(torch.tensor([ids + more])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        return float(logits.gather(1, torch.tensor(more)[:, None]).sum())

    requests = ["Write a note. Tell the fox that the bear sleeps.", "Tell the owl to sing."]
    texts = ["the bear sleeps happily.", "sing"]
    found = Reader(str(folder)).read([(Message("user", r),) for r in requests], texts)
    for request, text, reading in zip(requests, texts, found, strict=True):
        again, nothing = (
            logprob(f'Somebody wrote this:\n\n"{said}"\n\nWhat was asked for?', "", request) for said in (text, "")
        )
        assert reading.understood == pytest.approx(again - nothing, abs=1e-3)
        assert reading.complete == pytest.approx(logprob(request, text, "<|im_end|>"), abs=1e-4)
        assert reading.says == (again - nothing > 2.0)


def test_grade_level_is_the_published_formula() -> None:
    # 9 words, 2 sentences, 10 syllables: .39 * 4.5 + 11.8 * 10/9 - 15.59
    text = "The cat is on the table. I see it."
    assert grade_level(text) == pytest.approx(0.39 * 4.5 + 11.8 * 10 / 9 - 15.59)
    assert grade_level("") == 0.0 and grade_level("Consequently, organisational deliberations") > 15
    words = {"water": 2, "the": 1, "cake": 1, "apple": 2, "see": 1, "rhythm": 1, "umbrella": 3, "hm": 1}
    assert {word: syllables(word) for word in words} == words


def test_an_echo_is_a_whole_sentence_of_the_request() -> None:
    request = "Write a note to my aunt. Remind her to take the pizza out of the freezer."
    assert echoes(request, "Sure! remind her to take the pizza out of the freezer")
    assert echoes(request, request)
    assert not echoes(request, "Please remember to take the pizza out of the freezer!")


def test_what_says_nothing_loses_and_else_two_readings_of_three_decide() -> None:
    silent = Reading(1.0, -0.1, 3.4, False)  # "No.": as complete and as easy as can be
    good, hard = Reading(20.0, -2.0, -1.0, True), Reading(25.0, -3.0, -9.0, True)
    assert prefer(good, silent) == 1.0 and prefer(silent, good) == 0.0
    assert prefer(good, hard) == 1.0 and prefer(good, good) == 0.5
    rate, single = reader_win_rates([good] * 3, [hard, silent, good], list("abc"))
    assert rate.estimate == pytest.approx((1 + 1 + 0.5) / 3)
    assert single["understood"].estimate == pytest.approx((0 + 1 + 0.5) / 3)


def test_swapping_the_sides_turns_the_verdict_round() -> None:
    rng = random.Random(0)
    some = [Reading(rng.gauss(), rng.gauss(), rng.gauss(), rng.random() < 0.7) for _ in range(40)]
    assert all(prefer(a, b) == 1 - prefer(b, a) for a in some for b in some)
