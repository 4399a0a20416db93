"""Names of models: what is not there is said at once, before anything heavy is loaded."""

from __future__ import annotations

import difflib
import json
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from hearken.errors import UserError
from hearken.models.gguf import gguf_file

CONFIGS = ("config.json", "adapter_config.json")
PATIENCE = 1.0
"""Seconds that the Hub has to take a connection; what is loaded then may take its time."""


def check_model(name: str, flag: str = "--model") -> None:
    """A folder with a model, a GGUF file, or a name that is known to the Hub's cache or that the Hub can be asked for.

    Raises:
        UserError: there is no such folder, or it holds no model; or the Hub cannot be reached.
    """
    path = Path(name)
    if any((path / file).is_file() for file in CONFIGS) or gguf_file(name) is not None:
        return
    if path.exists():
        raise UserError(
            f"{flag} {name} is not a model folder (no config.json)",
            "Name a folder written by save_pretrained, a GGUF file, or a Hub name like org/model",
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{flag} {name} does not exist", near(name) or "Name a folder, a GGUF file or a Hub name")
    if in_cache(name):
        return
    why = "HF_HUB_OFFLINE is set" if _offline() else _unreachable(_endpoint())
    if why:
        raise UserError(
            f"{flag} {name}: there is no such folder, and the Hub cannot be asked for it ({why})",
            near(name) or "Check the name; without a network, name a folder",
        )


def check_reward(name: str) -> None:
    """As `check_model`; and a folder's configuration is that of a reward model.

    Raises:
        UserError: it is not.
    """
    check_model(name, "--reward")
    file = Path(name) / CONFIGS[0]
    kinds = json.loads(file.read_text("utf-8")).get("architectures") if file.is_file() else None
    if kinds and not any("SequenceClassification" in kind for kind in kinds):
        raise UserError(f"--reward {name} is a {kinds[0]}, not a reward model", "Train one with: hearken train reward")


def check_data(name: str) -> None:
    """A data set of the Hub is in its cache, or the Hub can be asked for it.

    Raises:
        UserError: neither.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = name.partition(":")[0]
    kept = Path(HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"
    if not kept.is_dir() and (why := "HF_HUB_OFFLINE is set" if _offline() else _unreachable(_endpoint())):
        raise UserError(f"{name}: there is no such file, and the Hub cannot be asked for it ({why})", "Check the path")


def near(name: str) -> str:
    """A hint with the model folder beside that has nearly this name; empty where none has."""
    path = Path(name).expanduser()
    places = [path.parent, *(path.parent / inside for inside in ("artifacts", "models"))]
    folders = [
        place / folder.name
        for place in places
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if any((folder / file).is_file() for file in CONFIGS)
    ]
    known = {folder.name: str(folder) for folder in reversed(folders)}
    found = difflib.get_close_matches(path.name, known, n=1, cutoff=0.5)
    return f"Did you mean {known[found[0]]}?" if found else ""


def in_cache(name: str) -> bool:
    """Whether the Hub's cache holds a model's configuration."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(isinstance(try_to_load_from_cache(name, file), str) for file in CONFIGS)
    except HFValidationError:
        return False


def _offline() -> bool:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


_reached: set[str] = set()


def _unreachable(endpoint: str) -> str:
    """Why no connection to the Hub (or to the proxy before it) comes about within `PATIENCE`; empty where one does."""
    if endpoint in _reached:
        return ""
    goal = urlsplit(getproxies().get(urlsplit(endpoint).scheme) or endpoint)
    where = goal.hostname or "", goal.port or (80 if goal.scheme == "http" else 443)
    found: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(where, PATIENCE).close()
            found.append("")
            _reached.add(endpoint)
        except OSError as error:
            found.append(f"{where[0]}: {error.strerror or error}")

    thread = threading.Thread(target=connect, daemon=True)  # looking a name up knows no time-out
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else f"{where[0]} does not answer within {PATIENCE:g} s"
