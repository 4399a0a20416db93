"""Rounds in an environment whose labels go on arriving while the policy trains: machines, people, and interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')
pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')

from hearken.cli.main import app
from hearken.errors import UserError
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler
from hearken.loop.project import Project
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop
from hearken.server.owner import at_work
from hearken.training.artifact import Artifact

HERE = str(Path(__file__).parent)


@pytest.fixture(autouse=True)
def _line_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


def made(folder: Path, labelers: str = "simulated", **online: Any) -> Project:
    agent = folder.parent / "agent"
    agent.mkdir(exist_ok=True)
    (agent / "environment.json").write_text(json.dumps({"id": "line_world:Line-v0"}))
    done = CliRunner().invoke(app, ["init", str(folder), "--model", str(agent)], prog_name="hearken")
    assert done.exit_code == 0, done.output
    file = folder / "hearken.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["world"], settings["sample"]["k"], settings["validation"] = "returns", 2, 0.1
    settings["loop"] |= {
        "rounds": 1, "prompts": 20, "held_out": 6, "evaluate": 6, "labelers": labelers, "trust_reward": True,
        "poll_seconds": 0.05, "online": {"labels": 40, "refit_every": 8} | online,
    }  # fmt: skip
    settings["stages"] = {
        "ppo": {"steps": 4096, "rollout": 64, "epochs": 2, "log_every": 512}, "reward": {"steps": 40, "refit_steps": 10}
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings))
    return Project(folder)


def online_pairs(project: Project) -> list[Any]:
    with project.store() as store:
        return [item for item in store.items(round=1) if "pair" in item.metadata]


def test_labels_arrive_while_the_policy_trains(tmp_path: Path) -> None:
    project = made(tmp_path / "line")
    assert Loop(project).run()["waiting_for"] == 0
    items = online_pairs(project)
    assert 30 <= len(items) <= 40 and all(item.done for item in items)
    assert len({item.prompt_id for item in items}) == len(items), "each pair has a prompt of its own"
    policy, reward = (Artifact.load(project.artifacts / name) for name in ("r01-ppo", "r01-refit-1"))
    assert policy.manifest["parents"]["refit 1"].endswith("r01-refit-1") and reward.manifest["role"] == "refit"
    with project.store() as store:
        held = {prompt.id for prompt in store.prompts(split="validation")} & {item.prompt_id for item in items}
        judged = sum(1 for _ in store.judgments(kinds=("comparison",), split="train"))
    assert held and policy.metrics["labels"] == reward.metrics["labels"] <= judged, "held-out pairs are not learnt from"
    assert project.reward().endswith("r01-refit-1") and (project.artifacts / "r01-refit-1" / "card.json").is_file()
    rows = [json.loads(row) for row in (policy.path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["labels"] > rows[0]["labels"] > 0
    by_label = next(run for run in compose(project).training if "by the labels" in run.name)
    assert by_label.rows[-1]["step"] == len(items) and all(np.isfinite(row["gold"]) for row in by_label.rows)  # type: ignore[call-overload]
    assert at_work(project.media) is None
    (policy.path / "manifest.json").rename(policy.path / "away.json")
    seen = at_work(project.media)
    assert seen is not None and seen.name == "r01-ppo" and seen.labels == rows[-1]["labels"] and seen.reward is not None
    (policy.path / "away.json").rename(policy.path / "manifest.json")
    assert Loop(project).run()["rounds"] == 1, "nothing is made again"
    assert len(online_pairs(project)) == len(items)


def judge(project: Project, stop: threading.Event, slow: float = 0.0) -> None:
    """A person who likes to be near the bar."""
    with project.store() as store:
        person = store.add_labeler(Labeler(name="Ann", kind="person"))
        while not stop.is_set():
            claims = store.claim(person.id, 1)
            for claim in claims:
                worth = [project.read(response.content).total for response in claim.responses]
                ids = tuple(response.id for response in claim.responses)
                ranks = (0, 1) if worth[0] > worth[1] else (1, 0)
                store.submit(
                    Judgment(
                        prompt_id=claim.prompt.id, labeler_id=person.id, item_id=claim.item.id, order=(0, 1),
                        payload=ComparisonPayload(response_ids=ids, ranks=ranks),
                    )
                )  # fmt: skip
                time.sleep(slow)
            if not claims:
                time.sleep(0.02)


def test_people_answer_meanwhile_and_training_waits(tmp_path: Path) -> None:
    project = made(tmp_path / "line", "people", ahead=4)
    stop = threading.Event()
    person = threading.Thread(target=judge, args=(project, stop, 0.01), daemon=True)
    person.start()
    try:
        assert Loop(project).run()["waiting_for"] == 0
    finally:
        stop.set()
        person.join()
    items = online_pairs(project)
    assert sum(not item.done for item in items) <= 4, "it was never further ahead"
    assert Artifact.load(project.artifacts / "r01-ppo").metrics["labels"] > 30


def test_without_people_it_says_what_is_missing(tmp_path: Path) -> None:
    project = made(tmp_path / "line", "people")
    assert Loop(project, wait=False).run()["waiting_for"] == 26
    enough = Loop(project, relieved=lambda: True)
    assert enough.run()["waiting_for"] == 0, "simulated labelers do what people left"
    assert all(item.done for item in online_pairs(project))


def test_two_loops_in_one_project(tmp_path: Path) -> None:
    project = made(tmp_path / "line", "people")
    first = threading.Event()
    loop = Loop(project, relieved=first.is_set)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not (project.artifacts / "r01-samples" / "manifest.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(UserError, match="another hearken loop is at work"):
            Loop(project).run()
    finally:
        first.set()
        thread.join()


KILL = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from hearken.loop.project import Project
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop
from hearken.server.owner import at_work
where, moment = Path(sys.argv[1]).absolute(), sys.argv[2]

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(owner, name, times):
    real, left = getattr(owner, name), [times]
    def counted(*some, **more):
        left[0] -= 1
        if left[0] < 0:
            kill()
        return real(*some, **more)
    setattr(owner, name, counted)

if moment == "refit":
    from hearken.algorithms.control_reward import Fitting
    after(Fitting, "fit", 1)
elif moment == "rollout":
    from hearken.domains.control.recording import Recorded
    after(Recorded, "step", 1500)
elif moment == "npz":
    from hearken.feedback import media
    after(media.MediaFolder, "keep", 80)
elif moment == "queue":
    from hearken.feedback.store import FeedbackStore
    after(FeedbackStore, "enqueue", 3)
elif moment == "reward":
    from hearken.loop import online
    after(online, "finish", 0)
elif moment == "policy":
    from hearken.algorithms import control_training
    after(control_training, "finish", 0)
Loop(Project(where)).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["refit", "rollout", "npz", "queue", "reward", "policy"])
def test_killed_and_gone_on(tmp_path: Path, moment: str) -> None:
    project = made(tmp_path / "line")
    command = [sys.executable, "-c", KILL, str(project.path), moment, HERE]
    killed = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = {item.id for item in online_pairs(project)}
    assert Loop(project).run()["waiting_for"] == 0
    items = online_pairs(project)
    assert len(items) <= 40 + 8 and before <= {item.id for item in items}, "what was asked counts"
    assert Artifact.load(project.artifacts / "r01-ppo").manifest["parents"]["refit 1"]
    assert not [file for file in project.path.rglob("media/*/.*")] or moment == "npz"


@pytest.mark.slow
def test_a_behaviour_from_comparisons(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason='needs pip install "hearken[control]"')
    from hearken.cli.quickstart import closing
    from hearken.loop.quickstart_behaviours import quickstart_behaviour

    done = quickstart_behaviour(tmp_path / "robot", "handstand", fast=True)
    found = done.summary.model_dump()
    assert found["world"] == "handstand" and found["labels"] >= 20 and found["behaviour"]["unit"].endswith("head down")
    assert done.report.is_file() and "head down" in closing(done)["After"]
    assert quickstart_behaviour(tmp_path / "robot", "handstand", fast=True).summary == done.summary, (
        "nothing is made again"
    )
    with pytest.raises(UserError, match="other settings"):
        quickstart_behaviour(tmp_path / "robot", "whirl", fast=True)
    with pytest.raises(UserError, match="no behaviour"):
        quickstart_behaviour(tmp_path / "other", "returns", fast=True)
