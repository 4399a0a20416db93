"""Files: bytes ↔ rows. JSONL, JSON, CSV, Parquet and plain text, gzipped, in a folder or zip archive, or on the Hub."""

from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import json
import logging
import lzma
import math
import os
import re
import shutil
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, cast

from hearken.errors import UserError
from hearken.feedback.formats.values import CONTENT, Cell, Row, dialogue
from hearken.feedback.privacy import private

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
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".7z", ".rar")
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_KNOWN = f"Known: {', '.join(_TYPES)}, each also .gz; .zip; a folder of such files"
_CELL_LIMIT = 2**31 - 1
_FORMULA = re.compile("'*[=+\\-@\\t\\r]")
"""How a cell begins that a spreadsheet takes for a formula; those that have apostrophes in front get one more."""

ReadRow = tuple[str, Row | UserError]
"""A row and where it stands ("file, line 3"), or in its place what is wrong with it."""


GIB = 2**30
UNPACKED_GIB = 16.0
"""What a .gz or .zip file may unpack to unless told otherwise; and it may grow `UNPACKED_RATIO` times."""
UNPACKED_RATIO = 250
_ALWAYS = 64 * 2**20
"""So many bytes may always come of a packed file, whatever its ratio."""


@dataclass(frozen=True)
class Source:
    """One readable file: on disk, gzipped, or a member of an archive."""

    name: str
    type: str
    open: Callable[[], io.BufferedReader]
    member: PurePosixPath | None = None
    """The path below the folder or archive, where there is one."""


@dataclass
class Budget:
    """How many bytes may still come of one packed file, all its members together, so that no bomb fills memory or disk.

    Text packs 3 to 10 times, very repetitive text 100 times; deflate can do 1,032 times.
    """

    name: str
    packed: int
    """Bytes of the packed file itself."""
    gib: float = 0.0
    """Most GiB that may come of it, however much it grows; 0 for `UNPACKED_GIB` and `UNPACKED_RATIO`."""
    used: int = field(default=0, init=False)

    def spend(self, count: int) -> None:
        """Count bytes that came of it.

        Raises:
            UserError: they are too many.
        """
        self.used += count
        most = self.gib or UNPACKED_GIB
        if self.used > most * GIB:
            raise UserError(
                f"{self.name}: more than {most:g} GiB come of it", "If so much is meant: --max-unpacked GIB"
            )
        if not self.gib and self.used > max(_ALWAYS, UNPACKED_RATIO * self.packed):
            grown = self.used / max(self.packed, 1)
            raise UserError(
                f"{self.name}: grows {grown:.0f} times on unpacking, as a decompression bomb does",
                f"If it is sound: --max-unpacked {UNPACKED_GIB:g} (GiB)",
            )


class _Metered(io.RawIOBase):
    """A packed stream whose bytes are counted as they come."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(min(len(buffer), 2**20))
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def sources(path: str | os.PathLike[str], max_unpacked: float = 0.0) -> list[Source]:
    """The data files at ``path``: itself, or those of a folder or zip archive in order of name.

    README files and hidden files are no data. An archive without any known suffix is taken as plain text.

    Args:
        path: a file, a folder or a .zip archive.
        max_unpacked: most GiB that one packed file may unpack to; see `Budget`.

    Raises:
        UserError: nothing there, an unknown suffix, a damaged archive, or one inside.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        found = {PurePosixPath(file.relative_to(path)): _opener(file, max_unpacked) for file in files}
        return _members(str(path), found)
    check_there(path)
    if path.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(path)  # open until its last member is forgotten: opening reads the whole index
        except _DAMAGE as error:
            raise UserError(f"{path}: damaged zip archive ({error})", "Fetch or make it again") from None
        budget = Budget(str(path), path.stat().st_size, max_unpacked)
        infos = sorted((i for i in archive.infolist() if not i.is_dir()), key=lambda info: info.filename)
        names = [info.filename for info in infos]
        if twice := next((one for one, other in pairwise(names) if one == other), None):
            raise UserError(f"{path}: holds '{twice}' twice", "Make the archive again")
        return _members(str(path), {PurePosixPath(i.filename): _member_opener(archive, i, budget) for i in infos})
    kind = _type(path.name)
    if kind is None:
        raise UserError(f"{path}: unknown kind of file", _KNOWN)
    return [Source(str(path), kind, _opener(path, max_unpacked))]


def check_there(path: str | os.PathLike[str]) -> None:
    """A path exists, or can only be a Hub data set's name.

    Raises:
        UserError: neither.
    """
    if Path(path).exists() or is_hub_name(str(path)):
        return
    path = Path(path)
    folder = path.parent
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    raise UserError(f"{path}: no such file", f"Did you mean '{folder / near[0]}'?" if near else "Check the path")


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


def write_rows(rows: Iterable[Row], path: str | os.PathLike[str], overwrite: bool = False, note: str = "") -> None:
    """Write rows by the suffix of ``path``: .jsonl, .json, .csv (these and .txt also .gz), .parquet.

    The file appears whole or not at all, and only its owner may read it. A .txt file takes rows of one text column: one
    document, or a prompt per line. All but .parquet and .txt are written row by row, however many there are.

    Raises:
        UserError: the file exists, the suffix is unknown, or the rows do not fit the kind of file.
    """
    path = Path(path)
    kind = _type(path.name)
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise UserError(f"{path}: cannot write this kind of file", _KNOWN.partition(";")[0])
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already", "Remove it or choose another name")
    encoders: dict[str, Callable[[Iterable[Row], IO[bytes], Path], None]]
    encoders = {"jsonl": _jsonl, "json": _json, "csv": _csv, "parquet": partial(_parquet, note=note), "text": _text}
    encode = encoders[kind]
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with private(unfinished).open("wb") as file:
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


def is_data(name: str) -> bool:
    """Whether a file's suffix is one of those that are read as data."""
    return _type(name) is not None or name.lower().endswith(".zip")


def _type(name: str) -> str | None:
    path = PurePosixPath(name.lower())
    if path.suffix == ".gz":
        path = path.with_suffix("")
    return _TYPES.get(path.suffix)


def _opener(path: Path, max_unpacked: float) -> Callable[[], io.BufferedReader]:
    def read() -> io.BufferedReader:
        file = path.open("rb")
        if path.suffix.lower() != ".gz":
            return file
        budget = Budget(str(path), path.stat().st_size, max_unpacked)
        return io.BufferedReader(_Metered(cast("IO[bytes]", gzip.GzipFile(fileobj=file)), budget))

    return read


def _member_opener(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: Budget
) -> Callable[[], io.BufferedReader]:
    def read() -> io.BufferedReader:
        try:
            metered: io.BufferedReader = io.BufferedReader(_Metered(archive.open(member), budget))
        except (RuntimeError, NotImplementedError) as error:  # a password, or a method that Python lacks
            raise UserError(f"{archive.filename}: {error}", "Unpack it, and give the folder") from None
        if not member.filename.lower().endswith(".gz"):
            return metered
        return io.BufferedReader(_Metered(cast("IO[bytes]", gzip.GzipFile(fileobj=metered)), budget))

    return read


def _members(where: str, found: dict[PurePosixPath, Callable[[], io.BufferedReader]]) -> list[Source]:
    data = {
        member: opener
        for member, opener in found.items()
        if not member.name.upper().startswith("README") and not any(part[0] in "._" for part in member.parts)
    }
    for member in data:
        if member.name.lower().endswith(_ARCHIVES):
            raise UserError(f"{where}: the archive '{member}' lies in it", "Unpack it first, or leave it out")
    known = {member: opener for member, opener in data.items() if _type(member.name)}
    if not known and not where.lower().endswith(".zip"):
        data = {}
    if not data:
        raise UserError(f"{where}: no data files in it", _KNOWN)
    if known and (rest := [str(member) for member in data if member not in known]):
        more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
        warnings.warn(f"{where}: not read, for their suffixes: {', '.join(rest[:3])}{more}", stacklevel=3)
    return [
        Source(f"{where}/{member}", _type(member.name) or "text", opener, member)
        for member, opener in (known or data).items()
    ]


# --- reading ---------------------------------------------------------------------------------------------------------


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""How a file begins that says itself what its encoding is; UTF-32's mark begins with UTF-16's."""


def check_encoding(encoding: str) -> None:
    """Refuse what is no encoding of text.

    Raises:
        UserError: with the nearest known ones.
    """
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(
            f"unknown encoding '{encoding}'", "For example: utf-8, utf-16, cp1252, latin-1, gb18030"
        ) from None


def _opened(source: Source, encoding: str) -> tuple[io.BufferedReader, str]:
    """The open file, and its encoding: what its mark says, else ``encoding``."""
    file = source.open()
    head = file.peek(4)[:4]
    return file, next((name for mark, name in _MARKS if head.startswith(mark)), encoding)


def _read_text(source: Source, mode: TextMode, encoding: str) -> Iterator[ReadRow]:
    content = _whole(source, encoding)
    if isinstance(content, UserError):
        yield source.name, content
        return
    origin: Row = {}
    if source.member is not None:
        origin = {"file": str(source.member)}
        if len(source.member.parts) > 1:
            origin["folder"] = source.member.parts[-2]
    if mode == "document":
        if content.strip():
            yield source.name, {"text": content, **origin}
        return
    column = "prompt" if mode == "prompts" else "text"
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield f"{source.name}, line {number}", {column: line.removesuffix("\r"), **origin}


def _whole(source: Source, encoding: str) -> str | UserError:
    file, encoding = _opened(source, encoding)
    with file:
        return _decode(file.read(), encoding)


def _read_jsonl(source: Source, encoding: str) -> Iterator[ReadRow]:
    file, encoding = _opened(source, encoding)
    with file:
        wide = "\n".encode(encoding.removesuffix("-sig")) != b"\n"  # UTF-16: a line ends in the middle of its bytes
        lines: Iterable[str | bytes] = io.TextIOWrapper(file, encoding, newline="\n") if wide else file
        try:
            for number, raw in enumerate(lines, 1):
                line = raw if isinstance(raw, str) else _decode(raw, encoding)
                if isinstance(line, UserError) or line.strip():
                    yield f"{source.name}, line {number}", line if isinstance(line, UserError) else _object(line)
        except UnicodeDecodeError as error:
            raise UserError(f"{source.name}: {_not_unicode(error).what}", _not_unicode(error).hint) from None


def _read_json(source: Source, encoding: str) -> Iterator[ReadRow]:
    content = _whole(source, encoding)
    if isinstance(content, UserError):
        raise UserError(f"{source.name}: {content.what}", content.hint)
    try:
        line, before = 1, 0
        for number, (at, row) in enumerate(_elements(content), 1):
            line, before = line + content.count("\n", before, at), at
            where = f"{source.name}, row {number} (line {line})"
            yield where, row if isinstance(row, dict | UserError) else _no_object(row)
    except json.JSONDecodeError as error:
        # Many files called .json hold one object a line.
        if error.msg != "Extra data":
            what = f"malformed JSON: {error.msg} (column {error.colno})"
            raise UserError(f"{source.name}, line {error.lineno}: {what}", "Mend the line") from None
        for number, text in enumerate(content.split("\n"), 1):
            if text.strip():
                yield f"{source.name}, line {number}", _object(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source.name}: malformed JSON: {error}", "Mend the file") from None


def _elements(content: str) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list (or the one value that a text holds), each with the place where it begins."""
    blank = json.decoder.WHITESPACE.match  # type: ignore[attr-defined]
    parse, at = _Parser(content), blank(content, 0).end()
    if at == len(content):
        return
    if content[at] != "[":
        value, end = parse(at)
        if (end := blank(content, end).end()) != len(content):
            raise json.JSONDecodeError("Extra data", content, end)
        yield at, value
        return
    at = blank(content, at + 1).end()
    while content[at : at + 1] != "]":
        value, end = parse(at)
        yield at, value
        at = blank(content, end).end()
        if content[at : at + 1] == ",":
            at = blank(content, at + 1).end()
            if content[at : at + 1] == "]":
                raise json.JSONDecodeError("Expecting value after the comma", content, at)
        elif content[at : at + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' delimiter", content, at)
    if (end := blank(content, at + 1).end()) != len(content):
        raise json.JSONDecodeError("Extra data after the list", content, end)


def _read_csv(source: Source, encoding: str) -> Iterator[ReadRow]:
    csv.field_size_limit(_CELL_LIMIT)
    file, encoding = _opened(source, encoding)
    with file:
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        typed: dict[str, tuple[bool, int]] = {}
        try:
            header = next(reader, [])
            _check_header(header, source.name)
            for cells in reader:
                where = f"{source.name}, line {reader.line_num}"
                if len(cells) == len(header):
                    row: Row | UserError = dict(zip(header, map(_plain_cell, cells), strict=True))
                    try:
                        _settle(cast(Row, row), typed, reader.line_num)
                    except UserError as error:
                        row = error
                    yield where, row
                elif cells:
                    what = f"the row and the header differ in length: {len(cells)} cells, {len(header)} columns"
                    yield where, UserError(what, "Quote cells that hold commas or line breaks")
        except csv.Error as error:
            raise UserError(f"{source.name}, line {reader.line_num}: malformed CSV: {error}", "Mend the line") from None
        except UnicodeDecodeError as error:
            near = f"near line {reader.line_num + 1}"
            raise UserError(f"{source.name}, {near}: {_not_unicode(error).what}", _not_unicode(error).hint) from None


def _check_header(header: list[str], name: str) -> None:
    if len(set(header)) < len(header):
        raise UserError(f"{name}, line 1: a column name appears twice", "Rename one of them")
    if any("\0" in column for column in header):
        raise UserError(f"{name}, line 1: {_NUL.what}", _NUL.hint)
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise UserError(f"{name}, line 1: its columns are parted by {word}", "Save it with commas between them")


def _settle(row: Row, typed: dict[str, tuple[bool, int]], line: int) -> None:
    """Make lists of the cells of columns that hold messages. Every cell of a column is of one kind: nothing is guessed.

    Args:
        row: with its cells, changed in place.
        typed: whether a column holds messages, and the line that says so; filled in here.
        line: number of the row's line.

    Raises:
        UserError: messages among texts, or a text among messages.
    """
    for name in CONTENT.intersection(row):
        if not row[name].strip():
            continue
        turns = dialogue(row[name])
        listed, first = typed.setdefault(name, (turns is not None, line))
        if listed != (turns is not None):
            kinds = ("messages", "text") if listed else ("text", "messages")
            raise UserError(
                f"'{name}' holds {kinds[0]} in line {first}, and {kinds[1]} here",
                "Write the whole column as text, or all of it as JSON lists of {role, content}",
            )
        if turns is not None:
            row[name] = turns


def _read_parquet(source: Source, encoding: str) -> Iterator[ReadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with source.open() as packed, tempfile.TemporaryFile() as unpacked:
        file: IO[bytes] = packed
        if not packed.seekable():  # Parquet is read from its end
            shutil.copyfileobj(packed, unpacked)
            unpacked.seek(0)
            file = unpacked
        try:
            table = pq.ParquetFile(file)
            names = table.schema_arrow.names
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise UserError(f"{source.name}: the column '{twice}' stands there twice", "Rename one of them")
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{source.name}, row {number}", row
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise UserError(f"{source.name}: damaged Parquet file ({error!s:.80})", "Fetch or make it again") from None


_NUL = UserError(
    "the text holds NUL bytes", "UTF-16 without its mark has them: --encoding utf-16-le, or save it as UTF-8"
)


def _decode(raw: bytes, encoding: str) -> str | UserError:
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return _not_unicode(error)
    return _NUL if "\0" in text else text


def _not_unicode(error: UnicodeDecodeError) -> UserError:
    hint = "Give its encoding (for instance --encoding cp1252) or save it as UTF-8"
    return UserError(f"the text is not {error.encoding.upper()}", hint)


class _Parser:
    """Reads values of a JSON text one by one. A key that stands twice in an object makes the value a UserError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._halves = "\\ud" in text or "\\uD" in text
        self._doubled: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._unique, parse_constant=self._refuse)

    def __call__(self, at: int) -> tuple[Any, int]:
        """The value that begins at ``at``, and where it ends.

        Raises:
            ValueError: malformed (JSONDecodeError), NaN, or half a character.
        """
        self._doubled.clear()
        value, end = self._decoder.raw_decode(self._text, at)
        if self._doubled:
            return UserError(f"the key '{self._doubled[0]}' stands twice in one object", "Remove one of them"), end
        if self._halves:
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise ValueError("half of a surrogate pair, which is no character") from None
        return value, end

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            self._doubled += [key for key in found if keys.count(key) > 1]
        return found

    def _refuse(self, constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")


def _object(line: str) -> Row | UserError:
    try:
        values = [value for _, value in _elements(line)]
    except json.JSONDecodeError as error:
        return UserError(f"malformed JSON: {error.msg} (column {error.colno})", "Mend the line or leave it out")
    except (ValueError, RecursionError) as error:
        return UserError(f"malformed JSON: {error}", "Mend the line or leave it out")
    if line.lstrip()[:1] == "[":
        return _no_object(values)
    return values[0] if isinstance(values[0], dict | UserError) else _no_object(values[0])


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
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
        if isinstance(value, int):
            return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"'{column}' holds NaN or infinity", "Leave out the row or write a number")
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):  # a map of Parquet
            return {str(key): _json_value(item, column) for key, item in value}
        return [_json_value(item, column) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item, column) for key, item in value.items()}
    raise UserError(f"'{column}' holds {type(value).__name__}, no text, number or list", "Drop the column")


# --- writing ---------------------------------------------------------------------------------------------------------


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _jsonl(rows: Iterable[Row], file: IO[bytes], path: Path) -> None:
    for row in rows:
        file.write(_dump(row).encode() + b"\n")


def _json(rows: Iterable[Row], file: IO[bytes], path: Path) -> None:
    file.write(b"[\n")
    for number, row in enumerate(rows):
        file.write(b",\n" * (number > 0) + _dump(row).encode())
    file.write(b"\n]\n")


def _csv(rows: Iterable[Row], file: IO[bytes], path: Path) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    columns: dict[str, None] = {}
    with tempfile.TemporaryFile() as waiting:  # the columns are known after the last row only
        for row in rows:
            columns |= dict.fromkeys(row)
            waiting.write(_dump(row).encode() + b"\n")
        waiting.seek(0)
        writer.writerow(columns)
        for row in map(json.loads, waiting):
            values = (row.get(column) for column in columns)
            writer.writerow("" if v is None else _safe_cell(v) if isinstance(v, str) else _dump(v) for v in values)
    text.detach()


def _safe_cell(text: str) -> str:
    """``text`` with an apostrophe in front where a spreadsheet would run it as a formula; `_plain_cell` undoes it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _plain_cell(text: str) -> Cell:
    """What a cell says without the apostrophe that keeps it from being a formula."""
    return Cell(text[1:] if text.startswith("'") and _FORMULA.match(text) else text)


def _parquet(rows: Iterable[Row], file: IO[bytes], path: Path, note: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    arrays = {}
    for column in _columns(rows):
        try:
            arrays[column] = pa.array([row.get(column) for row in rows])
            if arrays[column].type == pa.struct([]):
                raise pa.ArrowInvalid("empty objects")
        except pa.ArrowException:
            raise UserError(f"{path}: the column '{column}' mixes types", "Write .jsonl, which can hold them") from None
        except OverflowError:
            what = f"the column '{column}' holds a whole number beyond 64 bits"
            raise UserError(f"{path}: {what}", "Write .jsonl, which can hold it") from None
    pq.write_table(pa.table(arrays, metadata={"hearken": note} if note else None), file)


def _text(rows: Iterable[Row], file: IO[bytes], path: Path) -> None:
    rows = list(rows)
    columns = _columns(rows)
    if columns == ["text"] and len(rows) == 1:
        file.write(rows[0]["text"].encode())
        return
    texts = [row.get(columns[0]) for row in rows]
    if columns not in (["text"], ["prompt"]) or any(not isinstance(t, str) or "\n" in t for t in texts):
        raise UserError(f"{path}: a .txt file holds one document, or one-line texts or prompts", "Write .jsonl")
    file.write("".join(f"{text}\n" for text in texts).encode())
