from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from hearken import progress as module
from hearken.progress import _Lines, duration, is_quiet, progress, quiet


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (11_400, "3 h 10 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_are_sparse_and_tell_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = _Lines("train", 40, "step", clock=lambda: now)
    for step in range(20):
        now += 1.0
        lines.advance(note=f"loss {step}")
    lines.finish()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train: 10/40 steps, 30 s left (loss 9)",
        "train: 20/40 steps, 20 s left (loss 19)",
        "train: 20/40 steps in 20 s (loss 19)",
    ]


def test_lines_without_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("read", None, "row") as bar:
        bar.advance()
    assert capsys.readouterr().err == "read: 1 row in 0 s\n"


def test_work_that_is_soon_done_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress("score", 3, "prompt", patient=True) as bar:
        bar.advance(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with progress("score", 3, "prompt", patient=True) as bar:
        bar.advance()
        bar.advance(2)
    assert capsys.readouterr().err == "score: 3/3 prompts in 0 s\n"


def test_no_last_line_after_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress("read", 3):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet():
        assert is_quiet()
        with quiet(False):
            assert is_quiet(), "an inner context cannot make noise in a quiet one"
        with progress("train", 2) as bar:
            bar.advance(2)
    assert not is_quiet()
    monkeypatch.setenv("HEARKEN_QUIET", "1")
    assert is_quiet()
    monkeypatch.setenv("HEARKEN_QUIET", "0")
    assert not is_quiet()
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal_nest(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "console", lambda: Console(file=screen, force_terminal=True, width=140))
    with progress("outer", 2) as outer:
        with progress("inner", 3, "row") as inner:
            inner.advance(3, "loss 0.42")
            inner.advance(0)
            live = module._live[0]
            assert [task.description for task in live.tasks] == ["outer", "inner"]
            assert live.tasks[1].fields["note"] == "loss 0.42", "a note stays until there is a new one"
        outer.advance(2)
        assert [task.completed for task in live.tasks] == [2]
    assert not module._live
    assert "inner" in screen.getvalue() and "2/2" in screen.getvalue()
