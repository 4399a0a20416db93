"""Options that make no sense for the data, and runs that teach nothing, are said."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_base, write_rows

from hearken.algorithms.doubts import of_recorded, of_sampled
from hearken.algorithms.rollouts import without_signal
from hearken.algorithms.stage import Inputs, estimate, find_stage, train
from hearken.models.layout import Group
from hearken.rollout.sampler import Sample

QUIET: dict[str, Any] = {"trackers": "none", "precision": "fp32"}


def parsed(stage: str, **values: Any) -> Any:
    return find_stage(stage).options.parse(values, where="test")


def groups(length: int, count: int = 40) -> list[Group]:
    return [Group([5], [[6] * length, [7] * length]) for _ in range(count)]


@pytest.mark.parametrize(
    ("values", "length", "said"),
    [
        ({}, 200, None),  # the paper's sum asks for 5 nats, however long the responses
        ({"log_ratio": "mean"}, 200, r"5 nats a token, 1000 in a response of the mean length 200.*log_ratio=sum"),
        ({"log_ratio": "mean"}, 3, None),
        ({"log_ratio": "mean", "beta": 5.0}, 200, None),
        ({"beta": 0.02}, 200, r"a lead of 25 nats.*Raise beta"),
    ],
)
def test_ipo_asks_for_what_a_policy_can_give(values: dict[str, Any], length: int, said: str | None) -> None:
    found = list(of_recorded(parsed("ipo", **values), groups(length)))
    if said is None:
        assert not found
    else:
        assert re.search(said, found[0])


@pytest.mark.parametrize(
    ("stage", "values", "said"),
    [
        ("sft", {"batch_size": 64}, "batch_size=64 is more than the 40 rows"),
        ("sft", {}, None),
        ("dpo", {"warmup": 0.1, "batch_size": 20}, "warmup=0.1 of 2 steps is none"),
        ("dpo", {"warmup": 0.1, "batch_size": 2}, None),
        ("dpo", {"epsilon": 0.2}, "epsilon does nothing with loss=dpo: cdpo and robust read it"),
        ("dpo", {"loss": "cdpo", "epsilon": 0.2}, None),
        ("simpo", {"log_ratio": "sum"}, "log_ratio does nothing with loss=simpo"),
        ("dpo", {"margin": 1.0}, "margin=1 does nothing: no judgment says"),
        ("kto", {"lora_alpha": 8}, "lora_alpha does nothing without --lora"),
        ("kto", {"lora_alpha": 8, "lora": 4}, None),
        ("ilql", {}, "go 0% of the way"),
        ("ilql", {"polyak": 0.5}, None),
    ],
)
def test_recorded(stage: str, values: dict[str, Any], said: str | None) -> None:
    found = "; ".join(of_recorded(parsed(stage, **values), groups(8)))
    assert (said in found) if said else not found


@pytest.mark.parametrize(
    ("stage", "values", "said"),
    [
        ("ppo", {"episodes": 100, "batch_size": 128}, "batch_size=128 is more than episodes=100"),
        ("ppo", {"episodes": 100, "batch_size": 32}, "the last 4 are not sampled"),
        ("ppo", {"episodes": 96, "batch_size": 32}, None),
        ("rloo", {"episodes": 512, "batch_size": 512}, "a batch asks 128 prompts, and there are 40"),
        ("ppo", {"episodes": 96, "batch_size": 32, "kl_target": 6.0}, "beta can change by 0.2% at most"),
        ("ppo", {"episodes": 96, "batch_size": 32, "kl_target": 6.0, "kl_horizon": 50}, None),
        ("ppo", {"episodes": 96, "batch_size": 32, "kl_target": 6.0, "kl_horizon": 50, "beta": 0}, "stays zero"),
        (
            "ppo",
            {"episodes": 96, "batch_size": 32, "kl_target": 300.0, "kl_horizon": 50},
            "2.3 for each of its at most 128",
        ),
        ("ppo", {"episodes": 96, "batch_size": 32, "ptx_coef": 2.0}, "ptx_coef does nothing without --ptx"),
        ("nlpo", {"episodes": 96, "batch_size": 32}, "refresh=5: in 3 iterations"),
        ("rft", {"episodes": 96, "batch_size": 32, "percentile": 0.5}, "percentile does nothing with select=best"),
        ("online_dpo", {"episodes": 64, "batch_size": 32, "loss": "ipo", "log_ratio": "mean"}, "640 in a response"),
        ("online_dpo", {"episodes": 64, "batch_size": 32, "loss": "ipo"}, None),
    ],
)
def test_sampled(stage: str, values: dict[str, Any], said: str | None) -> None:
    found = "; ".join(of_sampled(parsed(stage, **values), [[5]] * 40, ptx=False))
    assert (said in found) if said else not found


def test_doubts_are_said_in_a_dry_run_and_kept(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    rows = [{"prompt": f"the {w}", "chosen": " fox" * 20, "rejected": " owl" * 20} for w in ("fox", "bear", "hill")]
    inputs = Inputs(str(base), (str(write_rows(tmp_path / "p.jsonl", rows)),))
    options = parsed("ipo", log_ratio="mean", validation=0.0, **QUIET)
    with pytest.warns(UserWarning, match="nats a token"):
        assert "nats a token" in estimate(find_stage("ipo"), inputs, options)["doubts"]
    with pytest.warns(UserWarning, match="nats a token"):
        made = train(
            "ipo", model=base, data=inputs.data[0], out=tmp_path / "o", log_ratio="mean", validation=0.0, **QUIET
        )
    assert "nats a token" in made.manifest["data"]["doubts"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = train("ipo", model=base, data=inputs.data[0], out=tmp_path / "sum", validation=0.0, **QUIET)
    assert made.manifest["options"]["log_ratio"] == "sum" and "doubts" not in made.manifest["data"]


# A first batch that teaches nothing

ENDED, CUT = Sample(0, [5], [0.0], "stop"), Sample(0, [5], [0.0], "length")


def test_what_is_no_signal() -> None:
    options = parsed("rloo", num_generations=2)

    def said(samples: list[Sample], scores: list[float], grouped: bool = True) -> str:
        return "; ".join(without_signal(samples, torch.tensor(scores), options, grouped=grouped))

    assert not said([ENDED] * 4, [1.0, 0.0, 0.0, 1.0])
    assert "4 of the first 4 responses did not end within max_new_tokens=128" in said([CUT] * 4, [-1.0] * 4)
    assert "scored -1 (missing_eos)" in said([CUT] * 4, [-1.0] * 4)
    assert "all of the first 4 responses score 0.5" in said([ENDED] * 4, [0.5] * 4)
    assert "the 2 responses to each of the first 2 prompts score alike" in said([ENDED] * 4, [1.0, 1.0, 0.0, 0.0])
    assert not said([ENDED] * 4, [1.0, 1.0, 0.0, 0.0], grouped=False)


SAMPLED: dict[str, Any] = QUIET | {"episodes": 4, "batch_size": 4, "max_new_tokens": 2}
KINDS = {
    "rloo": {"num_generations": 2}, "grpo": {"num_generations": 2}, "reinforce": {},
    "online_dpo": {"num_generations": 2}, "rft": {"num_generations": 2},
    "ppo": {"epochs": 1}, "a2c": {}, "trpo": {"value_steps": 1}, "nlpo": {"epochs": 1},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
def test_every_stage_says_that_all_was_cut(stage: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": f"the {w}"} for w in ("fox", "owl", "bear", "hill")])
    with pytest.warns(
        UserWarning, match=r"of the first 4 responses did not end within max_new_tokens=2.*missing_eos=none"
    ):
        made = train(
            stage, model=base, data=prompts, reward="rule:distinct", out=tmp_path / "out", **SAMPLED | KINDS[stage]
        )
    notices = made.manifest["notices"]
    assert any("did not end within" in one for one in notices) and any("score -1" in one for one in notices)
    assert json.loads((tmp_path / "out/run/notices.json").read_text()) == notices
    if stage in ("rloo", "grpo", "online_dpo", "rft"):
        assert any("no step changed the policy" in one for one in notices)
