"""Cards of trained reward models: from bare files, with shift and learning curve, and by the command line."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import sentence, write_base, write_rows
from typer.testing import CliRunner

from hearken.algorithms.stage import train
from hearken.cli.main import app
from hearken.errors import UserError
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.examples import Comparison
from hearken.loop.cards import evaluate_reward
from hearken.progress import quiet


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[dict[str, str]]]:
    """A reward model that has learned to like "happily", and pairs it has not seen."""
    folder = tmp_path_factory.mktemp("cards")
    r = random.Random(0)
    pairs = [
        {
            "prompt": f"tell {i} the",
            "chosen": f" {sentence(r, 4, 6)} happily",
            "rejected": f" {sentence(r, 4, 6)} sadly",
            "labeler": f"l{i % 4}",
        }
        for i in range(72)
    ]
    with quiet():
        done = train(
            "reward", model=write_base(folder / "base"), data=write_rows(folder / "pairs.jsonl", pairs[:32]),
            out=folder / "reward", lr=3e-3, epochs=6, batch_size=8, validation=0.25, trackers="none", precision="fp32",
        )  # fmt: skip
    return done.path, pairs[32:]


def who(row: dict[str, str]) -> dict[str, str]:
    return {"labeler": row["labeler"]}


@pytest.mark.slow
def test_a_card_with_everything(made) -> None:
    folder, pairs = made
    rows = [Comparison(p["prompt"], (p["chosen"], p["rejected"]), (0, 1), metadata=who(p)) for p in pairs]
    now = {"r01-ppo": [(p["prompt"], " river river river river") for p in pairs]}
    told: list[str] = []
    with quiet():
        card = evaluate_reward(
            folder, rows, others=[folder], now=now, learning_curve=True, held_out_labelers=True, announce=told.append
        )
    assert card.passes and card.accuracy.estimate > 0.9
    assert [point.labels for point in card.learning] == sorted(point.labels for point in card.learning)
    assert len(card.learning) == 4 and "times the labels brought" in card.learning_says
    assert (
        card.shift is not None
        and card.shift.told_apart > 0.8
        and card.shift.of == ["r01-ppo"]
        and any("scores now" in r for r in card.remarks)
    )
    assert card.ensemble is not None and card.ensemble.disagreement == 0
    assert len(told) == 1 and "4 more trainings: about" in told[0]
    assert card.strangers is not None and len(card.strangers.labelers) == 1 and card.strangers.pairs == (10, 30)
    assert card.strangers.theirs.estimate > 0.6 and any("Fitted without 1 labeler, it" in r for r in card.remarks)
    assert not card.failures, "what is worth knowing is no reason against it"
    assert card.discovered is not None and not card.discovered.real, "all want it happy"
    again = RewardCard.load(folder)
    assert again is not None and (again.learning, again.shift, again.slices) == (card.learning, card.shift, card.slices)
    assert (again.strangers, again.discovered) == (card.strangers, card.discovered)


def test_what_training_held_out_and_what_it_saw(made) -> None:
    folder, _ = made
    with quiet():
        held_out = json.loads((folder / "manifest.json").read_text())["metrics"]["validation_pairs"]
        card = evaluate_reward(folder)
        assert card.pairs == held_out
        assert card.ensemble is not None and (card.ensemble.of, card.ensemble.models) == ("heads", 5)
        seen = json.loads((folder / "manifest.json").read_text())["inputs"]["data"][0]
        with pytest.raises(UserError, match="training data"):
            evaluate_reward(folder, [seen])


def test_a_card_among_the_population_that_the_model_was_fitted_to(made, tmp_path) -> None:
    folder, pairs = made
    rows = [
        Comparison(
            p["prompt"], (p["chosen"], p["rejected"]), (1, 0) if p["labeler"] == "l1" else (0, 1), metadata=who(p)
        )
        for p in pairs
    ]
    weights = {"l0": 2.0, "l1": 0.5, "l2": 1.0, "l3": 0.0}
    fitted = tmp_path / "fitted"
    shutil.copytree(folder, fitted, ignore=shutil.ignore_patterns("learning", "card.json"))
    manifest = json.loads((fitted / "manifest.json").read_text())
    manifest["options"]["population"] = {"labeler": {"l0": 4, "l1": 1, "l2": 2}}
    manifest["data"]["labeler_weights"] = weights
    (fitted / "manifest.json").write_text(json.dumps(manifest))
    with quiet():
        card, plain = evaluate_reward(fitted, rows), evaluate_reward(folder, rows)
        weighed = evaluate_reward(folder, [replace(r, weight=weights[r.metadata["labeler"]]) for r in rows])
    assert card.accuracy == weighed.accuracy and card.pairs == 30, "l3 stands for nobody"
    assert card.accuracy.estimate > plain.accuracy.estimate + 0.05


def test_the_command(made, tmp_path) -> None:
    folder, pairs = made
    data = write_rows(tmp_path / "held.jsonl", pairs)
    ran = CliRunner().invoke(app, ["card", str(folder), "--data", str(data), "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["passes"] is True and said["pairs"] == 40


def test_the_learning_curve_is_announced_and_answered_by_the_command(made, tmp_path) -> None:
    """A larger model on the same labels, and the parts that an earlier card may have left."""
    folder, pairs = made
    data = write_rows(tmp_path / "held.jsonl", pairs)
    larger = write_base(tmp_path / "larger", hidden_size=48, num_attention_heads=4)
    ran = CliRunner().invoke(
        app,
        ["card", str(folder), "--data", str(data), "--learning-curve", "--larger", str(larger), "--json"],
    )
    assert ran.exit_code == 0, ran.output
    assert "The card takes 4 more trainings: about" in ran.stderr and "the time of the larger model" in ran.stderr
    said = json.loads(ran.stdout)["says"]
    assert "times the labels brought" in said and "a larger model on the same labels" in said
    card = RewardCard.load(folder)
    assert card is not None and len(card.learning) == 5
    assert card.learning[-1].parameters > card.learning[-2].parameters  # type: ignore[operator]
    assert card.learning[-1].labels == card.learning[-2].labels
