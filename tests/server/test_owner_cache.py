"""Pages are computed once, in the background where they take long, and say as of when they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from owner_world import fill

from hearken.errors import UserError
from hearken.feedback.analysis import Book
from hearken.feedback.records import Judgment as Said
from hearken.feedback.records import Labeler, Prompt, Response, ThumbPayload
from hearken.feedback.store import FeedbackStore
from hearken.server.owner_cache import Pages


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        fill(store, prompts=4, open_items=0)
        yield store


def judge(store: FeedbackStore) -> int:
    """One more judgment; its number."""
    response = next(store.responses())
    said = ThumbPayload(response_id=response.id, label=True)
    return store.submit(Said(prompt_id=response.prompt_id, labeler_id="ana", payload=said)).seq or 0


def test_a_page_is_made_once_for_each_state_of_the_store(store: FeedbackStore) -> None:
    pages, made = Pages(store, patience=60), []

    def count(book: Book) -> int:
        made.append(book.as_of)
        return len(book.judgments)

    first = pages.get("n", count)
    assert first is not None and first.behind == 0 and first.as_of == store.last_seq() and pages.read == first.as_of
    assert pages.get("n", count) == first and len(made) == 1
    seq = judge(store)
    second = pages.get("n", count)
    assert second is not None and second.value == first.value + 1 and second.as_of == seq and len(made) == 2
    store.add_labeler(Labeler(id="new", name="New"))
    assert pages.get("n", count) is not None and len(made) == 3
    prompt = next(store.prompts())
    store.add_responses([Response(prompt_id=prompt.id, text="one more", policy="late")])
    book = pages.book()
    assert book is not None and book.value.policies[-1] == "late"


def test_what_takes_long_is_shown_as_it_was(store: FeedbackStore) -> None:
    pages, go = Pages(store, patience=0.05), threading.Event()

    def slow(book: Book) -> int:
        assert go.wait(60)
        return book.as_of

    assert pages.get("slow", slow) is None  # the first time there is nothing to show
    go.set()
    assert pages.wait("slow", slow) == store.last_seq()
    go.clear()
    seq = judge(store)
    old = pages.get("slow", slow)
    assert old is not None and (old.value, old.behind, old.newest) == (seq - 1, 1, seq)
    go.set()
    assert pages.wait("slow", slow) == seq


def test_what_takes_long_is_not_made_all_the_time(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.server.owner_cache.REST", 1e9)
    pages, made = Pages(store, patience=60), []

    def count(book: Book) -> int:
        made.append(sum(range(100_000)))
        return book.as_of

    first = pages.wait("n", count)
    judge(store)
    again = pages.get("n", count)
    assert again is not None and again.value == first and again.behind == 1 and len(made) == 1


def test_after_an_erasure_nothing_older_is_shown(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.server.owner_cache.REST", 1e9)
    pages = Pages(store, patience=60)
    counted = pages.wait("n", lambda book: int(book.work.sum()))
    store.erase("judgment", next(store.judgments(checks=False)).id, "asked for")
    assert pages.wait("n", lambda book: int(book.work.sum())) == counted - 1


def test_what_goes_wrong_is_raised_and_tried_again(store: FeedbackStore) -> None:
    pages = Pages(store, patience=60)

    def wrong(book: Book) -> int:
        raise UserError("the database is away", "Wait")

    for _ in range(2):
        with pytest.raises(UserError, match="away"):
            pages.get("n", wrong)
    assert pages.wait("n", lambda book: 1) == 1


def test_a_response_that_was_committed_late_is_found(store: FeedbackStore) -> None:
    """PostgreSQL may commit a lower number after a higher one was read: the book is then read again."""
    book = Book.load(store)
    prompt = next(store.prompts())
    late = Response(prompt_id=prompt.id, text="late")
    store.add_responses([late])
    store.submit(Said(prompt_id=prompt.id, labeler_id="ana", payload=ThumbPayload(response_id=late.id, label=True)))
    judgment, response, prompts, stones = book.state
    unaware = Book(**{**vars(book), "state": (judgment, response + 1, prompts, stones)})
    assert len(unaware.updated(store).responses) == len(book.responses) + 1


def test_an_empty_store(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        pages = Pages(store, patience=60)
        assert pages.wait("n", lambda book: len(book.judgments)) == 0
        store.add_prompts([Prompt(content="p")])
        assert pages.book() is not None
