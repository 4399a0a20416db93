from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_server import reply, serve
from tiny_models import write_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.labelers.ai import AILabeler
from hearken.labelers.constitution import load_constitution
from hearken.labelers.judges import CachedJudge, LocalJudge, Reply, ServerJudge, Spent, best_of_each, open_judge, spent

ASK = (Message("user", "A or B?"),)


def test_a_server_is_asked_as_it_expects() -> None:
    with serve(lambda _: (200, reply("A", {" A": -0.1, "A": -3.0, "B": -2.5, "\n": -9.0}))) as (url, seen):
        judge = ServerJudge(url, "tiny", "secret")
        found = judge.choose(ASK, ("A", "B"))
        text = judge.ask(ASK, 77).text
    assert found.text == "A" and found.choices is not None and found.choices.keys() == {"A", "B"}
    assert found.choices["A"] == pytest.approx(math.log(math.exp(-0.1) + math.exp(-3)))
    assert (found.prompt_tokens, found.completion_tokens) == (50, 1) and text == "A"
    first, second = seen
    assert first["path"] == "/v1/chat/completions" and first["key"] == "Bearer secret" and first["model"] == "tiny"
    assert first["logprobs"] is True and first["top_logprobs"] == 20 and first["temperature"] == 0
    assert first["messages"] == [{"role": "user", "content": "A or B?"}]
    assert second["max_tokens"] == 77 and "logprobs" not in second


def test_trouble_that_passes_is_waited_for() -> None:
    answers = iter([(429, {}), (503, b"busy"), (200, b"not json"), (200, reply("B"))])
    waits: list[float] = []
    with serve(lambda _: next(answers)) as (url, seen):
        found = ServerJudge(url, "tiny", wait=waits.append).ask(ASK, 4)
    assert found.text == "B" and found.choices is None and len(seen) == 4
    assert waits == [7.0, 2.0, 4.0], "as the server asks, else doubling"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {"error": "no"}), r"refuses \(HTTP 401.*Check the key"),
        ((404, b"nothing here"), r"refuses \(HTTP 404.*Check model and base URL"),
        ((200, {"hello": 1}), "does not answer like an OpenAI-compatible server.*/v1"),
        ((500, b"broken"), r"did not answer in 3 tries \(HTTP 500: broken\).*is kept"),
    ],
)
def test_trouble_that_stays_is_said(answer: tuple[int, Any], message: str) -> None:
    with serve(lambda _: answer) as (url, _), pytest.raises(UserError, match=message):
        ServerJudge(url, "tiny", retries=2, wait=lambda _: None).ask(ASK, 4)


def test_no_server() -> None:
    with pytest.raises(UserError, match="did not answer in 2 tries"):
        ServerJudge("http://127.0.0.1:9", "tiny", retries=1, wait=lambda _: None).ask(ASK, 4)


def test_the_pace_is_kept() -> None:
    waits: list[float] = []
    with serve(lambda _: (200, reply("A"))) as (url, _):
        judge = ServerJudge(url, "tiny", per_minute=60, wait=waits.append)
        for _ in range(3):
            judge.ask(ASK, 4)
    assert len(waits) == 2 and 0.5 < waits[0] <= 1 and 1.5 < waits[1] <= 2


def test_replies_are_remembered(tmp_path: Path) -> None:
    with serve(lambda _: (200, reply("A", {"A": -0.5, "B": -1.0}))) as (url, seen):
        for _ in range(2):
            judge = CachedJudge(ServerJudge(url, "tiny"), tmp_path)
            assert judge.choose(ASK, ("A", "B")).choices == {"A": -0.5, "B": -1.0}
            assert judge.ask(ASK, 5).text == "A"
        CachedJudge(ServerJudge(url, "other"), tmp_path, price_in=1e4, price_out=5e5).ask(ASK, 5)
    assert len(seen) == 3
    assert spent(tmp_path) == Spent(3, 150, 3, 1.0), "what is remembered was asked and paid for once"
    assert spent(tmp_path / "none") == Spent()


def test_namesakes_are_told_apart(tmp_path: Path) -> None:
    """Of two models of one name, and of one retrained, neither is given the other's replies or judgments."""
    first, second = write_base(tmp_path / "a" / "final"), write_base(tmp_path / "b" / "final", initializer_range=0.2)
    one, other = LocalJudge(str(first)), LocalJudge(str(second))
    assert one.name == other.name == "final" and one.identity != other.identity
    for judge in (one, other, one):
        CachedJudge(judge, tmp_path / "cache").choose(ASK, ("A", "B"))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    labelers = [AILabeler(judge, load_constitution("general")) for judge in (one, other)]
    assert labelers[0].name == labelers[1].name and labelers[0].id != labelers[1].id
    shutil.copytree(first, tmp_path / "copy")
    (first / "manifest.json").write_text("{}")
    assert LocalJudge(str(first)).identity == LocalJudge(str(tmp_path / "copy")).identity == one.identity
    write_base(first, initializer_range=0.3)
    assert LocalJudge(str(first)).identity != one.identity
    servers = {ServerJudge(url, "m").identity for url in ("http://a/v1", "http://b/v1", "http://a/v1/")}
    assert len(servers) == 2


def test_a_local_model_compares_the_options_themselves(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    judge = open_judge(str(base))
    assert isinstance(judge, LocalJudge) and judge.name == "base"
    found = judge.choose(ASK, ("A", "B"))
    model, tok = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for option in ("A", "B"):
        prompt, answer = (tok(t)["input_ids"] for t in ("\n\nHuman: A or B?\n\nAssistant:", f" {option}"))
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        want = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer)[:, None]).sum().item()
        assert found.choices is not None and found.choices[option] == pytest.approx(want, abs=1e-4)
        if found.text == option:  # read once, and what was written
            assert (found.prompt_tokens, found.completion_tokens) == (len(prompt), len(answer))
    said = judge.ask(ASK, 5)
    assert isinstance(said, Reply) and said.prompt_tokens == len(prompt) and 0 < said.completion_tokens <= 5
    remembered = CachedJudge(judge, tmp_path / "cache", price_in=1e6, price_out=1e6)
    remembered.ask(ASK, 5)
    assert spent(tmp_path / "cache") == Spent(
        1, len(prompt), said.completion_tokens, len(prompt) + said.completion_tokens
    )


def test_which_judge_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no judge is named"):
        open_judge("")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    judge = open_judge("some-model")
    assert isinstance(judge, ServerJudge) and (judge.url, judge.key) == ("http://127.0.0.1:9/v1", "k")


def test_spaces_do_not_count() -> None:
    found = best_of_each([("A", -1.0), (" A", -1.0), ("  ", 0.0)])
    assert found == {"A": pytest.approx(-1 + math.log(2))}
