"""The examples finish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
def test_loop_in_python(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "loop_in_python.py"],
        cwd=tmp_path, env=os.environ | {"HEARKEN_EXAMPLE": "small"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "PPO's win rate against SFT: 0." in done.stdout
    assert {p.name for p in (tmp_path / "loop-in-python").iterdir()} >= {
        "base",
        "sft",
        "reward",
        "ppo",
        "rankings.jsonl",
    }


def test_every_example_is_tested() -> None:
    tests = "".join(p.read_text("utf-8") for p in (Path(__file__), Path(__file__).with_name("test_example_recipes.py")))
    assert all(path.name in tests for path in EXAMPLES.glob("*.py"))
