"""Clips through what the whole product does with responses: cards, publishing, files in and out, watching."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')
pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')

from hearken.cli.main import app
from hearken.domains.control.clips import Clip
from hearken.domains.control.domain import DOMAIN
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.media import sniff
from hearken.loop.project import Project
from hearken.training.artifact import Artifact

HERE = Path(__file__).parent


def hearken(*words: Any, fails: str = "") -> str:
    done = CliRunner().invoke(app, list(map(str, words)), prog_name="hearken")
    assert (done.exit_code != 0) == bool(fails) and fails in done.output, done.output
    return done.output


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A project after one round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        folder = tmp_path_factory.mktemp("line")
        (folder / "random").mkdir()
        (folder / "random" / "environment.json").write_text(json.dumps({"id": "line_world:Line-v0"}))
        hearken("init", folder / "p", "--model", folder / "random")
        file = folder / "p" / "hearken.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["world"], settings["sample"]["k"] = "returns", 2
        settings["loop"] |= {"improve": "ppo", "labelers": "simulated", "prompts": 120, "held_out": 40, "evaluate": 10}
        settings["stages"] = {"ppo": {"steps": 4096, "trust_reward": True}}
        file.write_text(yaml.safe_dump(settings))
        hearken("loop", "--rounds", 1, "-C", folder / "p")
        yield Project(folder / "p")


@pytest.mark.slow
def test_the_card_asks_what_means_something_for_clips(rounds: Project) -> None:
    hearken("card", "--learning-curve", "-C", rounds.path)
    card = RewardCard.load(rounds.artifacts / "r01-reward")
    assert card is not None
    probes = {probe.name: probe.value for probe in card.probes}
    assert probes["score against true return"].estimate > 0.5 and probes["standing still"].high <= 1
    assert probes["the picture left out"].estimate < card.accuracy.estimate and "said twice" not in probes
    assert card.ensemble is not None and (card.ensemble.models, card.ensemble.of) == (3, "heads")
    assert [point.labels for point in card.learning] == sorted(point.labels for point in card.learning)
    assert len(card.learning) == 4 and all(point.parameters for point in card.learning) and card.learning_says
    hearken("report", "-C", rounds.path)
    assert "the picture left out" in (rounds.path / "report.html").read_text()


@pytest.mark.slow
def test_a_policy_is_published_for_those_who_do_not_have_this_package(rounds: Project, tmp_path: Path) -> None:
    hearken("push", "r01-ppo", "--dry-run", "--out", tmp_path / "hub", "--to", "me/line", "-C", rounds.path)
    text = (tmp_path / "hub" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["library_name"] == "stable-baselines3" and header["pipeline_tag"] == "reinforcement-learning"
    assert "base_model" not in header and "True return of an episode" in text and "text-generation" not in text
    assert "hearken train ppo --model" in text and "steps=4096" in text and "--data" not in text.split("train ppo")[1]
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    lines = 'import sys\nsys.modules["hearken"] = None\n' + script.replace("me/line", str(tmp_path / "hub"))
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(HERE)}
    )
    assert done.returncode == 0, done.stderr
    watched = json.loads(hearken("watch", tmp_path / "hub", "--out", tmp_path / "line.webm", "--json"))
    assert float(done.stdout) == pytest.approx(watched["return"][0], abs=1e-2), "it acts there as it does here"

    hearken("push", "r01-reward", "--dry-run", "--out", tmp_path / "reward", "-C", rounds.path)
    assert "train reward --model" in (tmp_path / "reward" / "README.md").read_text()


@pytest.mark.slow
def test_inspections_show_what_the_reward_sees(rounds: Project) -> None:
    data = next((rounds.path / "snapshots").glob("comparison-train-*.parquet"))
    (seen,) = json.loads(
        hearken("inspect", data, "-n", 1, "--model", "r01-reward", "--json", "-C", rounds.path)
    )["views"]  # fmt: skip
    clip = rounds.read(seen["responses"][0]["content"])
    assert seen["responses"][0]["facts"]["steps"] == len(clip) and seen["responses"][0]["score"] is not None


@pytest.mark.slow
def test_policies_are_watched(rounds: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av", reason='needs pip install "hearken[control]"')
    out = tmp_path / "a.webm"
    words = ("watch", "r01-ppo", "--out", out, "--episodes", 2, "--steps", 20, "-C", rounds.path)
    told = json.loads(hearken(*words, "--json"))
    assert told["steps"] == [20, 20] and told["file"] == str(out) and sniff(out.read_bytes()[:16]) == "video/webm"
    with av.open(str(out)) as opened:
        assert sum(1 for _ in opened.decode(video=0)) in (40, 20), "each step, or each second one of a fast one"
    hearken(*words, fails="exists")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    hearken("watch", "r01-ppo", "--window", "-C", rounds.path, fails="no display")
    assert not list(tmp_path.glob(".*")), "nothing half written"


@pytest.mark.slow
def test_comparisons_of_clips_come_and_go(rounds: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "pairs.jsonl"
    out.parent.mkdir()
    hearken("export", out, "--as", "rankings", "-C", rounds.path)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows and all((out.parent / path).is_file() for row in rows for path in row["responses"])
    hearken("init", tmp_path / "copy", "--model", rounds.config.model)
    copy = Project(tmp_path / "copy")
    hearken("import", out, "-C", copy.path)
    with copy.store() as store:
        assert len(list(store.judgments())) == len(rows) and all(copy.media.find(one) for one in store.media())
    monkeypatch.chdir(copy.path)
    hearken("train", "reward", "--steps", 20)
    made = next(iter(copy.finished().values()))
    assert "judgments" in hearken("trace", made.path.name, "-C", copy.path)
    with copy.store() as store:
        gone = next(store.responses())
    assert gone.payload is not None
    hearken("backup", tmp_path / "saved.db", "-C", copy.path)
    assert (tmp_path / "saved.db").is_file() and list(tmp_path.glob("saved*/media/*/*.npz"))
    DOMAIN.shown(gone.payload, copy.media)
    hearken("erase", "response", gone.id, "--reason", "asked for", "-C", copy.path)
    assert not list((copy.path / "media").rglob(f"{Path(gone.payload.path).stem}.*")), "the clip and its video"


def _pickled(data: bytes) -> bytes:
    out = io.BytesIO()
    with np.load(io.BytesIO(data)) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    np.savez(out, **arrays | {"rewards": np.array([object()], dtype=object)})
    return out.getvalue()


def _other(data: bytes, **changes: Any) -> bytes:
    clip = Clip.from_bytes(data)
    return Clip(**{**clip.__dict__, **{name: change(clip) for name, change in changes.items()}}).to_bytes()


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a pickle": (_pickled, "no clip"),
    "half of it": (lambda data: data[: len(data) // 2], "no clip"),
    "nothing": (lambda data: b"", "no clip"),
    "a video": (lambda data: b"\x1aE\xdf\xa3" + data, "no clip"),
    "other shapes": (lambda data: _other(data, observations=lambda c: c.observations[:, :1]), "holds observations"),
    "another environment": (
        lambda data: _other(data, environment=lambda c: type(c.environment)("os:Line-v0")), "a clip is of os:Line-v0"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", [*BAD, "changed", "../outside"])
def test_files_that_are_no_clips_of_the_project_are_refused(rounds: Project, tmp_path: Path, what: str) -> None:
    """With the file, the row and the clip; nothing of them is kept."""
    copy = tmp_path / "copy"
    hearken("init", copy, "--model", rounds.config.model)
    with rounds.store() as store:
        good = next(store.responses()).payload
    assert good is not None
    data, says = rounds.media.read(good), "was changed"
    name, target = "clip.npz", tmp_path / "in" / "clip.npz"
    target.parent.mkdir()
    if what in BAD:
        make, says = BAD[what]
        data = make(data)
    elif what == "changed":
        name = good.path
        target = tmp_path / "in" / name
        target.parent.mkdir(parents=True)
        data = _other(data, seed=lambda c: c.seed + 1)
    else:
        name, says, target = "../outside.npz", "is not beside it", tmp_path / "outside.npz"
    target.write_bytes(data)
    whole = tmp_path / "in" / "whole.npz"
    shutil.copy(rounds.media.find(good), whole)  # type: ignore[arg-type]
    row = {"prompt": "(start 1)", "responses": ["whole.npz", name], "ranks": [0, 1], "hearken_media": "clip"}
    pairs = tmp_path / "in" / "pairs.jsonl"
    pairs.write_text(json.dumps(row) + "\n")
    told = hearken("import", pairs, "-C", copy, fails=says).replace("\n", " ")
    assert "pairs.jsonl" in told and "example 1" in told and not list((copy / "media").rglob("*.npz"))


def test_nothing_shared_names_it() -> None:
    """Lines outside its own folders, its stages, the rewards and the worlds that name the domain."""
    source = HERE.parents[1] / "src" / "hearken"
    own = ("domains/control/", "rewards/", "worlds/", "algorithms/control_")
    named = [
        f"{path.relative_to(source)}:{number}: {line.strip()}"
        for path in sorted(source.rglob("*.py"))
        if not path.relative_to(source).as_posix().startswith(own)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"domains\.control|[\"']control[\"'](?!: control)|gymnasium|stable_baselines3|mujoco", line)
    ]
    assert not named, named


@pytest.mark.slow
def test_the_artifact_knows_its_stage(rounds: Project) -> None:
    from hearken.loop.artifacts import stage_that_made

    made = stage_that_made(Artifact.load(rounds.artifacts / "r01-ppo"))
    assert made is not None and made.domain == "control"
