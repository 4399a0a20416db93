"""Sheets of answers that somebody checks, drawn from a project's evaluation and taken in again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hearken.errors import UserError
from hearken.feedback.formats.files import read_rows, sources, write_rows
from hearken.loop.auditing import draw_sheet, load, take_in
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.reporting import compose
from hearken.report.page import render


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = Project.create(tmp_path / "p", ProjectConfig(model="some/model", prompts="prompts.jsonl"))
    policies = {
        name: {"responses": [f"{name} says {i}" for i in range(40)]} | more
        for name, more in (("r00-sft", {}), ("r01-ppo", {"win_rate": [0.8, 0.7, 0.9]}))
    }
    prompts = ["What?", [{"role": "user", "content": "Why?"}], *(f"Number {i}?" for i in range(38))]
    evaluation = {"baseline": "r00-sft", "judge": "people", "prompts": prompts, "policies": policies}
    (found.path / "evaluation.json").write_text(json.dumps(evaluation))
    return found


def judged_by(project: Project, judge: str) -> None:
    file = project.path / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"judge": judge}), "utf-8")


def read(sheet: Path) -> list[dict[str, Any]]:
    return [row for source in sources(sheet) for _, row in read_rows(source) if not isinstance(row, UserError)]


def filled(sheet: Path, right: dict[str, float]) -> Path:
    """The sheet with a share of each policy's answers marked as right."""
    rows, seen = [], dict.fromkeys(right, 0)
    for row in read(sheet):
        name = next(n for n in right if row["response"].startswith(n))
        seen[name] += 1
        rows.append(row | {"right": "yes" if seen[name] <= 40 * right[name] else "No"})
    out = sheet.with_name("filled.csv")
    write_rows(rows, out, overwrite=True)
    return out


def test_truth_that_falls_while_preference_rises_raises_the_alarm(project: Project, tmp_path: Path) -> None:
    sheet = tmp_path / "audit.csv"
    assert draw_sheet(project, sheet, 40)["answers"] == 80
    rows = read(sheet)
    assert "r01-ppo" not in "".join(f"{r['id']}{r['prompt']}" for r in rows), "whose it is, is not said"
    assert any("user: Why?" in r["prompt"] for r in rows)
    found = take_in(project, filled(sheet, {"r00-sft": 0.8, "r01-ppo": 0.4}))
    assert found.alarm and found.checked == 80 and found.before.estimate == 0.8  # type: ignore[union-attr]
    assert "while it wins 80 % of comparisons judged by people" in found.says and found.judge == "people"
    assert load(project.path) == found
    assert "r01-ppo is wrong more often" in render(compose(project))
    calm = take_in(project, filled(sheet, {"r00-sft": 0.8, "r01-ppo": 0.75}))
    assert not calm.alarm and "No change in truth" in calm.says


def test_an_audit_names_who_preferred(project: Project, tmp_path: Path) -> None:
    """Who judges later has no part in what was drawn."""
    judged_by(project, "the reward model (a proxy: ask people before you believe it)")
    draw_sheet(project, tmp_path / "audit.csv", 40)
    judged_by(project, "people")
    found = take_in(project, filled(tmp_path / "audit.csv", {"r00-sft": 0.8, "r01-ppo": 0.4}))
    assert "judged by the reward model: do not trust" in found.says and "labelers" not in found.says
    assert "r01-ppo is preferred by the reward model" in render(compose(project))


def test_what_cannot_be_audited_is_said(project: Project, tmp_path: Path) -> None:
    sheet = tmp_path / "audit.jsonl"
    with pytest.raises(UserError, match="no sheet was drawn"):
        take_in(project, sheet)
    with pytest.raises(UserError, match="no answers of 'r09-ppo'"):
        draw_sheet(project, sheet, policy="r09-ppo")
    draw_sheet(project, sheet, 2)
    with pytest.raises(UserError, match="0 and 0 answers are marked"):
        take_in(project, sheet)
    rows = read(sheet)
    write_rows([rows[0] | {"right": "perhaps"}], sheet, overwrite=True)
    with pytest.raises(UserError, match="line 1: right is 'perhaps'"):
        take_in(project, sheet)
    write_rows([rows[0] | {"id": "elsewhere"}], sheet, overwrite=True)
    with pytest.raises(UserError, match="line 1: this answer was not drawn here"):
        take_in(project, sheet)
    (project.path / "evaluation.json").unlink()
    with pytest.raises(UserError, match="no evaluation"):
        draw_sheet(project, tmp_path / "other.csv")
