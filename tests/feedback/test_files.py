"""Bytes to rows: encodings, duplicate keys, packed files that grow, what a table cannot hold."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration, Document, Message, Thumb
from hearken.feedback.formats import ReadReport, files, read_examples, write_examples

ROW = {"prompt": "Größe?", "chosen": "Zwölf", "rejected": "Elf"}
READ = Comparison("Größe?", ("Zwölf", "Elf"), (0, 1))


def refused(path: Path, match: str, **how: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read_examples(path, **how)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


# --- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_what_begins_with_its_mark_is_read_by_it(tmp_path: Path, encoding: str, end: str, suffix: str) -> None:
    line = json.dumps(ROW, ensure_ascii=False)
    text = {".jsonl": line, ".json": f"[{line},{end}{line}]", ".csv": f"prompt,chosen,rejected{end}Größe?,Zwölf,Elf"}
    path = tmp_path / f"a{suffix}"
    path.write_bytes((text[suffix] + end).encode(encoding))
    assert read_examples(path) == [READ] * (2 if suffix == ".json" else 1)


def test_an_encoding_without_its_mark_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{json.dumps(ROW, ensure_ascii=False)}\n".encode("latin-1"))
    refused(path, r"line 1: the text is not UTF-8.*--encoding cp1252")
    assert read_examples(path, encoding="latin-1") == [READ]
    path.write_bytes(f"{json.dumps(ROW)}\n".encode("utf-16-le"))
    refused(path, r"line 1: the text holds NUL bytes.*--encoding utf-16-le")
    assert read_examples(path, encoding="utf-16-le") == [READ]
    table = tmp_path / "a.csv"
    table.write_bytes("prompt,completion\nx,y\n".encode("utf-16-le"))
    refused(table, "line 1: the text holds NUL bytes")
    with pytest.raises(UserError, match="unknown encoding 'utf-88'"):
        read_examples(path, encoding="utf-88")


def test_line_breaks_inside_cells_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,completion\r\n"one\r\ntwo","three\nfour"\r\n')
    assert read_examples(path) == [Demonstration("one\r\ntwo", "three\nfour")]


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_separators_are_named(tmp_path: Path, mark: str, word: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt{mark}completion\nx{mark}y\n")
    refused(path, f"line 1: its columns are parted by {word}")


def test_empty_files_are_said(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", ""), ("b.jsonl", "\n \r\n\n"), ("c.txt", " \n"), ("d.csv", ""), ("e.json", "[]")):
        (tmp_path / name).write_text(content)
        refused(tmp_path / name, "empty, no rows in it")
    (tmp_path / "z.jsonl").write_text(json.dumps(ROW))
    with pytest.warns(UserWarning, match=r"a\.jsonl: empty, no rows in it"):
        assert read_examples(tmp_path) == [READ]


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_a_key_that_stands_twice_is_refused_with_its_place(tmp_path: Path) -> None:
    twice = '{"prompt": "p", "chosen": "a", "chosen": "b", "rejected": "c"}'
    inside = '{"messages": [{"role": "user", "content": "x", "content": "y"}, {"role": "assistant", "content": "z"}]}'
    good = json.dumps(ROW, ensure_ascii=False)
    for bad, key in ((twice, "chosen"), (inside, "content")):
        lines = tmp_path / "a.jsonl"
        lines.write_text(f"{good}\n{bad}\n{good}\n", encoding="utf-8")
        refused(lines, rf"line 2: the key '{key}' stands twice in one object")
        report = ReadReport()
        assert read_examples(lines, on_bad="skip", report=report) == [READ, READ]
        assert report.skipped == {f"the key '{key}' stands twice in one object": 1}
        whole = tmp_path / "a.json"
        whole.write_text(f"[\n{good},\n\n{bad},\n{good}\n]", encoding="utf-8")
        refused(whole, rf"row 2 \(line 4\): the key '{key}' stands twice in one object")
        assert read_examples(whole, on_bad="skip") == [READ, READ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('[{"text": "a"},]', "line 1: malformed JSON: Expecting value after the comma"),
        ('[{"text": "a"} {"text": "b"}]', "line 1: malformed JSON: Expecting ',' delimiter"),
        ('[{"text": "a"},\n{"text": "b"}', "line 2: malformed JSON: Expecting ',' delimiter"),
        ('[{"text": "a"}]\n[{"text": "b"}]', "line 2: malformed JSON: Extra data after the list"),
        ('[{"text": NaN}]', "malformed JSON: NaN is no JSON number"),
        ('["a"]', "row 1 .*: the row is no object"),
        ('"a"', "row 1 .*: the row is no object"),
        ("[" * 100_000, "malformed JSON"),
    ],
)
def test_malformed_json_files(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "a.json").write_text(content)
    refused(tmp_path / "a.json", match)


def test_big_numbers_are_kept_or_named(tmp_path: Path) -> None:
    big = 123456789012345678901234567890
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c", "id": big, "deep": [{"n": big}]}))
    rows = read_examples(tmp_path / "a.jsonl")
    write_examples(rows, tmp_path / "b.jsonl")
    assert read_examples(tmp_path / "b.jsonl") == rows
    for column in ("id", "deep"):
        one = [Demonstration("p", "c", metadata={column: rows[0].metadata[column]})]
        with pytest.raises(UserError, match=rf"column '{column}' holds a whole number beyond 64 bits. Write \.jsonl"):
            write_examples(one, tmp_path / "c.parquet")
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "completion": "c", "weight": 1' + "0" * 400 + "}")
    refused(tmp_path / "d.jsonl", "'weight' is not a finite number")
    assert not (tmp_path / "c.parquet").exists()


# --- Parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_types_that_say_the_same(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    struct = pa.struct([("role", pa.string()), ("content", pa.large_string()), ("name", pa.string())])
    table = pa.table(
        {
            "messages": pa.array([turns], pa.large_list(struct)),
            "source": pa.array(["web"]).dictionary_encode(),
            "id": pa.array([Decimal(12345678901234567890123)], pa.decimal128(38, 0)),
            "facts": pa.array([[("a", 1), ("b", 2)]], pa.map_(pa.string(), pa.int64())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    facts = {"source": "web", "id": 12345678901234567890123, "facts": {"a": 1, "b": 2}}
    wanted = Demonstration((Message("user", "Hi"),), "Hello", metadata=facts)
    assert read_examples(tmp_path / "a.parquet") == [wanted]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.parquet", "a.parquet")
    assert read_examples(tmp_path / "a.zip") == [wanted]
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "b.parquet")
    refused(tmp_path / "b.parquet", "the column 'text' stands there twice")
    pq.write_table(pa.table({"text": ["a"], "n": [float("nan")]}), tmp_path / "c.parquet")
    refused(tmp_path / "c.parquet", "row 1: 'n' holds NaN")


# --- CSV columns -----------------------------------------------------------------------------------------------------


def table(path: Path, *rows: Any) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("said", ['{"a": 1}', "[1, 2]", '["x"]', "[]", "{}", '[{"a": 1}]', "null", "true", "[role"])
@pytest.mark.parametrize("column", ["prompt", "chosen", "rejected"])
def test_texts_that_are_json_stay_text(tmp_path: Path, said: str, column: str) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"} | {column: said}
    (found,) = read_examples(table(tmp_path / "a.csv", list(row), list(row.values())))
    assert (found.prompt, *found.responses) == tuple(row.values())


def test_a_column_of_a_table_is_messages_or_text_as_a_whole(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": 'it\'s "so"'}]
    wanted = Demonstration((Message("user", 'it\'s "so"'),), "c")
    for written in (json.dumps(turns), repr(turns)):  # as pandas writes a column of lists
        assert read_examples(table(tmp_path / "a.csv", ["prompt", "completion"], [written, "c"])) == [wanted]
    mixed = table(tmp_path / "b.csv", ["prompt", "completion"], [repr(turns), "c"], ["text", "c"])
    refused(mixed, "line 3: 'prompt' holds messages in line 2, and text here")
    assert read_examples(mixed, on_bad="skip") == [wanted]
    mixed = table(tmp_path / "c.csv", ["prompt", "completion"], ["text", "c"], [json.dumps(turns), "c"])
    refused(mixed, "line 3: 'prompt' holds text in line 2, and messages here")
    numpy = table(
        tmp_path / "d.csv", ["prompt", "completion"], ["[{'role': 'user', 'content': 'x'}\n {'role': 'user'}]", "c"]
    )
    refused(numpy, "looks like a list of messages, and is neither JSON nor a list as Python writes it.*json.dumps")
    lists = ["prompt", "responses", "ranks"], ["p", "['a', 'b']", "[1, None]"], ["p", '["a", "b"]', "[1, 0]"]
    refused(table(tmp_path / "e.csv", *lists), "line 2: fewer than two responses are ranked")
    (found,) = read_examples(tmp_path / "e.csv", on_bad="skip")
    assert found == Comparison("p", ("a", "b"), (1, 0))


# --- packed files ----------------------------------------------------------------------------------------------------


def test_a_gzip_bomb_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_ALWAYS", 2**20)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(16):
            file.write(b" " * 2**20)  # one line of 16 MiB in 16 KiB
    for name in ("a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz", "a.parquet.gz"):
        (tmp_path / name).write_bytes(packed.getvalue())
        tracemalloc.start()
        refused(tmp_path / name, r"grows \d+ times on unpacking, as a decompression bomb does.*--max-unpacked")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 12 * 2**20, name
    refused(tmp_path / "a.jsonl.gz", r"more than 0\.0078125 GiB come of it", max_unpacked=1 / 128)
    refused(tmp_path / "a.jsonl.gz", "empty, no rows in it", max_unpacked=1)


def test_a_zip_bomb_of_many_members_is_counted_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_ALWAYS", 2**20)
    path = tmp_path / "a.zip"
    line = json.dumps({"text": "x" * 2**16}) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(30):
            archive.writestr(f"{number:03}.jsonl", line * 8)
    refused(path, "as a decompression bomb does")
    assert len(read_examples(path, max_unpacked=1)) == 240
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.jsonl.gz", gzip.compress(b" " * 2**24))
    refused(path, "as a decompression bomb does")


def test_sound_packed_files_are_read_however_repetitive(tmp_path: Path) -> None:
    rows = "".join(f'{{"prompt": "p{n % 7}", "completion": "same", "label": true}}\n' for n in range(5_000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert len(read_examples(tmp_path / "a.jsonl.gz")) == 5_000
    assert len(rows) / (tmp_path / "a.jsonl.gz").stat().st_size > 80


def test_what_lies_in_a_folder_and_is_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "notes.md").write_text("x")
    with pytest.warns(UserWarning, match=r"not read, for their suffixes: notes\.md"):
        assert read_examples(tmp_path) == [Document("x")]
    for name in ("b.zip", "b.tar.gz"):
        (tmp_path / name).write_bytes(b"x")
        refused(tmp_path, rf"the archive '{name}' lies in it")
        (tmp_path / name).unlink()
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("a.jsonl", '{"text": "x"}\n')
        archive.writestr("inner.zip", b"x")
    refused(tmp_path / "c.zip", r"the archive 'inner\.zip' lies in it")


# --- numbers for thumbs ----------------------------------------------------------------------------------------------


def test_a_column_of_zeros_and_ones_is_thumbs_and_a_column_of_ones_is_not(tmp_path: Path) -> None:
    def rows(*labels: Any) -> list[dict[str, Any]]:
        return [{"prompt": "p", "completion": str(n), "label": label} for n, label in enumerate(labels)]

    def write(*labels: Any) -> Path:
        path = tmp_path / "a.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows(*labels)))
        return path

    assert read_examples(write(1, 1, 0)) == [Thumb("p", "0", True), Thumb("p", "1", True), Thumb("p", "2", False)]
    for labels in ((1,), (1, 1, 1), (0, 0), (0.0, 0.0)):
        refused(write(*labels), r"line 1: 'label' must be true or false: it is [01](\.0)? in every row")
    assert [e.label for e in read_examples(write(1, 1), "binary")] == [True, True]
    refused(write(1, 0, 2), "line 3: 'label' must be true or false. It is 2 here")
    refused(write(1, 2), "line 2: 'label' must be true or false. It is 2 here")
    with pytest.raises(UserError, match="none of its 2 rows"):
        read_examples(write(1, 1), on_bad="skip")
    cells = table(
        tmp_path / "a.csv", ["prompt", "completion", "label"], ["p", "a", "1"], ["p", "b", "0"], ["p", "c", "True"]
    )
    assert [e.label for e in read_examples(cells)] == [True, False, True]
    refused(table(tmp_path / "a.csv", ["prompt", "completion", "label"], ["p", "a", "1"]), "it is 1 in every row")
