"""Artifacts: what a stage leaves on disk, with its lineage, and the folder it is made in.

An artifact is a folder in the ecosystem's own layout plus ``manifest.json``. While a stage runs, the folder holds
``run/`` (request.json, metrics.jsonl, checkpoint); the manifest comes last, so a folder with a manifest is finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hearken.config import Options
from hearken.errors import UserError

MANIFEST = "manifest.json"
NOTICES = "notices.json"


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
        content = read_record(manifest)
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
    """What a stage is asked for, as ``request.json`` and the manifest hold it; local paths in full."""
    return {
        "kind": kind,
        "inputs": json.loads(json.dumps(inputs.settled().to_json())),
        "options": options.model_dump(mode="json"),
    }


def read_record(file: Path) -> dict[str, Any]:
    """``request.json`` or ``manifest.json``, with paths as they are now.

    Where the artifact's folder was moved, what it names is looked for in the same place as seen from the folder first:
    what belongs together moves together.
    """
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    folder = file.parent if file.name == MANIFEST else file.parent.parent
    before, now = content.get("folder"), os.path.abspath(folder)
    if not before or before == now:
        return content

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        if not isinstance(value, str):
            return value
        return "".join(map(place, re.split(r"([,*#])", value)))  # a reward may name several, with weights

    def place(path: str) -> str:
        if not os.path.isabs(path):
            return path
        found = os.path.normpath(os.path.join(now, os.path.relpath(path, before)))
        return found if os.path.exists(found) else path

    for part in ("inputs", "parents"):
        content[part] = {
            key: {k: moved(v) for k, v in value.items()} if isinstance(value, dict) else moved(value)
            for key, value in content.get(part, {}).items()
        }
    if "files" in content:
        content["files"] = {moved(path): digest for path, digest in content["files"].items()}
    if "files" in content.get("data", {}):
        content["data"]["files"] = moved(content["data"]["files"])
    return content


def claim_folder(out: Path, kind: str, inputs: Any, options: Options, *, overwrite: bool = False) -> None:
    """Make ``out`` ready for a stage: new, or holding an unfinished run of exactly this request (which is resumed).

    Raises:
        UserError: the folder holds something else, or a file that the run read has changed; nothing in it is touched.
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
            old = read_record(saved)
            for path, digest in old.get("files", {}).items():
                if hash_files((path,)) != digest:
                    what = "has changed" if Path(path).exists() else "is gone"
                    raise UserError(
                        f"{path} {what} since the unfinished run in {out} began with it",
                        "Put it back as it was to resume; or begin anew: name another folder, or add --overwrite",
                    )
            if any(old.get(part) != request[part] for part in request):
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
    _make_writable(saved.parent, out)
    files = {path: digest for path in inputs.files() if (digest := hash_files((path,))) is not None}
    try:
        write_json(saved, request | {"folder": os.path.abspath(out), "files": files})
    except OSError as error:
        raise UserError(f"cannot write to --out {out} ({error.strerror})", "Name a folder you can write to") from None


def _make_writable(folder: Path, out: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
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
    request = request_of(kind, inputs, options)
    given = request["inputs"]
    manifest = {
        **request,
        "folder": os.path.abspath(out),
        "parents": {role: name for role, name in given.items() if name and isinstance(name, str)} | given["parents"],
        "data": data,
        "seed": getattr(options, "seed", None),
        "precision": _precision(out),
        "versions": versions(),
        "metrics": metrics,
        "seconds": round(seconds, 1),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if (notices := out / "run" / NOTICES).is_file():
        manifest["notices"] = json.loads(notices.read_text("utf-8"))
    write_json(out / MANIFEST, manifest)
    return Artifact(out, kind, manifest)


def _precision(out: Path) -> str | None:
    """What the run in ``out`` was computed in (`precision.settle` records it)."""
    record = out / "run" / "precision.json"
    return json.loads(record.read_text("utf-8"))["precision"] if record.is_file() else None


MODEL_FILES = re.compile(
    r"(adapter_|generation_)?config\.json|tokenizer.*|vocab.*|merges.*|added_tokens\.json|special_tokens_map\.json"
    r"|chat_template.*|(model|adapter_model|pytorch_model).*\.(safetensors|bin|json)|ilql_heads\..*|.*\.gguf"
)
"""What a model is, in its folder: others may write beside it what they know of it."""


def hash_files(paths: tuple[str, ...]) -> str | None:
    """SHA-256 over the content of files (and of the files in folders); None where a path is a Hub name.

    Of a model's folder its `MODEL_FILES` count alone.
    """
    digest = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            files = [file for file in files if file.parent == path and MODEL_FILES.fullmatch(file.name)]
        for file in files:
            if not file.is_file():
                return None
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
