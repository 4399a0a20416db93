from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from hearken.evaluation.summary import (
    Finished,
    HumanFigures,
    PPOFigures,
    ReferencedRewardFigures,
    TalesPerplexity,
    TalesSummary,
)

Run = Callable[..., Result]
SUMMARY = TalesSummary(
    seed=5,
    reward=ReferencedRewardFigures(
        accuracy=0.79, accuracy_low=0.7, accuracy_high=0.85, ceiling=0.81, reference_mean=0.0, length_accuracy=0.5
    ),
    ppo=PPOFigures(
        win_rate=0.823, win_rate_low=0.78, win_rate_high=0.861, kl=7.26, parse_rate=0.96,
        win_rate_by_group={"adventure": 0.8, "comfort": float("nan")}, gold=1.0, sft_gold=0.2, sft_parse_rate=0.9,
    ),
    perplexity=TalesPerplexity(base=3.1, sft=3.4, ppo=3.5, ppo_without_ptx=None),
)  # fmt: skip
DONE = Finished(SUMMARY, None, 301.0, Path("t/report.html"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def quickstart(directory: Path, *, seed: int, fast: bool, seat: object) -> Finished:
        assert seat is None
        calls.append((directory, seed, fast))
        print("chatter")
        return DONE

    monkeypatch.setattr("hearken.loop.quickstart.quickstart", quickstart)
    return calls


def test_words_for_people(hearken: Run, calls: list[Any]) -> None:
    done = hearken("quickstart", "t", "--seed", 5)
    assert calls == [(Path("t"), 5, False)] and done.exit_code == 0
    text = " ".join(done.stdout.split())
    for words in (
        "right in 79.0% of held-out comparisons", "allows 81.0%", "wins 82.3% by the true reward (78.0% to 86.1%)",
        "adventure 80.0%, comfort –", "KL 7.3 nats", "96.0% of the tales parse", "base 3.10, sft 3.40, ppo 3.50 ",
        "5 min 01 s", "t/report.html",
    ):  # fmt: skip
        assert words in text


def test_json(hearken: Run, calls: list[Any]) -> None:
    done = hearken("quickstart", "--fast", "--json")
    assert calls == [(Path("my-tales"), 0, True)]
    told = json.loads(done.stdout)
    assert told["ppo"]["win_rate"] == 0.823 and told["ppo"]["win_rate_by_group"]["comfort"] is None
    assert told["perplexity"]["ppo_without_ptx"] is None and "human" not in told and "chatter" in done.stderr


def test_a_person_gets_a_seat(hearken: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    human = HumanFigures(
        judgments=20, needed=60, held_out_pairs=14, agreement=0.79, agreement_low=0.5, agreement_high=0.9, likes={}
    )
    seats: list[Any] = []

    def quickstart(directory: Path, *, seed: int, fast: bool, seat: Any) -> Finished:
        seats.append(seat)
        return replace(DONE, human=human)

    monkeypatch.setattr("hearken.loop.quickstart.quickstart", quickstart)
    done = hearken("quickstart", "t", "--human")
    text = " ".join(done.stdout.split())
    assert done.exit_code == 0 and callable(seats[0])
    assert "20 of 60 judgments" in text and "79.0% of 14 held-out pairs" in text
