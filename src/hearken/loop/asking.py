"""Asking for judgments, and waiting for them: people by the pages of `hearken serve`, machines at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from hearken.errors import Pause, UserError
from hearken.feedback.records import QueueItem
from hearken.feedback.store import FeedbackStore
from hearken.labelers.kinds import Who
from hearken.loop.human import leave_the_rest
from hearken.progress import progress

if TYPE_CHECKING:
    from hearken.loop.project import Project

AT_ONCE = 1e6
"""Priority of items for machines, which take theirs before anything that waits for people."""


class Waiting(Pause):
    """Judgments of people are missing, and nobody wants to wait here."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} judgments are missing")
        self.missing = missing


class Patience(Protocol):
    """What `wait_for` needs to know about waiting."""

    @property
    def enough(self) -> float:
        """Share of the judgments after which it goes on."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How often it looks."""
        ...


def ask(
    project: Project,
    items: Sequence[QueueItem],
    who: Who,
    *,
    label: str,
    wait: bool = True,
    seed: int | None = None,
    announce: Callable[[str], None] = lambda _: None,
    relieved: Callable[[], bool] = lambda: False,
) -> None:
    """Put items into the queue, have them judged, and close those that are left when enough are.

    Doing it again asks nothing twice: items and the judgments of machines have the ids of their contents.

    Args:
        project: whose queue; its section ``loop`` names the AI labeler, and what share of the judgments is enough.
        items: all for the same labelers.
        who: machines answer at once; for people this waits.
        label: beside the progress bar.
        wait: for people; else raise `Waiting` where they are not done.
        seed: of machines.
        announce: takes a line for the person at the terminal.
        relieved: whether people have had enough; simulated labelers do the rest then.

    Raises:
        Waiting: see ``wait``.
        UserError: no such labelers here.
    """
    if not items:
        return
    config = project.config.loop
    if who == "ai" and not config.ai.judge:
        raise UserError(
            "an AI labeler needs a model", "Set loop.ai.judge (and loop.ai.url), e.g. -o loop.ai.judge=NAME"
        )
    with project.store() as store:
        first = {} if who == "people" else {"priority": AT_ONCE}
        store.enqueue([item.model_copy(update=first) for item in items])
    only = {item.id for item in items}  # others may wait for people
    if who == "simulated":
        project.label("simulated", seed=seed, only=only)
    elif who == "ai":
        project.ai_labels(config.ai, seed=seed, announce=announce, only=only)
    else:
        with project.store() as store:
            wait_for(store, items, config, label=label, wait=wait, announce=announce, relieved=relieved)
        if relieved():
            leave_the_rest(project, only)
    with project.store() as store:
        store.close_items(item.id for item in items if not store.item(item.id).done)


def wait_for(
    store: FeedbackStore,
    items: Sequence[QueueItem],
    patience: Patience,
    *,
    label: str,
    wait: bool,
    announce: Callable[[str], None] = lambda _: None,
    relieved: Callable[[], bool] = lambda: False,
) -> None:
    """Until people have filled enough slots of ``items``, or are relieved; a bar shows how far they are.

    Raises:
        Waiting: see ``wait``.
    """
    ids = {item.id for item in items}
    target = max(round(patience.enough * sum(item.slots for item in items)), 1)
    rounds = {item.round for item in items}
    have = filled(store, ids, rounds)
    if have >= target or relieved():
        return
    if not wait:
        raise Waiting(target - have)
    announce(f"{target - have} judgments of people are needed. They judge in the pages of: hearken serve")
    with progress(label, target - have, "judgment") as bar, _ctrl_c_means_later(lambda: target - have):
        while have < target and not relieved():
            time.sleep(patience.poll_seconds)
            now = filled(store, ids, rounds)
            if now != have:
                bar.advance(min(now, target) - have)
                have = now


@contextmanager
def _ctrl_c_means_later(missing: Callable[[], int]) -> Iterator[None]:
    """Within a training run, which would finish its step before it heeds Ctrl-C, raise `Waiting` instead."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN, None):
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Waiting(missing()) from None
    finally:
        signal.signal(signal.SIGINT, before)


def filled(store: FeedbackStore, ids: set[str], rounds: set[int | None]) -> int:
    """Slots filled of the items with these ids, all of these rounds."""
    only = next(iter(rounds)) if len(rounds) == 1 else None
    return sum(item.filled for item in store.items(round=only) if item.id in ids)


def check_labelers(project: Project, labelers: Sequence[Who]) -> None:
    """Refuse labelers that cannot answer here, before anything is sampled.

    Raises:
        UserError: simulated labelers without a world.
    """
    if "simulated" in labelers and not project.config.world:
        raise UserError(
            "simulated labelers need a world that knows the true reward; this project has none",
            "Set loop.labelers to people or ai, or set world: tales in hearken.yaml for the built-in one",
        )
