"""Encoder-decoder policies through the stages, from a folder that transformers wrote to one that it loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_policy_gradient import module  # noqa: F401
from tiny_models import write_seq2seq
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from hearken import sample
from hearken.algorithms.stage import builtin, find_stage, train
from hearken.domains.text.talk import Talker
from hearken.errors import UserError
from hearken.feedback.examples import Message

FAST: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-3, "batch_size": 8}
SAMPLED: dict[str, Any] = {"batch_size": 8, "episodes": 16, "max_new_tokens": 6, "missing_eos": None, "epochs": 1}


def same(a: Path, b: Path) -> bool:
    one, other = (AutoModelForSeq2SeqLM.from_pretrained(p).state_dict() for p in (a, b))
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.mark.parametrize("kind", ["t5", pytest.param("bart", marks=pytest.mark.slow)])
def test_every_stage_changes_the_policy(world, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    base = write_seq2seq(tmp_path / "base", kind)
    sft = train("sft", model=base, data=world.demonstrations, out=tmp_path / "sft", **FAST)
    losses = [json.loads(line)["loss"] for line in (sft.path / "run/metrics.jsonl").read_text().splitlines()]
    assert not same(base, sft.path) and losses[-1] < losses[0]
    reward = train("reward", model=sft.path, data=world.pairs, out=tmp_path / "rm", **FAST | {"epochs": 4})
    assert reward.metrics["accuracy"] > 0.8, "'happily' above 'sadly'"
    assert AutoModelForSequenceClassification.from_pretrained(reward.path).config.num_labels == 1
    dpo = train("dpo", model=sft.path, data=world.pairs, out=tmp_path / "dpo", **FAST | {"epochs": 2})
    assert not same(sft.path, dpo.path) and dpo.metrics["accuracy"] > 0.8
    for shared in (0, 2) if kind == "t5" else (0,):
        out = tmp_path / f"ppo-{shared}"
        ppo = train(
            "ppo", model=sft.path, data=world.prompts, reward=reward.path, out=out, lora=shared, num_generations=2,
            **FAST | SAMPLED,
        )  # fmt: skip
        rows = [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]
        assert all(row["first_ratio_gap"] < 1e-4 and row["sampler_gap"] < 1e-4 for row in rows)
        assert abs(rows[0]["kl"]) < 1e-4, "the reference is the policy as it was"
        assert (ppo.path / "adapter_config.json").exists() if shared else not same(sft.path, ppo.path)
    (answers,) = sample(ppo.path, ["tell 1 the"], 2, max_new_tokens=5)
    assert len(answers) == 2
    talked = list(Talker(lambda: str(dpo.path), device="cpu").stream([Message("user", "tell 1 the")], 2, seed=1))
    assert {row for row, _ in talked} <= {0, 1} and talked


def test_what_does_not_go_with_them_says_so(world, tmp_path: Path) -> None:
    base = write_seq2seq(tmp_path / "base", "t5")
    with pytest.raises(UserError, match="NLPO cannot mask a T5ForConditionalGeneration"):
        train("nlpo", model=base, data=world.prompts, reward="rule:distinct", out=tmp_path / "out", **FAST | SAMPLED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", sorted({s.name for s in builtin() if s.domain == "text"} - {"sft", "reward", "dpo", "ppo", "nlpo"})
)
def test_the_others_change_it_too(world, tmp_path: Path, stage: str, module, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    base = write_seq2seq(tmp_path / "base", "t5")
    more: dict[str, Any] = {"data": world.pairs, "epochs": 1}
    if find_stage(stage).needs("reward"):
        body = "def size(prompts, responses, metadata):\n    return [float(len(r)) for r in responses]\n"
        more = SAMPLED | {
            "data": world.prompts,
            "reward": f"{module(body, f'size_{stage}')}:size",
            "num_generations": 2,
        }
    artifact = train(stage, model=base, out=tmp_path / "out", **FAST | more)
    assert not same(base, artifact.path)
    (answers,) = sample(artifact.path, ["tell 1 the"], 2, max_new_tokens=5)
    assert len(answers) == 2
