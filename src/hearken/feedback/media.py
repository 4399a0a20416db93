"""Responses that are files: clips, sounds, pictures. They are in a project's ``media/``, named by the hash of theirs.

What a file is, its first bytes say, whatever its name does. Anything that could be run where it is shown (SVG, HTML)
has no type here and is never served.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hearken.errors import UserError
from hearken.feedback import privacy

FOLDER = "media"
LARGEST = 64_000_000
"""Bytes of a file that is shown."""
OTHER = "application/octet-stream"
"""The type of a file that nothing shows: what only a domain reads."""

Viewer = Literal["text", "image", "audio", "video"]
"""How a response is shown to a person."""

_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".wav": "audio/wav",
    ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac", ".webm": "video/webm", ".mp4": "video/mp4",
}  # fmt: skip
_SUFFIXES = {kind: suffix for suffix, kind in _TYPES.items()}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF87a": "image/gif", b"GIF89a": "image/gif",
    b"ID3": "audio/mpeg", b"\xff\xfb": "audio/mpeg", b"OggS": "audio/ogg", b"fLaC": "audio/flac",
    b"\x1aE\xdf\xa3": "video/webm",
}  # fmt: skip
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


@dataclass(frozen=True, slots=True)
class Media:
    """A file that a response is.

    Args:
        path: relative to the project, as ``media/ab/ab12….wav``.
    """

    path: str

    @property
    def type(self) -> str:
        """As ``audio/wav``: what `MediaFolder.keep` named it by."""
        return _TYPES.get(Path(self.path).suffix.lower(), OTHER)

    @property
    def viewer(self) -> Viewer:
        """What shows files of its type; ``text`` where nothing does."""
        return viewer_of(self.type)


def viewer_of(kind: str) -> Viewer:
    """What shows a file of a type."""
    family = kind.partition("/")[0]
    return next((viewer for viewer in get_args(Viewer) if viewer == family), "text")


def sniff(head: bytes) -> str:
    """The type of a file by its first 16 bytes; `OTHER` where nothing shows it."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return "video/mp4"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), OTHER)


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """The media of a project.

    Args:
        root: the project's folder; the files are in ``media/`` of it.
    """

    root: Path

    @classmethod
    def beside(cls, file: str | os.PathLike[str]) -> MediaFolder:
        """That of a data file: beside it (an export), or in a folder above (what lies in a project), not the root's."""
        places = Path(file).absolute().parents
        near = [place for place in places[:4] if place != place.parent]
        return cls(next((place for place in near if (place / FOLDER).is_dir()), places[0]))

    @staticmethod
    def name(data: bytes, suffix: str = "") -> Media:
        """What a file is called here.

        Args:
            data: what it holds.
            suffix: of the name of a file that has none of the types that are shown, as ``.npz``.
        """
        digest = hashlib.sha256(data).hexdigest()
        return Media(f"{FOLDER}/{digest[:2]}/{digest}{_SUFFIXES.get(sniff(data[:16]), suffix)}")

    def keep(self, data: bytes, suffix: str = "") -> Media:
        """Write a file under the hash of what it holds, where it is not there yet; see `name`.

        Raises:
            UserError: it cannot be written.
        """
        media = self.name(data, suffix)
        path = self.root / media.path
        if not path.is_file():
            partial = path.with_name(f".{uuid.uuid4().hex}")
            try:
                path.parent.mkdir(privacy.FOLDER, parents=True, exist_ok=True)
                privacy.private(partial).write_bytes(data)
                partial.replace(path)
            except OSError as error:
                raise UserError(f"{path} cannot be written ({error})", "Make room on the disk") from error
            finally:
                partial.unlink(missing_ok=True)
        return media

    def find(self, media: Media) -> Path | None:
        """Where a file is; None where it is not here, or its path leads out of the project."""
        path = (self.root / media.path).resolve()
        return path if path.is_relative_to(self.root.resolve()) and path.is_file() else None

    def read(self, media: Media) -> bytes:
        """What a file holds.

        Raises:
            UserError: it is not here, or not what its name says any more.
        """
        path = self.find(media)
        if path is None:
            raise UserError(f"{self.root / media.path}: no such file", "Restore it from a backup, or sample again")
        data = path.read_bytes()
        if len(path.stem) == 64 and hashlib.sha256(data).hexdigest() != path.stem:
            raise UserError(f"{path} was changed: its name is the hash of what it held", "Restore it from a backup")
        return data

    def copy_to(self, other: MediaFolder, some: Iterable[Media]) -> int:
        """Copy files to another folder; those that are there, or missing here, are left out. How many were copied."""
        count = 0
        for media in dict.fromkeys(some):
            source, target = self.find(media), other.root / media.path
            if source is not None and not target.exists():
                target.parent.mkdir(privacy.FOLDER, parents=True, exist_ok=True)
                shutil.copyfile(source, privacy.private(target))
                count += 1
        return count

    def delete(self, some: Iterable[Media]) -> int:
        """Delete files, with whatever a domain made of them beside them. How many there were."""
        count = 0
        ours = (self.root / FOLDER).resolve()
        for media in dict.fromkeys(some):
            if (path := self.find(media)) is not None and path.is_relative_to(ours):
                for file in path.parent.glob(f"{path.stem}.*"):
                    file.unlink()
                    count += 1
        return count


def shown_type(path: Path) -> str:
    """The type of a file that may be shown.

    Raises:
        UserError: it is none of those, or too large.
    """
    with path.open("rb") as file:
        kind = sniff(file.read(16))
    if kind == OTHER or path.stat().st_size > LARGEST:
        raise UserError(
            "this is no file that can be shown",
            f"PNG, JPEG, GIF, WebP, WAV, MP3, Ogg, FLAC, WebM or MP4, up to {LARGEST // 1_000_000} MB",
        )
    return kind
