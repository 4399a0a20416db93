"""Pages computed once for each state of the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hearken.feedback.records import utc_now
from hearken.feedback.store import FeedbackStore
from hearken.server.owner_data.book import Book


@dataclass
class Pages:
    """Pages computed once for each state of the store."""

    store: FeedbackStore
    _state: tuple[Any, ...] = ()
    _book: Book | None = None
    _made: dict[Any, Any] = field(default_factory=dict)

    def book(self) -> Book:
        """The book of the newest judgment; a minute old at most in what changes without one."""
        progress = self.store.progress()
        minute = utc_now().replace(second=0, microsecond=0)
        state = (self.store.last_seq(), progress.items, progress.slots_filled, minute)
        if self._book is None or state != self._state:
            self._book, self._state, self._made = Book.load(self.store), state, {}
        return self._book

    def get(self, key: Any, make: Callable[[Book], Any]) -> Any:
        """``make(book)``, remembered under ``key`` until the store changes."""
        book = self.book()
        if key not in self._made:
            self._made[key] = make(book)
        return self._made[key]
