"""The owner's pages over HTTP: who may see them, what they say, and that nothing in them is inline."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from owner_world import fill

from hearken.feedback.access import Account
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.owner_data import ADJUDICATION
from hearken.server.security import Door

LOOKING = ["", "/agreement", "/labelers", "/coverage", "/leaderboard", "/responses", "/export"]
MANAGING = ["/people", "/guidelines", "/settings", "/audit"]
BASE = "http://127.0.0.1:8765"
Come = Callable[..., TestClient]


def visits(store: FeedbackStore) -> Come:
    """A browser of somebody with this role, logged in; its requests that change something carry the CSRF token."""
    app = create_app(store)

    def come(role: str = "") -> TestClient:
        client = TestClient(app, base_url=BASE, follow_redirects=False)
        if role:
            account = store.access.add_account(Account(name=f"<b>{role}</b>", role=role))  # type: ignore[arg-type]
            secret, session = store.access.open_session(account.id)
            client.cookies.set(Door().cookie, secret)
            client.headers.update({"x-csrf-token": session.csrf, "origin": BASE})
        return client

    return come


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedbackStore]:
    with FeedbackStore(tmp_path_factory.mktemp("pages") / "feedback.db") as store:
        fill(store, prompts=40)
        store.add_guideline("# Judge\n\n<script>alert(1)</script> fairly")
        store.access.set_settings({"population": {"age": {"under 40": 0.5, "40 or over": 0.5}}, "hourly_cost": 20.0})
        yield store


@pytest.fixture(scope="module")
def come(full: FeedbackStore) -> Come:
    return visits(full)


@pytest.fixture(scope="module")
def owner(come: Come) -> TestClient:
    return come("owner")


@pytest.mark.parametrize("page", LOOKING + MANAGING)
def test_pages_answer_and_nothing_is_inline(owner: TestClient, page: str) -> None:
    answer = owner.get(f"/owner{page}")
    assert answer.status_code == 200, answer.text
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! type=\"module\" src=)", answer.text)
    assert "<b>owner</b>" not in answer.text and "&lt;b&gt;owner&lt;/b&gt;" in answer.text
    assert "<script>alert" not in answer.text


def test_pages_of_an_empty_project(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        client = visits(store)("owner")
        for page in LOOKING + MANAGING:
            assert client.get(f"/owner{page}").status_code == 200, page


def test_who_may_see_what(come: Come) -> None:
    viewer, labeler, stranger = come("viewer"), come("labeler"), come()
    for page in LOOKING:
        assert viewer.get(f"/owner{page}").status_code == 200
    for page in MANAGING:
        assert viewer.get(f"/owner{page}").status_code == 403
    for page in (*LOOKING, *MANAGING, "/labelers/weights.json", "/export/file"):
        assert labeler.get(f"/owner{page}").status_code == 403
        assert stranger.get(f"/owner{page}").headers["location"] == "/login"
    assert viewer.post("/owner/adjudicate", json={}).status_code in (403, 422)


def test_the_pages_say_what_matters(owner: TestClient) -> None:
    assert "At the present pace the rest takes about" in owner.get("/owner").text
    assert "not yet distinguishable" in owner.get("/owner/leaderboard").text
    assert "Dan</b>" in owner.get("/owner/labelers").text
    assert "Krippendorff" in owner.get("/owner/agreement").text
    assert owner.get("/owner/leaderboard?weighting=population&baseline=ppo").status_code == 200
    assert owner.get("/owner/charts.css").headers["content-type"].startswith("text/css")


def test_an_owner_decides_a_dispute(full: FeedbackStore, owner: TestClient) -> None:
    page = owner.get("/owner/agreement").text
    item = re.search(r'data-item="(\w+)"', page)
    assert item is not None
    said = {"id": "decision-0001", "item_id": item[1], "ranks": [0, 1]}
    for _ in range(2):  # sent twice, stored once
        assert owner.post("/owner/adjudicate", json=said).status_code == 200
    found = [j for j in full.judgments(item_id=item[1]) if ADJUDICATION in j.tags]
    assert [j.id for j in found] == ["decision-0001"]
    assert f'class="dispute settled" data-item="{item[1]}"' in owner.get("/owner/agreement").text
    assert "adjudicated" in owner.get("/owner/audit").text
    assert owner.post("/owner/adjudicate", json=said | {"id": "decision-2", "ranks": [0, 1, 2]}).status_code == 422


def test_no_foreign_page_decides(owner: TestClient) -> None:
    said = {"id": "decision-0003", "item_id": "x", "ranks": [0, 1]}
    assert owner.post("/owner/adjudicate", json=said, headers={"x-csrf-token": "no"}).status_code == 403
    assert owner.post("/owner/adjudicate", json=said, headers={"origin": "https://evil.example"}).status_code == 403


def test_exports_and_weights(owner: TestClient) -> None:
    plain = owner.get("/owner/export/file?layout=pairs&suffix=jsonl")
    assert plain.status_code == 200 and 'filename="pairs.jsonl"' in plain.headers["content-disposition"]
    rows = [json.loads(line) for line in plain.text.splitlines()]
    assert {"prompt", "chosen", "rejected"} <= set(rows[0]) and all("weight" not in row for row in rows)
    weighted = owner.get("/owner/export/file?layout=pairs&suffix=jsonl&weighting=reliability")
    assert len({json.loads(line).get("weight") for line in weighted.text.splitlines()}) > 3
    weights = owner.get("/owner/labelers/weights.json").json()
    assert {row["labeler"] for row in weights} >= {"ana", "dan", "eve"}
    for layout, suffix in (("rankings", "parquet"), ("binary", "csv"), ("raw", "jsonl"), ("ratings", "json")):
        assert owner.get(f"/owner/export/file?layout={layout}&suffix={suffix}").status_code == 200, layout
    assert owner.get("/owner/export/file?layout=nonsense").status_code == 400
    assert owner.get("/owner/export/file?suffix=exe").status_code == 422


def test_csv_holds_no_formula(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        prompt = Prompt(content='=HYPERLINK("http://evil.example")')
        pair = [Response(prompt_id=prompt.id, text=text) for text in ("@SUM(1)", "+1")]
        store.add_prompts([prompt])
        store.add_responses(pair)
        store.add_labeler(Labeler(id="ana", name="Ana"))
        item = QueueItem(prompt_id=prompt.id, response_ids=tuple(response.id for response in pair))
        store.enqueue([item])
        payload = ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
        store.submit(Judgment(prompt_id=prompt.id, labeler_id="ana", item_id=item.id, payload=payload))
        answer = visits(store)("viewer").get("/owner/export/file?layout=pairs&suffix=csv")
        _, cells = csv.reader(io.StringIO(answer.text))
        assert not [cell for cell in cells if cell[:1] in "=+-@\t\r"]
