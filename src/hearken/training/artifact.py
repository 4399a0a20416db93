"""Artifacts: what a stage leaves on disk, with its lineage, and the folder it is made in.

An artifact is a folder in the ecosystem's own layout plus ``manifest.json``. While a stage runs, the folder holds
``run/`` (request.json, metrics.jsonl, checkpoint); the manifest comes last, so a folder with a manifest is finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hearken.config import Options
from hearken.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, its kind (the stage's name) and its manifest."""

    path: Path
    kind: str
    manifest: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        """The final figures."""
        return self.manifest["metrics"]

    @classmethod
    def load(cls, path: Path | str) -> Artifact:
        """Read a finished artifact.

        Raises:
            UserError: the folder has no manifest.
        """
        manifest = Path(path) / MANIFEST
        if not manifest.is_file():
            raise UserError(f"{path} is not a finished artifact (no {MANIFEST})", "Run the stage again to resume it")
        content = json.loads(manifest.read_text("utf-8"))
        return cls(Path(path), content["kind"], content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("hearken", "torch", "transformers", "tokenizers", "peft", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def request_of(kind: str, inputs: Any, options: Options) -> dict[str, Any]:
    """What a stage is asked for, as ``request.json`` and the manifest hold it."""
    return {
        "kind": kind,
        "inputs": json.loads(json.dumps(dataclasses.asdict(inputs))),
        "options": options.model_dump(mode="json"),
    }


def claim_folder(out: Path, kind: str, inputs: Any, options: Options, *, overwrite: bool = False) -> None:
    """Make ``out`` ready for a stage: new, or holding an unfinished run of exactly this request (which is resumed).

    Raises:
        UserError: the folder holds something else; nothing in it is touched.
    """
    request = request_of(kind, inputs, options)
    saved = out / "run" / "request.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", "Name a folder")
    if out.is_dir() and any(out.iterdir()):
        if overwrite and (saved.exists() or (out / MANIFEST).exists()):
            shutil.rmtree(out)
        elif (out / MANIFEST).exists():
            raise UserError(f"--out {out} already holds a finished artifact", "Name another folder, or add --overwrite")
        elif not saved.exists():
            raise UserError(f"--out {out} exists and is not an unfinished run", "Name a new or empty folder")
        else:
            old = json.loads(saved.read_text("utf-8"))
            if old != request:
                changed = [
                    f"{part}.{key}"
                    for part in ("inputs", "options")
                    for key in request[part]
                    if old.get(part, {}).get(key) != request[part][key]
                ]
                what = ", ".join(changed) or "another stage"
                raise UserError(
                    f"--out {out} holds an unfinished run with other settings ({what})",
                    "Use the same settings to resume it, name another folder, or add --overwrite",
                )
    try:
        write_json(saved, request)
    except OSError as error:
        raise UserError(f"cannot write to --out {out} ({error.strerror})", "Name a folder you can write to") from None


def release_folder(out: Path) -> None:
    """Give back a folder in which nothing was done beyond claiming it: the next run may have other settings."""
    if [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()] == ["run/request.json"]:
        shutil.rmtree(out)


def finish(
    out: Path,
    kind: str,
    *,
    inputs: Any,
    options: Options,
    data: dict[str, Any],
    metrics: dict[str, Any],
    seconds: float,
) -> Artifact:
    """Write the manifest: from here on the artifact is finished."""
    manifest = {
        **request_of(kind, inputs, options),
        "parents": {k: v for k, v in (("model", inputs.model), ("reward", inputs.reward), ("ref", inputs.ref)) if v}
        | inputs.parents,
        "data": data,
        "seed": getattr(options, "seed", None),
        "precision": _precision(out),
        "versions": versions(),
        "metrics": metrics,
        "seconds": round(seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(out / MANIFEST, manifest)
    return Artifact(out, kind, manifest)


def _precision(out: Path) -> str | None:
    """What the run in ``out`` was computed in (`precision.settle` records it)."""
    record = out / "run" / "precision.json"
    return json.loads(record.read_text("utf-8"))["precision"] if record.is_file() else None


def hash_files(paths: tuple[str, ...]) -> str | None:
    """SHA-256 over the content of files (and of the files in folders); None where a path is a Hub name."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                return None
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
