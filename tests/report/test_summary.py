from __future__ import annotations

from hearken.report.contents import Report
from hearken.report.sections.summary import summary_table


def test_the_table_tells_the_run(report: Report) -> None:
    rows = {row.label: row for row in summary_table(report)}
    assert rows["wins against SFT"][1:] == ("83\u202f%", "[78, 87], 200 held-out prompts")
    assert rows["for group hearth"].value == "79\u202f%"
    assert rows["KL to the start"][1:] == ("8.93", "[8.61, 9.24], nats a response")
    assert rows["reward model accuracy"].note == "[74, 79], ceiling 80\u202f%"
    assert rows["time"].value == "5\u202fmin 1\u202fs"


def test_an_empty_report_has_no_rows() -> None:
    assert summary_table(Report(title="t")) == []
