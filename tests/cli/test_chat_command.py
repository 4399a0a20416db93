"""Talking to models of random weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tiny_models import CHATML, tokenizer, write_base
from typer.testing import CliRunner, Result

from hearken.cli import chat
from hearken.cli.main import app
from hearken.domains.text.chat import Conversation
from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.rollout.sampler import SamplingParameters

HOW = SamplingParameters(max_new_tokens=5)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One without, one with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    words = tokenizer()
    words.chat_template = CHATML
    return write_base(folder / "plain"), write_base(folder / "talks", words)


@pytest.fixture
def talk(models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "120")
    named = [str(m) for m in models]
    return lambda said, *words: CliRunner().invoke(app, ["chat", *named, "--max-new-tokens", "5", *words], input=said)


def test_a_pipe_is_a_conversation(talk: Callable[..., Result]) -> None:
    done = talk("the fox runs\n\n/again\n/reset\n/seed 0\nthe fox runs\n/quit\nnever said\n", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["models"] == ["plain", "talks"]
    assert [turn["user"] for turn in told["turns"]] == ["the fox runs"] * 3
    first, again, anew = (turn["answers"] for turn in told["turns"])
    assert set(first) == {"plain", "talks"} and first == anew and first != again
    shown = talk("the fox runs\n").stdout
    assert "> the fox runs" in shown and f"[plain] {first['plain']}" in shown.replace("\r", "")


@pytest.mark.parametrize(
    ("said", "words", "message"),
    [
        ("/dance\n", (), "no command /dance"),
        ("/again\n", (), "nothing was said yet"),
        ("hi\n", ("--system", "Be kind."), "cannot read a system message"),
        ("hi\n", ("another-model",), "3 models are too many"),
    ],
)
def test_mistakes(talk: Callable[..., Result], said: str, words: tuple[str, ...], message: str) -> None:
    done = talk(said, *words)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_each_model_goes_on_with_its_own_answers(models: tuple[Path, Path]) -> None:
    found = Conversation([str(m) for m in models], HOW, seed=1)
    assert found.plain == [True, False]
    heard = ["", ""]
    for model, piece in found.say("the owl"):
        heard[model] += piece
    for model in (0, 1):
        assert found.messages(model) == [Message("user", "the owl"), Message("assistant", heard[model])]
    stream = found.say("and then")
    next(stream)
    stream.close()
    assert [len(found.messages(m)) for m in (0, 1)] == [4, 4], "who stops listening keeps what came"
    found.reset()
    assert found.messages(0) == []
    with pytest.raises(UserError, match="nothing was said"):
        found.again()


def test_the_same_model_twice_is_told_apart(models: tuple[Path, Path]) -> None:
    assert Conversation([str(models[0])] * 2, HOW).names == ["plain (1)", "plain (2)"]


def test_what_a_model_says_cannot_reach_the_terminal() -> None:
    for names in (["a"], ["a", "b"]):
        screen = io.StringIO()
        console = Console(file=screen, width=80, force_terminal=False)
        chat.show(console, names, iter([(0, "red \x1b[31m\x07bell"), (len(names) - 1, " [bold]end")]))
        assert "\x1b[31m" not in screen.getvalue() and "\x07" not in screen.getvalue()
        assert "bell" in screen.getvalue() and "[bold]end" in screen.getvalue()


def test_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["", "/nonsense", "hello", "/reset"])

    def read(self: Console, prompt: str = "") -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    said: list[str] = []

    def say(text: str):
        said.append(text)
        yield 0, "hi there"

    fake = SimpleNamespace(names=["one"], say=say, reset=lambda: said.append("reset"))
    monkeypatch.setattr(Console, "input", read)
    chat._interact(fake)  # type: ignore[arg-type]
    assert said == ["hello", "reset"], "a mistake does not end the conversation"
