"""Dialogues in which tools are described, called and answer: read, shown by the template as transformers shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from domains.families import LOSSLESS, family
from tiny_models import tokenizer
from transformers import LlamaConfig

from hearken.domains.text.data import encoded
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.inspect import inspect
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration, Document, Thumb, answers
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


SAID = {"role": "assistant", "content": "No."}
IN_LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [TURNS[0], ANSWER]},
    "sft": {"prompt": [TURNS[0]], "completion": [ANSWER]},
    "pairs": {"prompt": [TURNS[0]], "chosen": [ANSWER], "rejected": [SAID]},
    "implicit": {"chosen": [TURNS[0], ANSWER], "rejected": [TURNS[0], SAID]},
    "binary": {"prompt": [TURNS[0]], "completion": [ANSWER], "label": True},
    "rankings": {"prompt": [TURNS[0]], "responses": ["yes", "no"], "ranks": [0, 1]},
    "prompts": {"prompt": [TURNS[0]]},
}


@pytest.mark.parametrize("layout", IN_LAYOUTS)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_tools_of_a_row_reach_the_template_and_files_in_every_layout(tmp_path: Path, layout: str, suffix: str) -> None:
    row = IN_LAYOUTS[layout]
    (found,) = read_examples(write(tmp_path / "a.jsonl", row | {"tools": TOOLS}))
    assert not isinstance(found, Document) and not found.metadata
    made = encoder(SHOWS)
    shown = made.tokenizer.decode(made.prompt(found.prompt, ""))
    assert shown.startswith(f"TOOLS {json.dumps(TOOLS)}")
    write_examples([found], tmp_path / f"b.{suffix}", layout)
    assert read_examples(tmp_path / f"b.{suffix}", layout) == [found]
    for empty in ([], None, "[]"):
        (bare,) = read_examples(write(tmp_path / "a.jsonl", row | {"tools": empty}))
        assert not isinstance(bare, Document) and bare.prompt != found.prompt


def test_tools_beside_a_text_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "Rain?", "completion": "Yes."}
    with pytest.raises(UserError, match="'tools' describes tools, and the prompt is text"):
        read_examples(write(tmp_path / "a.jsonl", row | {"tools": TOOLS}))
    (found,) = read_examples(write(tmp_path / "a.jsonl", row | {"tools": ["hammer"]}))  # some other column
    assert found.metadata == {"tools": ["hammer"]}


def test_several_templates_of_a_tokenizer(tmp_path: Path) -> None:
    """As transformers chooses: the default, and for tools that for tools; without a default none."""
    (found,) = read_examples(write(tmp_path / "a.jsonl", {"messages": [TURNS[0], ANSWER], "tools": TOOLS}))
    (bare,) = read_examples(write(tmp_path / "a.jsonl", {"messages": [TURNS[0], ANSWER]}))
    assert isinstance(found, Demonstration) and isinstance(bare, Demonstration)
    made = tokenizer()
    made.chat_template = {"default": HIDES, "tool_use": "WITH " + SHOWS}
    both = TextEncoder(made, 2048)
    for example, tools in ((found, TOOLS), (bare, None)):
        (group,) = encoded(example, both)
        said = made.decode([*group.prompt, *group.responses[0]])
        assert said.rstrip() == made.apply_chat_template([TURNS[0], ANSWER], tools=tools, tokenize=False).rstrip()
        assert said.startswith("WITH TOOLS") == bool(tools)
    made.chat_template = {"chat": SHOWS, "rag": SHOWS}
    with pytest.raises(UserError, match="several chat templates, none of which is the default: chat, rag"):
        TextEncoder(made, 2048)


@pytest.mark.parametrize(
    ("turns", "match"),
    [
        ([TURNS[0], TURNS[2], ANSWER], "message 2 of 'messages' answers with 'name' what nobody called"),
        ([TURNS[0] | {"name": "x"}, ANSWER], "message 1 of 'messages' has 'name', and is user's"),
        ([TURNS[0] | {"tool_calls": [CALL]}, ANSWER], "message 1 of 'messages' has 'tool_calls', and is user's"),
        ([TURNS[0], TURNS[1] | {"tool_calls": ["f"]}, ANSWER], "the calls of message 2 of 'messages' must be objects"),
        ([TURNS[0], ANSWER | {"reasoning": "hm"}], "message 2 of 'messages' has 'reasoning'"),
        ([TURNS[0], ANSWER | {"content": None}], "^[^']*: content of message 2 of 'messages' must be text"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, turns: list[dict[str, Any]], match: str) -> None:
    with pytest.raises(UserError, match=match):
        read_examples(write(tmp_path / "a.jsonl", {"messages": turns}))


# --- a response that calls tools: what is trained --------------------------------------------------------------------

HERMES = (
    "{% if tools %}<|im_start|>system\n<tools>{% for t in tools %}{{ '\n' + t | tojson }}{% endfor %}"
    "\n</tools><|im_end|>\n{% endif %}{% for m in messages %}{% if m.role == 'tool' %}"
    "<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' }}"
    "{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}{{ '\n</tool_call>' }}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Hermes' and Qwen's templates write calls: JSON between marks, several of them, perhaps behind words."""
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% set who = 'ipython' if m.role == 'tool' else m.role %}"
    "{{ '<|im_start|>' + who + '<|im_end|>\n\n' }}{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}"
    "{% set f = m.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + f.name + '\", \"parameters\": ' }}{{ f.arguments | tojson }}{{ '}' }}"
    "{% else %}{% if tools and loop.first %}{{ tools | tojson }}{{ '\n\n' }}{% endif %}{{ m.content | trim }}"
    "{% endif %}<|eot|>{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_end|>\n\n' }}{% endif %}"
)
"""As Llama 3.1's writes them: JSON instead of words, one call in a turn."""
MARKED = HERMES.replace("{{ m.role }}{% if m.content", "{{ m.role }}{% generation %}{% if m.content").replace(
    "<|im_end|>\n{% endif %}{% endfor %}", "<|im_end|>{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
)
FAMILIES = {"hermes": ("<|im_end|>", HERMES), "llama 3.1": ("<|eot|>", LLAMA), "marked": ("<|im_end|>", MARKED)}
ASKS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SECOND = CALL | {"id": "c2", "function": {"name": "weather", "arguments": {"city": "Köln </s>", "days": 2}}}


def tools_family(name: str, template: str) -> TextEncoder:
    end, source = FAMILIES[template]
    made = family(name, bos=False)
    made.chat_template, made.eos_token = source, end
    return TextEncoder(made, 1 << 20)


@pytest.mark.parametrize("name", ["byte-level", "sp normalizer", "sp first", "byte-level, llama3"])
@pytest.mark.parametrize("template", FAMILIES)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["", "tools"])
def test_a_call_is_trained_as_the_template_writes_it(tmp_path: Path, name: str, template: str, tools: Any) -> None:
    assert name in LOSSLESS
    last: list[dict[str, Any]] = [ASKS, ASKS | {"content": None}]
    if template != "llama 3.1":
        last += [ASKS | {"content": "Let me see.", "tool_calls": [CALL, CALL | {"id": "c2"}]}]
    made = tools_family(name, template)
    for before in ([TURNS[0]], [*TURNS, ANSWER, TURNS[0]]):
        for message in last:
            row = {"messages": [*before, message]} | ({} if tools is None else {"tools": tools})
            (found,) = read_examples(write(tmp_path / "a.jsonl", row))
            (group,) = encoded(found, made)
            shown = message | {"content": message["content"] or ""}

            def own(turns: list[dict[str, Any]], **how: Any) -> list[int]:
                said = made.tokenizer.apply_chat_template(turns, tools=tools, tokenize=True, return_dict=False, **how)
                return list(said)

            prompt, whole = own(before, add_generation_prompt=True), own([*before, shown])
            end = len(whole) - 1 - whole[::-1].index(made.eos)
            text = made.tokenizer.decode(whole)
            assert [*group.prompt, *group.responses[0]] == whole[: end + 1] and '"city": "Ulm"' in text
            on = group.masks[0] if group.masks else [True] * len(group.responses[0])
            trained = [i for i, yes in zip(group.responses[0], on, strict=True) if yes]
            if template != "marked":  # what is marked begins behind the role, before the line break
                assert group.prompt == prompt
            assert trained == whole[end + 1 - len(trained) : end + 1] and len(trained) > 5
            assert made.tokenizer.decode(trained).lstrip().startswith(("<tool_call>", "Let me see.", '{"name"'))


def test_names_of_special_tokens_in_a_call_are_words(tmp_path: Path) -> None:
    (found,) = read_examples(write(tmp_path / "a.jsonl", {"messages": [TURNS[0], ASKS | {"tool_calls": [SECOND]}]}))
    made = tools_family("byte-level", "hermes")
    (group,) = encoded(found, made)
    assert made.tokenizer.convert_tokens_to_ids("</s>") not in group.responses[0]
    assert "Köln </s>" in made.tokenizer.decode(group.responses[0])


@pytest.mark.parametrize("template", ["hermes", "llama 3.1"])
def test_all_turns_with_calls(tmp_path: Path, template: str) -> None:
    """Every assistant turn is trained, calls too, and nothing else."""
    (found,) = read_examples(write(tmp_path / "a.jsonl", {"messages": [*TURNS, ANSWER, TURNS[0], ASKS]}))
    made = tools_family("byte-level", template)
    (group,) = encoded(found, made, "", "all")
    on = made.tokenizer.decode([i for i, yes in zip(group.responses[0], group.masks[0], strict=True) if yes])
    off = made.tokenizer.decode([i for i, yes in zip(group.responses[0], group.masks[0], strict=True) if not yes])
    assert on.count('"city": "Ulm"') == 2 and "Yes, rain." in on and "wet" in off and '"city"' not in off


def test_calls_that_no_template_writes_are_refused_with_their_row(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"messages": [TURNS[0], ASKS]})
    (found,) = read_examples(source)
    for template in (HIDES, "{% for m in messages %}{{ m.content }}{% endfor %}"):
        with pytest.raises(UserError, match="row 7: the chat template does not show 'tool_calls'"):
            encoded(found, encoder(template), "row 7")
    made = encoder(None)  # turns without a template show calls as text
    (group,) = encoded(found, made, "row 7")
    assert made.tokenizer.decode(group.responses[0]).strip().startswith('weather({"city": "Ulm"})')


def test_preferences_between_calls_and_words(tmp_path: Path) -> None:
    """Chosen calls a tool, rejected only speaks: as messages, thumbs and in ShareGPT's layout."""
    made = tools_family("byte-level", "hermes")
    no = {"role": "assistant", "content": "No idea."}
    rows: list[dict[str, Any]] = [
        {"prompt": [TURNS[0]], "chosen": [ASKS], "rejected": [no]},
        {"chosen": [TURNS[0], ASKS], "rejected": [TURNS[0], no]},
        {"conversations": [TURNS[0]], "chosen": ASKS, "rejected": no},
    ]
    for row in rows:
        (found,) = read_examples(write(tmp_path / "a.jsonl", row))
        assert isinstance(found, Comparison) and found.ranks == (0, 1)
        (group,) = encoded(found, made)
        first, second = (made.tokenizer.decode(ids) for ids in group.responses)
        assert "<tool_call>" in first and second.startswith("No idea.")
        assert made.group(found.prompt, answers(found)) == group
    (thumb,) = read_examples(write(tmp_path / "b.jsonl", {"prompt": [TURNS[0]], "completion": [ASKS], "label": True}))
    assert isinstance(thumb, Thumb) and "<tool_call>" in made.tokenizer.decode(encoded(thumb, made)[0].responses[0])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(
    ("layout", "row"),
    [
        ("messages", {"messages": [TURNS[0], ASKS]}),
        ("sft", {"prompt": [TURNS[0]], "completion": [ASKS]}),
        ("pairs", {"prompt": [TURNS[0]], "chosen": [ASKS], "rejected": [ANSWER]}),
        ("implicit", {"chosen": [TURNS[0], ASKS], "rejected": [TURNS[0], ANSWER]}),
        ("binary", {"prompt": [TURNS[0]], "completion": [ASKS], "label": True}),
        ("rankings", {"prompt": [TURNS[0]], "chosen": [ASKS], "rejected": [ANSWER]}),
    ],
)
def test_calls_of_responses_survive_files_and_the_database(
    tmp_path: Path, layout: str, row: dict[str, Any], suffix: str
) -> None:
    source = write(tmp_path / "a.jsonl", row)
    found = read_examples(source)
    made = tools_family("byte-level", "hermes")
    wanted = [encoded(example, made) for example in found]
    write_examples(found, tmp_path / f"b.{suffix}", layout)
    again = read_examples(tmp_path / f"b.{suffix}", layout)
    assert [encoded(example, made) for example in again] == wanted
    if suffix == "jsonl" and layout != "rankings":
        assert json.loads((tmp_path / "b.jsonl").read_text()) == row
    with quiet(), FeedbackStore(tmp_path / "f.db") as store:
        import_file(store, source)
        assert import_file(store, source).judgments == 0
        export(store, tmp_path / f"c.{suffix}", layout)
        kind = type(found[0]).__name__.lower()
        frozen = load_snapshot(snapshot(store, [kind], None, None, tmp_path / "s.parquet").path)[1]
    assert [encoded(example, made) for example in read_examples(tmp_path / f"c.{suffix}", layout)] == wanted
    assert [encoded(example, made) for example in frozen] == wanted


def test_inspect_shows_the_call(tmp_path: Path) -> None:
    made = tools_family("byte-level", "hermes").tokenizer
    made.save_pretrained(tmp_path / "m")
    LlamaConfig(max_position_embeddings=512).save_pretrained(tmp_path / "m")
    source = write(tmp_path / "a.jsonl", {"messages": [TURNS[0], ASKS], "tools": TOOLS})
    (view,) = inspect(source, tmp_path / "m").views
    trained = "".join(piece.text for piece in view.pieces if piece.trained)
    assert trained == '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call><|im_end|>'
    assert "<tools>" in "".join(piece.text for piece in view.pieces if piece.part == "prompt")
