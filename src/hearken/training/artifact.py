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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hearken.config import Options
from hearken.errors import UserError

MANIFEST = "manifest.json"
NOTICES = "notices.json"
VERSION = 1
"""Of the form of ``request.json`` and the manifest; those before had none."""
HERE = "./"
"""What a path within the project begins with, in these files."""
PLACES = ("artifacts", "snapshots", "data")
"""Folders of a project whose files manifests name."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, its kind (the stage's name) and its manifest, with paths as they are now."""

    path: Path
    kind: str
    manifest: dict[str, Any]

    @property
    def inputs(self) -> dict[str, Any]:
        """What it was made of, by the input's name: a path or Hub name, or a list of them."""
        return self.manifest.get("inputs") or {}

    @property
    def options(self) -> dict[str, Any]:
        """Those it was made with, under the names that they had then (`Stage.made_with` knows today's)."""
        return self.manifest.get("options") or {}

    @property
    def data(self) -> dict[str, Any]:
        """What its stage says of the data that it read."""
        return self.manifest.get("data") or {}

    @property
    def metrics(self) -> dict[str, Any]:
        """The final figures."""
        return self.manifest.get("metrics") or {}

    @property
    def model(self) -> str:
        """The model it was trained from; empty for what is no model."""
        return self.inputs.get("model") or ""

    @property
    def reference(self) -> str:
        """The policy that it was held close to: ``ref``, else the model it was trained from."""
        return self.inputs.get("ref") or self.model

    @property
    def data_hash(self) -> str:
        """SHA-256 of the data that it read; empty where there is none."""
        return self.data.get("hash") or ""

    @property
    def judgments(self) -> int | None:
        """How many its data hold."""
        return self.data.get("judgments")

    @property
    def as_of(self) -> int:
        """Of a round's judgments: the number of the newest."""
        return int(self.data["as_of"])

    @property
    def seed(self) -> int | None:
        """Of its draws."""
        return self.manifest.get("seed")

    @property
    def seconds(self) -> float | None:
        """That making it took."""
        return self.manifest.get("seconds")

    @property
    def versions(self) -> dict[str, str]:
        """Of the packages that its numbers depend on."""
        return self.manifest.get("versions") or {}

    @property
    def created(self) -> str:
        """When it was finished, in UTC."""
        return str(self.manifest.get("created", ""))

    @property
    def round(self) -> int | None:
        """The round that it belongs to; 0 is before the first, None is outside of a project."""
        return self.manifest.get("round")

    @property
    def role(self) -> str:
        """What it is to its round, such as policy, reward, ensemble, refit; empty where nobody said."""
        return self.manifest.get("role") or ""

    @property
    def root(self) -> Path | None:
        """The project that it stands in."""
        return project_of(self.path.resolve())

    @property
    def parents(self) -> list[tuple[str, str]]:
        """What it was made from: a role (model, reward, ...) and a path, or a Hub name."""
        return [(role, one) for role, value in self.manifest.get("parents", {}).items() for one in _texts(value)]

    @property
    def files(self) -> list[tuple[str, str]]:
        """The files it read: what for (data, validation, ...) and the path, or a Hub name."""
        return [(role, file) for role, some in self.inputs.items() if isinstance(some, list) for file in some]

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


def project_of(folder: Path | str) -> Path | None:
    """The project in whose ``artifacts/`` a folder stands; None elsewhere."""
    home = Path(os.path.abspath(folder)).parent
    return home.parent if home.name == "artifacts" else None


def round_in(name: str) -> int | None:
    """The round in an artifact's name: 1 for ``r01-ppo``."""
    match = re.match(r"r(\d+)-", name)
    return int(match[1]) if match else None


def seen_from(root: Path, path: str) -> str:
    """A path as files of the project in ``root`` hold it: within the project as seen from there, others as they are."""
    inside = os.path.isabs(path) and Path(path).is_relative_to(root)
    return HERE + Path(path).relative_to(root).as_posix() if inside else path


def found_from(root: Path, path: str) -> str:
    """Where a path that a file of the project in ``root`` holds is now.

    Before, paths were in full: one that is not there any more is looked for in the project.
    """
    if path.startswith(HERE):
        return os.path.join(root, path.removeprefix(HERE))
    parts = Path(path).parts
    at = max((i for i, part in enumerate(parts) if part in PLACES), default=None)
    if at is None or os.path.exists(path) or not root.joinpath(*parts[at:]).exists():
        return path
    return str(root.joinpath(*parts[at:]))


def write_record(file: Path, content: Mapping[str, Any]) -> None:
    """Write ``request.json`` or ``manifest.json``: paths within the project as seen from there, others in full.

    Only where some are in full (or it is in no project) does the file say in which folder it was written.
    """
    folder = _folder_of(file)
    root = project_of(folder)
    outside = (folder / "adapter_config.json").is_file()  # PEFT's own file names the base in full

    def stored(path: str) -> str:
        nonlocal outside
        seen = path if root is None else seen_from(root, path)
        outside = outside or os.path.isabs(seen)
        return seen

    record = {"version": VERSION, **_with_paths(content, stored)}
    write_json(file, record | ({"folder": os.path.abspath(folder)} if outside or root is None else {}))


def read_record(file: Path) -> dict[str, Any]:
    """``request.json`` or ``manifest.json``, with paths as they are now.

    Where the folder was moved, a path in full is looked for in the same place as seen from the folder first: what
    belongs together moves together. In files of before versions, where project paths were in full, a path that is not
    there any more is looked for in the project.
    """
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    folder = _folder_of(file)
    root, now, before = project_of(folder), os.path.abspath(folder), content.pop("folder", None)
    old = content.pop("version", 0) == 0
    home = project_of(before) if old and before else None

    def place(path: str) -> str:
        if root is not None and path.startswith(HERE):
            return found_from(root, path)
        if root is not None and home is not None and Path(path).is_relative_to(home):
            return str(root / Path(path).relative_to(home))
        if before and before != now and os.path.isabs(path):
            found = os.path.normpath(os.path.join(now, os.path.relpath(path, before)))
            if os.path.exists(found):
                return found
        return found_from(root, path) if old and root is not None else path

    content.setdefault("round", round_in(folder.name))
    return _with_paths(content, place)


def _folder_of(file: Path) -> Path:
    """The artifact's folder: the manifest stands in it, the request in its ``run/``."""
    return file.parent if file.name == MANIFEST else file.parent.parent


def _with_paths(content: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """A record whose paths are what ``place`` makes of them; a reward may name several, with weights."""

    def placed(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [placed(one) for one in value]
        if isinstance(value, dict):
            return {key: placed(one) for key, one in value.items()}
        return "".join(map(place, re.split(r"([,*#])", value))) if isinstance(value, str) else value

    made = {**content, **{part: placed(content[part]) for part in ("inputs", "parents") if part in content}}
    if "files" in content:
        made["files"] = {place(path): digest for path, digest in content["files"].items()}
    if "files" in content.get("data", {}):
        made["data"] = {**content["data"], "files": placed(content["data"]["files"])}
    return made


def _texts(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, str)]


def claim_folder(out: Path, kind: str, inputs: Any, options: Options, *, overwrite: bool = False) -> None:
    """Make ``out`` ready for a stage: new, or holding an unfinished run of exactly this request (which is resumed).

    Raises:
        UserError: the folder holds something else, or a file that the run read has changed; nothing in it is touched.
    """
    request = request_of(kind, inputs, options)
    saved = out / "run" / "request.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file", "Name a folder")
    if out.is_dir() and any(out.iterdir()) and not _barely_claimed(out):
        if overwrite and (saved.exists() or (out / MANIFEST).exists()):
            shutil.rmtree(out)
        elif (out / MANIFEST).exists():
            raise UserError(f"--out {out} already holds a finished artifact", "Name another folder, or add --overwrite")
        elif not saved.exists():
            raise UserError(f"--out {out} exists and is not an unfinished run", "Name a new or empty folder")
        else:
            old = read_record(saved)
            old["options"] = options.recorded(old.get("options", {}))
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
        write_record(saved, request | {"files": files})
    except OSError as error:
        raise UserError(f"cannot write to --out {out} ({error.strerror})", "Name a folder you can write to") from None


def _barely_claimed(out: Path) -> bool:
    """Whether whoever claimed it was killed before the request was written whole."""
    return {p.relative_to(out).as_posix() for p in out.rglob("*")} <= {"run", "run/request.json.partial"}


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
    data: Mapping[str, object],
    metrics: Mapping[str, object],
    seconds: float,
) -> Artifact:
    """Write the manifest: from here on the artifact is finished."""
    request = request_of(kind, inputs, options)
    given = request["inputs"]
    manifest = {
        **request,
        "round": round_in(Path(os.path.abspath(out)).name) if inputs.round is None else inputs.round,
        "role": inputs.role,
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
    write_record(out / MANIFEST, manifest)
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
