"""`hearken loop`, `trace` and `evaluate` from the command line, with a model of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import Result

from hearken.feedback.examples import PromptOnly
from hearken.feedback.formats import write_examples
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model
from hearken.worlds.tales.world import TaleWorld

Run = Callable[..., Result]
PROMPTS = TaleWorld().prompts(20)
QUICK = {"trackers": "none", "precision": "fp32", "batch_size": 4, "lr": 1e-3}


@pytest.fixture
def project(hearken: Run, tmp_path: Path) -> Path:
    write_examples([PromptOnly(prompt) for prompt in PROMPTS], tmp_path / "prompts.jsonl")
    size = TinyModelSize(vocabulary=300, hidden=32, layers=1, heads=2, context=128)
    make_tiny_model(PROMPTS, tmp_path / "model", size)
    done = hearken("init", "p", "--model", "model", "--prompts", "prompts.jsonl", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "p/hearken.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["loop"]["labelers"] == {"people": 1.0}, "every setting stands in the file"
    config["sample"] |= {"max_new_tokens": 5, "k": 2}
    config["stages"] = {"reward": QUICK, "ppo": QUICK | {"episodes": 4, "max_new_tokens": 5, "epochs": 1}}
    config["loop"] |= {"prompts": 6, "held_out": 3, "evaluate": 3, "rounds": 1}
    path.write_text(yaml.safe_dump(config))
    return tmp_path / "p"


def told(done: Result) -> Any:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_round_from_the_command_line(hearken: Run, project: Path) -> None:
    simulated = ("-o", "world=tales", "-o", "loop.labelers=simulated", "-C", "p")
    todo = told(hearken("loop", "--dry-run", "--json", *simulated))
    assert set(todo.values()) == {"to do"} and next(iter(todo)) == "r01-samples"
    stopped = hearken("loop", "--json", *simulated)
    assert stopped.exit_code == 2 and "card" in stopped.stderr and "loop.trust_reward=true" in stopped.stderr
    simulated = ("-o", "loop.trust_reward=true", *simulated)
    done = told(hearken("loop", "--json", *simulated))
    assert done["policy"] == "r01-ppo" and done["figures"][0]["win_rate"]
    tree = told(hearken("trace", "r01-ppo", "-C", "p", "--json"))
    assert tree["name"] == "r01-ppo" and {p["as"] for p in tree["parents"]} == {"model", "reward", "ref", "data"}
    drawn = hearken("trace", "p/artifacts/r01-ppo")
    assert drawn.exit_code == 0 and "r01-judgments" in drawn.stdout
    doubt = ("--best-of", 2, "--pessimism", 1, "--width", "heads")
    found = told(hearken("evaluate", "--all", *doubt, "--json", "-o", "world=tales", "-C", "p"))
    assert {row["policy"] for row in found["leaderboard"]} == {"model", "best-of-2-pessimism-1-heads@model", "r01-ppo"}
    drawn = told(hearken("sample", "-k", 2, "--prompts", 2, *doubt, "--json", "-C", "p"))
    assert drawn["policy"] == "r01-ppo-best-of-2-pessimism-1-heads" and drawn["responses"] == 4
    shown = hearken("evaluate", "--policy", "r01-ppo", "--judge", "reward", "-C", "p")
    assert shown.exit_code == 0 and "baseline" in shown.stdout and "a proxy" in shown.stdout
    refused = hearken("loop", "--json", "-o", "loop.prompts=5", *simulated)
    assert refused.exit_code == 2 and "judgments depend on it" in refused.stderr


def test_people_are_not_waited_for(hearken: Run, project: Path) -> None:
    done = hearken("loop", "--no-wait", "-C", "p")
    assert done.exit_code == 0 and "judgments are waited for" in done.stdout
    unknown = hearken("loop", "-o", "loop.promts=5", "-C", "p")
    assert unknown.exit_code == 2 and "prompts" in unknown.stderr


def test_how_many_comparisons_it_takes(hearken: Run) -> None:
    """It needs no project."""
    assert told(hearken("power", 0.55, "--json"))["comparisons"] == 783
    refused = hearken("power", 0.5)
    assert refused.exit_code == 2 and "hearken power .55" in refused.stderr


def test_what_evaluate_did_besides_is_done_still_with_a_warning(hearken: Run) -> None:
    planned = hearken("evaluate", "--plan", 0.55, "--ties", 0.1, "--power", 0.9, "--json")
    assert planned.stdout == hearken("power", 0.55, "--ties", 0.1, "--power", 0.9, "--json").stdout
    assert "use hearken power" in planned.stderr and "--plan" not in hearken("evaluate", "--help").stdout
    carded = hearken("evaluate", "--card", "nowhere", "--data", "nothing.jsonl")
    assert carded.exit_code == 2 and "use hearken card" in carded.stderr


@pytest.mark.parametrize("command", ["loop", "trace nothing", "evaluate --all"])
def test_outside_a_project(hearken: Run, command: str) -> None:
    done = hearken(*command.split())
    assert done.exit_code == 2 and ("is not a project" in done.stderr or "no finished artifact" in done.stderr)
