"""Files in and out: examples in the layouts trainers know (docs/formats.md defines each)."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Example
from hearken.feedback.formats.detecting import detect, look_ahead, signature
from hearken.feedback.formats.files import (
    TextMode,
    check_encoding,
    is_hub_name,
    read_hub,
    read_rows,
    sources,
    write_rows,
)
from hearken.feedback.formats.layouts import LAYOUTS, Layout, find_layout
from hearken.feedback.formats.making import check
from hearken.feedback.formats.values import Row
from hearken.feedback.reading import OnBad, ReadingOptions

__all__ = [
    "LAYOUTS", "ReadReport", "check", "iter_examples", "layout_for", "read_as", "read_examples", "write_examples",
]  # fmt: skip


_MARGIN = "'margin' is kept with the row and not read; write 'strength', 0 to 1, which train reward --margin scales"


@dataclass
class ReadReport:
    """What reading found: counts, and why rows were left out."""

    files: int = 0
    rows: int = 0
    """Rows seen, skipped ones included."""
    examples: int = 0
    """Examples made of them; a tree makes several, or none."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many rows were left out, by reason."""
    first: str = ""
    """The first row left out: where it stands and what is wrong with it."""
    layouts: set[str] = field(default_factory=set)
    """The layouts found."""
    unjudged: int = 0
    """Rows that are well but say nothing yet: records that nobody has answered, trees without ranks."""

    def __str__(self) -> str:
        """One line, such as "1800 rows, 1796 examples, 4 skipped ('chosen' is empty: 4)"."""
        line = f"{self.rows} rows, {self.examples} examples"
        if self.unjudged:
            line += f", {self.unjudged} without a judgment"
        if self.skipped:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.skipped.most_common())
            line += f", {self.skipped.total()} skipped ({reasons})"
        return line


def read_examples(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    on_bad: OnBad = "error",
    report: ReadReport | None = None,
    encoding: str = "utf-8",
    max_unpacked: float = 0.0,
) -> list[Example]:
    """Read a file, a folder, a .zip archive or a Hub data set.

    Args:
        path: a .jsonl, .json, .csv, .parquet or .txt file (all but Parquet also .gz), a .zip archive or a folder of
            such files, or a Hub name: ``owner/name`` or ``owner/name:split``.
        format: the layout (a key of `LAYOUTS`, or "lines": a .txt file with a document per line); "auto" tells it
            from the columns of each file's first row.
        on_bad: stop at a row that is wrong, or leave it out and count it in ``report``.
        report: filled in while reading.
        encoding: of text files that do not begin with a mark of their own (BOM).
        max_unpacked: most GiB that a .gz or .zip file may unpack to; 0 for the limits of `files.Budget`.

    Raises:
        UserError: where and what is wrong, and the mend; also when no row could be read.
    """
    found = iter_examples(path, format, on_bad=on_bad, report=report, encoding=encoding, max_unpacked=max_unpacked)
    return list(found)


def read_as(path: str, options: ReadingOptions, *, format: str | None = None) -> tuple[list[Example], ReadReport]:
    """`read_examples` as ``options`` say (with ``format`` in place of theirs); warns of rows that add nothing.

    Raises:
        UserError: as `read_examples`.
    """
    report = ReadReport()
    how = options.reading()
    if format is not None:
        how["format"] = format
    rows = read_examples(path, report=report, **how)
    if report.unjudged:
        warnings.warn(f"{path}: {report.unjudged} of its {report.rows} rows hold no judgment", stacklevel=2)
    if report.skipped:
        warnings.warn(f"{path}: {report}; the first: {report.first}", stacklevel=2)
    return rows, report


def iter_examples(
    path: str | os.PathLike[str],
    format: str = "auto",
    *,
    on_bad: OnBad = "error",
    report: ReadReport | None = None,
    encoding: str = "utf-8",
    max_unpacked: float = 0.0,
) -> Iterator[Example]:
    """Like `read_examples`, one example after the other, without holding the file in memory.

    A file has one layout. Where ``format`` is "auto", a row that another layout fits is refused: nothing that it says
    beside is passed over. Thumbs as the numbers 0 and 1 are read once both were seen.
    """
    report, warned = ReadReport() if report is None else report, False
    check_encoding(encoding)
    text: TextMode = "lines" if format == "lines" else "prompts" if format == "prompts" else "document"
    fixed = None if format == "auto" else find_layout("text" if format == "lines" else format)
    name = os.fspath(path)
    if is_hub_name(name):
        streams: Iterable[tuple[str, Iterator[tuple[str, Row | UserError]]]] = [(name, read_hub(name))]
    else:
        # "prompts" also names the layout of tables, so only .txt files are read by line.
        streams = (
            (s.name, read_rows(s, text if s.type == "text" or text == "lines" else "document", encoding))
            for s in sources(path, max_unpacked)
        )
    for source, stream in streams:
        report.files += 1
        before = report.rows
        layouts = _Layouts(fixed)
        if fixed is None:
            layouts.first, stream = look_ahead(stream)
        for where, row in stream:
            report.rows += 1
            try:
                if isinstance(row, UserError):
                    raise row
                layout, examples = layouts.read(row)
            except UserError as error:
                message = UserError(f"{where}: {error.what}", error.hint)
                if on_bad == "error":
                    raise message from None
                report.skipped[error.what.partition(": ")[0]] += 1
                report.first = report.first or str(message)
                continue
            if layout.says and layout.name not in report.layouts:
                warnings.warn(f"{source}: {layout.says}", stacklevel=2)
            report.layouts.add(layout.name)
            if not warned and any(isinstance(e, Comparison) and "margin" in e.metadata for e in examples):
                warned = True
                warnings.warn(f"{where}: {_MARGIN}", stacklevel=2)
            report.examples += len(examples)
            report.unjudged += not examples
            yield from examples
        if report.rows == before and source != name:
            warnings.warn(f"{source}: empty, no rows in it", stacklevel=2)
    if not report.rows:
        raise UserError(f"{name}: empty, no rows in it", "Check that it is the right file")
    if not report.examples:
        raise UserError(f"{name}: none of its {report.rows} rows could be read", report.first or "No judgment in any")


@dataclass
class _Layouts:
    """The layout of a file: given, or told from its first good row, and then the same for all."""

    fixed: Layout | None
    first: Layout | None = None
    fitting: dict[object, Layout | UserError] = field(default_factory=dict)
    """What `detect` says, by signature."""

    def read(self, row: Row) -> tuple[Layout, list[Example]]:
        """The row's examples.

        Raises:
            UserError: the row is wrong, or in another layout than those before.
        """
        if self.fixed is not None:
            return self.fixed, self.fixed.read(row)
        layout = self.first or detect(row)
        examples = layout.read(row)
        if layout.name not in ("repeated", "argilla-table") and (other := self._fits(row)).name != layout.name:
            raise UserError(
                f"the row looks like the layout '{other.name}', and those before like '{layout.name}'",
                "One layout a file: put rows of another kind into a file of their own",
            )
        self.first = layout
        return layout, examples

    def _fits(self, row: Row) -> Layout:
        key = signature(row)
        if key not in self.fitting:
            try:
                self.fitting[key] = detect(row)
            except UserError as error:
                self.fitting[key] = error
        found = self.fitting[key]
        if isinstance(found, UserError):
            raise found
        return found


def layout_for(examples: Iterable[Example]) -> str:
    """The simplest layout that holds all these examples.

    Raises:
        UserError: they are of several kinds.
    """
    examples = list(examples)
    kinds = {type(example) for example in examples}
    if len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise UserError(f"examples of several kinds ({names}) do not fit one layout", "Write one file per kind")
    if kinds == {Comparison}:
        pairs = all(isinstance(e, Comparison) and e.ranks in ((0, 1), (1, 0)) for e in examples)
        return "pairs" if pairs else "rankings"
    own = [one.name for one in LAYOUTS.values() if one.kind in kinds and one.write is not None]
    return (own or ["snapshot"])[0] if kinds else "text"


def write_examples(
    examples: Iterable[Example],
    path: str | os.PathLike[str],
    layout: str = "auto",
    *,
    overwrite: bool = False,
    note: str = "",
) -> None:
    """Write examples in one layout; the suffix of ``path`` says how (.jsonl, .json, .csv, .parquet, .txt; also .gz).

    Optional columns are written where they differ from their defaults; the metadata become columns. ``note`` is kept in
    a Parquet file's own metadata, under "hearken".

    Raises:
        UserError: an example that the layout cannot hold, a file that exists, or one that cannot be written.
    """
    if layout == "auto":
        examples = list(examples)
        layout = layout_for(examples)
    chosen = find_layout(layout)
    if chosen.write is None:
        raise UserError(f"the layout '{chosen.name}' can only be read", "Write the layout 'rankings'")
    write_rows(_rows_of(examples, chosen, chosen.write), path, overwrite, note)


def _rows_of(examples: Iterable[Example], layout: Layout, write: Callable[[Any], Row]) -> Iterator[Row]:
    for number, example in enumerate(examples, 1):
        if not isinstance(example, layout.kind):
            have, wanted = type(example).__name__, layout.kind.__name__
            raise UserError(f"example {number} is a {have}", f"The layout '{layout.name}' holds a {wanted}")
        try:
            yield write(example)
        except UserError as error:
            raise UserError(f"example {number}: {error.what}", error.hint) from None
