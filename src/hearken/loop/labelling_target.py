"""What a run waits for from the people who judge, so many judgments, and what the run tells them meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hearken.progress import progress

LOOK = 0.5
"""Seconds between two looks at how far the labelers are."""


class Goal:
    """So many judgments, shown on the labelers' page. Shared between the run and the server's threads.

    Args:
        needed: how many judgments the run waits for.
        count: how many there are.
    """

    def __init__(self, needed: int, count: Callable[[], int]) -> None:
        self.needed = needed
        self.said = ""
        """What happens now, in a sentence."""
        self.over = False
        """The run has ended; ``said`` says how."""
        self.closed = False
        """People are given nothing more: what they left is others' to judge."""
        self._count = count
        self._enough = threading.Event()
        self._told = threading.Event()

    @property
    def done(self) -> int:
        """Judgments so far."""
        return self._count()

    @property
    def reached(self) -> bool:
        """There are as many as are needed, or somebody said that it is enough."""
        return self._enough.is_set() or self.done >= self.needed

    def say(self, words: str) -> None:
        """Tell the labelers what happens now."""
        self.said = words

    def enough(self) -> None:
        """Wait no longer."""
        self._enough.set()

    def finish(self, words: str, patience: float = 0.0) -> None:
        """The run has ended. Waits until somebody has read so, for ``patience`` seconds at most."""
        self.said = words
        self.over = True  # after the words: whoever reads this has them
        self._told.wait(patience)

    def told(self) -> None:
        """Somebody has read that the run has ended."""
        self._told.set()

    def wait(self, label: str) -> int:
        """Wait for the judgments, with progress; Ctrl-C says that it is enough. Returns how many there are."""
        with progress(label, self.needed, "judgment") as bar:
            seen = 0
            try:
                while True:
                    now = self.done
                    bar.advance(now - seen, "stop early with Ctrl-C")
                    seen = now
                    if self._enough.wait(LOOK if now < self.needed else 0) or now >= self.needed:
                        break
            except KeyboardInterrupt:
                self.enough()
        return self.done
