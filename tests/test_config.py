from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from hearken.config import Options, assign, read_yaml
from hearken.errors import UserError


class Toy(Options):
    lr: float = Field(1e-3, gt=0)
    """Learning rate."""
    epochs: int = 1


def test_docstrings_become_descriptions() -> None:
    assert Toy.model_fields["lr"].description == "Learning rate."


def test_words_are_converted() -> None:
    assert Toy.parse({"lr": "1e-5", "epochs": "3"}) == Toy(lr=1e-5, epochs=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 2}, "train: unknown key 'epoch'. Did you mean 'epochs'?"),
        ({"zzzzzz": 2}, "train: unknown key 'zzzzzz'. Known keys: epochs, lr"),
        ({"lr": -1}, "train: lr: Input should be greater than 0 (got -1)"),
        ({"epochs": "two"}, "train: epochs: Input should be a valid integer"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Toy.parse(values, where="train")
    assert str(error.value).startswith(message)


def test_assign() -> None:
    values: dict[str, Any] = {"lr": 1, "kl": {"beta": 0.1}}
    for override in ("lr=2e-5", "kl.target=6", "name=a=b", "new.deep.flag=true", "list=[1, 2]", "odd=: {"):
        assign(values, override)
    # YAML reads 2e-5 (no point) as text; the options make a number of it.
    assert values == {
        "lr": "2e-5",
        "kl": {"beta": 0.1, "target": 6},
        "name": "a=b",
        "new": {"deep": {"flag": True}},
        "list": [1, 2],
        "odd": ": {",
    }


@pytest.mark.parametrize("override", ["lr", "=3", " =3", "lr.deep=1"])
def test_assign_refuses(override: str) -> None:
    with pytest.raises(UserError):
        assign({"lr": 1}, override)


def test_read_yaml(tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_text("lr: 0.1\n")
    assert read_yaml(path) == {"lr": 0.1}
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr: 1\nkl: [1, 2\n", "line 3"),
        (b"- a\n- b\n", "does not hold a mapping"),
        (b"1: 2\n", "mapping"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_read_yaml_names_the_mistake(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_yaml(path)
    with pytest.raises(UserError, match=r"missing\.yaml \(No such file"):
        read_yaml(tmp_path / "missing.yaml")


def test_the_word_none_is_none_where_an_option_may_be() -> None:
    """As ``-o missing_eos=none`` and ``--config`` hand it on."""

    class Loose(Options):
        missing: float | None = -1.0
        name: str = "none"
        label: str | None = ""

    found = Loose.parse({"missing": "None", "name": "none", "label": "none"})
    assert (found.missing, found.name, found.label) == (None, "none", "none")
    assert Loose.parse({"missing": "2"}).missing == 2
    values: dict[str, Any] = {}
    assign(values, "missing=none")
    assert Loose.parse(values).missing is None
    with pytest.raises(UserError):
        Loose.parse({"missing": "nothing"})


class Sampling(Options):
    """Has two options under new names, one of which has new values."""

    batch_size: int = 8
    early_stop: str = ""


class Own(Options):
    """Of somebody else, who has an option of a former name."""

    batch: int = 8
    batch_size: int = 4


def test_former_names_work_and_say_so() -> None:
    with pytest.warns(FutureWarning, match="the option batch is now batch_size"):
        assert Sampling.parse({"batch": 3}).batch_size == 3
    with pytest.warns(FutureWarning, match="the option stop_when is now early_stop"):
        assert Sampling(stop_when="fooled").early_stop == "overoptimization"  # type: ignore[call-arg]
    assert Sampling.current({"batch": 3, "batch_size": 4}) == {"batch_size": 4}
    assert Sampling.current({"batch_size": 4, "batch": 3}) == {"batch_size": 3}, "the later counts"
    assert Own.current({"batch": 3, "samples": 1}) == {"batch": 3, "samples": 1}
    with pytest.raises(UserError, match="unknown key 'samples'"):
        Sampling.parse({"samples": 2})


def test_what_a_file_of_before_holds_is_filled_up_with_defaults() -> None:
    class Grown(Sampling):
        seed: int
        more: dict[str, Any] = {}
        places: tuple[Path, ...] = (Path("a"),)

    found = Grown.recorded({"batch": 3, "seed": 1, "gone": 2})
    assert found == {"batch_size": 3, "early_stop": "", "seed": 1, "more": {}, "places": ["a"], "gone": 2}
    assert "seed" not in Grown.recorded({}), "it has no default"
