"""Stages of pictures on a tiny pipeline: a reward of brightness is learnt, and followed; what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason='needs pip install "hearken[image]"')

sys.path.append(str(Path(__file__).parents[1] / "domains"))
from pipelines import pixel_flow, stable_diffusion

from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.domains.image.codec import write_png
from hearken.domains.image.domain import DOMAIN, PictureSampling
from hearken.errors import UserError
from hearken.feedback.media import MediaFolder
from hearken.training.artifact import Artifact

PROMPTS = ["a red circle", "a blue square", "a red square above a blue circle"]


def rows_of(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plain(files: MediaFolder, rng: np.random.Generator) -> tuple[str, float]:
    """A picture of one brightness, with some noise."""
    level = rng.uniform(20, 235)
    picture = (level + rng.normal(0, 10, (16, 16, 3))).clip(0, 255).astype(np.uint8)
    return files.keep(write_png(picture)).path, level


def train(stage: str, out: Path, inputs: Inputs, **options: Any) -> Artifact:
    found = find_stage(stage, "image")
    return run_stage(found, inputs, found.options.parse({"log_every": 1} | options), out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A pipeline, a reward model of brightness and prompts."""
    folder = tmp_path_factory.mktemp("made")
    pixel_flow(folder / "prx")
    files, rng, rows = MediaFolder(folder), np.random.default_rng(0), []
    for number in range(160):
        (a, bright), (b, other) = plain(files, rng), plain(files, rng)
        ranks = [0, 1] if bright > other else [1, 0]
        rows.append({"prompt": PROMPTS[number % 3], "responses": [a, b], "ranks": ranks})
    data, held = rows_of(folder / "train.jsonl", rows[:120]), rows_of(folder / "held.jsonl", rows[120:])
    prompts = rows_of(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    inputs = Inputs(model=str(folder / "prx"), data=(data,), validation=(held,))
    reward = train("reward", folder / "reward", inputs, steps=60, lr=2e-3)
    assert reward.metrics["accuracy"] > 0.9, reward.metrics
    return {"model": str(folder / "prx"), "reward": str(reward.path), "prompts": prompts, "data": data}


def scored(policy: str, reward: str, folder: Path) -> float:
    files = MediaFolder(folder)
    how = PictureSampling(steps=4)
    drawn = [one for part in DOMAIN.sample(policy, PROMPTS, 8, how, 0, files) for one in part]
    contents = [[one.content for one in drawn if one.prompt == prompt] for prompt in PROMPTS]
    return float(np.mean(DOMAIN.scorer(reward, files)(PROMPTS, contents)))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["ddpo", "rwr"])
def test_the_reward_is_followed(stage: str, made: dict[str, str], tmp_path: Path) -> None:
    options = {
        "ddpo": {"steps": 15, "prompts": 3, "beta": 0.0},
        "rwr": {"steps": 60, "samples": 16, "tau": 0.3, "batch_size": 48},
    }[stage]
    inputs = Inputs(model=made["model"], data=(made["prompts"],), reward=made["reward"])
    out = train(stage, tmp_path / "out", inputs, sampling_steps=4, lr=2e-3, ema=0.9, **options)
    before, after = (scored(policy, made["reward"], tmp_path) for policy in (made["model"], str(out.path)))
    assert after > before + 0.1

    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(out.path)  # without this package
    assert type(pipe).__name__ == "PRXPixelPipeline"


@pytest.mark.slow
def test_a_price_of_kl_keeps_the_policy_near_its_reference(made: dict[str, str], tmp_path: Path) -> None:
    inputs = Inputs(model=made["model"], data=(made["prompts"],), reward=made["reward"])
    some = {"steps": 6, "prompts": 3, "sampling_steps": 4, "lr": 1e-3, "ema": 0.0}
    free = train("ddpo", tmp_path / "free", inputs, beta=0.0, **some)
    paid = train("ddpo", tmp_path / "paid", inputs, beta=100.0, **some)
    assert 0 <= paid.metrics["kl"] < free.metrics["kl"] / 4
    first = json.loads((paid.path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kl"] == pytest.approx(0, abs=1e-4) and first["clipped"] == 0, "it begins at the reference"
    again = train("ddpo", tmp_path / "several", inputs, beta=0.0, epochs=3, **some)
    assert np.isfinite(again.metrics["kl"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prx", "sd"])
def test_captioned_pictures_are_learnt(kind: str, tmp_path: Path) -> None:
    (pixel_flow if kind == "prx" else stable_diffusion)(tmp_path / "pipe")
    files, rng = MediaFolder(tmp_path), np.random.default_rng(0)
    rows = [{"prompt": PROMPTS[n % 3], "completion": plain(files, rng)[0]} for n in range(30)]
    data = rows_of(tmp_path / "captioned.jsonl", rows)
    inputs = Inputs(model=str(tmp_path / "pipe"), data=(data,))
    out = train("sft", tmp_path / "out", inputs, steps=60, batch_size=16, lr=3e-3, train_text=True)
    losses = [json.loads(row)["loss"] for row in (out.path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])


def test_what_is_refused(made: dict[str, str], tmp_path: Path) -> None:
    ties = [{"prompt": PROMPTS[0], "responses": ["media/a.png", "media/b.png"], "ranks": [0, 1]}]
    inputs = Inputs(model=made["model"], data=(rows_of(tmp_path / "gone.jsonl", ties),))
    with pytest.raises(UserError, match="no such file"):
        train("reward", tmp_path / "out", inputs)
    files, rng = MediaFolder(tmp_path), np.random.default_rng(0)
    (a, _), (b, _) = plain(files, rng), plain(files, rng)
    even = rows_of(tmp_path / "ties.jsonl", [{"prompt": PROMPTS[0], "responses": [a, b], "ranks": [0, 0]}])
    with pytest.raises(UserError, match="no comparison prefers"):
        train("reward", tmp_path / "out", Inputs(model=made["model"], data=(even,)))
    with pytest.raises(UserError, match="no reward model of pictures"):
        train("rwr", tmp_path / "out", Inputs(model=made["model"], data=(made["prompts"],), reward=made["model"]))
    with pytest.raises(UserError, match="row 1: more than a prompt"):
        train("rwr", tmp_path / "out", Inputs(model=made["model"], data=(made["data"],), reward=made["reward"]))
    outside = rows_of(tmp_path / "outside.jsonl", [{"prompt": "a", "completion": "media/../../etc/passwd"}])
    with pytest.raises(UserError, match="row 1"):
        train("sft", tmp_path / "out", Inputs(model=made["model"], data=(outside,)))
