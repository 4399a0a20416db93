"""A project's artifacts: where their manifests say that things are, and one graph of what was made from what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hearken.algorithms.stage import Inputs
from hearken.evaluation.results import read_evaluation
from hearken.loop.artifacts import ArtifactStore
from hearken.loop.project import Project, model_in
from hearken.loop.publishing import model_card
from hearken.loop.reporting import compose
from hearken.loop.trace import as_json, trace
from hearken.training.artifact import Artifact, finish, read_record
from hearken.training.options import TrainingOptions

BEFORE = Path(__file__).parent / "project_of_november"
"""The text files of a project that `hearken quickstart --fast` left when manifests held paths in full."""


def made(out: Path, kind: str = "sft", **inputs: Any) -> Artifact:
    """A finished artifact."""
    return finish(out, kind, inputs=Inputs(**inputs), options=TrainingOptions(), data={}, metrics={}, seconds=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a policy, a reward model of two, and a policy made by it from a model that stands elsewhere."""
    root = tmp_path / "p"
    (root / "data").mkdir(parents=True)
    (tmp_path / "base").mkdir()
    (root / "data" / "a.jsonl").write_text("{}\n")
    store, data = root / "artifacts", (str(root / "data" / "a.jsonl"),)
    made(store / "r00-sft", model=str(tmp_path / "base"), data=data)
    sft = str(store / "r00-sft")
    made(store / "r01-reward", "reward", model=sft, data=data, role="reward")
    made(store / "r01-reward-2", "reward", model=sft, data=data, role="ensemble")
    reward = f"{store / 'r01-reward'}*0.5,rule:length"
    made(store / "r01-ppo", "ppo", model=sft, data=data, reward=reward, ref=sft, round=1, role="policy")
    return root


def test_paths_within_the_project_are_stored_as_seen_from_it(root: Path) -> None:
    content = json.loads((root / "artifacts/r01-ppo/manifest.json").read_text())
    assert content["inputs"]["model"] == "./artifacts/r00-sft" and content["inputs"]["data"] == ["./data/a.jsonl"]
    assert content["inputs"]["reward"] == "./artifacts/r01-reward*0.5,rule:length"
    assert (content["version"], content["round"], content["role"]) == (1, 1, "policy")
    assert str(root) not in json.dumps(content), "nothing of this machine"
    assert Artifact.load(root / "artifacts/r01-ppo").manifest["inputs"]["model"] == str(root / "artifacts/r00-sft")


def test_what_is_renamed_and_moved_finds_its_own(root: Path, tmp_path: Path) -> None:
    new = shutil.move(root, tmp_path / "elsewhere")
    store = ArtifactStore(Path(new) / "artifacts")
    ppo = store.get("r01-ppo")
    assert ppo is not None and ppo.parents[0] == ("model", f"{new}/artifacts/r00-sft")
    assert ("data", f"{new}/data/a.jsonl") in ppo.files and Path(new) == ppo.root
    assert list(store.ancestors(ppo)) == ["r00-sft", "r01-ppo"], "a sum of rewards is no artifact"
    assert [a.path.name for a in store.rewards()] == ["r01-reward"], "the other is of its ensemble"
    assert store.learned_from({Path(new) / "data" / "a.jsonl"}) == list(store.finished())
    sft = store.get("r00-sft")
    assert sft is not None and sft.parents == [("model", str(tmp_path / "base"))] and sft.round == 0


@pytest.mark.parametrize("place", ["tales", "moved"])
def test_a_project_of_before_opens_wherever_it_is(tmp_path: Path, place: str) -> None:
    root = tmp_path / place
    shutil.copytree(BEFORE, root)
    project = Project(root)
    artifacts = project.finished()
    assert list(artifacts) == ["r00-base", "r00-sft", "r01-reward", "r01-ppo"]
    assert [a.round for a in artifacts.values()] == [0, 0, 1, 1]
    sft = str(root / "artifacts" / "r00-sft")
    assert dict(artifacts["r01-ppo"].parents)["ref"] == sft == artifacts["r01-reward"].manifest["inputs"]["model"]
    assert read_record(root / "artifacts/r01-ppo/run/request.json")["inputs"]["model"] == sft
    assert project.policy().endswith("r01-ppo") and project.reward() == str(root / "artifacts" / "r01-reward")
    assert list(project.made.ancestors(artifacts["r01-ppo"])) == list(artifacts)
    told = as_json(trace("r01-ppo", project))
    assert "r00-base" in told and "not made here" in told, "the untrained model has no manifest"
    assert "/home/ann" not in told and "/home/ann" not in model_card(artifacts["r01-ppo"])
    found = compose(project)
    assert [(one.name, dict(one.parents)) for one in found.lineage if one.name == "r00-sft"] == [
        ("r00-sft", {"model": "r00-base"})
    ]
    assert found.policy == "r01-ppo" and found.reward_model is not None and found.reward_model.passes is not None
    assert found.recipe is not None and "/home/ann" not in "\n".join(found.recipe.by_step)
    assert read_evaluation(root).policies["r01-ppo"].win_rate is not None


def test_a_model_of_the_project_goes_where_the_project_goes(tmp_path: Path) -> None:
    root, other = tmp_path / "p", tmp_path / "q"
    for folder in (root, other):
        (folder / "smollm2").mkdir(parents=True)
        (folder / "smollm2" / "config.json").write_text("{}")
        (folder / "hearken.yaml").write_text("model: smollm2\n")
    own = str(root / "smollm2")
    assert model_in(root, "./smollm2") == model_in(root, "smollm2") == model_in(root, own) == own
    assert model_in(root, "/gone/p/smollm2") == own, "of before, and moved since"
    assert model_in(root, str(other / "smollm2")) == own, "of before, and copied since"
    (other / "hearken.yaml").unlink()
    assert model_in(root, str(other / "smollm2")) == str(other / "smollm2"), "no project's"
    assert model_in(root, "org/model") == "org/model" and model_in(root, "/gone/model") == "/gone/model"
