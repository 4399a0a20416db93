"""A sheet is drawn and taken in on the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from hearken.loop.project import Project, ProjectConfig

Run = Callable[..., Result]


def test_a_sheet_is_drawn_filled_and_taken_in(hearken: Run, tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", ProjectConfig(model="some/model", prompts="prompts.jsonl"))
    empty = hearken("audit", "-C", "p")
    assert empty.exit_code == 2 and "hearken evaluate" in empty.stderr
    policies = {
        "r00-sft": {"responses": ["=1+1"] * 30},
        "r01-ppo": {"responses": ["no"] * 30, "win_rate": [0.8, 0.7, 0.9]},
    }
    found = {"baseline": "r00-sft", "judge": "people", "prompts": [f"{i}?" for i in range(30)], "policies": policies}
    (project.path / "evaluation.json").write_text(json.dumps(found))
    drawn = hearken("audit", "-n", 30, "-C", "p", "--json")
    assert drawn.exit_code == 0 and json.loads(drawn.stdout)["answers"] == 60
    assert hearken("audit", "-C", "p").exit_code == 2, "a sheet is not written over"
    with open("audit.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["response"] for row in rows} == {"'=1+1", "no"}, "a spreadsheet runs nothing"
    with open("audit.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"right": "no" if row["response"] == "no" else "yes"} for row in rows)
    told = json.loads(hearken("audit", "audit.csv", "-C", "p", "--json").stdout)
    assert told["alarm"] is True and told["before"][0] == 1 and told["after"][0] == 0
    assert told["preference"] == [0.8, 0.7, 0.9]
