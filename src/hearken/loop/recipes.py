"""How an artifact was made, as a command that makes it again, and how large it is."""

from __future__ import annotations

import json
import shlex
import struct
from pathlib import Path

from hearken.loop.artifacts import stage_that_made
from hearken.training.artifact import Artifact


def command(artifact: Artifact, root: Path | None = None) -> str:
    """The ``hearken train`` command of an artifact; options that have their default value are left out.

    Args:
        artifact: which.
        root: paths inside it are written relative to it.

    Returns:
        The command, or "" for an artifact that no stage made.
    """
    if (stage := stage_that_made(artifact)) is None:
        return ""
    words = ["hearken", "train", stage.name]
    inputs, name = artifact.inputs, artifact.path.name
    for one in stage.inputs:
        for value in one.taken(inputs.get(one.name)) if one.many else filter(None, [inputs.get(one.name)]):
            words += [f"--{one.name}", relative(str(value), root)]
    usual = {key: field.get_default(call_default_factory=True) for key, field in stage.options.model_fields.items()}
    for key, value in stage.made_with(artifact).items():
        if key in usual and value != usual[key] and key != "stage":
            words += ["-o", f"{key}={_word(value)}"]
    return shlex.join([*words, "--out", f"artifacts/{name}" if root else name])


def relative(path: str, root: Path | None) -> str:
    """A path without what is only true of this machine: relative to ``root``, else its last part; Hub names stay."""
    if not Path(path).is_absolute():
        return path
    for base in () if root is None else (root.absolute(), root.resolve()):
        if Path(path).is_relative_to(base):
            return Path(path).relative_to(base).as_posix()
    return Path(path).name


def _word(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def count_weights(folder: Path | str) -> int | None:
    """Weights in a model's safetensors files, read from their headers; None where there are none."""
    total = 0
    for path in Path(folder).glob("*.safetensors"):
        with path.open("rb") as file:
            head = file.read(8)
            if len(head) < 8:
                continue
            (size,) = struct.unpack("<Q", head)
            try:
                header = json.loads(file.read(size))
            except ValueError:
                continue
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for length in tensor.get("shape", []):
                    count *= length
                total += count
    return total or None
