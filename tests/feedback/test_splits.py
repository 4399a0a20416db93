"""Deduplication, splits by prompt, leakage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration, Document, Message, PromptOnly, Rating, Thumb
from hearken.feedback.splits import (
    check_leakage,
    deduplicate,
    of_labelers,
    side,
    split_by_labeler,
    split_by_prompt,
)


def test_votes_add_up_and_only_what_was_read_twice_goes() -> None:
    pair = Comparison("p", ("a", "b"), (0, 1), metadata={"row": 1})
    rows = [
        pair,
        pair,  # a second vote
        Comparison("p", ("b", "a"), (1, 0)),  # a third, the other way round
        Comparison("p", ("b", "a"), (0, 1)),  # one against
        Thumb("p", "a", True),
        Thumb("p", "a", True),
        Rating("p", "a", {"x": 1}),
        Rating("p", "a", {"x": 1.0}),
        Demonstration("p", "a"),
        Demonstration("p", "a"),
        PromptOnly("p"),
        PromptOnly("p"),  # a prompt is nobody's vote
        PromptOnly((Message("user", "p"),)),
        Document("p"),
        Document("p", {"file": "x"}),
    ]
    found = deduplicate(rows)
    assert found.kept == [row for number, row in enumerate(rows) if number not in (11, 14)]
    assert (found.removed, found.repeated) == (2, 5)


def test_a_judgment_with_an_id_or_a_labeler_is_one_however_often_it_is_read() -> None:
    rows = [Thumb("p", "a", True, metadata={"judgment": name, "n": n}) for n, name in enumerate("xyx")]
    assert deduplicate(rows).kept == rows[:2]
    ana = [Comparison("p", ("a", "b"), (0, 1), metadata={"labeler": "ana", "day": day}) for day in (1, 2, 1)]
    swapped = Comparison("p", ("b", "a"), (1, 0), metadata={"labeler": "ana", "day": 1})
    found = deduplicate([*ana, swapped, Comparison("p", ("a", "b"), (1, 0), metadata={"labeler": "ana", "day": 1})])
    assert [(row.metadata["day"], row.ranks) for row in found.kept] == [(1, (0, 1)), (2, (0, 1)), (1, (1, 0))]
    assert (found.removed, found.repeated) == (2, 0)


@given(st.lists(st.tuples(st.sampled_from("pq"), st.booleans(), st.sampled_from([None, "ana", "bo"])), max_size=12))
def test_no_unnamed_vote_is_ever_lost(votes: list[tuple[str, bool, str | None]]) -> None:
    rows = [
        Comparison(prompt, ("a", "b"), (0, 1) if better else (1, 0), metadata={"labeler": who} if who else {})
        for prompt, better, who in votes
    ]
    kept = deduplicate(rows).kept
    assert [r for r in kept if not r.metadata] == [r for r in rows if not r.metadata]
    named = [(r.prompt, r.ranks, r.metadata["labeler"]) for r in kept if r.metadata]
    assert sorted(named) == sorted({(r.prompt, r.ranks, r.metadata["labeler"]) for r in rows if r.metadata})


@given(st.lists(st.text(max_size=3), max_size=30), st.lists(st.text(max_size=3), max_size=30), st.integers(0, 5))
def test_a_split_is_stable_and_clean(first: list[str], more: list[str], seed: int) -> None:
    rows = [Thumb(prompt, str(number), True) for number, prompt in enumerate(first)]
    added = [Demonstration(prompt, "d") for prompt in more]
    small, large = split_by_prompt(rows, 0.4, seed), split_by_prompt(rows + added, 0.4, seed)
    assert sorted(small.train + small.validation, key=lambda e: int(e.response)) == rows
    assert small.train == [row for row in large.train if isinstance(row, Thumb)]
    assert small.validation == [row for row in large.validation if isinstance(row, Thumb)]
    assert not check_leakage(large.train, large.validation, strict=True)


def test_the_share_and_the_seed() -> None:
    prompts = [f"prompt {number}" for number in range(4000)]
    sides = {seed: [side(prompt, 0.25, seed) == "validation" for prompt in prompts] for seed in (0, 1)}
    for chosen in sides.values():
        assert sum(chosen) == pytest.approx(1000, abs=110)  # four standard errors
    assert sum(a and b for a, b in zip(sides[0], sides[1], strict=True)) == pytest.approx(250, abs=62)
    assert {side(prompt, 0.0) for prompt in prompts} == {"train"}
    assert {side(prompt, 1.0) for prompt in prompts} == {"validation"}


def test_the_split_is_the_same_on_every_machine() -> None:
    # Fixed for good: another hash would move prompts between train and validation of existing projects.
    assert [side(f"prompt {n}", 0.5) for n in range(8)] == [
        "train", "validation", "train", "train", "validation", "train", "validation", "validation",
    ]  # fmt: skip
    dialogue = (Message("user", "Tell  a TALE"),)
    assert side(dialogue, 0.5) == side((Message("user", "tell a tale"),), 0.5)


def test_leakage_tells_equal_from_nearly_equal() -> None:
    train = [PromptOnly("Tell a tale."), PromptOnly((Message("user", "Hi"),)), Document("Once")]
    validation = [Thumb("tell  a tale.\n", "x", True), Thumb("Tell a tale.", "x", True), PromptOnly("Hi")]
    validation += [Document("once"), Demonstration((Message("user", "Hi"),), "x"), Thumb("tell  a tale.\n", "y", True)]
    found = check_leakage(train, validation)
    assert found.exact == ("Tell a tale.", (Message("user", "Hi"),))
    assert found.near == ("tell  a tale.\n", "once")
    assert found.validation_rows == 5
    assert str(found) == "4 prompts of the validation data (5 rows) are in the training data, 2 of them nearly"
    with pytest.raises(UserError, match="4 prompts of the validation data"):
        check_leakage(train, validation, strict=True)


def test_a_share_is_a_share() -> None:
    with pytest.raises(UserError, match=r"0\.\.1, not 10"):
        split_by_prompt([], 10)


def test_judgments_of_some_labelers_and_whole_labelers_held_out() -> None:
    rows = [
        Comparison(f"p{i}", ("a", "b"), (0, 1), metadata={"labeler": f"l{i % 4}", "attributes": {"group": "xy"[i % 2]}})
        for i in range(12)
    ]
    assert len(of_labelers(rows, "group=x")) == 6 and len(of_labelers(rows, "labeler=l3")) == 3
    with pytest.raises(UserError, match="no judgment has group=z") as caught:
        of_labelers(rows, "group=z")
    assert "x, y" in caught.value.hint
    with pytest.raises(UserError, match="KEY=VALUE"):
        of_labelers(rows, "group")
    split = split_by_labeler(rows, 0.25)
    inside, outside = ({r.metadata["labeler"] for r in side} for side in (split.train, split.validation))
    assert len(outside) == 1 and not inside & outside and len(split.train) + len(split.validation) == 12
    assert split_by_labeler(rows, 0.25) == split
    with pytest.raises(UserError, match="none can be held out"):
        split_by_labeler(rows[:1], 0.5)
