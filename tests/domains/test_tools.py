"""Dialogues in which tools are described, called and answer: read, shown by the template as transformers shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tokenizer

from hearken.domains.text.encoder import TextEncoder
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration
from hearken.feedback.formats import read_examples, write_examples
from hearken.feedback.snapshot import load_snapshot, snapshot
from hearken.feedback.store import FeedbackStore
from hearken.feedback.transfer import export, import_file
from hearken.progress import quiet

SHOWS = (
    "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}({{ m.role }}) {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "{% if m.name %} FROM {{ m.name }}{% endif %}{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}(assistant) {% endif %}"
)
HIDES = (
    "{% for m in messages %}({{ m.role }}) {{ m.content }}"
    "{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}(assistant) {% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"city": {"type": "string"}}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": "Rain in Ulm?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "wet", "name": "weather", "tool_call_id": "c1"},
]
ANSWER = {"role": "assistant", "content": "Yes, rain."}


def write(path: Path, row: dict[str, Any]) -> Path:
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path


def encoder(template: str | None) -> TextEncoder:
    made = tokenizer()
    made.chat_template = template
    return TextEncoder(made, 2048)


@pytest.mark.parametrize("tools", [None, TOOLS, json.dumps(TOOLS)])
def test_the_template_shows_what_transformers_shows(tmp_path: Path, tools: Any) -> None:
    row = {"messages": [*TURNS, ANSWER]} | ({} if tools is None else {"tools": tools})
    (found,) = read_examples(write(tmp_path / "a.jsonl", row))
    assert isinstance(found, Demonstration) and found.response == "Yes, rain."
    made = encoder(SHOWS)
    group = made.group(found.prompt, [found.response])
    wanted = made.tokenizer.apply_chat_template(
        [*TURNS, ANSWER], tools=None if tools is None else TOOLS, tokenize=False
    )
    said = made.tokenizer.decode([*group.prompt, *group.responses[0]])
    assert said.rstrip("\n") == wanted.rstrip("\n") and "CALL weather" in said
    assert ("TOOLS" in said) == (tools is not None)


def test_what_the_template_hides_is_refused_and_turns_without_one_show_calls_as_text(tmp_path: Path) -> None:
    (found,) = read_examples(write(tmp_path / "a.jsonl", {"messages": [*TURNS, ANSWER]}))
    with pytest.raises(UserError, match="does not show 'tool_calls'"):
        encoder(HIDES).group(found.prompt, ["x"])
    made = encoder(None)
    said = made.tokenizer.decode(made.group(found.prompt, ["x"]).prompt)
    assert 'weather({"city": "Ulm"})' in said and "wet" in said
    (found,) = read_examples(write(tmp_path / "b.jsonl", {"messages": [TURNS[0], ANSWER], "tools": TOOLS}))
    for template in (HIDES, None):
        with pytest.raises(UserError, match="does not show 'tools'"):
            encoder(template).group(found.prompt, ["x"])


def test_calls_go_through_files_and_the_database(tmp_path: Path) -> None:
    row = {"prompt": TURNS, "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "No."}]}
    source = write(tmp_path / "a.jsonl", row)
    (found,) = read_examples(source)
    assert isinstance(found, Comparison)
    for name in ("b.jsonl", "c.parquet", "d.csv"):
        write_examples([found], tmp_path / name, "pairs")
        assert read_examples(tmp_path / name) == [found]
    assert json.loads((tmp_path / "b.jsonl").read_text()) == row
    with quiet(), FeedbackStore(tmp_path / "f.db") as store:
        import_file(store, source)
        assert import_file(store, source).judgments == 0
        export(store, tmp_path / "e.jsonl", "pairs")
        assert json.loads((tmp_path / "e.jsonl").read_text()) == row
        export(store, tmp_path / "raw.jsonl", "raw")
        made = snapshot(store, ["comparison"], None, None, tmp_path / "s.parquet")
        assert load_snapshot(made.path)[1][0].prompt == found.prompt
    with quiet(), FeedbackStore(tmp_path / "g.db") as store:
        assert import_file(store, tmp_path / "raw.jsonl").judgments == 1
        assert next(store.prompts()).content == found.prompt


@pytest.mark.parametrize(
    ("turns", "match"),
    [
        ([TURNS[0], TURNS[2], ANSWER], "message 2 of 'messages' answers with 'name' what nobody called"),
        ([TURNS[0] | {"name": "x"}, ANSWER], "message 1 of 'messages' has 'name', and is user's"),
        ([TURNS[0] | {"tool_calls": [CALL]}, ANSWER], "message 1 of 'messages' has 'tool_calls', and is user's"),
        ([TURNS[0], TURNS[1] | {"tool_calls": ["f"]}, ANSWER], "the calls of message 2 of 'messages' must be objects"),
        ([TURNS[0], TURNS[1]], "the last message calls tools"),
        ([TURNS[0], ANSWER | {"reasoning": "hm"}], "message 2 of 'messages' has 'reasoning'"),
        ([TURNS[0], ANSWER | {"content": None}], "content of message 2 of 'messages'"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, turns: list[dict[str, Any]], match: str) -> None:
    with pytest.raises(UserError, match=match):
        read_examples(write(tmp_path / "a.jsonl", {"messages": turns}))
