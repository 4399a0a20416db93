"""Weights of judgments by labeler: reliability, a population, a file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Document
from hearken.feedback.splits import deduplicate
from hearken.feedback.weighting import read_weights, reliability, reweight


def panel(items: int = 120) -> list[Comparison]:
    """Three labelers judge each pair: two are right nine times in ten, one tosses a coin."""
    r = random.Random(0)
    rows = []
    for i in range(items):
        for who, right in (("ana", 0.9), ("bo", 0.9), ("coin", 0.5)):
            ranks = (0, 1) if r.random() < right else (1, 0)
            facts = {"labeler": who, "attributes": {"group": "one" if who == "ana" else "other"}}
            shown = (f"good {i}", f"bad {i}")
            if r.random() < 0.5:  # how it was written down is no matter
                shown, ranks = shown[::-1], ranks[::-1]
            rows.append(Comparison(f"p{i}", shown, ranks, metadata=facts))
    return rows


def test_reliable_labelers_count_more() -> None:
    rows = panel()
    found = reliability(rows)
    assert found["ana"] > 0.85 and found["bo"] > 0.85 and found["coin"] < 0.65
    made = reweight(rows, "reliability")
    assert made.by_labeler["coin"] < 0.4 < 1.2 < made.by_labeler["ana"]
    assert sum(row.weight for row in made.rows) == pytest.approx(len(rows))  # type: ignore[union-attr]
    w = [row.weight for row in made.rows]  # type: ignore[union-attr]
    assert made.effective == pytest.approx(sum(w) ** 2 / sum(x * x for x in w)) and made.effective < len(rows)
    assert [row.responses for row in made.rows] == [row.responses for row in rows]  # type: ignore[union-attr]


def test_judgments_stand_for_a_population() -> None:
    made = reweight(panel(), population={"group": {"one": 1, "other": 1}})
    assert made.by_labeler == pytest.approx({"ana": 1.5, "bo": 0.75, "coin": 0.75})
    with pytest.raises(UserError, match="nobody who judged has group=third"):
        reweight(panel(), population={"group": {"one": 1, "third": 1}})
    with pytest.raises(UserError, match="no labeler has any of its values of age"):
        reweight(panel(), population={"age": {"old": 1}})


def test_weights_from_a_file(tmp_path: Path) -> None:
    plain, lines, table = tmp_path / "w.json", tmp_path / "w.jsonl", tmp_path / "w.csv"
    plain.write_text(json.dumps({"ana": 2, "bo": 0.5}))
    lines.write_text('{"labeler": "ana", "weight": 2}\n{"labeler": "bo", "weight": 0.5}\n')
    table.write_text("labeler,name,weight\nana,Ana,2\nbo,Bo,0.5\n")
    assert read_weights(plain) == read_weights(lines) == read_weights(table) == {"ana": 2.0, "bo": 0.5}
    made = reweight([*panel(2), Document("text")], str(plain))
    assert [getattr(row, "weight", None) for row in made.rows] == [2.0, 0.5, 1.0, 2.0, 0.5, 1.0, None]
    plain.write_text('{"ana": -1}')
    with pytest.raises(UserError, match="0 or more"):
        read_weights(plain)
    table.write_text("who,much\nana,2\n")
    with pytest.raises(UserError, match="no columns labeler and weight"):
        read_weights(table)
    with pytest.raises(UserError, match="cannot read"):
        read_weights(tmp_path / "none.csv")


def test_what_cannot_be_weighted_is_refused(tmp_path: Path) -> None:
    alone = [Comparison(f"p{i}", ("a", "b"), (0, 1), metadata={"labeler": f"l{i}"}) for i in range(3)]
    with pytest.raises(UserError, match="several labelers judged"):
        reweight(alone, "reliability")
    with pytest.raises(UserError, match="names its labeler"):
        reweight([Comparison("p", ("a", "b"), (0, 1))], "reliability")
    other = tmp_path / "w.json"
    other.write_text('{"nobody": 1}')
    with pytest.raises(UserError, match="none of its labelers judged here"):
        reweight(alone, str(other))


def test_two_labelers_who_agree_are_two_judgments() -> None:
    rows = [Comparison("p", ("a", "b"), (0, 1), metadata={"labeler": who}) for who in ("ana", "bo", "ana")]
    found = deduplicate(rows)
    assert [row.metadata["labeler"] for row in found.kept] == ["ana", "bo"] and found.removed == 1
