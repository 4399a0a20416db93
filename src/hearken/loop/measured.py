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

TASK_RATES = ("acc", "acc_norm", "exact_match")
"""Of a task's figures, those that are accuracies; the first that is there is the one that is read."""
APART = ("perplexity", "perplexities", "tasks")
"""Figures of a policy that an evaluation measures only where it is asked to."""


def last_evaluation(project: Project) -> dict[str, Any]:
    """The last evaluation, with the policies that rounds measured before on the same prompts; else one without any.

    Raises:
        UserError: the file was damaged.
    """
    found = read_evaluation(project.path / "evaluation.json")
    for file in sorted(project.artifacts.glob("*/evaluation.json"), reverse=True):
        join(found, read_evaluation(file))
    return found


def known_before(project: Project) -> dict[str, Any]:
    """The evaluation in ``evaluation.json`` without the policies that were made anew since.

    Raises:
        UserError: the file was damaged.
    """
    before = read_evaluation(project.path / "evaluation.json")
    measured = before.get("created") or ""
    anew = {name for name, a in project.finished().items() if measured and str(a.manifest["created"]) > measured}
    before["policies"] = {n: f for n, f in before["policies"].items() if n.rpartition("@")[2] not in anew}
    return before


def keep_apart(found: dict[str, Any], before: dict[str, Any]) -> None:
    """Keep of each policy what hangs neither on the prompts nor on the judge, and was not measured again."""
    for name, figures in found["policies"].items():
        known = before["policies"].get(name, {})
        found["policies"][name] = {key: known[key] for key in APART if key in known} | figures


def join(found: dict[str, Any], before: dict[str, Any]) -> bool:
    """Add the policies of an earlier evaluation to a newer one, if prompts, baseline and judge are the same.

    A score by another reward model is no figure beside the newer one's: it is left out, and where that model was the
    judge, so is everything.

    Returns:
        Whether they were added.
    """
    if not before["prompts"] or any(before[key] != found[key] for key in ("prompts", "baseline", "judge")):
        return False
    other = before.get("reward") != found.get("reward")
    if other and "reward model" in found["judge"]:
        return False
    earlier = {
        name: {key: value for key, value in figures.items() if not (other and key in ("proxy", "scores"))}
        for name, figures in before["policies"].items()
    }
    found["policies"] = earlier | found["policies"]
    return True


def read_evaluation(file: Path) -> dict[str, Any]:
    """What an ``evaluation.json`` holds; one without policies where there is no such file.

    Raises:
        UserError: the file was damaged.
    """
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


def task_rate(scores: dict[str, Any]) -> Any:
    """The accuracy on a task, of what `capability.run_tasks` found; None where it has none (a perplexity alone)."""
    return next((scores[key] for key in TASK_RATES if scores.get(key) is not None), None)


def content_of(prompt: Any) -> Content:
    """A prompt of the file as everything else knows it."""
    return prompt if isinstance(prompt, str) else tuple(Message(**turn) for turn in prompt)
