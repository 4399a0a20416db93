"""One exact text per example: what snapshots hold and hashes are made of. The same on every machine, now and later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from hearken.errors import UserError
from hearken.feedback.examples import Content, Example, Message

KINDS: dict[str, type[Example]] = {
    {"PromptOnly": "prompt"}.get(kind.__name__, kind.__name__.lower()): kind for kind in get_args(Example)
}
"""Kinds of example by name: comparison, rating, thumb, demonstration, document, prompt."""

_NAMES = {kind: name for name, kind in KINDS.items()}
_TYPES = {name: declared for kind in KINDS.values() for name, declared in get_type_hints(kind).items()}
_NUMBERS = [name for name, declared in _TYPES.items() if declared in (float, float | None)]
_TUPLES = [name for name, declared in _TYPES.items() if get_origin(declared) is tuple]


def kind_name(example: Example) -> str:
    """The name of an example's kind, e.g. "comparison"."""
    return _NAMES[type(example)]


def dump(example: Example, metadata: bool = True) -> str:
    """An example as one line of JSON, in ASCII with sorted keys; equal examples give equal lines."""
    values: dict[str, Any] = {f.name: getattr(example, f.name) for f in fields(example)}
    if not metadata:
        del values["metadata"]
    if "prompt" in values:
        values["prompt"] = _plain(values["prompt"])
    # 1 and 1.0 are the same number, so they must be the same text.
    values |= {name: float(values[name]) for name in _NUMBERS if values.get(name) is not None}
    if "ratings" in values:
        values["ratings"] = {name: float(value) for name, value in values["ratings"].items()}
    return json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))


def load(kind: str, text: str) -> Example:
    """The example that `dump` wrote.

    Raises:
        UserError: an unknown kind, or a text that is no such example.
    """
    try:
        values = json.loads(text)
        if isinstance(values.get("prompt"), list):
            values["prompt"] = tuple(Message(**message) for message in values["prompt"])
        values |= {name: tuple(values[name]) for name in _TUPLES if name in values}
        return KINDS[kind](**values)
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError("not a row of a snapshot", "Write snapshots with hearken.feedback.snapshot only") from None


def content_hash(examples: Iterable[Example]) -> str:
    """SHA-256 (64 hexadecimal digits) of the examples, whatever their order."""
    lines = sorted(hashlib.sha256(f"{kind_name(e)} {dump(e)}".encode()).digest() for e in examples)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _plain(content: Content) -> Any:
    return content if isinstance(content, str) else [m.to_row() for m in content]
