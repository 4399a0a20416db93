"""The commands of a project on a real one, with a model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from hearken.feedback.examples import Comparison, PromptOnly
from hearken.feedback.formats import read_examples, write_examples
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model
from hearken.worlds.tales.world import TaleWorld

Run = Callable[..., Result]
PROMPTS = TaleWorld().prompts(6)


@pytest.fixture
def project(hearken: Run, tmp_path: Path) -> Path:
    write_examples([PromptOnly(prompt) for prompt in PROMPTS], tmp_path / "prompts.jsonl")
    size = TinyModelSize(vocabulary=300, hidden=32, layers=1, heads=2, context=128)
    make_tiny_model(PROMPTS, tmp_path / "model", size)
    done = hearken("init", "p", "--model", "model", "--prompts", "prompts.jsonl", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    config = yaml.safe_load((tmp_path / "p/hearken.yaml").read_text())
    config["sample"]["max_new_tokens"] = 6
    (tmp_path / "p/hearken.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "p"


def told(done: Result) -> Any:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_import_and_export(hearken: Run, project: Path, tmp_path: Path) -> None:
    rows = [Comparison(prompt, ("good", "bad"), (0, 1)) for prompt in PROMPTS]
    write_examples(rows, tmp_path / "pairs.jsonl")
    words = ("import", "pairs.jsonl", "-C", "p", "--json")
    first, again = told(hearken(*words)), told(hearken(*words))
    assert first["layouts"] == ["pairs"] and first["rows"] == 6
    assert first["new"] == {"prompts": 0, "responses": 12, "judgments": 6}
    assert again["new"] == {"prompts": 0, "responses": 0, "judgments": 0}
    out = told(hearken("export", "out.parquet", "--as", "rankings", "-C", "p", "--json"))
    assert out["rows"] == 6
    assert {row.prompt for row in read_examples(tmp_path / "out.parquet")} == set(PROMPTS)
    refused = hearken("export", "out.parquet", "-C", "p")
    assert refused.exit_code == 2 and "out.parquet" in refused.stderr


def test_sample_and_label(hearken: Run, project: Path, tmp_path: Path) -> None:
    words = ("sample", "-k", 2, "--prompts", 4, "-C", "p", "--json")
    first = told(hearken(*words))
    assert (first["prompts"], first["responses"]) == (4, 8) and first["queued"] > 0
    assert told(hearken(*words)) == first, "prompts that have their responses are left alone"

    refused = hearken("label", "-C", "p")
    assert refused.exit_code == 2 and "world" in refused.stderr
    config = project / "hearken.yaml"
    config.write_text(config.read_text().replace("world: ''", "world: tales"))
    assert told(hearken("label", "-C", "p", "--json"))["new"] == first["queued"]
    assert told(hearken("export", "out.jsonl", "--as", "rankings", "-C", "p", "--json"))["rows"] == first["queued"]


QUICK = ("--batch-size", 4, "--precision", "fp32", "--trackers", "none", "--json")


def test_a_named_reward_needs_no_reward_model(hearken: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    words = ("train", "rloo", "--episodes", 8, "--num-generations", 2, "--max-new-tokens", 4, *QUICK)
    refused = hearken(*words)
    assert refused.exit_code == 2 and "no reward model yet" in refused.stderr
    done = told(hearken(*words, "--reward", "rule:distinct"))
    assert done["out"] == "artifacts/r01-rloo"
    inputs = json.loads((project / done["out"] / "manifest.json").read_text())["inputs"]
    assert inputs["reward"] == "rule:distinct" and "/snapshots/prompt-train" in inputs["data"][0]
    assert Path(inputs["model"]).name == Path(inputs["ref"]).name == "model"


def test_named_data_need_none_in_the_database(
    hearken: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples([Comparison(prompt, ("good", "bad"), (0, 1)) for prompt in PROMPTS], tmp_path / "pairs.jsonl")
    monkeypatch.chdir(project)
    refused = hearken("train", "dpo", *QUICK)
    assert refused.exit_code == 2 and "no comparison in the split 'train'" in refused.stderr
    done = told(hearken("train", "dpo", *QUICK, "--data", "../pairs.jsonl"))
    manifest = json.loads((project / done["out"] / "manifest.json").read_text())
    assert manifest["inputs"]["data"] == [str(tmp_path / "pairs.jsonl")] and manifest["data"]["rows"] > 0


@pytest.mark.parametrize("command", ["import x.jsonl", "export x.jsonl", "sample", "label", "evaluate", "report"])
def test_outside_a_project(hearken: Run, command: str, tmp_path: Path) -> None:
    done = hearken(*command.split())
    assert done.exit_code == 2 and "is not a project" in done.stderr and "hearken init" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_of_the_configuration_is_named(hearken: Run, project: Path) -> None:
    with (project / "hearken.yaml").open("a") as file:
        file.write("valdation: 0.1\n")
    done = hearken("sample", "-C", "p")
    assert done.exit_code == 2 and "unknown key 'valdation'" in done.stderr and "'validation'" in done.stderr


def test_init_leaves_existing_folders_alone(hearken: Run, project: Path) -> None:
    done = hearken("init", "p", "--model", "model", "--prompts", "prompts.jsonl")
    assert done.exit_code == 2 and "not empty" in done.stderr
