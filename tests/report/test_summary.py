from __future__ import annotations

from reports import reported

from hearken.evaluation.results import Allowed, PolicyResult
from hearken.report.contents import Report
from hearken.report.sections.policies import better
from hearken.report.sections.summary import summary_table
from hearken.statistics.intervals import Interval


def test_the_table_tells_the_run(report: Report) -> None:
    rows = {row.label: row for row in summary_table(report)}
    assert rows["wins against SFT"][1:] == ("83\u202f%", "[78, 87], 200 held-out prompts")
    assert rows["for group hearth"].value == "79\u202f%"
    assert rows["KL to the start"][1:] == ("8.93", "[8.61, 9.24], nats a response")
    assert rows["reward model accuracy"].note == "[74, 79], ceiling 80\u202f%"
    assert rows["time"].value == "5\u202fmin 1\u202fs"


def test_an_empty_report_has_no_rows() -> None:
    assert summary_table(Report(title="t")) == []


def test_what_the_reward_allows() -> None:
    allowed = Allowed(
        beta=0.15, share=Interval(0.74, 0.69, 0.8), objective=Interval(0.84, 0.76, 0.92), start=-0.45, best=1.29,
        best_kl=3.2, pool=64,
    )  # fmt: skip
    report = reported({"ppo": PolicyResult(allowed=allowed)}, policy="ppo")
    rows = {row.label: row for row in summary_table(report)}
    row = rows["of what the reward allows"]
    assert row.value == "74\u202f%" and row.note == "[69, 80], score − 0.15·KL: −0.45 → 0.84 of 1.29"
    _, note, drawn = next(chart for chart in (better(report) or {})["charts"] if "allows" in chart[0])
    assert "64 of its responses" in note and "ppo" in drawn
