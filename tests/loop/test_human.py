"""The person in the labeler's chair: a script that plays one with a clear taste, over HTTP, while the run waits."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hearken.feedback.records import Labeler
from hearken.loop import human, quickstart, quickstart_tales, taste
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project, ProjectConfig
from hearken.report.contents import Liking, OwnTaste
from hearken.report.sections.own_taste import said
from hearken.server.settings import LabelSettings
from hearken.statistics.intervals import Interval
from hearken.worlds.tales.world import TaleWorld

WORLD = TaleWorld(0)


class Browser:
    """Cookies, redirects, and where a request comes from; any answer but a success is an error."""

    def __init__(self, base: str) -> None:
        self.base, self.headers = base, {"Origin": base, "Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def get(self, path: str) -> str:
        return self._ask(path, None)

    def post(self, path: str, body: dict[str, Any]) -> str:
        return self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None) -> str:
        request = urllib.request.Request(self.base + path, body, self.headers)
        with self._opener.open(request, timeout=300) as answer:
            return str(answer.read().decode())


class Person(threading.Thread):
    """Comes by the link, agrees, and ranks tales by how many words they have: the longer the better.

    Args:
        link: as the run printed it.
        least: leaves after so many judgments, by the button that says so; 0 for never.
    """

    def __init__(self, link: str, least: int = 0) -> None:
        super().__init__(daemon=True)
        self.link, self.least = link, least
        self.practised, self.judged, self.heard = 0, 0, [""]
        self.problem = ""

    def run(self) -> None:
        base, _, secret = self.link.partition("/enter?to=label#")
        self.http = Browser(base)
        try:
            self._work(secret)
        except Exception as error:
            self.problem = repr(error)

    def _work(self, secret: str) -> None:
        http = self.http
        http.post("/enter", {"secret": secret})
        page = http.get("/label")  # by way of the welcome
        assert "I agree" in page
        http.headers["X-CSRF-Token"] = re.search(r'name="csrf" content="([^"]+)"', page)[1]  # type: ignore[index]
        http.post("/welcome", {"name": "Ann", "consent": True})
        assert "Train now" in http.get("/label")
        while True:
            goal = json.loads(http.get("/goal"))
            if goal["said"] != self.heard[-1]:
                self.heard.append(goal["said"])
            if goal["over"]:
                return
            tasks = json.loads(http.post("/api/v1/claims", {"n": 2, "practice": True}))["tasks"]
            if not tasks or goal["reached"]:
                time.sleep(0.2)
                continue
            self._answer(tasks[0])
            if self.least and self.judged >= self.least:
                http.post("/goal/enough", {})

    def _answer(self, task: dict[str, Any]) -> None:
        lengths = [len(shown["text"].split()) for shown in task["responses"]]
        ranks = [sorted({-n for n in lengths}).index(-n) for n in lengths]
        said = {"id": f"{self.practised + self.judged:032x}", "item_id": task["item_id"], "ticket": task["ticket"]}
        answer = {"kind": "comparison", "ranks": ranks}
        self.http.post("/api/v1/judgments", said | {"answer": answer})
        self.practised += task["practice"]
        self.judged += not task["practice"]


def tiny(plan: quickstart.Plan) -> quickstart.Plan:
    """So small that it runs in seconds, and learns next to nothing."""
    return plan.model_copy(
        update={
            "documents": 150, "heldout_documents": 8, "demonstrations": 160, "prompts": 30, "references": 16,
            "heldout": 8, "ppo": {**plan.ppo, "batch_size": 8, "minibatches": 1, "episodes": 8, "max_new_tokens": 48},
        }
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("least", [0, 6])
def test_a_run_learns_from_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    from hearken.server.seat import seat

    monkeypatch.setattr(quickstart, "FAST", tiny(quickstart.FAST))
    people: list[Person] = []

    def come(address: Any) -> None:
        people.append(Person(address.link, least))
        people[0].start()

    @contextmanager
    def chair(project: Project, goal: Goal) -> Iterator[None]:
        with seat(project.path, goal, on_ready=come):
            yield

    found = quickstart.quickstart(tmp_path / "tales", fast=True, seat=chair)
    people[0].join(60)
    assert people[0].problem == "" and people[0].practised == 3
    assert found.human is not None
    given = found.human.judgments
    assert given >= (least or 12) and (not least or given < 12) and found.human.needed == 12
    # Tales were there to judge before the model had told any, and the run said what it did.
    assert [words for words in people[0].heard if "learning to read" in words]
    assert "report is ready" in people[0].heard[-1]
    project = Project(tmp_path / "tales")
    with project.store() as store:
        kinds = {labeler.id: labeler.kind for labeler in store.labelers()}
        made = [kinds[judgment.labeler_id] for judgment in store.judgments(kinds=("comparison",))]
    assert made.count("person") == given and max(12, given) <= len(made) <= max(12, given) + 1
    likes = {one.name: one for one in (taste.load(project.path) or OwnTaste(judgments=0, needed=0)).likings}
    assert likes["length"].person.estimate == 1.0
    page = found.report.read_text("utf-8")
    assert "Your taste" in page and "You liked" in page and "length" in page
    # Again: nothing is asked, and nothing is different.
    again = quickstart.quickstart(tmp_path / "tales", fast=True, seat=chair)
    assert len(people) == 1 and again.human == found.human


def test_the_goal_counts_people_and_ends_early(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "tales", ProjectConfig(model="m", world="tales"))
    human.prepare(project, quickstart_tales.setting(WORLD, WORLD.prompts(3)))
    human.prepare(project, quickstart_tales.setting(WORLD, WORLD.prompts(3)))  # nothing twice
    with project.store() as store:
        LabelSettings.parse(store.access.settings()[1], where="settings")
        assert len(store.guidelines()) == 1 and store.progress().items == 3
        me, robot = (
            store.add_labeler(Labeler(id=name, name=name, kind=kind)).id  # type: ignore[arg-type]
            for name, kind in (("me", "person"), ("robot", "simulated"))
        )
        goal = Goal(2, lambda: len(human.given(store)))
        from hearken.feedback.records import ComparisonPayload, Judgment

        for labeler in (robot, me):
            [claim] = store.claim(labeler)
            ids = claim.item.response_ids
            said = ComparisonPayload(response_ids=ids, ranks=(0, 1))
            store.submit(Judgment(prompt_id=claim.prompt.id, labeler_id=labeler, item_id=claim.item.id, payload=said))
        assert goal.done == 1 and not goal.reached
        goal.enough()
        human.ask(project, goal)
        assert goal.closed, "what is given back below is not handed out to the person again"
        assert human.record(project) == {"judgments": 1, "needed": 2}
        progress = store.progress()
        assert progress.items - progress.items_done == 1  # as many as are missing


def test_interrupting_the_wait_means_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    goal = Goal(5, lambda: 2)

    def interrupt(_: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(goal._enough, "wait", interrupt)
    assert goal.wait("Your judgments") == 2 and goal.reached


def test_practice_is_right_about_its_tales() -> None:
    for item in quickstart_tales.practice(WORLD):
        worth = [WORLD.gold(item["prompt"], text) for text in item["responses"]]
        assert worth[item["best"]] == max(worth) and worth[0] != worth[1]


def test_what_is_said_of_a_taste() -> None:
    likings = [
        Liking(name="danger", person=Interval(0.9, 0.7, 0.98), pairs=20),
        Liking(name="kindness", person=Interval(0.2, 0.1, 0.4), pairs=20),
        Liking(name="talking", person=Interval(0.6, 0.4, 0.8), pairs=20),
    ]
    words = said(OwnTaste(judgments=10, needed=12, likings=likings, agreement=Interval(0.8, 0.6, 0.9), held_out=15))
    assert "other 2" in words and "You liked: danger." in words and "You disliked: kindness." in words
    assert "talking" not in words and "15 pairs" in words
    assert "No liking stands out" in said(OwnTaste(judgments=10, needed=10, likings=likings[2:]))
