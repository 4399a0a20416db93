from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hearken.algorithms.stage import Inputs, estimate, find_stage, train
from hearken.training.estimate import try_out, update_seconds, weight_bytes, write_seconds

ROOT = Path(__file__).parents[2]


def dry(stage: str, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
    found = find_stage(stage)
    return estimate(found, Inputs(**inputs), found.options.parse(options))


def test_sft(world, tmp_path: Path) -> None:
    inputs = {"model": str(world.base), "data": (str(world.demonstrations),)}
    found = dry("sft", inputs, batch_size=5, epochs=2, validation=0)
    size = (world.base / "model.safetensors").stat().st_size
    assert found["memory"]["weights_of_policy"] == pytest.approx(size, rel=0.1)
    assert found["memory"]["adam"] == 2 * found["memory"]["gradients"] == 2 * found["memory"]["weights_of_policy"]
    assert sum(v for k, v in found["memory"].items() if k != "total") == found["memory"]["total"]
    assert found["parameters"] == {"trained": found["memory"]["weights_of_policy"] // 4, "frozen": 0}
    out = train(
        "sft", model=world.base, data=world.demonstrations, out=tmp_path / "out", batch_size=5, epochs=2, validation=0,
        trackers="none",
    )  # fmt: skip
    assert found["steps"] == out.metrics["steps"] and found["rows"] == out.manifest["data"]["rows"] == 24
    rows = [json.loads(x) for x in (out.path / "run/metrics.jsonl").read_text().splitlines()]
    trained = sum(r["tokens"] for r in rows)
    assert found["tokens"] == 2 * 24 * found["prompt_tokens"]["mean"] + trained
    assert 0 < found["seconds"] < 60
    json.dumps(found)


def test_reward(world) -> None:
    found = dry("reward", {"model": str(world.base), "data": (str(world.rankings),)}, batch_size=8, validation=0)
    assert found["steps"] == 3 and found["judgments"] == 24
    assert found["response_tokens"]["longest"] >= found["response_tokens"]["mean"] > 1


def test_ppo_with_and_without_adapters(world) -> None:
    inputs = {
        "model": str(world.sft), "data": (str(world.prompts),), "reward": str(world.reward), "ptx": (str(world.text),)
    }  # fmt: skip
    small = {"batch_size": 8, "episodes": 80, "minibatches": 2, "max_new_tokens": 8}
    full, lora = dry("ppo", inputs, **small), dry("ppo", inputs, lora=2, **small)
    assert (full["prompts"], full["iterations"], full["steps"]) == (24, 10, 10 * 4 * 2)
    networks = [f"weights_of_{n}" for n in ("policy", "value", "reference", "reward")]
    assert all(full["memory"][n] > 0 for n in networks)
    assert lora["memory"]["weights_of_reference"] == lora["memory"]["weights_of_reward"] == 0
    assert lora["memory"]["adam"] < full["memory"]["adam"] / 4
    assert lora["parameters"]["trained"] < full["parameters"]["trained"] / 4
    assert full["seconds"] == pytest.approx(sum(full["seconds_of"].values()))
    assert set(full["seconds_of"]) == {"start", "sampling", "scoring", "learning", "saving"}
    assert 1 <= full["response_tokens"]["mean"] <= full["response_tokens"]["longest"] == 8, "as the policy has them now"


def test_ilql(world) -> None:
    found = dry("ilql", {"model": str(world.base), "data": (str(world.pairs),)}, batch_size=8, epochs=2)
    assert found["responses"] == 48 and found["steps"] == 2 * 6
    assert found["memory"]["weights_of_policy"] > (world.base / "model.safetensors").stat().st_size, "heads"
    assert found["parameters"]["frozen"] > 0, "the lagging heads"
    assert found["seconds"] > 0


@pytest.mark.slow
def test_what_samples_counts_the_networks_it_has(world) -> None:
    inputs = {"model": str(world.sft), "data": (str(world.prompts),), "reward": str(world.reward)}
    small = {"batch_size": 8, "episodes": 80, "max_new_tokens": 8}
    ppo, nlpo, rft = (dry(s, inputs, **small) for s in ("ppo", "nlpo", "rft"))
    assert nlpo["memory"]["weights_of_policy"] == 2 * ppo["memory"]["weights_of_policy"], "the mask policy"
    assert nlpo["memory"]["gradients"] == ppo["memory"]["gradients"]
    assert "weights_of_reference" not in rft["memory"] and rft["memory"]["weights_of_reward"] > 0


def test_a_loss_without_a_reference_has_none_in_its_estimate(world) -> None:
    inputs = {"model": str(world.sft), "data": (str(world.pairs),)}
    dpo, simpo = (dry(s, inputs, cache_reference=False) for s in ("dpo", "simpo"))
    assert dpo["memory"]["weights_of_reference"] > 0 and "weights_of_reference" not in simpo["memory"]


def test_a_stage_that_has_none_says_so(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("hearken.algorithms.sft.estimate")
    sft = find_stage("sft")
    inputs = Inputs(str(world.sft), (str(world.demonstrations),))
    assert estimate(sft, inputs, sft.options()) == {"note": "sft has no estimate"}


@pytest.mark.slow
def test_a_trial_sees_the_memory_that_stands_at_once_and_leaves_no_gradient() -> None:
    layer = nn.Linear(1000, 4000, bias=False)
    x = torch.randn(8000, 1000)
    found = try_out([lambda: layer(x).exp().sum()] * 2, 8000, list(layer.parameters()), torch.device("cpu"))
    kept = 4 * 8000 * 4000  # the result of exp, with its gradient and the product's beside it for a while
    assert kept < found.peak_bytes < 4 * kept
    assert layer.weight.grad is None and found.seconds >= found.forward_seconds > 0


def test_an_update_is_scaled_from_a_part() -> None:
    few, many = (update_seconds([nn.Parameter(torch.zeros(n))]) for n in (1000, 1 << 24))
    assert 0 < few < many
    assert update_seconds([]) == 0.0 and 0 < write_seconds(1 << 20) < 60


@pytest.mark.parametrize(("stage", "data", "parts"), [
    ("sft", "demonstrations", {"evaluation"}),
    ("dpo", "pairs", {"reference", "evaluation"}),
    ("reward", "pairs", {"calibration", "evaluation"}),
])  # fmt: skip
def test_all_that_a_run_does_is_counted(world, stage: str, data: str, parts: set[str]) -> None:
    found = dry(stage, {"model": str(world.base), "data": (str(getattr(world, data)),)}, batch_size=4, validation=0.3)
    assert set(found["seconds_of"]) == {"start", "training", "saving"} | parts
    assert all(seconds > 0 for seconds in found["seconds_of"].values())


@pytest.mark.nightly
def test_a_dry_run_says_what_a_run_takes(tmp_path: Path) -> None:
    """Each in a process of its own. Of memory alone: seconds hang on what else the machine does."""
    more = ["--out", str(tmp_path / "f.json"), "--work", str(tmp_path / "w"), "--fast", "--precision", "fp32"]
    command = [sys.executable, "benchmarks/dry_run.py", *more, "--only", "reward, all|ppo, LoRA"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for row in json.loads((tmp_path / "f.json").read_text())["rows"]:
        assert row["memory"] == pytest.approx(1, abs=0.3)


def test_shared_weights_are_counted_once() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert weight_bytes({"a": layer, "b": nn.Sequential(layer, nn.Linear(4, 1, bias=False))}) == {"a": 64, "b": 16}
