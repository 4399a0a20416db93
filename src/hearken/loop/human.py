"""`hearken quickstart --human`: the person at this machine in the labeler's chair of a built-in world.

Practice items are there at once, and in the tale world pairs of tales that the world itself wrote, while the language
model still trains; then come the model's own answers. Every judgment counts. Whoever stops early leaves the rest to
the simulated labelers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from hearken.feedback.records import Judgment, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project
from hearken.training.artifact import write_json
from hearken.worlds.tales.flaws import change_name, repeat_sentence, shuffle_words
from hearken.worlds.tales.world import TaleWorld

Seat = Callable[[Project, Goal], AbstractContextManager[None]]
"""Opens the labelling page for the person at this machine, for as long as the context lasts."""

RECORD = "human.json"
"""In ``runs/``: that the person has finished, and how many judgments they gave."""

WARM_UP_FIRST = 1.0
"""Priority of the pairs that can be judged before the model is trained."""

PATIENCE = 6.0
"""Seconds for which the page is kept up at the end, for an open one to say so; they look every four."""

_TALES = """Choose the tale that **you** would rather read. There is no right answer: your taste is to be learned.

Some tales will be broken: words that make no sense, a name that changes, a story that goes nowhere. You decide how much
that matters."""

CONSENT = (
    "Your judgments stay on this machine, in the project folder. They train a small model, and the report shows what "
    "it learned of your taste."
)

TRIES = 25
"""To take back what the page holds."""
STEPS = {
    "Tale world": "Tales are being written for the model to learn from.",
    "Language model": "A small language model is learning to read.",
    "Supervised fine-tuning": "The model is learning to tell tales.",
    "Sampling": "The model is telling its first tales.",
    "Your judgments": "",
    "Judgments": "Simulated labelers judge what you left.",
    "Reward model": "A reward model is learning your taste.",
    "PPO-ptx": "The model is learning to tell tales that you like.",
    "PPO without ptx": "It learns a second time, without its old texts, for comparison.",
    "Evaluation": "Old and new tales are compared.",
    "Card of the reward model": "What was learnt of your taste is looked at closely.",
}
"""What the person reads while a step runs."""


@dataclass(frozen=True)
class Setting:
    """What the person is asked, in one world."""

    question: str
    guideline: str
    practice: Sequence[dict[str, Any]]
    """Items that show how judging works: prompt, responses, which is best, and why."""
    steps: Mapping[str, str]
    """What the person reads while each step runs."""
    pairs: Sequence[tuple[Prompt, tuple[str, str]]] = ()
    """What can be judged before the model has answered."""


def tales(world: TaleWorld, prompts: Sequence[str]) -> Setting:
    """The tale world: pairs of its own tales for ``prompts`` can be judged at once."""
    return Setting(
        "Which tale do you like best?", _TALES, practice(world), STEPS,
        [(Prompt(content=p, domain="tales"), (world.tale(p, 1), world.tale(p, 2))) for p in prompts],
    )  # fmt: skip


def practice(world: TaleWorld) -> list[dict[str, Any]]:
    """Three items that show a newcomer how judging works: a whole tale and one with a flaw that nobody misses."""
    rng = random.Random(f"practice:{world.seed}")
    items: list[dict[str, Any]] = []
    for flaw, best, why in (
        (shuffle_words, 0, "The second one is a heap of words. A tale should make sense."),
        (
            change_name,
            1,
            "In the first one a name changes halfway. Small slips count where you notice them.",
        ),
        (repeat_sentence, 0, "The second one says the same sentence twice. From now on only your own taste counts."),
    ):
        prompt = world.prompts(len(items) + 1, "heldout")[-1]
        whole = world.tale(prompt, 100)
        broken = flaw(whole, rng)
        responses = [whole, broken] if best == 0 else [broken, whole]
        items.append({"prompt": prompt, "responses": responses, "best": best, "explanation": why})
    return items


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


def leave_the_rest(project: Project) -> None:
    """Simulated labelers answer what the person left, also what their page has taken once more in the meantime."""
    for _ in range(TRIES):
        project.label("simulated")
        with project.store() as store:
            waiting = [item for item in store.items(done=False) if not item.is_gold]
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
