"""Pages computed in the background, and shown as of the judgment up to which they were computed."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from fastapi import Request

from hearken.feedback.analysis.book import Book
from hearken.feedback.figures import State, state_of
from hearken.feedback.records import Labeler, utc_now
from hearken.feedback.store import FeedbackStore
from hearken.server.security import store_of

T = TypeVar("T")

PATIENCE = 0.4
"""Seconds that a visitor waits for what is being computed, before being shown what there is."""

REST = 10.0
"""What took t seconds to compute is not computed again for so many times t, so that labelers have the processor."""


_BOOK = "book"


@dataclass(frozen=True)
class Made(Generic[T]):
    """A page, and what it is of."""

    value: T
    as_of: int
    """The newest judgment that it takes into account."""
    newest: int
    """The newest judgment that there is."""
    when: datetime
    """When it was computed."""

    @property
    def behind(self) -> int:
        """Newer judgments that it does not take into account."""
        return self.newest - self.as_of


@dataclass
class _Work:
    """The computation of one page."""

    key: Hashable
    make: Callable[[Book], Any]
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(frozen=True)
class _Kept:
    """A page that was computed, and what it depends on."""

    value: Any
    state: State
    labelers: Mapping[str, Labeler]
    when: datetime
    rested: float
    """From when on (monotonic time) it may be computed again."""


class Pages:
    """The pages of one store, computed once for each state of it, in the background, from one book.

    Nobody waits long: what is not computed in a moment is shown as it was before, or not yet. Nothing that was computed
    before an erasure is shown after it. One page is computed at a time, so that memory and the labelers' share of the
    processor do not depend on how many are looked at.

    Args:
        store: the feedback database.
        patience: seconds to wait for a page.
    """

    def __init__(self, store: FeedbackStore, patience: float = PATIENCE) -> None:
        self._store, self._patience = store, patience
        self._book, self._read = Book(utc_now()), 0
        self._kept: dict[Hashable, _Kept] = {}
        self._lock, self._reading = threading.Lock(), threading.Lock()
        # What is to be done, and is being done (the first of each): reading the book alone, and making pages of it.
        self._reads: deque[_Work] = deque()
        self._makes: deque[_Work] = deque()

    @property
    def read(self) -> int:
        """The judgment up to which the store has been read so far."""
        return self._read

    def get(self, key: Hashable, make: Callable[[Book], T], patience: float | None = None) -> Made[T] | None:
        """``make`` of the newest book; of an older one where that would take long; None where there is none yet.

        Args:
            key: what is made; remembered under it.
            make: makes it, in another thread.
            patience: seconds to wait at most; by default those of these pages.

        Raises:
            UserError: or whatever went wrong with ``make``, or with reading the store.
        """
        state, labelers = state_of(self._store), _labelers(self._store)
        with self._lock:
            kept = self._current(key, state)
            lane = self._reads if key == _BOOK else self._makes
            work = next((work for work in lane if work.key == key), None)
            if kept is not None and (kept.state, kept.labelers) == (state, labelers):
                work = None
            elif work is None and (kept is None or time.monotonic() >= kept.rested):
                work = _Work(key, make)
                lane.append(work)
                if len(lane) == 1:
                    threading.Thread(target=self._run, args=(lane,), daemon=True).start()
        if work is not None and work.done.wait(self._patience if patience is None else patience):
            if work.error is not None:
                raise work.error
            kept = self._current(key, state)
        return None if kept is None else Made(kept.value, kept.state[0], max(state[0], kept.state[0]), kept.when)

    def wait(self, key: Hashable, make: Callable[[Book], T]) -> T:
        """``make`` of a book, however long that takes: for files that are taken home."""
        while (made := self.get(key, make, threading.TIMEOUT_MAX)) is None:
            pass
        return made.value

    def book(self) -> Made[Book] | None:
        """The book itself."""
        return self.get(_BOOK, lambda book: book)

    def _current(self, key: Hashable, state: State) -> _Kept | None:
        """What is kept, where nothing was erased since."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.state[-1] == state[-1] else None

    def _run(self, lane: deque[_Work]) -> None:
        """Do what there is to do, one after the other."""
        while True:
            work = lane[0]
            try:
                kept = self._do(work.make)
                with self._lock:
                    self._kept[work.key] = kept
            except BaseException as error:
                work.error = error
            with self._lock:
                lane.popleft()
                work.done.set()
                if not lane:
                    return

    def newest(self) -> Book:
        """The book of this moment, brought up to date by whoever asks."""
        with self._reading:
            self._book = self._book.updated(self._store, say=self._note)
            return self._book

    def _do(self, make: Callable[[Book], Any]) -> _Kept:
        book = self.newest()
        began = time.thread_time()
        value = make(book)
        rested = time.monotonic() + REST * (time.thread_time() - began)
        return _Kept(value, book.state, book.labelers, utc_now(), rested)

    def _note(self, number: int) -> None:
        self._read = number


def pages_of(request: Request) -> Pages:
    """The computed pages of this server's store."""
    found: Pages | None = getattr(request.app.state, "owner_pages", None)
    if found is None:
        found = request.app.state.owner_pages = Pages(store_of(request))
    return found


def _labelers(store: FeedbackStore) -> dict[str, Labeler]:
    return {labeler.id: labeler for labeler in store.labelers()}
