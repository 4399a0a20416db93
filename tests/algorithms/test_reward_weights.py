"""Judgments weighted by their labelers: one who errs is heard less, and the reward is better for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from tiny_models import sentence, write_rows

from hearken.algorithms.accuracy import pair_accuracy
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.reward_setup import load
from hearken.algorithms.stage import Inputs, train
from hearken.domains.text.data import Judged
from hearken.models.layout import Group

OFF: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 3e-3, "batch_size": 8, "epochs": 3}


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


@pytest.mark.slow
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
    options = RewardConfig(labeler_weights=str(table))
    ready = load(Inputs(model=str(world.base), data=(str(data),), validation=(str(gold),)), options)
    assert sorted({j.weight for j in ready.data}) == [0.0, 1.0, 2.0] and sum(j.weight for j in ready.data) == 60
    assert {j.weight for j in ready.held_out} == {1.0}
    assert ready.facts["effective"] == pytest.approx(60**2 / (20 * 4 + 20))
    standing = load(
        Inputs(model=str(world.base), data=(str(data),), validation=(str(gold),)),
        RewardConfig(population={"labeler": {"ana": 1, "bo": 1, "troll": 1}}),
    )
    assert standing.facts["labeler_weights"]["ana"] == pytest.approx(100 / 60)


def test_held_out_judgments_count_as_the_population_has_them(files: tuple[Path, Path], world, tmp_path: Path) -> None:
    data, _ = files
    shares = {"labeler": {"ana": 0.4, "bo": 0.4, "troll": 0.2}}
    r, judges = random.Random(1), ["ana", "troll", "troll", "somebody else"]
    kept = write_rows(tmp_path / "kept.jsonl", [pair(r, 200 + i, name, True) for i, name in enumerate(judges)])
    inputs = Inputs(model=str(world.base), data=(str(data),), validation=(str(kept),))
    ready = load(inputs, RewardConfig(population=shares))
    # Of 100 judgments to train on 20, 20 and 60 are theirs.
    assert sorted(round(j.weight, 3) for j in ready.held_out) == [0.333, 0.333, 1.0, 2.0]
    assert {j.weight for j in load(inputs, RewardConfig()).held_out} == {1.0}


def test_accuracy_by_weight() -> None:
    def judged(key: int, ranks: tuple[int, int], weight: float) -> Judged:
        return Judged(Group([1], [[2], [2, 3]]), "comparison", ranks, weight=weight, key=str(key))

    rows = [judged(0, (0, 1), 3.0), judged(1, (1, 0), 1.0), judged(2, (1, 0), 0.0)]
    found = pair_accuracy([1.0, 0.0] * 3, rows)
    assert found["accuracy"] == pytest.approx(0.75) and found["length_accuracy"] == pytest.approx(0.25)
    assert found["validation_pairs"] == 2 and 0 <= found["accuracy_low"] <= 0.75 <= found["accuracy_high"] <= 1
    assert pair_accuracy([1.0, 0.0], rows[:1])["accuracy"] == 1 and pair_accuracy([1.0, 0.0], rows[2:]) == {}


def test_accuracy_counts_a_vote_by_its_share() -> None:
    """Who is with three of four voters is right in .75, who is against them in .25; an even vote decides nothing."""

    def vote(key: int, ranks: tuple[int, int], share: float) -> Judged:
        return Judged(Group([1], [[2], [2, 3]]), "comparison", ranks, share=share, key=str(key))

    rows = [vote(0, (0, 1), 0.75), vote(1, (1, 0), 0.25), vote(2, (0, 0), 0.5)]
    found = pair_accuracy([1.0, 0.0] * 3, rows)
    assert found["accuracy"] == pytest.approx((0.75 + 0.25) / 2) and found["validation_pairs"] == 2
    assert found["length_accuracy"] == pytest.approx(1 - (0.75 + 0.25) / 2)
    assert pair_accuracy([1.0, 0.0], rows[:1])["accuracy"] == pytest.approx(0.75)
