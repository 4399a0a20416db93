"""What a project's last evaluation found, as it stands in ``evaluation.json``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message

if TYPE_CHECKING:
    from hearken.loop.project import Project


def last_evaluation(project: Project) -> dict[str, Any]:
    """The last evaluation, with the policies that rounds measured before on the same prompts; else one without any.

    Raises:
        UserError: the file was damaged.
    """
    found = _read(project.path / "evaluation.json")
    for file in sorted(project.artifacts.glob("*/evaluation.json"), reverse=True):
        before = _read(file)
        if before["prompts"] and all(before[key] == found[key] for key in ("prompts", "baseline", "judge")):
            found["policies"] = {**before["policies"], **found["policies"]}
    return found


def _read(file: Path) -> dict[str, Any]:
    empty = {"policies": {}, "baseline": "", "judge": "", "prompts": []}
    if not file.exists():
        return empty
    try:
        return empty | json.loads(file.read_text("utf-8"))
    except ValueError:
        raise UserError(f"{file} is not JSON", "Make it anew: hearken evaluate") from None


def round_of(name: str) -> int | None:
    """The round in an artifact's name: 1 for ``r01-ppo``."""
    match = re.match(r"r(\d+)-", name)
    return int(match[1]) if match else None


def newest(found: dict[str, Any]) -> str:
    """The policy that the report is about: of the newest round, the first that was compared with the baseline."""
    names = [n for n, figures in found["policies"].items() if n != found["baseline"] and "win_rate" in figures]
    names = names or [n for n, f in found["policies"].items() if n != found["baseline"] and "responses" in f]
    return max(names, key=lambda n: (round_of(n) or 0, -names.index(n)), default=found["baseline"])


def content_of(prompt: Any) -> Content:
    """A prompt of the file as everything else knows it."""
    return prompt if isinstance(prompt, str) else tuple(Message(**turn) for turn in prompt)
