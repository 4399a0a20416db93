from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_server import reply, serve
from tiny_models import write_base, write_rows
from transformers import AutoModelForCausalLM

import hearken.labelers.rewards as rewards
from hearken.algorithms.stage import train
from hearken.errors import UserError
from hearken.progress import quiet

SHOWN = re.compile(r"Response A:\n(.*?)\n\nResponse B:\n(.*?)\n\nPrinciple", re.DOTALL)


def prefers_short(body: dict[str, Any]) -> tuple[int, Any]:
    """Leans to the shorter response, and by much more to the one shown first."""
    found = SHOWN.search(body["messages"][-1]["content"])
    assert found
    return 200, reply("A", {"A": 0.1 * (len(found[2]) - len(found[1])) + 3.0, "B": 0.0})


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards._labeler.cache_clear()
    monkeypatch.setenv("HEARKEN_JUDGE", "tiny")


def test_scores_are_chances_of_winning(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(prefers_short) as (url, seen):
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        turns = [{"role": "user", "content": "tell"}]
        scores = rewards.ai([turns] * 3 + ["p"] * 2, ["aaaaaaaaaa", "", "aaaaa", "b", "c"], [{}] * 5)
        with pytest.raises(UserError, match="Set samples to 2 or more"):
            rewards.ai(["p", "q"], ["a", "b"], [{}, {}])
    assert scores[1] > scores[2] > scores[0] and sum(scores[:3]) == pytest.approx(1.5)
    assert scores[3:] == [0.5, 0.5], "the side it favours cancels"
    assert len(seen) == 2 * 3 + 2


def test_a_judge_must_be_named_and_make_sense(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda _: (200, reply("turtles"))) as (url, _):
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        assert rewards.ai(["p", "p"], ["a", "b"], [{}, {}]) == [0.5, 0.5], "nothing was learnt from this prompt"
        with pytest.raises(UserError, match="with neither A nor B"):
            rewards.ai([str(i // 2) for i in range(20)], ["a", "b"] * 10, [{}] * 20)
    monkeypatch.delenv("HEARKEN_JUDGE")
    with pytest.raises(UserError, match="no judge is named"):
        rewards.ai(["p", "p"], ["a", "b"], [{}, {}])


def test_online_dpo_by_a_labeler(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(tmp_path / "base")
    data = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"tell {i} the"} for i in range(8)])
    with serve(prefers_short) as (url, seen), quiet():
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        artifact = train(
            "online_dpo", model=base, data=data, reward="labeler:ai", out=tmp_path / "out", batch=8, episodes=16,
            max_new_tokens=6, missing_eos=None, lr=1e-3, trackers="none", precision="fp32",
        )  # fmt: skip
    assert len(seen) == 16 and artifact.metrics["score"] == pytest.approx(0.5)
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (base, artifact.path))
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())
