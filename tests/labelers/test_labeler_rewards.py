from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_server import reply, serve
from tiny_models import write_base, write_rows
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import hearken.labelers.rewards as rewards
from hearken.algorithms.stage import train
from hearken.cli.main import app
from hearken.errors import UserError
from hearken.labelers.judges import Reply
from hearken.progress import quiet

SHOWN = re.compile(r"Response A:\n(.*?)\n\nResponse B:\n(.*?)\n\nPrinciple", re.DOTALL)


def prefers_short(body: dict[str, Any]) -> tuple[int, Any]:
    """Leans to the shorter response, and by much more to the one shown first."""
    found = SHOWN.search(body["messages"][-1]["content"])
    assert found
    return 200, reply("A", {"A": 0.1 * (len(found[2]) - len(found[1])) + 3.0, "B": 0.0})


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rewards._labeler.cache_clear()
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
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


def test_what_was_asked_is_not_asked_again(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is resumed in another process finds the replies, in a project among those of `hearken label`."""

    def ask() -> list[float]:
        rewards._labeler.cache_clear()
        return rewards.ai(["p", "p"], ["b", "ccc"], [{}, {}])

    with serve(prefers_short) as (url, seen):
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        assert ask() == ask() and len(seen) == 2
        assert len(list((tmp_path / "cache/judge").glob("*.json"))) == 2
        (tmp_path / "hearken.yaml").touch()
        monkeypatch.chdir(tmp_path)
        assert ask() == ask() and len(seen) == 4
        assert len(list((tmp_path / "runs/judge").glob("*.json"))) == 2


def test_the_pace_is_the_environment_s(judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARKEN_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("HEARKEN_JUDGE_PER_MINUTE", "30")
    judges: list[Any] = []
    monkeypatch.setattr(rewards, "CachedJudge", lambda judge, folder: judges.append(judge) or Mute())
    rewards.ai(["p", "p"], ["b", "ccc"], [{}, {}])
    assert judges[0].per_minute == 30
    monkeypatch.setenv("HEARKEN_JUDGE_PER_MINUTE", "often")
    with pytest.raises(UserError, match="HEARKEN_JUDGE_PER_MINUTE=often is not a number"):
        rewards.ai(["p", "p"], ["b", "ccc"], [{}, {}])


class Mute:
    name = identity = "mute"

    def choose(self, dialogue: Any, options: Any) -> Reply:
        return Reply("A", {"A": 0.0, "B": 0.0})


def test_the_number_of_requests_is_said_first(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"tell {i} the"} for i in range(8)])
    words = (
        "train rloo --model base --data prompts.jsonl --out out --json --batch-size 8 --episodes 16 --num-generations 4"
    )
    words += " --max-new-tokens 6 --precision fp32 --trackers none --reward labeler:ai"
    with serve(prefers_short) as (url, seen):
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        dry = CliRunner().invoke(app, [*words.split(), "--dry-run"])
        assert dry.exit_code == 0 and json.loads(dry.stdout)["estimate"]["judge_requests"] == 48 and not seen, (
            dry.stderr
        )
        done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0 and "labeler:ai: at most 48 requests" in done.stderr, done.stderr
    assert 40 <= len(seen) <= 48, "fewer where two responses are one"
    plain = CliRunner().invoke(app, [*words.replace("labeler:ai", "rule:distinct").split(), "--dry-run"])
    assert "judge_requests" not in json.loads(plain.stdout)["estimate"]


def test_online_dpo_by_a_labeler(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_base(tmp_path / "base")
    data = write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"tell {i} the"} for i in range(8)])
    with serve(prefers_short) as (url, seen), quiet():
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        artifact = train(
            "online_dpo", model=base, data=data, reward="labeler:ai", out=tmp_path / "out", batch_size=8, episodes=16,
            max_new_tokens=6, missing_eos=None, lr=1e-3, trackers="none", precision="fp32",
        )  # fmt: skip
    assert len(seen) == 16 and artifact.metrics["score"] == pytest.approx(0.5)
    before, after = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (base, artifact.path))
    assert any(not torch.equal(weight, before[name]) for name, weight in after.items())
