"""Files in and out: rows come back unchanged in every layout and kind of file; bad rows are named."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.feedback.examples import (
    Comparison,
    Demonstration,
    Document,
    Message,
    PromptOnly,
    Rating,
    Thumb,
)
from hearken.feedback.formats import LAYOUTS, ReadReport, iter_examples, layout_for, read_examples, write_examples
from hearken.feedback.formats.files import is_hub_name, write_rows

SHARED = Path(os.environ.get("HEARKEN_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"real data {name} is not at {SHARED} (set HEARKEN_SHARED_DATA)")
    return SHARED / name


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


# --- one example of each layout, by hand -----------------------------------------------------------------------------

HELLO = [{"role": "user", "content": "Hello"}]
ASK = (Message("user", "Hello"),)


def says(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


READ_ONLY = {name for name, layout in LAYOUTS.items() if layout.write is None}

BY_HAND: list[tuple[str, dict[str, Any], Any]] = [
    (
        "pairs",
        {"prompt": "2+2=", "chosen": "4", "rejected": "5", "strength": 0.5, "source": "x"},
        Comparison("2+2=", ("4", "5"), (0, 1), strength=0.5, metadata={"source": "x"}),
    ),
    (
        "pairs",
        {"prompt": HELLO, "chosen": says("Hi"), "rejected": says("Go")},
        Comparison(ASK, ("Hi", "Go"), (0, 1)),
    ),
    (
        "implicit",
        {"chosen": HELLO + says("Hi"), "rejected": HELLO + says("Go"), "prompt": "Hello", "score_chosen": 7},
        Comparison(ASK, ("Hi", "Go"), (0, 1), metadata={"prompt": "Hello", "score_chosen": 7}),
    ),
    (
        "hh",
        {
            "chosen": "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: So?\n\nAssistant: Yes ",
            "rejected": "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: So?\n\nAssistant: No",
        },
        Comparison((*ASK, Message("assistant", "Hi"), Message("user", "So?")), ("Yes ", "No"), (0, 1)),
    ),
    (
        "rankings",
        {"prompt": "p", "responses": ["a", "b", "c", "d"], "ranks": [1, 0, None, 0], "weight": 2},
        Comparison("p", ("a", "b", "c", "d"), (1, 0, None, 0), weight=2),
    ),
    ("binary", {"prompt": "p", "completion": "c", "label": False}, Thumb("p", "c", False)),
    (
        "ratings",
        {"prompt": "p", "completion": "c", "ratings": {"help": 7, "truth": 0.5}, "low": 0, "high": 10},
        Rating("p", "c", {"help": 7, "truth": 0.5}, 0, 10),
    ),
    ("score", {"prompt": "p", "completion": "c", "score": 4}, Rating("p", "c", {"overall": 4})),
    ("rating", {"prompt": "p", "completion": "c", "rating": 4.5}, Rating("p", "c", {"overall": 4.5})),
    ("sft", {"prompt": HELLO, "completion": says("Hi")}, Demonstration(ASK, "Hi")),
    ("messages", {"messages": HELLO + says("Hi")}, Demonstration(ASK, "Hi")),
    ("text", {"text": " Once.\n", "file": "a"}, Document(" Once.\n", {"file": "a"})),
    ("prompts", {"prompt": "p", "id": 3}, PromptOnly("p", {"id": 3})),
    (
        "snapshot",
        {
            "kind": "prompt",
            "prompt": "148de9c5a7a44d19e56cd9ae1a554bf6",
            "example": '{"metadata":{},"prompt":"p"}',
        },
        PromptOnly("p"),
    ),
]


@pytest.mark.parametrize(("layout", "row", "example"), BY_HAND)
def test_a_row_of_each_layout(tmp_path: Path, layout: str, row: dict[str, Any], example: Any) -> None:
    report = ReadReport()
    assert read_examples(write(tmp_path / "in.jsonl", row), report=report) == [example]
    assert report.layouts == {layout}  # detected, not told
    write_examples([example], tmp_path / "out.jsonl", layout)
    assert json.loads((tmp_path / "out.jsonl").read_text()) | {"prompt": 0} == row | {"prompt": 0}
    if layout != "snapshot":
        assert json.loads((tmp_path / "out.jsonl").read_text()) == row


def test_every_layout_is_tried_by_hand() -> None:
    assert {layout for layout, _, _ in BY_HAND} | READ_ONLY == set(LAYOUTS)


def test_the_examples_of_the_documentation(tmp_path: Path) -> None:
    lines = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    seen: set[str] = set()
    heading = ""
    for line in lines:
        heading = line if line.startswith("### ") else heading
        if line.startswith("    {"):
            report = ReadReport()
            examples = read_examples(write(tmp_path / "a.jsonl", json.loads(line)), report=report)
            (layout,) = report.layouts
            assert layout in heading.removeprefix("### ").partition(" — ")[0].split(", ")
            seen.add(layout)
            if layout not in READ_ONLY:
                write_examples(examples, tmp_path / "b.jsonl", layout, overwrite=True)
                assert json.loads((tmp_path / "b.jsonl").read_text()) == json.loads(line)
    assert seen == set(LAYOUTS) - {"snapshot"}


# --- round trips -----------------------------------------------------------------------------------------------------

text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
number = st.integers(1, 5) | st.floats(1, 5)
turns = st.lists(
    st.builds(dict, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=st.text(max_size=5)),
    min_size=1,
    max_size=3,
)
extras = st.dictionaries(
    st.sampled_from(["id", "source", "note"]),
    st.recursive(st.none() | st.booleans() | st.integers() | text, lambda x: st.lists(x, max_size=2), max_leaves=3),
)
weight = st.fixed_dictionaries({}, optional={"weight": st.integers(0, 3) | st.floats(0, 3)})
two = st.tuples(text, text).filter(lambda pair: pair[0] != pair[1])


@st.composite
def rows(draw: st.DrawFn, layout: str) -> dict[str, Any]:
    row = draw(extras)
    prompt = draw(text | turns)

    def response(words: str) -> Any:
        return words if isinstance(prompt, str) else says(words)

    if layout in ("pairs", "implicit", "hh", "rankings"):
        chosen, rejected = draw(two)
        row |= draw(st.fixed_dictionaries({}, optional={"strength": st.none() | st.floats(0, 1)}))
    if layout == "pairs":
        return row | {"prompt": prompt, "chosen": response(chosen), "rejected": response(rejected)} | draw(weight)
    if layout == "implicit":
        shared = draw(turns)
        return row | {"chosen": shared + says(chosen), "rejected": shared + says(rejected)}
    if layout == "hh":
        words = st.text("ab \n.", max_size=6)
        pairs = draw(st.lists(st.tuples(words, words), max_size=2))
        shared = "".join(f"\n\nHuman: {a}\n\nAssistant: {b}" for a, b in pairs) + f"\n\nHuman: {draw(words)}"
        return row | {name: f"{shared}\n\nAssistant: {t}" for name, t in (("chosen", chosen), ("rejected", rejected))}
    if layout == "rankings":
        texts = draw(st.lists(text, min_size=3, max_size=5, unique=True))
        ranks = [0, draw(st.integers(0, 3)), *(draw(st.none() | st.integers(0, 3)) for _ in texts[2:])]
        row.pop("strength", None)
        return row | {"prompt": prompt, "responses": texts, "ranks": ranks} | draw(weight)
    if layout == "text":
        return row | {"text": draw(text)}
    if layout == "prompts":
        return row | {"prompt": prompt}
    if layout == "messages":
        return row | {"messages": draw(turns) + says(draw(text))} | draw(weight)
    row |= {"prompt": prompt, "completion": response(draw(text))} | draw(weight)
    if layout == "binary":
        return row | {"label": draw(st.booleans())}
    if layout == "ratings":
        scale = draw(st.fixed_dictionaries({}, optional={"low": st.integers(0, 1), "high": st.integers(5, 7)}))
        return row | {"ratings": draw(st.dictionaries(text, number, min_size=1, max_size=2))} | scale
    return row if layout == "sft" else row | {layout: draw(number)}


ROUND_TRIPS = sorted(set(LAYOUTS) - READ_ONLY - {"snapshot"})


@pytest.mark.parametrize("layout", ROUND_TRIPS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rows_come_back_unchanged(layout: str, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(rows(layout), min_size=1, max_size=3))
    suffix = data.draw(st.sampled_from([".jsonl", ".json", ".jsonl.gz"]))
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder) / "in.jsonl", *wanted)
        examples = read_examples(source, layout)
        target = Path(folder) / f"out{suffix}"
        write_examples(examples, target, layout)
        assert read_examples(target, layout) == examples
        content = gzip.decompress(target.read_bytes()) if suffix.endswith("gz") else target.read_bytes()
        found = json.loads(content) if suffix == ".json" else [json.loads(line) for line in content.split(b"\n")[:-1]]
        assert found == wanted


@pytest.mark.parametrize("layout", ROUND_TRIPS)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_tables_come_back_unchanged(tmp_path: Path, layout: str, suffix: str) -> None:
    examples = [example for name, _, example in BY_HAND if name == layout][:1]
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_examples(examples, first, layout)
    again = read_examples(first)
    # In CSV a further column is text: what was a number there stays the same text from now on.
    assert [e.metadata.keys() for e in again] == [e.metadata.keys() for e in examples]
    write_examples(again, second, layout)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".parquet":
        assert again == examples


@settings(max_examples=60, deadline=None)
@given(table=st.lists(st.tuples(text, two, st.text(st.characters(codec="utf-8"), max_size=4)), min_size=1, max_size=3))
def test_csv_cells_come_back_unchanged(table: list[Any]) -> None:
    cells = [cell for prompt, pair, note in table for cell in (prompt, *pair, note)]
    assume(not any(cell.lstrip("'").startswith(tuple("=+-@\t\r")) for cell in cells))  # formulas: see below
    with tempfile.TemporaryDirectory() as folder:
        path, again = Path(folder) / "a.csv", Path(folder) / "b.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["prompt", "chosen", "rejected", "note"], *((p, *c, n) for p, c, n in table)])
        examples = read_examples(path)
        assert [(e.prompt, e.responses, e.metadata["note"]) for e in examples] == table
        write_examples(examples, again)
        assert again.read_bytes() == path.read_bytes()


def test_examples_of_one_file_may_state_and_omit_optional_columns(tmp_path: Path) -> None:
    lines = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c", "weight": 1.0, "n": None}]
    examples = read_examples(write(tmp_path / "a.jsonl", *lines))
    assert [example.weight for example in examples] == [1, 1]
    write_examples(examples, tmp_path / "b.jsonl")
    assert [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()] == lines


def test_a_reversed_pair_is_written_with_the_better_one_chosen(tmp_path: Path) -> None:
    write_examples([Comparison("p", ("bad", "good"), (1, 0), share=0.25)], tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "prompt": "p", "chosen": "good", "rejected": "bad", "share": 0.75,
    }  # fmt: skip


def test_the_simplest_layout_is_chosen_for_writing(tmp_path: Path) -> None:
    write_examples([Comparison("p", ("a", "b"), (0, 0))], tmp_path / "a.jsonl")
    assert read_examples(tmp_path / "a.jsonl") == [Comparison("p", ("a", "b"), (0, 0))]
    with pytest.raises(UserError, match="several kinds"):
        write_examples([PromptOnly("p"), Document("d")], tmp_path / "b.jsonl")
    with pytest.raises(UserError, match=r"exists already"):
        write_examples([PromptOnly("p")], tmp_path / "a.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    one_of_each = [Rating("p", "r", {"x": 1}), Thumb("p", "r", True), Demonstration("p", "r"), Document("d")]
    assert [layout_for([e]) for e in (*one_of_each, PromptOnly("p"))] == ["ratings", "binary", "sft", "text", "prompts"]
    assert layout_for([]) == "text" and layout_for([object()]) == "snapshot"  # type: ignore[list-item]


# --- dialogues and trees ---------------------------------------------------------------------------------------------


def test_hh_where_one_side_has_a_turn_more(tmp_path: Path) -> None:
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c",
        "rejected": "\n\nHuman: a\n\nAssistant: d",
    }
    (example,) = read_examples(write(tmp_path / "a.jsonl", row))
    assert example == Comparison((Message("user", "a"),), ("b\n\nAssistant: c", "d"), (0, 1))
    write_examples([example], tmp_path / "b.jsonl", "hh")
    assert json.loads((tmp_path / "b.jsonl").read_text()) == row


def test_hh_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    for prompt in ("plain", (Message("system", "s"),), (Message("user", "a\n\nAssistant: b"),)):
        with pytest.raises(UserError, match="example 1"):
            write_examples([Comparison(prompt, ("x", "y"), (0, 1))], tmp_path / "a.jsonl", "hh")
    assert not list(tmp_path.iterdir())


def node(id: str, role: str, text: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {"message_id": id, "role": role, "text": text, "replies": list(replies), **more}


def test_posts_with_a_summary_and_choices_between_two(tmp_path: Path) -> None:
    post = {"id": "t3_1", "subreddit": "cats", "title": "Cat stuck", "post": "My cat sat in a tree. "}
    prompt = "SUBREDDIT: r/cats\n\nTITLE: Cat stuck\n\nPOST: My cat sat in a tree.\n\nTL;DR:"
    (written,) = read_examples(write(tmp_path / "a.jsonl", post | {"summary": "Cat in tree."}))
    assert written == Demonstration(prompt, " Cat in tree.", metadata={"id": "t3_1"})

    row = {
        "info": post | {"article": None}, "summaries": [{"text": " A dog."}, {"text": "A cat.", "policy": "sup2"}],
        "choice": 1, "worker": "w1", "extra": {"confidence": 8},
    }  # fmt: skip
    (judged,) = read_examples(write(tmp_path / "b.jsonl", row))
    facts = {"worker": "w1", "extra": {"confidence": 8}, "id": "t3_1"}
    assert judged == Comparison(prompt, (" A dog.", " A cat."), (1, 0), metadata=facts)
    (news,) = read_examples(write(tmp_path / "c.jsonl", row | {"info": {"post": None, "article": "It rained."}}))
    assert news.prompt == "ARTICLE: It rained.\n\nTL;DR:"
    for bad, match in (
        ({"choice": 2}, "'choice' must be 0 or 1"), ({"summaries": [{"text": "x"}]}, "two objects"),
        ({"info": {"title": "x"}}, "no post"), ({"summaries": [{"text": "x"}, {"text": " "}]}, "no summary"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=match):
            read_examples(write(tmp_path / "d.jsonl", row | bad))


def test_oasst_tree(tmp_path: Path) -> None:
    deeper = node("q2", "prompter", "And?", node("x", "assistant", "X", rank=1), node("y", "assistant", "Y", rank=0))
    tree = node(
        "q",
        "prompter",
        "Why?",
        node("a", "assistant", "A", deeper, rank=2),
        node("b", "assistant", "B", rank=0),
        node("c", "assistant", "C"),
        node("d", "assistant", "D", deeper, rank=1, deleted=True),
        node("e", "assistant", "E", node("q3", "prompter", "So?", node("z", "assistant", "Z", rank=0)), rank=3),
    )
    found = read_examples(write(tmp_path / "t.jsonl", {"message_tree_id": "T", "tree_state": "s", "prompt": tree}))
    assert [(e.prompt[-1].content, e.responses, e.ranks) for e in found] == [
        ("Why?", ("A", "B", "C", "E"), (1, 0, None, 2)),  # the deleted one's rank is closed up
        ("And?", ("X", "Y"), (1, 0)),  # and below it nothing is read
    ]
    assert found[1].prompt == (Message("user", "Why?"), Message("assistant", "A"), Message("user", "And?"))
    assert found[0].metadata == {
        "message_tree_id": "T",
        "parent_id": "q",
        "message_ids": ["a", "b", "c", "e"],
    }
    write_examples(found, tmp_path / "r.jsonl", "rankings")
    assert read_examples(tmp_path / "r.jsonl") == found
    with pytest.raises(UserError, match="only be read"):
        write_examples(found, tmp_path / "o.jsonl", "oasst")


# --- files -----------------------------------------------------------------------------------------------------------


def test_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Ä\n\nb\r\n".encode())
    assert read_examples(tmp_path / "a.txt") == [Document("Ä\n\nb\r\n")]
    assert read_examples(tmp_path / "a.txt", "lines") == [Document("Ä"), Document("b")]
    assert read_examples(tmp_path / "a.txt", "prompts") == [PromptOnly("Ä"), PromptOnly("b")]
    for number, examples in enumerate(([Document("Ä\nb")], [PromptOnly("Ä"), PromptOnly("b")])):
        target = tmp_path / f"out{number}.txt.gz"
        write_examples(examples, target)
        assert read_examples(target, "auto" if number == 0 else "prompts") == examples
    with pytest.raises(UserError, match=r"write \.jsonl|one document"):
        write_examples([Document("a\nb"), Document("c")], tmp_path / "no.txt")


def test_folders_and_archives_of_texts(tmp_path: Path) -> None:
    for name in ("pos/1.txt", "neg/2.txt", "README.txt", ".hidden/3.txt", "notes.md"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name)
    wanted = [
        Document("neg/2.txt", {"file": "neg/2.txt", "folder": "neg"}),
        Document("pos/1.txt", {"file": "pos/1.txt", "folder": "pos"}),
    ]
    assert read_examples(tmp_path / "in") == wanted
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in (tmp_path / "in").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "in"))
    assert read_examples(tmp_path / "in.zip") == wanted


def test_an_archive_without_known_suffixes_holds_texts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("d/README", "no")
        archive.writestr("d/polarity.pos", "good\nfine\n")
    assert [e.text for e in read_examples(tmp_path / "in.zip", "lines")] == ["good", "fine"]


def test_an_archive_of_tables(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.csv", "text\nx\n")
        archive.writestr("b.jsonl.gz", gzip.compress(b'{"text": "y"}\n'))
        parquet = pa.BufferOutputStream()
        pq.write_table(pa.table({"text": ["z"]}), parquet)
        archive.writestr("c.parquet", parquet.getvalue().to_pybytes())
    report = ReadReport()
    assert read_examples(tmp_path / "in.zip", report=report) == [Document("x"), Document("y"), Document("z")]
    assert (report.files, report.rows, report.examples) == (3, 3, 3)


def test_json_forms(tmp_path: Path) -> None:
    for content in (
        '[{"text": "a"}, {"text": "b"}]',
        '{"text": "a"}\n{"text": "b"}\n',
        '\ufeff[{"text":"a"},{"text":"b"}]',
    ):
        (tmp_path / "a.json").write_text(content, encoding="utf-8")
        assert read_examples(tmp_path / "a.json") == [Document("a"), Document("b")]


def test_parquet_fills_objects_with_nulls(tmp_path: Path) -> None:
    # Parquet gives every object of a column the same keys; the nulls it adds mean nothing.
    ratings = [Rating("p", "c", {"help": 4}), Rating("p", "d", {"truth": 2})]
    write_examples(ratings, tmp_path / "a.parquet")
    assert read_examples(tmp_path / "a.parquet") == ratings
    messages = [[{"role": "user", "content": "q", "name": None}, {"role": "assistant", "content": "a", "name": None}]]
    pq.write_table(pa.table({"messages": messages}), tmp_path / "b.parquet")
    assert read_examples(tmp_path / "b.parquet") == [Demonstration((Message("user", "q"),), "a")]


def test_streaming_reads_no_further_than_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": ""})
    assert next(iter_examples(path)) == Document("a")


# --- bad input -------------------------------------------------------------------------------------------------------

GOOD = '{"prompt": "p", "chosen": "a", "rejected": "b"}'

BAD_LINES = [
    ('{"prompt": "p", "chosen": "a", "rejected": }', r"line 2: malformed JSON: Expecting value \(column 44\)"),
    ('["p"]', "line 2: the row is no object.*list"),
    ('{"prompt": "p", "chosen": "a"}', "line 2: the column 'rejected' is missing"),
    ('{"prompt": "p", "chosen": "a", "rejectd": "b"}', "line 2: .*Did you mean 'rejected' by 'rejectd'"),
    ('{"prompt": "p", "chosen": "a", "rejected": null}', "line 2: the column 'rejected' is null"),
    ('{"prompt": "p", "chosen": " ", "rejected": "b"}', "line 2: 'chosen' is empty"),
    ('{"prompt": "", "chosen": "a", "rejected": "b"}', "line 2: 'prompt' is empty"),
    ('{"prompt": "p", "chosen": "a", "rejected": "a"}', "line 2: chosen and rejected are equal"),
    ('{"prompt": "p", "chosen": 3, "rejected": "a"}', "line 2: 'chosen' must be text. It is int"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": NaN}', "line 2: malformed JSON: NaN"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": 1e999}', "line 2: 'weight' holds NaN or infinity"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": "1"}', "line 2: 'weight' must be a number. It is str"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "weight": -1}', "line 2: 'weight' is negative"),
    ('{"prompt": "p", "chosen": "a", "rejected": "b", "strength": 2}', r"line 2: 'strength' must lie in 0\.\.1"),
    ('{"prompt": "p", "chosen": "\\ud800", "rejected": "b"}', "line 2: malformed JSON: half of a surrogate pair"),
    ('{"prompt": [{"role": "human", "content": "x"}], "chosen": "a", "rejected": "b"}', "role 'human'. Write 'user'"),
    ('{"prompt": [{"role": "elf", "content": "x"}], "chosen": "a", "rejected": "b"}', "unknown role 'elf'. Known"),
    ('{"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}', "message 1 needs 'role' and 'content'"),
    ("[" * 100_000, "line 2: malformed JSON"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(UserError, match=message) as error:
        read_examples(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    report = ReadReport()
    assert len(read_examples(path, on_bad="skip", report=report)) == 2
    assert (report.rows, report.examples, report.skipped.total()) == (3, 2, 1)
    assert "line 2" in report.first


BAD_ROWS = [
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0]}, "'ranks' and 'responses' differ in length"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, None]}, "fewer than two responses are ranked"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2]}, "must begin at 0"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1.5]}, "whole numbers"),
    ({"prompt": "p", "responses": ["a", "b"], "ranks": [0, True]}, "whole numbers"),
    ({"prompt": "p", "responses": ["a", "b", "a"], "ranks": [0, 1, 2]}, "equal responses have different ranks"),
    ({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [0, 1, 2], "share": 0.5}, "'share' is for two responses"),
    ({"prompt": "p", "responses": "a", "ranks": [0]}, "'responses' must be a list"),
    ({"prompt": "p", "completion": "c", "label": "yes"}, "'label' must be true or false"),
    ({"prompt": "p", "completion": "c", "label": 1}, "'label' must be true or false"),
    ({"prompt": "p", "completion": "c", "score": 7}, "outside the scale"),
    ({"prompt": "p", "completion": "c", "ratings": {}}, "'ratings' is empty"),
    ({"prompt": "p", "completion": "c", "ratings": {"a": "4"}}, "'a' must be a number"),
    ({"prompt": "p", "completion": "c", "score": 4, "low": 5}, "'low' must be less"),
    ({"messages": HELLO}, "must end with an assistant message"),
    ({"messages": "x"}, "'messages' must be a list"),
    ({"chosen": "a", "rejected": "b"}, "'chosen' is no dialogue"),
    ({"chosen": HELLO + says("a"), "rejected": says("b")}, "share no prompt"),
    ({"chosen": HELLO + HELLO, "rejected": HELLO + says("b")}, "one assistant message after them"),
    ({"promt": "p"}, "no known layout has the columns promt. Did you mean 'prompt' by 'promt'"),
    ({"prompt": "p", "chosen": "a", "rejcted": "b"}, "Did you mean 'rejected' by 'rejcted'"),
    ({"colour": "p"}, "docs/formats.md"),
    ({"text": ""}, "'text' is empty"),
    ({"prompt": node("q", "prompter", " ")}, "a message of the tree is empty. Message q"),
    ({"message_tree_id": "t", "prompt": node("q", "elf", "x")}, "unknown role 'elf'. Message q"),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError, match=message):
        read_examples(path)
    with pytest.raises(UserError, match="none of its 1 rows could be read"):
        read_examples(path, on_bad="skip")


def test_bad_files(tmp_path: Path) -> None:
    def refuse(name: str, content: bytes, message: str, **how: Any) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_examples(tmp_path / name, **how)

    refuse("empty.jsonl", b"", "no rows")
    refuse("blank.json", b" \n", "no rows")
    refuse("empty.csv", b"text\n", "no rows")
    refuse("latin.txt", "é".encode("cp1252"), "not UTF-8.*encoding")
    refuse("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2: the text is not UTF-8")
    refuse("latin.csv", b"text\n\xe9\n", "not UTF-8")
    refuse("bad.json", b'[{"text": "a"},\n{"text": }]', "line 2: malformed JSON")
    refuse("bad.csv", b"text,n\na,1\nb\n", "line 3: the row and the header differ in length")
    refuse("open.csv", b'text\n"a\n', "malformed CSV")
    refuse("twice.csv", b"text,text\na,b\n", "appears twice")
    refuse(
        "number.csv", b"prompt,completion,score\np,c,high\n", "line 2: 'score' must be a number. The cell reads 'high'"
    )
    refuse("bad.parquet", b"PAR1", "damaged Parquet")
    refuse("bad.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999)[:40], "damaged file")
    refuse("plain.jsonl.gz", b'{"text": "a"}', "damaged file")
    refuse("bad.zip", b"PK", "damaged zip")
    refuse("a.docx", b"x", r"unknown kind of file.*\.jsonl")
    refuse("a.txt", b"x", "unknown format 'pair'. Did you mean 'pairs'", format="pair")
    refuse("b.jsonl", b'{"text": "x"}', "only .txt files are read line by line", format="lines")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="no data files"):
        read_examples(tmp_path / "folder")
    with pytest.raises(UserError, match=r"no such file. Did you mean '.*empty\.jsonl'"):
        read_examples(tmp_path / "emty.jsonl")
    assert read_examples(tmp_path / "latin.txt", encoding="cp1252") == [Document("é")]


def test_parquet_values_that_json_does_not_know(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "day": [__import__("datetime").date(2024, 2, 3)], "image": [b"\x00"]})
    pq.write_table(table.drop_columns("image"), tmp_path / "a.parquet")
    assert read_examples(tmp_path / "a.parquet") == [Document("a", {"day": "2024-02-03"})]
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(UserError, match="row 1: 'image' holds bytes"):
        read_examples(tmp_path / "b.parquet")


def test_columns_that_a_table_cannot_hold(tmp_path: Path) -> None:
    mixed = [Document("a", {"n": 1}), Document("b", {"n": "x"})]
    with pytest.raises(UserError, match=r"column 'n' mixes types. Write \.jsonl"):
        write_examples(mixed, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="cannot write this kind of file"):
        write_examples(mixed, tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.jsonl: No space left on device. Nothing was written"):
        write_examples([Document("a")], tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Nothing was written"):
        write_examples([Document("a")], tmp_path / "file" / "a.jsonl")


def test_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    names = {"owner/name": True, "owner/name:test": True, "data/name": False, "owner/name.jsonl": False, "name": False}
    assert {name: is_hub_name(name) for name in names} == names


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        return [{"text": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_examples("owner/name:test") == [Document("a")]
    assert asked == [("owner/name", "test")]

    def offline(name: str, split: str) -> None:
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(UserError, match="cannot be read \\(Couldn't reach the Hub\\)") as error:
        read_examples("owner/name")
    assert "\n" not in str(error.value)


# --- real data -------------------------------------------------------------------------------------------------------


def test_real_dialogues(tmp_path: Path) -> None:
    path = shared("hh-harmless.jsonl.gz")
    with pytest.raises(UserError, match="line 87: 'chosen' is empty"):
        read_examples(path)
    report = ReadReport()
    examples = read_examples(path, on_bad="skip", report=report)
    assert str(report) == "1800 rows, 1796 examples, 4 skipped ('chosen' is empty: 4)"
    write_examples(examples, tmp_path / "hh.jsonl", "hh")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    kept = [row for row in rows if not row["chosen"].endswith("\n\nAssistant: ")]
    assert [json.loads(line) for line in (tmp_path / "hh.jsonl").open(encoding="utf-8")] == kept


def test_real_trees() -> None:
    examples = read_examples(shared("oasst-trees.jsonl.gz"))
    assert Counter(len(e.responses) for e in examples) == {2: 42, 3: 81, 4: 16, 5: 2, 6: 3, 8: 1, 9: 1}
    assert sum(None in e.ranks for e in examples) == 1


def test_real_texts() -> None:
    reviews = read_examples(shared("movie_reviews.zip"))
    assert Counter(e.metadata["folder"] for e in reviews) == {"neg": 1000, "pos": 1000}
    assert len(read_examples(shared("sentence_polarity.zip"), "lines")) == 10_662
    assert len(read_examples(shared("state_union.zip"), encoding="cp1252")) == 65
    assert len(read_examples(shared("tinyshakespeare.txt.gz"))) == 1


def test_csv_formulas_are_made_harmless_and_come_back(tmp_path: Path) -> None:
    texts = ("=1+1", "'=1+1", "''@x", "-1", "+", "\tx", "'tis", "a=b", "'")
    examples = [Thumb("plain", text, True) for text in texts]
    write_examples(examples, tmp_path / "thumbs.csv", "binary")
    with (tmp_path / "thumbs.csv").open(newline="") as file:
        cells = [row["completion"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    assert cells[6:] == ["'tis", "a=b", "'"]  # what is no formula stays as it is
    assert read_examples(tmp_path / "thumbs.csv") == examples


def test_rows_are_written_one_by_one(tmp_path: Path) -> None:
    """Columns that appear late have a place in the header; a row that fails leaves no file."""
    waiting = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal waiting
        for number in range(3):
            waiting += 1
            yield {"a": number} | ({"late": "x"} if number == 2 else {})

    for name, wanted in {
        "rows.csv": "a,late\r\n0,\r\n1,\r\n2,x\r\n",
        "rows.jsonl": '{"a": 0}\n{"a": 1}\n{"a": 2, "late": "x"}\n',
        "rows.json": '[\n{"a": 0},\n{"a": 1},\n{"a": 2, "late": "x"}\n]\n',
    }.items():
        write_rows(rows(), tmp_path / name)
        assert (tmp_path / name).read_bytes().decode() == wanted
    assert waiting == 9

    def wrong() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise UserError("example 2 is a Thumb", "")

    with pytest.raises(UserError, match="example 2"):
        write_rows(wrong(), tmp_path / "wrong.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv", "rows.json", "rows.jsonl"]
