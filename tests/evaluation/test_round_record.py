"""A round's record: written and read in one form, and read in the one before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hearken.errors import UserError
from hearken.evaluation.results import PolicyResult, TaskScores
from hearken.evaluation.round_record import RoundRecord, read_round
from hearken.statistics.intervals import Interval
from hearken.training.artifact import Artifact

WON = Interval(0.7, 0.6, 0.8)


def evaluation(**metrics: Any) -> Artifact:
    return Artifact(Path("r02-evaluation"), "evaluation", {"round": 2, "metrics": metrics})


def test_what_is_written_is_read() -> None:
    tasks = {"sums": TaskScores(rows=3, acc=Interval(0.5, 0.2, 0.8))}
    policy = PolicyResult(win_rate=WON, kl=Interval(3.0, 2.0, 4.0), distinct_2=0.5, tasks=tasks)
    record = RoundRecord(number=2, policy="r02-ppo").reached(policy)
    assert record.win_rate == WON and record.tasks == tasks and record.gold is None
    assert "gold" not in record.told() and record.told()["version"] == 1
    assert read_round(evaluation(**record.told())) == record
    other = PolicyResult(win_rate=Interval(0.1, 0.0, 0.2), perplexity=9.0)
    assert (record.reached(other).win_rate, record.reached(other).perplexity) == (WON, 9.0), "what is known stays"


def test_the_form_before_versions_is_read() -> None:
    found = read_round(evaluation(win_rate=[0.7, 0.6, 0.8], gold=[0.2, None, None], perplexity=4.5))
    assert found.number == 2 and found.win_rate == WON and found.perplexity == 4.5
    assert found.gold is not None and found.gold.estimate == 0.2 and found.gold.low != found.gold.low


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(UserError, match="newer Hearken"):
        read_round(evaluation(version=9))
    with pytest.raises(UserError, match="r02-evaluation: win_rate"):
        read_round(evaluation(win_rate="high"))


def test_the_documentation_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    assert [name for name in RoundRecord.model_fields if f"`{name}`" not in text] == []
