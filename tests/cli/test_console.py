from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import hearken as package
from hearken.cli.console import disk_full, emit, flatten
from hearken.config import FormerName
from hearken.errors import UserError

Run = Callable[..., Result]
BASE = ("train", "toy", "--model", "base", "--data", "a.jsonl", "--out", "out")


def raiser(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_version(hearken: Run) -> None:
    assert hearken("--version").stdout == f"hearken {package.__version__}\n"


def test_no_words_show_the_help(hearken: Run) -> None:
    done = hearken()
    assert "quickstart" in done.output and done.exit_code == 2


@pytest.mark.parametrize(
    "command",
    ["quickstart", "init", "import", "export", "sample", "label", "evaluate", "report", "inspect", "train sft"],
)
def test_every_help_has_an_example(hearken: Run, command: str) -> None:
    done = hearken(*command.split(), "--help")
    assert done.exit_code == 0 and f"Example:  hearken {command}" in done.stdout and "--json" in done.stdout


def test_a_mistake_is_one_line_and_a_hint(hearken: Run, toy) -> None:
    toy.act = raiser(UserError("file.jsonl, line 3: no prompt", "Write one"))
    done = hearken(*BASE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-2:] == ["Error: file.jsonl, line 3: no prompt", "Write one"]


def test_a_warning_is_a_line_for_a_person(hearken: Run, toy) -> None:
    def act() -> None:
        warnings.warn_explicit("7 responses were cut", UserWarning, str(Path(package.__file__).parent / "x.py"), 3)
        warnings.warn_explicit("the option batch is now batch_size", FormerName, "pydantic/main.py", 7)
        raise UserError("nothing is left")

    toy.act = act
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = hearken(*BASE).stderr
    assert said.endswith(
        "Warning: 7 responses were cut\nWarning: the option batch is now batch_size\nError: nothing is left\n"
    ), said


def test_a_full_disk_is_one_line(hearken: Run, toy) -> None:
    toy.act = raiser(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors"))
    done = hearken(*BASE)
    assert done.exit_code == 1 and "Traceback" not in done.stderr
    assert (
        "the disk is full (writing out/model.safetensors)" in done.stderr and "What was finished is kept" in done.stderr
    )


def test_a_bug_is_not_hidden(hearken: Run, toy) -> None:
    toy.act = raiser(ZeroDivisionError("bug"))
    assert isinstance(hearken(*BASE).exception, ZeroDivisionError)


def test_disk_full_is_found_behind_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    outer = RuntimeError("could not save")
    outer.__cause__ = full
    assert disk_full(outer) == "No space left on device"
    assert disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert disk_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not disk_full(OSError(errno.EACCES, "Permission denied", "x"))
    ring = RuntimeError("a ring")
    ring.__cause__ = ring
    assert not disk_full(ring)


def test_flatten() -> None:
    assert dict(flatten({"a": 1, "b": {"c": {"d": 2}, "e": None}})) == {"a": 1, "b.c.d": 2, "b.e": None}


def test_emit(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"rate": 0.123456, "text": "[red]“é”[/red]", "rows": 1234567.0, "of": [1, 0.5]}, as_json=False, title="Done")
    words = capsys.readouterr().out.split()
    assert words == ["Done", "rate", "0.1235", "text", "[red]“é”[/red]", "rows", "1,234,567", "of", "1,", "0.5"]
    emit({"text": "“é”", "path": Path("a"), "of": (1.5, float("nan"), {"x": float("inf")})}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "text": "“é”", "path": "a", "of": [1.5, None, {"x": None}],
    }  # fmt: skip
