"""Runs that are killed or interrupted end as if nothing had happened, to the bit."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hearken.training.run as runs
from hearken.algorithms.stage import train
from hearken.errors import UserError

COMMON: dict[str, Any] = {"trackers": "none", "precision": "fp32", "checkpoint_seconds": 0}
OPTIONS: dict[str, dict[str, Any]] = {
    "ppo": {"batch_size": 8, "num_generations": 2, "minibatches": 2, "epochs": 2, "episodes": 40,
            "max_new_tokens": 6, "lr": 3e-3,
            "kl_target": 0.01, "kl_horizon": 50},
    "sft": {"batch_size": 4, "epochs": 2, "lr": 1e-3},
    "reward": {"batch_size": 4, "epochs": 2, "lr": 1e-3},
}  # fmt: skip


def arguments(world, stage: str) -> dict[str, Any]:
    inputs = {
        "ppo": {"model": world.sft, "data": world.prompts, "reward": world.reward, "ptx": world.text},
        "sft": {"model": world.base, "data": world.demonstrations},
        "reward": {"model": world.base, "data": world.pairs, "references": world.demonstrations},
    }[stage]
    return {k: str(v) for k, v in inputs.items()} | COMMON | OPTIONS[stage]


# Kills itself with SIGKILL in the middle of step KILL, or sends itself SIGINT there.
SCRIPT = """
import json, os, signal, sys
import hearken.training.run as runs
from hearken.algorithms.stage import train
from hearken.progress import quiet
stage, out, at, how, words = sys.argv[1:]
log = runs.Run.log
def stop(self, **metrics):
    log(self, **metrics)
    if self.step == int(at):
        if how == "KILL":
            print(json.dumps(list(self.history)), flush=True)
        os.kill(os.getpid(), getattr(signal, "SIG" + how))
runs.Run.log = stop
with quiet():
    train(stage, out=out, **json.loads(words))
"""


def stopped(world, stage: str, out: Path, at: int, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, stage, str(out), str(at), how, json.dumps(arguments(world, stage))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the last checkpoint, which a finished run throws away."""
    monkeypatch.setattr(runs.Run, "discard_checkpoint", lambda self: None)


def same(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key != "seconds":
                same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def compare(one: Path, two: Path) -> None:
    same(load_file(one / "model.safetensors"), load_file(two / "model.safetensors"))
    same(*(torch.load(p / "run/checkpoint.pt") for p in (one, two)))
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        if (one / "run" / name).exists():
            assert (one / "run" / name).read_text() == (two / "run" / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ppo", "sft", "reward"])
def test_killed_and_run_again(world, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch)
    whole = train(stage, out=tmp_path / "whole", **arguments(world, stage))
    out = tmp_path / "killed"
    done = stopped(world, stage, out, 3, "KILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(json.loads(done.stdout)) == 4, "step 3 was logged before the kill, and not yet saved"
    state = torch.load(out / "run/checkpoint.pt")
    assert state["step"] == 3 and not (out / "manifest.json").exists()
    if stage == "ppo":
        assert state["states"]["control"]["beta"] != 0.05

    (out / "run/metrics.jsonl").open("a").write('{"step": 4, "sc')  # half a line, as a kill may leave it
    ran: list[int] = []
    steps = runs.Run.steps
    monkeypatch.setattr(runs.Run, "steps", lambda self, n: (ran.append(i) or i for i in steps(self, n)))
    again = train(stage, out=out, **arguments(world, stage))
    assert ran[0] == 3, "finished steps are not repeated"
    compare(whole.path, again.path)
    assert again.metrics == whole.metrics


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ppo", "sft"])
def test_ctrl_c_finishes_the_step_and_saves(world, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        log = runs.Run.log

        def interrupt(self: runs.Run, **metrics: float) -> None:
            log(self, **metrics)
            if self.step == 1:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(runs.Run, "log", interrupt)
        words = arguments(world, stage) | {"checkpoint_seconds": 1e9}
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(stage, out=out, **words)
        assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(out / "run/checkpoint.pt")["step"] == 2
    train(stage, out=out, **words)
    compare(train(stage, out=tmp_path / "whole", **words).path, out)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["fsync", "torch"])
def test_a_full_disk_keeps_the_old_checkpoint(world, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(monkeypatch)
    out = tmp_path / "out"
    words = arguments(world, "sft")
    with monkeypatch.context() as patch:
        count = iter(range(100))
        error = OSError(errno.ENOSPC, "No space left on device")
        if way == "torch":
            error = RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")  # type: ignore[assignment]
        save = torch.save

        def full(state: Any, file: Any) -> None:
            if next(count) == 2:
                file.write(b"half")
                raise error
            save(state, file)

        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match=r"the disk is full: step 3 .*Free some space and run the same command"):
            train("sft", out=out, **words)
    assert torch.load(out / "run/checkpoint.pt")["step"] == 2
    assert not list((out / "run").glob("*.partial"))
    train("sft", out=out, **words)
    compare(train("sft", out=tmp_path / "whole", **words).path, out)


def test_other_trouble_with_saving_is_not_called_a_full_disk(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        train("sft", out=tmp_path / "out", **arguments(world, "sft"))
