"""`hearken trace`: the way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hearken.errors import UserError
from hearken.loop.maintenance import erase
from hearken.loop.project import Project
from hearken.loop.rounds import Loop
from hearken.loop.trace import as_json, draw, trace


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield tree
    for parent in tree.get("parents", []):
        yield from nodes(parent)


def drawn(node: Any) -> str:
    out = StringIO()
    Console(file=out, width=200).print(draw(node))
    return out.getvalue()


@pytest.mark.slow
def test_a_policy_is_walked_back_to_its_judgments_and_labelers(
    tales: Callable[..., Project], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tales(rounds=2)
    with project.store() as store:
        store.add_guideline("Prefer tales that end well.")
    Loop(project).run()
    told = json.loads(as_json(trace("r02-ppo", project)))
    every = list(nodes(told))
    assert {"r02-ppo", "r02-reward", "model", "r01-judgments", "r01-samples", "r01-ppo", "r01-reward"} <= {
        n["name"] for n in every
    }
    assert sum(n["name"] == "r01-samples" and "see" not in n for n in every) == 1, "told once"
    with project.store() as store:
        train = {p.id for p in store.prompts(split="train")}
        ours = [j for j in store.judgments() if j.prompt_id in train]
        labelers = {j.labeler_id for j in store.judgments()}
    frozen = [n for n in every if n["kind"] == "snapshot" and n["as"] == "data" and "comparison" in n["name"]]
    snapshot = max(frozen, key=lambda n: n["examples"])
    assert snapshot["judgments"] == len(ours) and snapshot["state"] == "as it was read"
    by_round = [p for p in snapshot["parents"] if p["as"] == "judgments"]
    assert [list(p["responses_of"]) for p in by_round] == [["model"], ["r01-ppo"]]
    assert {n["id"] for n in every if n.get("as") == "labeler"} == labelers
    assert all(sum(p["guidelines"].values()) == p["judgments"] for p in by_round)
    monkeypatch.setattr("hearken.loop.trace.LABELERS", 2)
    picture = drawn(trace("r02-ppo", project))
    assert "reward: r02-reward" in picture and "more labelers" in picture and "told above" in picture

    mine = ours[0]
    erase(project, "judgment", mine.id, "asked for it")
    assert "erased since" in drawn(trace("r01-reward", project))
    moved = tmp_path / "elsewhere"
    shutil.move(project.path, moved)
    again = json.loads(as_json(trace("r02-ppo", Project(moved))))
    assert {n["name"] for n in nodes(again)} >= {"r01-judgments", "r01-samples"}
    assert Loop(Project(moved)).run()["policy"] == "r02-ppo", "a moved project has nothing to make again"


def test_bare_artifacts_have_files_and_models(tmp_path: Path) -> None:
    from hearken.training.artifact import MANIFEST, hash_files, write_json

    data = tmp_path / "pairs.jsonl"
    data.write_text("{}\n")
    manifest = {
        "kind": "reward", "inputs": {"data": [str(data)], "validation": ["gone.jsonl"]},
        "parents": {"model": "org/base"}, "data": {"hash": hash_files((str(data),))}, "metrics": {"accuracy": 0.7},
    }  # fmt: skip
    write_json(tmp_path / "rm" / MANIFEST, manifest)
    picture = drawn(trace(str(tmp_path / "rm")))
    assert "org/base" in picture and "as it was read" in picture and "not there any more" in picture
    watched = {"judge": str(tmp_path / "rm"), "judge_every": 5}
    manifest |= {"kind": "ppo", "options": watched, "data": {"watched": ["one", "two"]}}
    write_json(tmp_path / "ppo" / MANIFEST, manifest)
    (model, told) = [node for role, node in trace(str(tmp_path / "ppo")).parents if role == "watched by"]
    assert model.name == "rm" and model.kind == "reward" and told.facts["judgments"] == 2
    data.write_text("changed\n")
    assert "changed since it was read" in drawn(trace(str(tmp_path / "rm")))
    with pytest.raises(UserError, match="no finished artifact 'nothing'"):
        trace("nothing")
