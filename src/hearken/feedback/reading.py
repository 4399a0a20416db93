"""How example files are read: the one definition of it for every command, stage and function."""

from __future__ import annotations

from typing import Literal, TypedDict

from pydantic import Field

from hearken.config import Options

OnBad = Literal["error", "skip"]


class ReadingKeywords(TypedDict, total=False):
    """`ReadingOptions` as the keywords of a call."""

    format: str
    on_bad: OnBad
    encoding: str
    max_unpacked: float


class ReadingOptions(Options):
    """How example files are read."""

    format: str = "auto"
    """Layout of the data (docs/formats.md names all); auto tells it from the columns."""
    on_bad: OnBad = "error"
    """What to do with a row that cannot be read: stop and say where it stands, or leave it out and count it."""
    encoding: str = "utf-8"
    """Of text files, e.g. cp1252."""
    max_unpacked: float = Field(0.0, ge=0)
    """Most GiB that a .gz or .zip file may unpack to; 0: 16, and at most 250 times its own size."""

    def reading(self) -> ReadingKeywords:
        """These options as keywords of `formats.read_examples`, `formats.iter_examples` and `transfer.import_file`."""
        return ReadingKeywords(
            format=self.format, on_bad=self.on_bad, encoding=self.encoding, max_unpacked=self.max_unpacked
        )
