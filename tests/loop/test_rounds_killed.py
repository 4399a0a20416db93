"""`hearken loop` with real training, killed at some moments (nightly: at every step), ends as one that ran through.

`test_bookkeeping` kills it before each file that it puts in place, with stages that need no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rounds_world import STAGES

from hearken.loop.project import Project

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from hearken.cli.main import app; app()", "loop", "--json", "-C"]

MOMENTS = (
    "r01-samples",
    "r01-samples/items.jsonl",
    "r01-judgments/manifest.json",
    "r01-reward/run/request.json",
    "r01-reward/manifest.json",
    "r01-ppo/run/rollouts.jsonl",
    "r01-ppo/run/checkpoint.pt",
    "r01-evaluation",
    "r02-judgments",
    "r02-reward/run/checkpoint.pt",
    "r02-ppo/run/request.json",
    "r02-evaluation",
)
"""What exists once a step is under way or just done, in the order of the steps."""

ONLINE = (
    "r01-ppo/run/rollouts.jsonl",
    "r01-refit-1/run/request.json",
    "r01-refit-1/manifest.json",
    "r01-refit-2/run",
    "r01-ppo/manifest.json",
)
"""The same where labels arrive while the policy trains."""


def start(project: Path) -> subprocess.Popen[str]:
    env = os.environ | {"HEARKEN_QUIET": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, str(project)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def finish(project: Path) -> dict[str, Any]:
    process = start(project)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out)


def kill_at(project: Path, moments: tuple[str, ...]) -> None:
    """Start the loop for each of these, and kill it there."""
    for moment in moments:
        process = start(project)
        deadline = time.monotonic() + 300
        while not (project / "artifacts" / moment).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, (moment, process.stderr.read() if process.stderr else "")
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    "moments", [MOMENTS[5:7], pytest.param(MOMENTS, marks=pytest.mark.nightly)], ids=["policy", "every"]
)
def test_killed_it_ends_the_same(tales: Callable[..., Project], tmp_path: Path, moments: tuple[str, ...]) -> None:
    stages = {"ppo": STAGES["ppo"] | {"episodes": 16}}
    project = tales(stages=stages).path
    other = tmp_path / "other"
    shutil.copytree(project, other)
    kill_at(other, moments)
    assert finish(other) == finish(project)
    with Project(other).store() as store:
        assert store.verify() == []


@pytest.mark.parametrize(
    "moments", [ONLINE[2:4], pytest.param(ONLINE, marks=pytest.mark.nightly)], ids=["refit", "every"]
)
def test_killed_while_labels_arrive_it_ends_the_same(
    tales: Callable[..., Project], tmp_path: Path, moments: tuple[str, ...]
) -> None:
    stages = {"ppo": STAGES["ppo"] | {"num_generations": 2, "episodes": 40, "batch_size": 8}}
    project = tales(rounds=1, online={"labels": 12, "refit_every": 4}, stages=stages).path
    other = tmp_path / "other"
    shutil.copytree(project, other)
    kill_at(other, moments)
    assert finish(other) == finish(project)
    refits = [sorted(p.name for p in (one / "artifacts").glob("r01-refit-*")) for one in (project, other)]
    assert len(refits[0]) >= 2 and refits[0] == refits[1]
    with Project(other).store() as store, Project(project).store() as whole:
        assert store.verify() == [] and store.last_seq() == whole.last_seq()
