"""The whole loop: `quickstart --fast`, interrupted twice (nightly: at every step), against one that ran through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.feedback.formats import read_examples
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.quickstart import FAST, quickstart
from hearken.training.artifact import Artifact

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from hearken.cli.main import app; app()", "quickstart"]


def start(folder: Path) -> subprocess.Popen[str]:
    env = os.environ | {"HEARKEN_QUIET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, str(folder), "--fast", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def finish(folder: Path) -> dict:
    process = start(folder)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def without_times(summary: dict) -> dict:
    return {k: v for k, v in summary.items() if k not in ("seconds", "report")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("whole") / "tales"
    return folder, finish(folder)


def test_summary_has_what_it_promises(whole: tuple[Path, dict]) -> None:
    folder, summary = whole
    assert (folder / "artifacts" / "r01-reward" / "card.json").exists()
    assert summary["seconds"] > 0
    assert set(summary["reward"]) >= {"accuracy", "ceiling", "reference_mean"}
    assert abs(summary["reward"]["reference_mean"]) < 1e-4
    assert set(summary["ppo"]) >= {"win_rate", "win_rate_low", "win_rate_high", "kl", "parse_rate", "win_rate_by_group"}
    assert set(summary["ppo"]["win_rate_by_group"]) == {"hearth", "quest"}
    assert summary["perplexity"]["ppo_without_ptx"] is None
    assert all(summary["perplexity"][k] > 1 for k in ("base", "sft", "ppo"))
    assert Path(summary["report"]).read_text("utf-8").startswith("<!doctype html>")


def test_doing_it_again_repeats_nothing(whole: tuple[Path, dict]) -> None:
    folder, summary = whole
    made = {p: p.stat().st_mtime_ns for p in folder.glob("artifacts/*/manifest.json")}
    assert without_times(finish(folder)) == without_times(summary)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("artifacts/*/manifest.json")} == made


# What exists once a step is under way, in the order of the steps.
MOMENTS = (
    "data/corpus.jsonl",
    "artifacts/r00-base/run/metrics.jsonl",
    "artifacts/r00-sft/run/metrics.jsonl",
    "feedback.db-wal",
    "artifacts/r01-reward/run/metrics.jsonl",
    "artifacts/r01-ppo/run/rollouts.jsonl",
    "artifacts/r01-ppo/manifest.json",
)


@pytest.mark.parametrize(
    "moments", [MOMENTS[3:6:2], pytest.param(MOMENTS, marks=pytest.mark.nightly)], ids=["labels and policy", "every"]
)
def test_killed_it_ends_the_same(whole: tuple[Path, dict], tmp_path: Path, moments: tuple[str, ...]) -> None:
    folder = tmp_path / "tales"
    for moment in moments:
        process = start(folder)
        deadline = time.monotonic() + 120
        while not (folder / moment).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert without_times(finish(folder)) == without_times(whole[1])


def test_other_settings_are_refused(whole: tuple[Path, dict]) -> None:
    with pytest.raises(UserError, match="other settings"):
        quickstart(whole[0], seed=5, fast=True)


def test_gold_never_reaches_training(whole: tuple[Path, dict]) -> None:
    """Nothing that a stage read says what a response is worth, or which group its labeler is of."""
    folder, _ = whole
    read = set()
    for manifest in folder.glob("artifacts/*/manifest.json"):
        read |= {file for _, file in Artifact.load(manifest.parent).files if Path(file).is_file()}
    assert len(read) >= 5
    keys = {key for file in read for row in read_examples(file) for key in row.metadata}
    assert keys <= {"judgment", "labeler", "item", "sampled_tokens"}


def test_a_project_lists_its_artifacts(whole: tuple[Path, dict]) -> None:
    project = Project(whole[0])
    assert list(project.finished()) == ["r00-base", "r00-sft", "r01-reward", "r01-ppo"]
    assert project.policy().endswith("r01-ppo")
    assert project.config.sample.k == 4
    assert isinstance(project.config, ProjectConfig)
    with project.store() as store:
        assert store.progress().items_done == store.progress().items
        assert len(list(store.prompts(split="validation"))) == FAST.heldout
