"""A stage's name stands in its own files, and where somebody configures it: nothing else asks which stage it is."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import hearken
from hearken import algorithms
from hearken.algorithms.stage import builtin, makes_reward, raises_likelihood, reward_stage

ROOT = Path(hearken.__file__).parent
MEANT = {
    "feedback/formats": "a layout of data is called sft, too",
    "server/owner.py": "the same",
    "cli/quickstart.py": "a recipe",
    "loop/quickstart.py": "a recipe",
    "loop/quickstart_behaviours.py": "a recipe",
    "loop/quickstart_notes.py": "a recipe",
    "loop/quickstart_plans.py": "the recipes' options",
    "loop/rounds_options.py": "what a user writes, and its defaults",
}
"""Where the names of stages may stand besides."""


def test_no_other_file_knows_a_stage_by_its_name() -> None:
    names = {stage.name for stage in builtin()} - {reward_stage().name}  # which is the name of an input as well
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        if place.startswith(("algorithms/", *MEANT)):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.Constant) and node.value in names), f"{place}, line {node.lineno}"


def test_what_was_known_by_name_is_known_still() -> None:
    every = {stage.name: stage for stage in builtin() if stage.domain == "text"}
    assert {n for n in every if raises_likelihood(n)} >= {"dpo", "ipo", "simpo", "orpo", "kto"}
    assert {n for n in every if makes_reward(n)} == {"reward"} and not makes_reward("samples")
    assert {n for n, s in every.items() if s.watched} >= {"ppo", "a2c"}
    assert {n for n, s in every.items() if s.refitted} >= {"ppo"}
    assert {n for n, s in every.items() if s.first} == {"sft"}
    ppo, dpo = every["ppo"], every["dpo"]
    assert not (ppo.likelihood or dpo.watched or dpo.refitted)
    assert every["sft"].says({"epochs": 2.0}, {}) == "Learned to imitate its data, 2 passes"
    assert every["ppo"].says({}, {"ptx_pieces": 3}).endswith("under a KL penalty with a pretraining term")
    assert every["rloo"].says({}, {}) == every["rloo"].summary


def test_a_stage_beside_these_is_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of docs/own-stage.md in this package's folder are found there, as the page says."""
    page = (Path(__file__).parents[2] / "docs" / "own-stage.md").read_text("utf-8")
    (tmp_path / "exposure_options.py").write_text(page.split("```python\n")[1].split("```")[0])
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hearken.algorithms.exposure_options", raising=False)
    assert {stage.name for stage in builtin.__wrapped__()} == {stage.name for stage in builtin()} | {"exposure"}
    sys.modules.pop("hearken.algorithms.exposure_options")
