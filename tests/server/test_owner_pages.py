"""The owner's pages over HTTP: who may see them, what they say, and that nothing in them is inline."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from owner_world import fill

from hearken.feedback import analysis as data
from hearken.feedback.access import Account
from hearken.feedback.analysis import ADJUDICATION
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response, ThumbPayload
from hearken.feedback.store import FeedbackStore
from hearken.loop.project import Project, ProjectConfig
from hearken.server.app import create_app
from hearken.server.owner_cache import Pages
from hearken.server.security import Door
from hearken.server.settings import LabelSettings

LOOKING = ["", "/agreement", "/labelers", "/coverage", "/leaderboard", "/responses", "/export"]
MANAGING = ["/people", "/guidelines", "/settings", "/audit"]
BASE = "http://127.0.0.1:8765"
Come = Callable[..., TestClient]


def visits(store: FeedbackStore, folder: Path | None = None) -> Come:
    """A browser of somebody with this role, logged in; its requests that change something carry the CSRF token."""
    app = create_app(store, media=folder)
    app.state.owner_pages = Pages(store, patience=60)

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


def test_a_page_that_takes_long_says_so_and_appears_by_itself(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        fill(store, prompts=4)
        client = visits(store)("owner")
        pages = client.app.state.owner_pages = Pages(store, patience=0)  # type: ignore[attr-defined]
        for page in ("", "/responses"):
            first = client.get(f"/owner{page}").text
            assert "being computed for the first time" in first and 'http-equiv="refresh"' in first
            until = time.monotonic() + 60
            while 'http-equiv="refresh"' in (text := client.get(f"/owner{page}").text):
                assert time.monotonic() < until
                time.sleep(0.02)
            assert "being computed" not in text and 'id="as-of"' not in text
            client.app.state.owner_pages = Pages(store, patience=0)  # type: ignore[attr-defined]
        pages.wait("labelers", data.labelers_page)
        client.app.state.owner_pages = pages  # type: ignore[attr-defined]
        response = next(store.responses())
        thumb = ThumbPayload(response_id=response.id, label=True)
        seq = store.submit(Judgment(prompt_id=response.prompt_id, labeler_id="ana", payload=thumb)).seq or 0
        assert f"As of judgment {seq - 1:,}, " in client.get("/owner/labelers").text


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


def test_erasing_from_the_page_leaves_a_tombstone(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        fill(store, prompts=4)
        come = visits(store)
        owner = come("owner")
        said = {"target": "labeler", "target_id": "eve", "reason": "asked for by the labeler"}
        assert come("viewer").post("/owner/erase", json=said).status_code == 403
        assert come().post("/owner/erase", json=said).status_code == 401
        given = sum(judgment.labeler_id == "eve" for judgment in store.judgments(checks=None, history=True))
        found = owner.post("/owner/erase", json=said).json()
        assert found["judgments"] == given > 0 and found["artifacts"] == []
        assert not [judgment for judgment in store.judgments(checks=None) if judgment.labeler_id == "eve"]
        page = owner.get("/owner/audit").text
        assert "asked for by the labeler" in page and "eve" in page
        assert owner.post("/owner/erase", json={**said, "target_id": "nobody"}).status_code == 400
        assert owner.post("/owner/erase", json={**said, "reason": ""}).status_code == 422


@pytest.mark.slow
def test_erasing_names_the_models_that_learned_from_it(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project", ProjectConfig(model="m"))
    with project.store() as store:
        fill(store, prompts=12, open_items=2)
        path = Path(project.snapshot("train"))
        (project.artifacts / "r01-reward").mkdir(parents=True)
        manifest = {"kind": "reward", "inputs": {"data": [str(path)]}, "parents": {}, "metrics": {}}
        (project.artifacts / "r01-reward" / "manifest.json").write_text(json.dumps(manifest))
        owner = visits(store, project.path)("owner")
        said = {"target": "labeler", "target_id": "eve", "reason": "asked for"}
        found = owner.post("/owner/erase", json=said).json()
        assert found["snapshots"] == [str(path.relative_to(project.path))] and found["artifacts"] == ["r01-reward"]


def test_rankings_are_decided_place_by_place(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        prompt = Prompt(content="Tell me.")
        responses = [Response(prompt_id=prompt.id, text=text) for text in ("One.", "Two.", "Three.")]
        ids = tuple(one.id for one in responses)
        item = QueueItem(prompt_id=prompt.id, response_ids=ids, slots=2)
        store.add_prompts([prompt])
        store.add_responses(responses)
        store.enqueue([item])
        for name, ranks in (("ann", (0, 1, 2)), ("ben", (2, 1, 0))):
            labeler = store.add_labeler(Labeler(id=name, name=name)).id
            said = ComparisonPayload(response_ids=ids, ranks=ranks)
            store.submit(Judgment(prompt_id=prompt.id, labeler_id=labeler, item_id=item.id, payload=said))
        owner = visits(store)("owner")
        page = owner.get("/owner/agreement").text
        assert page.count("Place of ") == 3 and "A &gt; B &gt; C" in page
        said = {"id": "decision", "item_id": item.id, "ranks": [1, 0, 1]}
        assert owner.post("/owner/adjudicate", json=said).status_code == 200
        assert "decided" in owner.get("/owner/agreement").text
        [decided] = [one for one in store.judgments(item_id=item.id) if ADJUDICATION in one.tags]
        assert decided.payload.ranks == (1, 0, 1)  # type: ignore[union-attr]


def test_a_decision_is_seen_at_once_on_a_page_that_is_not_computed_again_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hearken.server.owner_cache.REST", 1e9)
    with FeedbackStore(tmp_path / "feedback.db") as store:
        fill(store, prompts=40)
        owner = visits(store)("owner")
        before = owner.get("/owner/agreement").text
        first, *others = re.findall(r'class="dispute" data-item="(\w+)"', before)
        said = {"id": "decision", "item_id": first, "ranks": [0, 1]}
        assert owner.post("/owner/adjudicate", json=said).status_code == 200
        page = owner.get("/owner/agreement").text
        assert 'id="as-of"' in page and "; 1 newer are still to be counted" in page
        assert f'class="dispute settled" data-item="{first}"' in page
        assert re.findall(r'class="dispute" data-item="(\w+)"', page) == others
        assert page.count('aria-label="Decide"') == before.count('aria-label="Decide"') - 1


def test_every_setting_has_its_field(owner: TestClient) -> None:
    page = owner.get("/owner/settings").text
    for name in LabelSettings.model_fields:
        assert re.search(rf'(?:name|data-list|data-rows|data-tuple|data-shares)="{name}"', page), name
