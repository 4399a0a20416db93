"""A seat for the person at this machine: the labelling pages beside a run that waits for judgments."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hearken.loop.labelling_target import Goal
from hearken.server.run import Address, Invitation, Network, serve


@contextmanager
def seat(
    project: Path | str, goal: Goal, *, on_ready: Callable[[Address], None] | None = None, open_browser: bool = False
) -> Iterator[None]:
    """Serve the pages, in a thread of their own, for as long as the context lasts.

    Args:
        project: the project folder.
        goal: what the labelers' page shows of the run.
        on_ready: called with the address, whose link leads to the labelling page.
        open_browser: open that link.

    Raises:
        UserError: see `run.serve`.
    """
    stop, up = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def ready(address: Address) -> None:
        if on_ready is not None:
            on_ready(address)
        up.set()

    def work() -> None:
        try:
            serve(
                project, network=Network(port=0), invitation=Invitation(landing="/label", open_browser=open_browser),
                on_ready=ready, until=stop.is_set, goal=goal,
            )  # fmt: skip
        except BaseException as error:
            problems.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=work, name="labelling pages", daemon=True)
    thread.start()
    up.wait()
    if problems:
        raise problems[0]
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
