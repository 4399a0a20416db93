"""Progress of long work on stderr: a bar with time left on a terminal, a few plain lines elsewhere, or nothing.

Any code that takes more than two seconds says so through `progress`; nobody else prints. ``HEARKEN_QUIET=1`` or
`quiet` silence it, so that stdout and stderr stay clean for scripts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_quiet: ContextVar[bool] = ContextVar("quiet", default=False)

LINE_SECONDS = 10.0
"""Where stderr is not a terminal, a line is written at most this often."""


PATIENCE = 2.0
"""Seconds that work may take without a word."""


class Bar(Protocol):
    """What a piece of work tells how far it is."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """``n`` more units are done; ``note`` is a short figure worth seeing, e.g. ``"loss 0.42"``."""


@contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Silence all progress inside this context."""
    token = _quiet.set(on or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether progress is silenced."""
    return _quiet.get() or os.environ.get("HEARKEN_QUIET", "") not in ("", "0")


@contextmanager
def progress(label: str, total: int | None, unit: str = "step", *, patient: bool = False) -> Iterator[Bar]:
    """Show how far a piece of work is.

    Args:
        label: what is being done, a few words.
        total: how many units there are; None where that cannot be known.
        unit: what is counted, singular.
        patient: show nothing before `PATIENCE` is over: for work that is mostly done sooner.

    Yields:
        A bar to ``advance``. Bars may be nested: the inner one stands below.
    """
    if is_quiet():
        yield _Silent()
    elif patient:
        with ExitStack() as stack:
            yield _Patient(lambda: stack.enter_context(progress(label, total, unit)))
    elif not sys.stderr.isatty():
        yield (lines := _Lines(label, total, unit))
        lines.finish()
    else:
        yield from _show_bar(label, total, unit)


class _Silent:
    def advance(self, n: int = 1, note: str = "") -> None:
        pass


class _Patient:
    """Opens a bar at the first advance after `PATIENCE`."""

    def __init__(self, open_bar: Callable[[], Bar], clock: Callable[[], float] = time.monotonic) -> None:
        self.open_bar, self.clock, self.start = open_bar, clock, clock()
        self.done = 0
        self.bar: Bar | None = None

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        if self.bar is not None:
            self.bar.advance(n, note)
        elif self.clock() - self.start >= PATIENCE:
            self.bar = self.open_bar()
            self.bar.advance(self.done, note)


class _Lines:
    """Sparse plain lines, for logs: one when work starts taking long, then one every `LINE_SECONDS`, and a last one."""

    def __init__(self, label: str, total: int | None, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.label, self.total, self.unit, self.clock = label, total, unit, clock
        self.done, self.note = 0, ""
        self.start = self.last = clock()

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        now = self.clock()
        if now - self.last >= LINE_SECONDS:
            self.last = now
            left = ""
            if self.total and self.done:
                left = f", {duration((now - self.start) * (self.total - self.done) / self.done)} left"
            self._write(f"{self._count()}{left}")

    def finish(self) -> None:
        self._write(f"{self._count()} in {duration(self.clock() - self.start)}")

    def _count(self) -> str:
        units = self.unit if (self.total or self.done) == 1 else f"{self.unit}s"
        return f"{self.done}/{self.total} {units}" if self.total is not None else f"{self.done} {units}"

    def _write(self, text: str) -> None:
        note = f" ({self.note})" if self.note else ""
        print(f"{self.label}: {text}{note}", file=sys.stderr, flush=True)


class _RichBar:
    def __init__(self, live: Progress, task: TaskID) -> None:
        self.live, self.task, self.note = live, task, ""

    def advance(self, n: int = 1, note: str = "") -> None:
        self.note = note or self.note
        self.live.update(self.task, advance=n, note=self.note)


@cache
def console() -> Console:
    """The Rich console on stderr that bars are drawn on; print through it while a bar is shown."""
    from rich.console import Console

    return Console(stderr=True)


_live: list[Progress] = []
"""The bars on screen, as one Rich display: nested work adds a line to it."""


def _show_bar(label: str, total: int | None, unit: str) -> Iterator[Bar]:
    from rich import progress as rich

    outermost = not _live
    if outermost:
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(bar_width=28),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[unit]}"),
            rich.TimeElapsedColumn(),
            rich.TextColumn("left"),
            rich.TimeRemainingColumn(),
            rich.TextColumn("[dim]{task.fields[note]}"),
        )
        _live.append(rich.Progress(*columns, console=console()))
        _live[0].start()
    live = _live[0]
    task = live.add_task(label, total=total, unit=f"{unit}s", note="")
    try:
        yield _RichBar(live, task)
    finally:
        if outermost:
            _live.clear()
            live.stop()
        else:
            live.remove_task(task)


def duration(seconds: float) -> str:
    """A duration for people: ``8 s``, ``2 min 05 s``, ``3 h 10 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
