"""Judgments weighted by their labelers: one who errs is heard less, and the reward is better for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tiny_models import sentence, write_rows

from hearken.algorithms.reward import load
from hearken.algorithms.reward_options import RewardOptions
from hearken.algorithms.stage import Inputs, train

OFF: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-3, "batch": 8, "epochs": 3}


def pair(r: random.Random, number: int, labeler: str, right: bool) -> dict[str, str]:
    """In truth happy is better."""
    good, bad = f" {sentence(r, 2, 4)} happily", f" {sentence(r, 2, 4)} sadly"
    chosen, rejected = (good, bad) if right else (bad, good)
    return {"prompt": f"tell {number} the", "chosen": chosen, "rejected": rejected, "labeler": labeler}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two labelers who are right, and one who mostly is not and judges more than both together; and the truth."""
    folder, r = tmp_path_factory.mktemp("noise"), random.Random(0)
    rows = []
    for i in range(60):
        wrong = r.random() < 0.9
        one = pair(r, i, "troll", not wrong)
        rows.append(one)
        if i < 20:  # what several judged tells who errs
            best = {"chosen": one["rejected"], "rejected": one["chosen"]} if wrong else {}
            rows += [one | best | {"labeler": name} for name in ("ana", "bo")]
    gold = [pair(r, 100 + i, "truth", True) for i in range(30)]
    return write_rows(folder / "pairs.jsonl", rows), write_rows(folder / "gold.jsonl", gold)


def test_a_labeler_who_errs_is_heard_less(files: tuple[Path, Path], world, tmp_path: Path) -> None:
    data, gold = files
    plain = train("reward", model=world.base, data=data, validation=gold, out=tmp_path / "plain", **OFF)
    by = {"labeler_weights": "reliability"}
    weighted = train("reward", model=world.base, data=data, validation=gold, out=tmp_path / "weighted", **OFF | by)
    assert plain.metrics["accuracy"] < 0.5 and weighted.metrics["accuracy"] > 0.9
    counts = weighted.manifest["data"]["labeler_weights"]
    assert counts["troll"] < 0.2 < 1 < counts["ana"] == pytest.approx(counts["bo"])
    assert 35 < weighted.metrics["effective_judgments"] < 60 and "effective_judgments" not in plain.metrics


def test_weights_reach_the_loss_of_training_rows_only(files: tuple[Path, Path], world, tmp_path: Path) -> None:
    data, gold = files
    table = tmp_path / "weights.csv"
    table.write_text("labeler,weight\nana,2\ntroll,0\n", "utf-8")
    options = RewardOptions(labeler_weights=str(table))
    ready = load(Inputs(model=str(world.base), data=(str(data),), validation=(str(gold),)), options)
    assert sorted({j.weight for j in ready.data}) == [0.0, 1.0, 2.0] and sum(j.weight for j in ready.data) == 60
    assert {j.weight for j in ready.held_out} == {1.0}
    assert ready.facts["effective"] == pytest.approx(60**2 / (20 * 4 + 20))
    standing = load(
        Inputs(model=str(world.base), data=(str(data),), validation=(str(gold),)),
        RewardOptions(population={"labeler": {"ana": 1, "bo": 1, "troll": 1}}),
    )
    assert standing.facts["labeler_weights"]["ana"] == pytest.approx(100 / 60)
