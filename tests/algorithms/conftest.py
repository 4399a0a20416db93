"""A tiny model, data of every kind and a reward model, made once."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_models import WORDS, sentence, write_base, write_rows

from hearken.algorithms.stage import train
from hearken.progress import quiet


@dataclass(frozen=True)
class World:
    """Paths."""

    base: Path
    sft: Path
    """The base fine-tuned to say a word or two and stop."""
    demonstrations: Path
    prompts: Path
    pairs: Path
    rankings: Path
    text: Path
    reward: Path


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    r = random.Random(0)
    base = write_base(folder / "base")
    prompts = [f"tell {i} the" for i in range(24)]
    demonstrations = write_rows(folder / "sft.jsonl", [{"prompt": p, "completion": " " + sentence(r)} for p in prompts])
    pairs = write_rows(
        folder / "pairs.jsonl",
        [{"prompt": p, "chosen": f" {sentence(r)} happily", "rejected": f" {sentence(r)} sadly"} for p in prompts],
    )
    rankings = []
    for p in prompts:
        responses = [" " + " ".join(r.choices(WORDS, k=6)) for _ in range(4)]
        count = [x.count("fox") for x in responses]
        ranks = [sorted(set(count), reverse=True).index(c) for c in count]
        rankings.append({"prompt": p, "responses": responses, "ranks": ranks})
    text = folder / "text.txt"
    text.write_text("\n".join(sentence(r) for _ in range(30)), encoding="utf-8")
    short = [{"prompt": p, "completion": " " + sentence(r, 1, 2)} for p in prompts]
    with quiet():
        sft = train(
            "sft", model=base, data=write_rows(folder / "short.jsonl", short), out=folder / "sft", lr=1e-2, epochs=12,
            batch_size=12, validation=0, trackers="none", precision="fp32",
        )  # fmt: skip
        reward = train(
            "reward", model=base, data=pairs, out=folder / "reward", lr=3e-3, epochs=4, batch_size=8, trackers="none",
            precision="fp32", references=demonstrations,
        )  # fmt: skip
    return World(
        base, sft.path, demonstrations, write_rows(folder / "prompts.jsonl", [{"prompt": p} for p in prompts]), pairs,
        write_rows(folder / "rank.jsonl", rankings), text, reward.path,
    )  # fmt: skip
