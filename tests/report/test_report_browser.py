"""The report in a real browser: it fits, it is accessible, nothing is asked of a network, and it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hearken.report.contents import Report
from hearken.report.page import render

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("width", "scheme", "which"), [(1280, "light", "report"), (390, "dark", "hostile")])
def test_it_fits_is_accessible_and_prints(
    chromium: Any, request: pytest.FixtureRequest, tmp_path: Path, width: int, scheme: str, which: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    report: Report = request.getfixturevalue(which)
    file = tmp_path / "report.html"
    file.write_text(render(report), "utf-8")
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: wrong.append(said.text))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "unfolded, too"
    found = axe.run(page).response["violations"]
    assert not found, [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in found]
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert wrong == [] and asked == [file.as_uri()]
    page.close()
