"""Group commit: calls that come at the same time, from several threads, are done together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Call(Generic[T, R]):
    def __init__(self, value: T) -> None:
        self.value = value
        self.result: R
        self.error: Exception | None = None
        self.done = False


class Together(Generic[T, R]):
    """Does for many callers at once what each asks for. Nobody waits for company: while one group is being done, those
    who come wait for their turn anyway, and the first of them does the work of all.

    Args:
        do: takes the values of a group and returns their results in the same order; does all of it or, where it
            raises, nothing.

    Example:
        >>> Together(lambda values: [2 * value for value in values])(21)
        42
    """

    def __init__(self, do: Callable[[list[T]], Sequence[R]]) -> None:
        self._do = do
        self._turn = threading.Lock()
        self._waiting: deque[_Call[T, R]] = deque()

    def __call__(self, value: T) -> R:
        """The result for one value. What goes wrong with it is raised here, and hurts no other caller."""
        mine: _Call[T, R] = _Call(value)
        self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                calls = [self._waiting.popleft() for _ in range(len(self._waiting))]
                try:
                    self._serve(calls)
                except BaseException:  # Ctrl-C, which is for this caller alone
                    self._waiting.extend(call for call in calls if call is not mine and not call.done)
                    raise
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _serve(self, calls: list[_Call[T, R]]) -> None:
        try:
            for call, result in zip(calls, self._do([call.value for call in calls]), strict=True):
                call.result, call.done = result, True
        except Exception as error:
            if len(calls) == 1:
                calls[0].error, calls[0].done = error, True
                return
            for call in calls:  # whose fault it was shows when each is done alone
                self._serve([call])
