"""`hearken quickstart --human`: the person at this machine in the labeler's chair of a built-in world.

Practice items are there at once, and in the tale world pairs of tales that the world itself wrote, while the language
model still trains; then come the model's own answers. Every judgment counts. Whoever stops early leaves the rest to
the simulated labelers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypedDict

from hearken.feedback.records import Judgment, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project
from hearken.training.artifact import write_json

Seat = Callable[[Project, Goal], AbstractContextManager[None]]
"""Opens the labelling page for the person at this machine, for as long as the context lasts."""

RECORD = "human.json"
"""In ``runs/``: that the person has finished, and how many judgments they gave."""

WARM_UP_FIRST = 1.0
"""Priority of the pairs that can be judged before the model is trained."""

PATIENCE = 6.0
"""Seconds for which the page is kept up at the end, for an open one to say so; they look every four."""

CONSENT = (
    "Your judgments stay on this machine, in the project folder. They train a small model, and the report shows what "
    "it learned of your taste."
)

TRIES = 25
"""To take back what the page holds."""


class Practice(TypedDict):
    """An item that shows how judging works."""

    prompt: str
    responses: list[str]
    best: int
    """Which of them."""
    explanation: str


@dataclass(frozen=True)
class Setting:
    """What the person is asked, in one world."""

    question: str
    guideline: str
    practice: Sequence[Practice]
    steps: Mapping[str, str]
    """What the person reads while each step runs."""
    pairs: Sequence[tuple[Prompt, tuple[str, str]]] = ()
    """What can be judged before the model has answered."""


def prepare(project: Project, setting: Setting) -> None:
    """How the person is asked, and what they can judge at once."""
    with project.store() as store:
        if store.access.settings()[0] == 0:
            store.access.set_settings(
                {
                    "project": "Your taste", "question": setting.question, "consent": CONSENT,
                    "practice": list(setting.practice), "check_share": 0.0,
                }
            )  # fmt: skip
            store.add_guideline(setting.guideline)
        store.add_prompts(prompt for prompt, _ in setting.pairs)
        for prompt, texts in setting.pairs:
            pair = [Response(prompt_id=prompt.id, text=text, sample=n) for n, text in enumerate(texts, 1)]
            store.add_responses(pair)
            ids = tuple(response.id for response in pair)
            store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=ids, priority=WARM_UP_FIRST, propensity=1.0)])


def given(store: FeedbackStore) -> list[Judgment]:
    """The comparisons that people gave, practice left out."""
    people = {labeler.id for labeler in store.labelers(kind="person")}
    return [judgment for judgment in store.judgments(kinds=("comparison",)) if judgment.labeler_id in people]


def record(project: Project) -> dict[str, int] | None:
    """``judgments`` and ``needed`` once the person has finished, else None."""
    file = project.path / "runs" / RECORD
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def ask(project: Project, goal: Goal) -> None:
    """Wait for the person; then leave just as many items in the queue as are missing, held-out ones first."""
    found = goal.wait("Your judgments")
    goal.closed = True  # else the page takes again what is given back below
    with project.store() as store:
        held_out = {prompt.id for prompt in store.prompts(split="validation")}
        waiting = [item for item in store.items(done=False) if not item.is_gold]
        waiting.sort(key=lambda item: item.prompt_id not in held_out)  # stable
        tested = any(judgment.prompt_id in held_out for judgment in given(store))
        missing = max(goal.needed - found, 0 if tested else 1)  # a reward model is tested on one at least
        store.close_items(item.id for item in waiting[missing:])
        people = [labeler.id for labeler in store.labelers(kind="person")]
        for item in waiting[:missing]:  # the page holds some for whoever has left
            for person in people:
                store.release(item.id, person)
    write_json(project.path / "runs" / RECORD, {"judgments": found, "needed": goal.needed})


def leave_the_rest(project: Project, only: Collection[str] | None = None) -> None:
    """Simulated labelers answer what the person left (or ``only`` the items with these ids).

    Also what their page has taken once more in the meantime.
    """
    for _ in range(TRIES):
        project.label("simulated", only=only)
        with project.store() as store:
            waiting = [i for i in store.items(done=False) if not i.is_gold and (only is None or i.id in only)]
            for item in waiting:
                for person in store.labelers(kind="person"):
                    store.release(item.id, person.id)
        if not waiting:
            return
        time.sleep(0.2)


@contextmanager
def seated(project: Project, setting: Setting, needed: int, seat: Seat) -> Iterator[Goal]:
    """The page is open, and shows what is said to the goal; at the end it says where the report lies."""
    prepare(project, setting)
    with project.store() as store:
        goal = Goal(needed, lambda: len(given(store)))
        with seat(project, goal):
            try:
                yield goal
            except BaseException:
                goal.finish("The run was interrupted. Start the same command again to go on; nothing is lost.")
                raise
            goal.finish(f"The report is ready: {project.path / 'report.html'}", patience=PATIENCE)
