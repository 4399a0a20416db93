"""The owner's pages in a real browser: accessible, quiet in the console, no wider than the screen; forms that work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from owner_world import fill
from people_world import Running, running

from hearken.feedback.access import Account
from hearken.feedback.analysis import ADJUDICATION
from hearken.feedback.store import FeedbackStore

pytestmark = pytest.mark.slow

PAGES = (
    "", "/agreement", "/labelers", "/coverage", "/leaderboard", "/responses", "/export", "/people", "/guidelines",
    "/settings", "/audit",
)  # fmt: skip


def prepare(store: FeedbackStore) -> None:
    fill(store, prompts=40)
    store.add_guideline("Read both to the end.")
    store.access.set_settings({"population": {"age": {"under 40": 0.5, "40 or over": 0.5}}, "hourly_cost": 20.0})
    store.access.add_account(Account(name="Olga", role="owner", login="olga"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("owner") / "feedback.db", prepare) as found:
        yield found


@pytest.fixture
def open_page(chromium: Any, server: Running) -> Iterator[Callable[..., Any]]:
    contexts = []

    def _open() -> Any:
        account = server.store.access.account_by_login("olga")
        assert account is not None
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([server.cookie(account)])
        contexts.append(context)
        page = context.new_page()
        page.wrong = []
        page.on("console", lambda said: page.wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        return page

    yield _open
    for context in contexts:
        context.close()


def test_every_page_is_accessible_and_fits(server: Running, open_page: Callable[..., Any]) -> None:
    """On a light desk and on a dark phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page()
    for path in PAGES:
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # no colours on their way to others
            if scheme == "light":
                assert page.goto(f"{server.url}/owner{path}").status == 200
            found = axe.run(page).response["violations"]
            assert not found, (path, scheme, [(one["id"], [node["target"] for node in one["nodes"]]) for one in found])
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)
        assert page.wrong == [], path


def test_an_owner_invites_decides_and_changes_settings(server: Running, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto(f"{server.url}/owner/people")
    page.get_by_label("Name").fill("Fay")
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("dialog output")
    link.wait_for()
    assert link.inner_text().startswith(f"{server.url}/enter#")
    assert server.store.access.invites()[0].note == "Fay"

    page.goto(f"{server.url}/owner/agreement")
    dispute = page.locator(".dispute").first
    item = dispute.get_attribute("data-item")
    dispute.get_by_role("button", name="equal").click()
    page.get_by_text("decided: equal").wait_for()
    (decision,) = [j for j in server.store.judgments(item_id=item) if ADJUDICATION in j.tags]
    assert decision.payload.ranks == (0, 0)

    page.goto(f"{server.url}/owner/settings")
    page.get_by_label("Question").fill("Which tale is better?")
    page.get_by_label("Budget").fill("250")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Version 2").wait_for()
    _, values = server.store.access.settings()
    assert values["question"] == "Which tale is better?" and values["budget"] == 250
    page.get_by_label("under 40, %").fill("70")
    page.get_by_label("40 or over, %").fill("30")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Version 3").wait_for()
    _, values = server.store.access.settings()
    assert values["population"] == {"age": {"under 40": 0.7, "40 or over": 0.3}}
    assert page.wrong == []
