"""What the loop keeps and makes once, whatever kills it: with `hearken.testing`'s stages, and so at every moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hearken import testing
from hearken.algorithms import stage as stages
from hearken.domains import base as domains
from hearken.errors import UserError
from hearken.loop.project import Project
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop, plan
from hearken.loop.trace import trace
from hearken.worlds import world as worlds

STEPS = ["samples", "judgments", "reward", "words-policy", "evaluation"]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (stages, domains, worlds):
        monkeypatch.setattr(module, "_registered", {})
    testing.register()


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., Project]:
    def make(name: str = "p", **more: Any) -> Project:
        return testing.make_project(tmp_path / name, rounds=2, **more)

    return make


def made(project: Project) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in project.artifacts.glob("*/manifest.json")}


@pytest.mark.slow
def test_it_needs_no_torch(words: Callable[..., Project]) -> None:
    code = "import sys; from hearken import testing; testing.register(); from hearken.loop.rounds import Loop\n"
    code += "from hearken.loop.reporting import write_report\n"
    code += f"p = testing.make_project({str(words().path.parent / 'q')!r}, rounds=1); Loop(p).run(); write_report(p)\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_two_rounds_improve_the_policy_and_are_not_made_again(words: Callable[..., Project]) -> None:
    project = words()
    done = Loop(project).run()
    assert (done["rounds"], done["policy"], done["waiting_for"]) == (2, "r02-words-policy", 0)
    before = made(project)
    assert set(before) == {f"r{n:02d}-{kind}" for n in (1, 2) for kind in STEPS}
    assert testing.skill(project.policy()) > testing.skill(project.config.model)
    again = Loop(Project(project.path)).run()
    assert made(project) == before and again == done
    assert set(plan(project, 3).values()) == {"done", "to do"}
    assert [round.policy for round in compose(project).rounds] == ["r01-words-policy", "r02-words-policy"]
    assert {"model", "reward", "data"} <= {role for role, _ in trace("r02-words-policy", project).parents}


def test_a_rounds_responses_can_be_of_several_policies(words: Callable[..., Project]) -> None:
    project = words(mix={"newest": 2, "reference": 2})
    Loop(project).run()
    with project.store() as store:
        split = {p.id: p.split for p in store.prompts()}
        of = {n: [(split[r.prompt_id], r.policy) for r in store.responses(round=n)] for n in (1, 2)}
    first = Path(project.first_policy()).name
    assert {policy for _, policy in of[1]} == {first}, "there is only one yet"
    train = [policy for where, policy in of[2] if where == "train"]
    assert set(train) == {first, "r01-words-policy"} and 0.2 < train.count(first) / len(train) < 0.8
    assert {policy for where, policy in of[2] if where != "train"} == {"r01-words-policy"}
    with pytest.raises(UserError, match="mix: some policy has to answer"):
        words("q", mix={"newest": 0})


def test_a_reward_model_is_measured_on_what_its_policy_says(words: Callable[..., Project]) -> None:
    project = words()
    figures = Loop(project).run()["figures"]
    assert all(0 <= round["own_accuracy"]["estimate"] <= 1 for round in figures), "by the world's gold"
    project.config.world = ""  # where nobody knows that, by the next round's judgments
    own = [round.own_accuracy for round in compose(project).rounds]
    assert own[0] is not None and 0 <= own[0].low <= own[0].estimate <= own[0].high <= 1


def test_a_change_is_refused_unless_it_is_to_be_made_again(words: Callable[..., Project]) -> None:
    project = words()
    Loop(project).run(1)
    before = made(project)
    project.config.loop.evaluate = 3
    with pytest.raises(UserError, match=r"r01-evaluation was made with other settings \(options\.prompts\)") as error:
        Loop(project).run(1)
    assert "--redo" in error.value.hint and made(project) == before
    project.config.stages["words-reward"] = {"steps": 2}
    with pytest.raises(UserError, match=r"r01-reward .*options\.steps"):
        Loop(project).run(1)
    Loop(project, redo=True).run(1)
    after = made(project)
    changed = {"r01-reward", "r01-words-policy", "r01-evaluation"}
    assert {name for name in before if before[name] != after[name]} == changed
    assert len(list((project.path / "replaced").iterdir())) == 3
    project.config.loop.prompts = 3
    with pytest.raises(UserError, match=r"r01-samples .*judgments depend on it"):
        Loop(project, redo=True).run(1)


def killed_after(writes: int, project: Path) -> bool:
    """Run the loop in a process that is killed at its ``writes``-th file put in place; whether it was."""
    child = os.fork()
    if child == 0:
        left, replace = [writes], os.replace

        def counted(*paths: Any, **more: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*paths, **more)

        os.replace = counted
        os.environ["HEARKEN_QUIET"] = "1"
        try:
            Loop(Project(project)).run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "it fails after a kill"
    return os.WIFSIGNALED(status)


def left_behind(project: Path) -> dict[str, Any]:
    """All that rounds leave, but for times and this folder's name."""
    kept: dict[str, Any] = {}
    for path in sorted(project.rglob("*.json*")):
        name = str(path.relative_to(project))
        if "steps.json" not in name and "runs" not in name:
            content = path.read_text("utf-8").replace(str(project), "HERE")
            if path.name == "manifest.json":
                content = json.dumps({k: v for k, v in json.loads(content).items() if k not in ("seconds", "created")})
            kept[name] = content
    return kept


@pytest.mark.parametrize("first", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_the_same(words: Callable[..., Project], tmp_path: Path, first: int) -> None:
    """Killed before its first file stands, gone on, killed before the second that is written then, and so on."""
    project = words().path
    other = tmp_path / "other"
    shutil.copytree(project, other)
    whole = Loop(Project(project)).run()
    writes = first
    while killed_after(writes, other):
        writes += 1
    assert writes - first >= 5, "killed several times"
    assert Loop(Project(other)).run() == whole
    assert left_behind(other).keys() == left_behind(project).keys()
    with Project(other).store() as store, Project(project).store() as one:
        assert store.verify() == [] and store.last_seq() == one.last_seq()
    for name in ("r01", "r02"):
        path = f"artifacts/{name}-words-policy/{testing.POLICY}"
        assert (other / path).read_text() == (project / path).read_text()
