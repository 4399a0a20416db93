"""Files: bytes ↔ rows. JSONL, JSON, CSV, Parquet and plain text, gzipped, in a folder or zip archive, or on the Hub."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import logging
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from hearken.errors import UserError
from hearken.feedback.formats.layouts import Cell, Row

TextMode = Literal["document", "lines", "prompts"]
"""What a .txt file holds: one document, a document per line, or a prompt per line."""

_TYPES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zipfile.BadZipFile)
_KNOWN = f"Known: {', '.join(_TYPES)}, each also .gz; .zip; a folder of such files"
_CELL_LIMIT = 2**31 - 1
_FORMULA = re.compile("'*[=+\\-@\\t\\r]")
"""How a cell begins that a spreadsheet takes for a formula; those that have apostrophes in front get one more."""

ReadRow = tuple[str, Row | UserError]
"""A row and where it stands ("file, line 3"), or in its place what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """One readable file: on disk, gzipped, or a member of an archive."""

    name: str
    type: str
    open: Callable[[], IO[bytes]]
    member: PurePosixPath | None = None
    """The path below the folder or archive, where there is one."""


def sources(path: str | os.PathLike[str]) -> list[Source]:
    """The data files at ``path``: itself, or those of a folder or zip archive in order of name.

    README files and hidden files are no data. An archive without any known suffix is taken as plain text.

    Raises:
        UserError: nothing there, an unknown suffix, or a damaged archive.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        found = {PurePosixPath(file.relative_to(path)): _opener(file) for file in files}
        return _members(str(path), found)
    if not path.exists():
        folder = path.parent
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        near = difflib.get_close_matches(path.name, names, n=1)
        raise UserError(f"{path}: no such file", f"Did you mean '{folder / near[0]}'?" if near else "Check the path")
    if path.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(path)  # open until its last member is forgotten: opening reads the whole index
        except _DAMAGE as error:
            raise UserError(f"{path}: damaged zip archive ({error})", "Fetch or make it again") from None
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        return _members(str(path), {PurePosixPath(name): _member_opener(archive, name) for name in names})
    kind = _type(path.name)
    if kind is None:
        raise UserError(f"{path}: unknown kind of file", _KNOWN)
    return [Source(str(path), kind, _opener(path))]


def is_hub_name(path: str) -> bool:
    """Whether ``path`` can only be a Hub data set: ``owner/name``, or ``owner/name:split``."""
    local = Path(path).exists() or Path(path).parent.is_dir() or path.lower().endswith(".zip")
    return bool(_HUB_NAME.fullmatch(path)) and _type(path) is None and not local


def read_rows(source: Source, text: TextMode = "document", encoding: str = "utf-8") -> Iterator[ReadRow]:
    """The rows of a file, streamed.

    Raises:
        UserError: the file as a whole cannot be read (damage, no list of objects, encoding of a CSV file).
    """
    readers = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv, "parquet": _read_parquet}
    try:
        if source.type == "text":
            yield from _read_text(source, text, encoding)
        elif text != "document":
            raise UserError(f"{source.name}: only .txt files are read line by line", "Leave the format to 'auto'")
        else:
            for where, row in readers[source.type](source, encoding):
                yield where, _sound(row)
    except _DAMAGE as error:
        raise UserError(f"{source.name}: damaged file ({error})", "Fetch or make it again") from None
    except OSError as error:
        raise UserError(f"{source.name}: {error.strerror or error}", "Check the file and its permissions") from None


def read_hub(name: str) -> Iterator[ReadRow]:
    """The rows of a Hub data set, ``owner/name`` (its split "train") or ``owner/name:split``.

    Raises:
        UserError: it cannot be had, for instance offline.
    """
    from datasets import load_dataset  # heavy, and only needed here

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what its retries say is said once, below
    repository, _, split = name.partition(":")
    try:
        rows = load_dataset(repository, split=split or "train")
        for number, row in enumerate(rows, 1):
            yield f"{name}, row {number}", _sound(dict(row))
    except UserError:
        raise
    except Exception as error:  # the Hub's client raises dozens of kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "If a file is meant, no such path exists; otherwise check the name, the split and the network"
        raise UserError(f"{name}: the Hub data set cannot be read ({reason:.120})", hint) from None


def write_rows(rows: list[Row], path: str | os.PathLike[str], overwrite: bool = False, note: str = "") -> None:
    """Write rows by the suffix of ``path``: .jsonl, .json, .csv (these and .txt also .gz), .parquet.

    The file appears whole or not at all. A .txt file takes rows of one text column: one document, or a prompt per line.

    Raises:
        UserError: the file exists, the suffix is unknown, or the rows do not fit the kind of file.
    """
    path = Path(path)
    kind = _type(path.name)
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise UserError(f"{path}: cannot write this kind of file", _KNOWN.partition(";")[0])
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already", "Remove it or choose another name")
    encoders: dict[str, Callable[[list[Row], IO[bytes], Path], None]]
    encoders = {"jsonl": _jsonl, "json": _json, "csv": _csv, "parquet": partial(_parquet, note=note), "text": _text}
    encode = encoders[kind]
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            if path.suffix == ".gz":
                # No time stamp, so that equal rows make equal files.
                with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
                    encode(rows, cast("IO[bytes]", zipped), path)
            else:
                encode(rows, file, path)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", "Nothing was written; check the disk") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


# --- finding ---------------------------------------------------------------------------------------------------------


def _type(name: str) -> str | None:
    path = PurePosixPath(name.lower())
    if path.suffix == ".gz":
        path = path.with_suffix("")
    return _TYPES.get(path.suffix)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: _unzipped(path.open("rb"), path.name)


def _member_opener(archive: zipfile.ZipFile, name: str) -> Callable[[], IO[bytes]]:
    # The member is read whole, because Parquet needs to seek.
    def read() -> IO[bytes]:
        try:
            return _unzipped(io.BytesIO(archive.read(name)), name)
        except (RuntimeError, NotImplementedError) as error:
            raise UserError(f"{archive.filename}: {error}", "Unpack it, and give the folder") from None

    return read


def _unzipped(file: IO[bytes], name: str) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(fileobj=file)) if name.lower().endswith(".gz") else file


def _members(where: str, found: dict[PurePosixPath, Callable[[], IO[bytes]]]) -> list[Source]:
    data = {
        member: opener
        for member, opener in found.items()
        if not member.name.upper().startswith("README") and not any(part[0] in "._" for part in member.parts)
    }
    known = {member: opener for member, opener in data.items() if _type(member.name)}
    if not known and not where.lower().endswith(".zip"):
        data = {}
    if not data:
        raise UserError(f"{where}: no data files in it", _KNOWN)
    return [
        Source(f"{where}/{member}", _type(member.name) or "text", opener, member)
        for member, opener in (known or data).items()
    ]


# --- reading ---------------------------------------------------------------------------------------------------------


def _read_text(source: Source, mode: TextMode, encoding: str) -> Iterator[ReadRow]:
    with source.open() as file:
        content = _decode(file.read(), encoding)
    if isinstance(content, UserError):
        yield source.name, content
        return
    origin: Row = {}
    if source.member is not None:
        origin = {"file": str(source.member)}
        if len(source.member.parts) > 1:
            origin["folder"] = source.member.parts[-2]
    if mode == "document":
        yield source.name, {"text": content, **origin}
        return
    column = "prompt" if mode == "prompts" else "text"
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield f"{source.name}, line {number}", {column: line.removesuffix("\r"), **origin}


def _read_jsonl(source: Source, encoding: str) -> Iterator[ReadRow]:
    with source.open() as file:
        for number, raw in enumerate(file, 1):
            line = _decode(raw, encoding)
            if isinstance(line, UserError) or line.strip():
                yield f"{source.name}, line {number}", line if isinstance(line, UserError) else _object(line)


def _read_json(source: Source, encoding: str) -> Iterator[ReadRow]:
    with source.open() as file:
        content = _decode(file.read(), encoding)
    if isinstance(content, UserError):
        raise UserError(f"{source.name}: {content.what}", content.hint)
    if not content.strip():
        return
    try:
        value = _parse(content)
    except json.JSONDecodeError as error:
        # Many files called .json hold one object a line.
        if error.msg == "Extra data":
            yield from _read_jsonl(source, encoding)
            return
        raise UserError(
            f"{source.name}, line {error.lineno}: malformed JSON: {error.msg} (column {error.colno})", "Mend the line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source.name}: malformed JSON: {error}", "Mend the file") from None
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        yield f"{source.name}, row {number}", row if isinstance(row, dict) else _no_object(row)


def _read_csv(source: Source, encoding: str) -> Iterator[ReadRow]:
    csv.field_size_limit(_CELL_LIMIT)
    with source.open() as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise UserError(f"{source.name}, line 1: a column name appears twice", "Rename one of them")
            for cells in reader:
                where = f"{source.name}, line {reader.line_num}"
                if len(cells) == len(header):
                    yield where, dict(zip(header, map(_plain_cell, cells), strict=True))
                elif cells:
                    what = f"the row and the header differ in length: {len(cells)} cells, {len(header)} columns"
                    yield where, UserError(what, "Quote cells that hold commas or line breaks")
        except csv.Error as error:
            raise UserError(f"{source.name}, line {reader.line_num}: malformed CSV: {error}", "Mend the line") from None
        except UnicodeDecodeError as error:
            near = f"near line {reader.line_num + 1}"
            raise UserError(f"{source.name}, {near}: {_not_unicode(error).what}", _not_unicode(error).hint) from None


def _read_parquet(source: Source, encoding: str) -> Iterator[ReadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with source.open() as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{source.name}, row {number}", row
        except pa.ArrowException as error:
            raise UserError(f"{source.name}: damaged Parquet file ({error!s:.80})", "Fetch or make it again") from None


def _decode(raw: bytes, encoding: str) -> str | UserError:
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return _not_unicode(error)


def _not_unicode(error: UnicodeDecodeError) -> UserError:
    hint = "Give its encoding (for instance encoding='cp1252') or save it as UTF-8"
    return UserError(f"the text is not {error.encoding.upper()}", hint)


def _parse(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    value = json.loads(text, parse_constant=refuse)
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair, which is no character") from None
    return value


def _object(line: str) -> Row | UserError:
    try:
        value = _parse(line)
    except json.JSONDecodeError as error:
        return UserError(f"malformed JSON: {error.msg} (column {error.colno})", "Mend the line or leave it out")
    except (ValueError, RecursionError) as error:
        return UserError(f"malformed JSON: {error}", "Mend the line or leave it out")
    return value if isinstance(value, dict) else _no_object(value)


def _no_object(value: Any) -> UserError:
    return UserError("the row is no object", f"It is {type(value).__name__}; write one {{...}} per row")


def _sound(row: Row | UserError) -> Row | UserError:
    """The row with every value something JSON can hold (dates as ISO text), or why it cannot be."""
    if isinstance(row, UserError):
        return row
    try:
        return {key: _json_value(value, key) for key, value in row.items()}
    except UserError as error:
        return error


def _json_value(value: Any, column: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"'{column}' holds NaN or infinity", "Leave out the row or write a number")
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        return [_json_value(item, column) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item, column) for key, item in value.items()}
    raise UserError(f"'{column}' holds {type(value).__name__}, no text, number or list", "Drop the column")


# --- writing ---------------------------------------------------------------------------------------------------------


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _jsonl(rows: list[Row], file: IO[bytes], path: Path) -> None:
    for row in rows:
        file.write(_dump(row).encode() + b"\n")


def _json(rows: list[Row], file: IO[bytes], path: Path) -> None:
    file.write(b"[\n" + ",\n".join(map(_dump, rows)).encode() + b"\n]\n")


def _csv(rows: list[Row], file: IO[bytes], path: Path) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    columns = _columns(rows)
    writer.writerow(columns)
    for row in rows:
        values = (row.get(column) for column in columns)
        writer.writerow("" if v is None else _safe_cell(v) if isinstance(v, str) else _dump(v) for v in values)
    text.detach()


def _safe_cell(text: str) -> str:
    """``text`` with an apostrophe in front where a spreadsheet would run it as a formula; `_plain_cell` undoes it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _plain_cell(text: str) -> Cell:
    """What a cell says without the apostrophe that keeps it from being a formula."""
    return Cell(text[1:] if text.startswith("'") and _FORMULA.match(text) else text)


def _parquet(rows: list[Row], file: IO[bytes], path: Path, note: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for column in _columns(rows):
        try:
            arrays[column] = pa.array([row.get(column) for row in rows])
            if arrays[column].type == pa.struct([]):
                raise pa.ArrowInvalid("empty objects")
        except pa.ArrowException:
            raise UserError(f"{path}: the column '{column}' mixes types", "Write .jsonl, which can hold them") from None
    pq.write_table(pa.table(arrays, metadata={"hearken": note} if note else None), file)


def _text(rows: list[Row], file: IO[bytes], path: Path) -> None:
    columns = _columns(rows)
    if columns == ["text"] and len(rows) == 1:
        file.write(rows[0]["text"].encode())
        return
    texts = [row.get(columns[0]) for row in rows]
    if columns not in (["text"], ["prompt"]) or any(not isinstance(t, str) or "\n" in t for t in texts):
        raise UserError(f"{path}: a .txt file holds one document, or one-line texts or prompts", "Write .jsonl")
    file.write("".join(f"{text}\n" for text in texts).encode())
