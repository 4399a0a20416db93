"""Auditing: somebody looks up whether a few answers are right, which no comparison can tell.

A sheet holds answers of the baseline and of the policy to the same held-out prompts, in random order and without names.
Filled in, it says whether truth fell while preference rose.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from hearken.errors import UserError
from hearken.evaluation.numbers import JsonInterval
from hearken.evaluation.record import Record
from hearken.feedback.examples import Content
from hearken.feedback.formats.files import read_rows, sources, write_rows
from hearken.feedback.records import hash_id
from hearken.loop.measured import last_evaluation, newest
from hearken.report.contents import Audited
from hearken.statistics.audit import audit
from hearken.statistics.intervals import Interval
from hearken.training.artifact import write_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from hearken.loop.project import Project

MARKS = dict.fromkeys(("1", "true", "yes", "y", "right"), 1.0) | dict.fromkeys(("0", "false", "no", "n", "wrong"), 0.0)


class Drawn(Record):
    """What is known of a sheet that was drawn, and does not stand on it."""

    policy: str
    baseline: str
    win_rate: JsonInterval | None
    judge: str
    """Who preferred, in words."""
    owners: Mapping[str, str]
    """Whose each answer is, by the id of its row."""


def draw_sheet(project: Project, out: Path, count: int = 60, *, policy: str = "", seed: int = 0) -> dict[str, object]:
    """Write a sheet of answers to be checked; whose they are stays in ``runs/audit.json``.

    Args:
        project: that was evaluated.
        out: a new .csv or .jsonl file with an empty column ``right``.
        count: prompts; each has an answer of the baseline and one of the policy.
        policy: by default the one that the report is about.
        seed: of the draw and the order.

    Raises:
        UserError: there is no evaluation, no such policy, or ``out`` exists.
    """
    found = last_evaluation(project)
    name, base = policy or newest(found), found.baseline
    if not found.prompts:
        raise UserError(f"{project.path} has no evaluation to draw answers from", "Run: hearken evaluate")
    sides = {who: found.answers(who) for who in (base, name)}
    if name == base or not all(sides.values()):
        known = [n for n in found.policies if n != base and found.answers(n)]
        raise UserError(f"the last evaluation has no answers of '{name}' beside {base}'s", f"Known: {', '.join(known)}")
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(found.prompts))[:count]
    rows: list[dict[str, object]] = []
    owners: dict[str, str] = {}
    for i in chosen.tolist():
        for who, answers in sides.items():
            key = hash_id("audit", seed, who, i, answers[i])
            owners[key] = who
            rows.append({"id": key, "prompt": _text(found.prompts[i]), "response": answers[i], "right": ""})
    write_rows([rows[i] for i in random.permutation(len(rows))], out)
    drawn = Drawn(
        policy=name, baseline=base, win_rate=found.policies[name].win_rate,
        judge=found.judge.words if found.judge else "", owners=owners,
    )  # fmt: skip
    write_json(_kept(project), drawn.model_dump(mode="json"))
    return {"sheet": str(out), "answers": len(rows), "policies": [base, name]}


def take_in(project: Project, sheet: Path) -> Audited:
    """Read a filled sheet; what it says is kept in ``audit.json`` for the report. Rows left empty are left out.

    Raises:
        UserError: a sheet of another project, a mark that is none, or no mark of one of the policies.
    """
    if not _kept(project).is_file():
        raise UserError(f"no sheet was drawn in {project.path}", "Draw one: hearken audit")
    drawn = _drawn(_kept(project))
    marks: dict[str, list[float]] = {drawn.baseline: [], drawn.policy: []}
    for where, row in (read for source in sources(sheet) for read in read_rows(source)):
        if isinstance(row, UserError):
            raise row
        mark = str(row.get("right") or "").strip().lower()
        owner = drawn.owners.get(str(row.get("id") or ""))
        if owner is None:
            raise UserError(f"{where}: this answer was not drawn here", "Take in the newest sheet")
        if mark in MARKS:
            marks[owner].append(MARKS[mark])
        elif mark:
            raise UserError(f"{where}: right is '{mark}'", "Write yes or no, or leave it empty")
    before, after = marks[drawn.baseline], marks[drawn.policy]
    if not before or not after:
        raise UserError(f"{sheet}: {len(before)} and {len(after)} answers are marked", "Mark some of both policies")
    liked = drawn.win_rate or Interval(0.5, 0.0, 1.0)
    judge = drawn.judge or "whoever evaluated"
    told = audit(before, after, liked, name=drawn.policy, judge=judge)
    found = Audited(
        policy=drawn.policy, baseline=drawn.baseline, before=told.before, after=told.after,
        preference=told.preference if drawn.win_rate else None, judge=judge, alarm=told.alarm, says=told.says,
        checked=len(before) + len(after),
    )  # fmt: skip
    (project.path / "audit.json").write_bytes(_adapter().dump_json(found, indent=1))
    return found


def load(folder: Path) -> Audited | None:
    """The last audit of a project; None where there was none."""
    file = folder / "audit.json"
    return _adapter().validate_json(file.read_bytes()) if file.is_file() else None


def _kept(project: Project) -> Path:
    return project.path / "runs" / "audit.json"


def _drawn(file: Path) -> Drawn:
    try:
        return Drawn.model_validate_json(file.read_bytes())
    except ValidationError:
        raise UserError(f"{file} is damaged, or of an earlier version", "Draw a new sheet: hearken audit") from None


def _text(prompt: Content) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(f"{turn.role}: {turn.content}" for turn in prompt)


@cache
def _adapter() -> TypeAdapter[Audited]:
    from pydantic import TypeAdapter

    return TypeAdapter(Audited)
