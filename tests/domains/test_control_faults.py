"""What goes wrong around clips: disks that fill, files that are damaged, environments that die, labels of no use."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')
pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')

from hearken.algorithms import control_ppo
from hearken.algorithms.control_online import Answer, Online
from hearken.algorithms.control_ppo_options import ControlPPOConfig
from hearken.algorithms.control_reward import Fitting
from hearken.algorithms.control_reward_options import ClipRewardConfig
from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.domains.control import video
from hearken.domains.control.clips import Clip, check_clip
from hearken.domains.control.domain import DOMAIN, ClipSampling
from hearken.errors import UserError
from hearken.feedback.media import Media, MediaFolder
from hearken.training.artifact import NOTICES

HERE = str(Path(__file__).parent)
SHORT = ControlPPOConfig(steps=512, rollout=64)


@pytest.fixture(autouse=True)
def _line_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


def agent(folder: Path, **kwargs: Any) -> str:
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps({"id": "line_world:Line-v0", "kwargs": kwargs}))
    return str(folder)


def clips(policy: str, files: MediaFolder, prompts: Sequence[str], k: int = 2) -> list[list[str]]:
    return [[one.content for one in part] for part in DOMAIN.sample(policy, prompts, k, ClipSampling(), 0, files)]


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, policy = MediaFolder(tmp_path), agent(tmp_path / "random")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left"):
            clips(policy, files, ["(start 1)"])
    media = Media(clips(policy, files, ["(start 1)"])[0][0])
    with monkeypatch.context() as patch:
        patch.setattr(video, "encode", full)
        with pytest.raises(UserError, match="No space left"):
            DOMAIN.shown(media, files)
    assert not list(tmp_path.glob("media/*/.*")), "nothing half written stays"
    assert DOMAIN.shown(media, files) is not None


HALF = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from hearken.domains.control import video
from hearken.domains.control.domain import DOMAIN
from hearken.feedback.media import Media, MediaFolder

def killed(pictures, fps, path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

video.encode = killed
DOMAIN.shown(Media(sys.argv[2]), MediaFolder(Path(sys.argv[1])))
"""


def test_killed_between_a_clip_and_its_video(tmp_path: Path) -> None:
    files = MediaFolder(tmp_path)
    media = Media(clips(agent(tmp_path / "random"), files, ["(start 1)"])[0][0])
    killed = subprocess.run([sys.executable, "-c", HALF, str(tmp_path), media.path, HERE], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    made = DOMAIN.shown(media, files)
    assert made is not None and made.read_bytes()[:4] == b"\x1aE\xdf\xa3", "a half video is never taken for one"


@pytest.mark.parametrize("data", [b"", b"\x1aE\xdf\xa3 half", b"not a clip at all"])
def test_videos_and_odd_files_are_no_clips(tmp_path: Path, data: bytes) -> None:
    files = MediaFolder(tmp_path)
    media = files.keep(data, ".npz")
    with pytest.raises(UserError, match="no clip"):
        DOMAIN.read(media.path, files)
    whole = Media(clips(agent(tmp_path / "random"), files, ["(start 1)"])[0][0])
    (tmp_path / whole.path).write_bytes(data)
    with pytest.raises(UserError, match="was changed"):
        DOMAIN.shown(whole, files)


def test_clips_of_another_version(tmp_path: Path) -> None:
    """Observations that have become longer, as between versions of an environment."""
    files = MediaFolder(tmp_path)
    clip: Clip = DOMAIN.read(clips(agent(tmp_path / "random"), files, ["(start 1)"])[0][0], files)
    check_clip(clip, clip.environment, (2,), (1,))
    with pytest.raises(UserError, match="another version"):
        check_clip(clip, clip.environment, (3,), (1,))
    longer = replace(clip, observations=np.pad(clip.observations, ((0, 0), (0, 1))))
    with pytest.raises(UserError, match="another version"):
        DOMAIN.admit(longer.to_bytes(), str(tmp_path / "random"))


@pytest.mark.parametrize(("broken", "says"), [("step", "wheel came off"), ("reward", "no finite number")])
def test_an_environment_that_dies(tmp_path: Path, broken: str, says: str) -> None:
    policy = agent(tmp_path / "random", broken=broken)
    with pytest.raises(UserError, match=says):
        clips(policy, MediaFolder(tmp_path), ["(start 1)"])
    (tmp_path / "out" / "run").mkdir(parents=True)
    with pytest.raises(UserError, match=says):
        control_ppo.run(Inputs(model=policy), SHORT, tmp_path / "out")


def test_episodes_that_end_by_themselves_are_said(tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    control_ppo.run(Inputs(model=agent(tmp_path / "random", ends=9)), SHORT, tmp_path / "out")
    (notice,) = json.loads((tmp_path / "out" / "run" / NOTICES).read_text())
    assert "ended by themselves" in notice


@pytest.mark.parametrize("verdicts", ["one side", "chance"])
def test_labels_that_say_little(tmp_path: Path, verdicts: str) -> None:
    files, policy, rng = MediaFolder(tmp_path), agent(tmp_path / "random"), np.random.default_rng(0)
    rows = []
    for number, (a, b) in enumerate(clips(policy, files, [f"(start {n})" for n in range(60)])):
        ranks = [0, 1] if verdicts == "one side" else rng.permutation(2).tolist()
        rows.append({"prompt": f"(start {number})", "responses": [a, b], "ranks": ranks})
    for name, part in (("train", rows[:40]), ("held", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    stage = find_stage("reward", "control")
    made = run_stage(
        stage, Inputs(model=policy, data=(str(tmp_path / "train.jsonl"),), validation=(str(tmp_path / "held.jsonl"),)),
        stage.options(steps=120), tmp_path / "out",
    )  # fmt: skip
    assert np.isfinite(made.metrics["validation_loss"]) and made.metrics["accuracy"] < 0.8
    if verdicts == "chance":
        assert made.metrics["ratio"] > 1.5 and "over-fitted" in (tmp_path / "out" / "run" / NOTICES).read_text()


def test_answers_that_come_while_the_reward_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Clip, Clip]] = []
    ready: list[Answer] = []
    given = 0

    def ask(pairs: Sequence[tuple[Clip, Clip]], step: int) -> list[Answer]:
        nonlocal given
        asked.extend(pairs)
        come = ready.copy()
        ready.clear()
        if not given:  # some of the first ones only
            come, given = [Answer(at, float(a.total > b.total)) for at, (a, b) in enumerate(asked[:10])], 10
        return come

    fit = Fitting.fit

    def meanwhile(self: Fitting, *some: Any, **more: Any) -> Any:
        nonlocal given
        ready.extend(Answer(at, float(asked[at][0].total > asked[at][1].total)) for at in range(given, len(asked)))
        given = len(asked)
        return fit(self, *some, **more)

    monkeypatch.setattr(Fitting, "fit", meanwhile)
    (tmp_path / "out" / "run").mkdir(parents=True)
    online = Online(ask, 60, refit_every=5, reward=ClipRewardConfig(steps=20, refit_steps=10))
    policy = agent(tmp_path / "random")
    made = control_ppo.run(
        Inputs(model=policy), ControlPPOConfig(steps=4096, rollout=64, epochs=1), tmp_path / "out", online
    )
    fits = [json.loads(row)["labels"] for row in (tmp_path / "out" / "run" / "refits.jsonl").read_text().splitlines()]
    assert fits[0] == 10 and fits[1] == 15, "they were taken in at the next rollout"
    assert made.metrics["labels"] == given - len(ready)
