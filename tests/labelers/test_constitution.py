from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from hearken.errors import UserError
from hearken.labelers.constitution import Constitution, Principle, built_in, load_constitution


def test_those_of_the_package() -> None:
    assert set(built_in()) == {"general", "stories", "summaries"}
    for name in built_in():
        found = load_constitution(name)
        assert found.name == name and len(found.principles) >= 3
    assert {"helpful", "honest", "harmless"} <= {p.id for p in load_constitution("general").principles}


def test_drawing_is_fixed_and_weighted() -> None:
    one = Constitution(name="x", principles=[Principle(id="a", text="A"), Principle(id="b", text="B", weight=3)])
    drawn = [one.draw(f"item {i}").id for i in range(400)]
    assert drawn == [one.draw(f"item {i}").id for i in range(400)]
    assert 260 < Counter(drawn)["b"] < 340


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nprinciples: []", "mine.yaml: principles"),
        ("name: x\nprinciples: [{id: a, text: b, txt: c}]", "unknown key 'principles.0.txt'"),
        ("name: x\nprinciples: [{id: a, text: b}, {id: a, text: c}]", "two principles have the same id"),
        ("just words", "does not hold a mapping"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_constitution(str(tmp_path / "mine.yaml"))


def test_none_of_that_name() -> None:
    with pytest.raises(UserError, match=r"no constitution 'generl'.*general, stories, summaries"):
        load_constitution("generl")
