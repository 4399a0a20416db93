from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hearken.cli import bench
from hearken.cli.main import app

ROOT = Path(__file__).parents[2]


def test_the_script_gets_its_peers_and_what_it_alone_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.delenv("HEARKEN_TRL", raising=False)
    monkeypatch.setenv("HEARKEN_TRL_PPO", "other/python")
    done = CliRunner().invoke(app, ["bench", "vs_trl", "--fast", "--trl", "some/python", "--", "--only", "SFT"])
    assert done.exit_code == 3  # the script's own
    script = str(ROOT / "benchmarks" / "vs_trl.py")
    peers = ["--trl", "some/python", "--trl-ppo", "other/python"]
    assert seen == [[sys.executable, script, "--fast", *peers, "--only", "SFT"]]


def test_a_wrong_name_is_said_in_one_line() -> None:
    done = CliRunner().invoke(app, ["bench", "nothing"])
    assert done.exit_code == 2
    known = done.output.partition("Known benchmarks: ")[2].split(", ")
    assert {"human_preferences", "sentiment"} <= set(known) and "common" not in known


def test_without_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench.hearken, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench"])
    assert done.exit_code == 2
    assert "checkout" in done.output
