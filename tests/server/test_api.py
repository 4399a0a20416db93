"""The HTTP API: claims, answers of every kind, undo, and what owners do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from people_world import SECRET_POLICY, Site, Visitor, fill

from hearken.feedback.records import ItemKind, QueueItem, new_id
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app
from hearken.server.tasks import places

ALL = list(get_args(ItemKind))


def site_of(store: FeedbackStore, *kinds: str, **settings: Any) -> Site:
    store.access.set_settings({"kinds": list(kinds), "check_share": 0.0} | settings)
    return Site(store, create_app(store))


def a_task(store: FeedbackStore, kind: str, k: int = 2, **settings: Any) -> tuple[Site, Visitor, dict[str, Any]]:
    fill(store, (kind,), k=k)
    site = site_of(store, kind, **settings)
    visitor = site.enter()
    return site, visitor, visitor.claim()[0]


def text_at(store: FeedbackStore, response_id: str) -> str:
    return store.response(response_id).text


# -- comparisons -------------------------------------------------------------------------------------------------


def test_a_choice_is_stored_for_the_response_that_was_shown_there(store: FeedbackStore) -> None:
    """Whatever the order on the screen, the winner is the text that was chosen; order and seed are stored with it."""
    fill(store, slots=4)
    site = site_of(store, "comparison")
    orders = set()
    for number, name in enumerate(("Ann", "Bob", "Cy", "Dee")):
        visitor = site.enter(name=name)
        for task in visitor.claim(3):
            chosen = task["responses"][0]["text"]
            answer = {"kind": "comparison", "ranks": [0, 1]}
            stored = visitor.submit(task, answer, id=f"{number}{task['item_id']}"[:32], seconds=4.5).json()
            judgment = store.judgment(stored["id"])
            best = judgment.payload.response_ids[judgment.payload.ranks.index(0)]  # type: ignore[union-attr]
            assert text_at(store, best) == chosen
            assert judgment.order_seed is not None and judgment.order == places(judgment.order_seed, 2)
            assert judgment.seconds == 4.5 and judgment.metadata == {"via": "page"}
            orders.add(judgment.order)
    assert orders == {(0, 1), (1, 0)}


def test_the_order_stays_the_same_for_a_labeler_and_differs_between_labelers(store: FeedbackStore) -> None:
    fill(store, k=8)
    site = site_of(store, "comparison")
    ann, bob = site.enter(name="Ann"), site.machine("bob")
    first, again = ann.claim()[0], ann.claim()[0]
    assert first["responses"] == again["responses"]
    store.release(first["item_id"], ann.labeler_id)
    other = bob.post("/api/v1/claims", json={}).json()["tasks"][0]
    assert other["item_id"] == first["item_id"]
    assert [r["text"] for r in other["responses"]] != [r["text"] for r in first["responses"]]


def test_a_ranking_may_have_ties_and_leave_some_out(store: FeedbackStore) -> None:
    _, visitor, task = a_task(store, "comparison", k=4)
    assert visitor.submit(task, {"kind": "comparison", "ranks": [5, None, 2, 5]}).status_code == 200
    judgment = store.judgment("a" * 32)
    shown = {r["text"]: rank for r, rank in zip(task["responses"], (1, None, 0, 1), strict=True)}
    stored = zip(judgment.payload.response_ids, judgment.payload.ranks, strict=True)  # type: ignore[union-attr]
    assert {text_at(store, response): rank for response, rank in stored} == shown


def test_strength_and_both_bad_are_kept(store: FeedbackStore) -> None:
    fill(store)
    visitor = site_of(store, "comparison", strength=9, tags=["clearer"]).enter()
    one, two, _ = visitor.claim(3)
    answer = {"kind": "comparison", "ranks": [1, 0], "strength": 0.75}
    assert visitor.submit(one, answer, tags=["clearer", "clearer"]).status_code == 200
    assert (
        visitor.submit(two, {"kind": "comparison", "ranks": [0, 0], "both_bad": True}, id="b" * 32).status_code == 200
    )
    first, second = store.judgments()
    assert first.payload.strength == 0.75 and first.tags == ("clearer",)  # type: ignore[union-attr]
    assert second.payload.ranks == (0, 0) and second.tags == ("both bad",)  # type: ignore[union-attr]


def test_a_share_and_its_grounds_are_stored_for_the_responses(store: FeedbackStore) -> None:
    """A client speaks of places; what is stored speaks of the item's responses, wherever they stood."""
    fill(store, slots=4)
    site = site_of(store, "comparison")
    grounds = {"principle": "brief", "log_odds": {"0,1": 2.0, "1,0": -1.0}, "reasoning": {"0,1": "It is brief."}}
    turned = set()
    for name in ("one", "two", "three", "four"):
        robot = site.machine(name)
        for task in robot.post("/api/v1/claims", json={"n": 3}).json()["tasks"]:
            answer = {"kind": "comparison", "ranks": [0, 1], "share": 0.8}
            said = {"id": new_id(), "item_id": task["item_id"], "ticket": task["ticket"]}
            for wrong in ({"share": 0.2}, {"ranks": [1, 0]}):
                refused = robot.post("/api/v1/judgments", json=said | {"answer": answer | wrong})
                assert refused.status_code == 422 and "a share is" in refused.json()["error"]
            far = said | {"answer": answer, "grounds": {"log_odds": {"0,2": 1.0}}}
            assert robot.post("/api/v1/judgments", json=far).status_code == 422
            done = robot.post("/api/v1/judgments", json=said | {"answer": answer, "grounds": grounds})
            assert done.status_code == 200, done.text
            judgment = store.judgment(said["id"])
            first = text_at(store, judgment.payload.response_ids[0]) == task["responses"][0]["text"]  # type: ignore[union-attr]
            assert judgment.payload.share == pytest.approx(0.8 if first else 0.2)  # type: ignore[union-attr]
            odds = {"0,1": 2.0, "1,0": -1.0} if first else {"1,0": 2.0, "0,1": -1.0}
            reasoning = {"0,1" if first else "1,0": "It is brief."}
            assert judgment.metadata == {"via": "api", "principle": "brief", "log_odds": odds, "reasoning": reasoning}
            turned.add(first)
    assert turned == {True, False}


# -- the other kinds ---------------------------------------------------------------------------------------------

Desk = tuple[FeedbackStore, Visitor, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Somebody at work, and their task of each kind."""
    with FeedbackStore(tmp_path_factory.mktemp("desk") / "feedback.db") as store:
        fill(store, tuple(ALL), prompts=1)
        visitor = site_of(store, *ALL).enter()
        yield store, visitor, {task["kind"]: task for task in visitor.claim(len(ALL))}


def test_an_edit_is_stored_and_becomes_demonstration_and_comparison(store: FeedbackStore) -> None:
    from hearken.feedback.snapshot import inline_examples

    _, visitor, task = a_task(store, "edit")
    original = task["responses"][0]["text"]
    assert visitor.submit(task, {"kind": "edit", "text": "Better."}).status_code == 200
    kinds = {type(one).__name__: one for one in inline_examples(store, ("demonstration", "comparison"))}
    assert kinds["Demonstration"].response == "Better."  # type: ignore[union-attr]
    assert kinds["Comparison"].responses == ("Better.", original)  # type: ignore[union-attr]
    assert kinds["Comparison"].ranks == (0, 1)  # type: ignore[union-attr]


def test_marked_passages_are_counted_in_characters(store: FeedbackStore) -> None:
    _, visitor, task = a_task(store, "span_flag")
    text = task["responses"][0]["text"]
    span = {"start": 0, "end": len(text), "label": "wrong", "note": ""}
    assert visitor.submit(task, {"kind": "span_flag", "spans": [span]}).status_code == 200
    stored = store.judgment("a" * 32).payload.spans[0]  # type: ignore[union-attr]
    assert text[stored.start : stored.end] == text and stored.label == "wrong"


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("rating", {"kind": "rating", "ratings": {"overall": 4}}),
        ("thumb", {"kind": "thumb", "label": False}),
        ("critique", {"kind": "critique", "text": "  Too short. "}),
        ("demonstration", {"kind": "demonstration", "text": "Red."}),
        ("span_flag", {"kind": "span_flag", "nothing": True}),
    ],
)
def test_every_kind_is_stored_as_it_was_said(desk: Desk, kind: str, answer: dict[str, Any]) -> None:
    store, visitor, tasks = desk
    assert visitor.submit(tasks[kind], answer, id=f"{kind:_<32}").status_code == 200
    payload = store.judgment(f"{kind:_<32}").payload.model_dump(mode="json")
    assert payload["kind"] == kind
    assert all(payload[name] == value for name, value in answer.items() if name != "nothing")


@pytest.mark.parametrize(
    ("kind", "answer", "said"),
    [
        ("comparison", {"kind": "comparison", "ranks": [None, None]}, "nothing is compared"),
        ("comparison", {"kind": "comparison", "ranks": [0, None]}, "nothing is compared"),
        ("comparison", {"kind": "comparison", "ranks": [0, 1, 2]}, "3 ranks for 2"),
        ("comparison", {"kind": "comparison", "ranks": [0, 0], "strength": 0.5}, "how much better"),
        ("comparison", {"kind": "comparison"}, "Field required"),
        ("comparison", {"kind": "comparison", "ranks": [0, 1], "winner": "A"}, "Extra inputs"),
        ("comparison", {"kind": "thumb", "label": True}, "asks for a comparison"),
        ("comparison", {}, "Unable to extract tag"),
        ("rating", {"kind": "rating", "ratings": {}}, "attributes are overall"),
        ("rating", {"kind": "rating", "ratings": {"overall": 6}}, "scale goes from 1 to 5"),
        ("rating", {"kind": "rating", "ratings": {"overall": 3, "tone": 3}}, "attributes are overall"),
        ("edit", {"kind": "edit", "text": " \n"}, "nothing is written"),
        ("critique", {"kind": "critique", "text": ""}, "nothing is written"),
        ("demonstration", {"kind": "demonstration", "text": "\t"}, "nothing is written"),
        ("span_flag", {"kind": "span_flag", "spans": []}, "nothing is marked"),
        ("span_flag", {"kind": "span_flag", "spans": [{"start": 0, "end": 9999, "label": "wrong"}]}, "ends after"),
        ("span_flag", {"kind": "span_flag", "spans": [{"start": 0, "end": 1, "label": "evil"}]}, "cannot be marked"),
        ("thumb", {"kind": "flag", "reason": ""}, "at least 1"),
        ("thumb", {"kind": "flag", "reason": "harmful", "place": 3}, "no response at place 3"),
    ],
)
def test_nothing_empty_and_nothing_that_does_not_fit_is_stored(
    desk: Desk, kind: str, answer: dict[str, Any], said: str
) -> None:
    store, visitor, tasks = desk
    before = store.last_seq()
    refused = visitor.submit(tasks[kind], answer)
    assert refused.status_code == 422 and said in refused.json()["error"]
    assert store.last_seq() == before


def test_an_edit_that_changes_nothing_is_refused(store: FeedbackStore) -> None:
    _, visitor, task = a_task(store, "edit")
    refused = visitor.submit(task, {"kind": "edit", "text": task["responses"][0]["text"] + "\n"})
    assert refused.status_code == 422 and "nothing was changed" in refused.json()["error"]


def test_unknown_tags_and_wrong_ids_are_refused(site: Site) -> None:
    visitor = site.enter()
    task = visitor.claim()[0]
    answer = {"kind": "comparison", "ranks": [0, 1]}
    assert visitor.submit(task, answer, tags=["both bad"]).status_code == 422
    assert visitor.submit(task, answer, id="short").status_code == 422
    assert visitor.submit(task, answer, id="../" * 10).status_code == 422
    assert visitor.submit(task, answer, seconds=-1).status_code == 422
    assert site.store.last_seq() == 0


# -- never twice, never lost -------------------------------------------------------------------------------------


def test_sending_an_answer_again_changes_nothing(site: Site) -> None:
    visitor = site.enter()
    task = visitor.claim()[0]
    answers = [visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]}).json() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and site.store.last_seq() == 1
    other = visitor.submit(task, {"kind": "comparison", "ranks": [1, 0]})
    assert other.status_code == 409 and site.store.last_seq() == 1


def test_a_second_tab_revises_instead_of_doubling(site: Site) -> None:
    visitor = site.enter()
    task = visitor.claim()[0]
    visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]})
    visitor.submit(task, {"kind": "comparison", "ranks": [1, 0]}, id="b" * 32)
    assert [judgment.id for judgment in site.store.judgments()] == ["b" * 32]


def test_a_late_answer_keeps_its_text(store: FeedbackStore) -> None:
    """The lease is over, somebody else has answered, the item is closed: the text is kept, marked extra."""
    site, visitor, task = a_task(store, "demonstration")
    store.release(task["item_id"], visitor.labeler_id)
    other = site.enter(name="Bob")
    taken = next(one for one in other.claim(3) if one["item_id"] == task["item_id"])
    assert other.submit(taken, {"kind": "demonstration", "text": "Bob's."}, id="b" * 32).json()["extra"] is False
    store.close_items([task["item_id"]])
    late = visitor.submit(task, {"kind": "demonstration", "text": "An hour of work."})
    assert late.status_code == 200 and late.json()["extra"] is True
    assert store.judgment("a" * 32).payload.text == "An hour of work."  # type: ignore[union-attr]


def test_leases_are_kept_released_and_lost(site: Site) -> None:
    ann, bob = site.enter(name="Ann"), site.enter(name="Bob")
    task = ann.claim()[0]
    where = f"/api/v1/items/{task['item_id']}"
    assert ann.http.post(f"{where}/heartbeat?ticket={task['ticket']}").json()["expires"] is not None
    assert bob.http.post(f"{where}/heartbeat?ticket={task['ticket']}").status_code == 403
    assert task["item_id"] not in [one["item_id"] for one in bob.claim(3)]
    assert ann.http.delete(f"{where}/lease?ticket={task['ticket']}").status_code == 204
    assert task["item_id"] in [one["item_id"] for one in bob.claim(3)]
    assert ann.http.post(f"{where}/heartbeat?ticket={task['ticket']}").json()["expires"] is None


def test_undo_gives_the_item_back(site: Site) -> None:
    visitor = site.enter()
    task = visitor.claim()[0]
    visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]})
    back = visitor.http.post(f"/api/v1/judgments/{'a' * 32}/withdraw").json()["task"]
    assert back["item_id"] == task["item_id"] and back["responses"] == task["responses"]
    assert list(site.store.judgments()) == []
    assert visitor.submit(back, {"kind": "comparison", "ranks": [1, 0]}, id="b" * 32).json()["extra"] is False
    assert visitor.http.post(f"/api/v1/judgments/{'0' * 32}/withdraw").status_code == 404


def test_undo_ends_with_its_window(store: FeedbackStore) -> None:
    fill(store)
    visitor = site_of(store, "comparison", undo_seconds=0).enter()
    visitor.submit(visitor.claim()[0], {"kind": "comparison", "ranks": [0, 1]})
    assert visitor.http.post(f"/api/v1/judgments/{'a' * 32}/withdraw").status_code == 409


def test_a_skipped_item_goes_to_somebody_else(site: Site) -> None:
    ann, bob = site.enter(name="Ann"), site.enter(name="Bob")
    task = ann.claim()[0]
    assert ann.submit(task, {"kind": "skip", "reason": "cannot tell"}).status_code == 200
    assert task["item_id"] not in [one["item_id"] for one in ann.claim(3)]
    assert task["item_id"] in [one["item_id"] for one in bob.claim(3)]


# -- practice and checks -----------------------------------------------------------------------------------------


def test_practice_comes_first_explains_and_trains_nothing(site: Site) -> None:
    visitor = site.enter()
    tasks = visitor.claim(4, practice=True)
    assert [task["practice"] for task in tasks] == [True, True, True, False]
    texts = [response["text"] for response in tasks[0]["responses"]]
    good = next(place for place, text in enumerate(texts) if "Tyres" in text)
    ranks = [0 if place == good else 1 for place in range(2)]
    said = visitor.submit(tasks[0], {"kind": "comparison", "ranks": ranks}).json()
    assert said["agreed"] is True and "names nothing to check" in said["explanation"]
    wrong = visitor.submit(tasks[1], {"kind": "comparison", "ranks": [0, 0]}, id="b" * 32).json()
    assert wrong["agreed"] is False and wrong["explanation"]
    assert len(visitor.claim(4, practice=True)) == 4 and visitor.claim(1, practice=True)[0]["practice"]
    assert list(site.store.judgments()) == [] and len(list(site.store.judgments(checks=True))) == 2
    assert site.store.progress().items == 3


def gold(items: list[QueueItem], number: int, exact: bool = False) -> QueueItem:
    item = items[0]
    right = {"kind": "comparison", "response_ids": list(item.response_ids), "ranks": [0, 1]}
    return QueueItem(
        id=f"gold{number}", prompt_id=item.prompt_id, response_ids=item.response_ids, is_gold=True, expected=right,
        slots=9, metadata={"gold": "exact" if exact else "obvious"},
    )  # fmt: skip


def test_whoever_fails_the_gold_items_is_paused_and_nothing_is_deleted(store: FeedbackStore) -> None:
    items = fill(store)
    store.enqueue([gold(items, number) for number in range(4)])
    site = site_of(store, "comparison", check_share=0.5, check_window=4, check_least=0.6)
    good, bad = site.enter(name="Good"), site.enter(name="Bad")
    outcomes: dict[str, list[Any]] = {"good": [], "bad": []}
    for visitor, name in ((good, "good"), (bad, "bad")):
        while len(outcomes[name]) < 4:
            for task in visitor.claim(4):
                if not task["item_id"].startswith("gold"):
                    continue
                best = store.item(task["item_id"]).response_ids[0]
                at = [r["text"] for r in task["responses"]].index(text_at(store, best))
                first = at if name == "good" else 1 - at
                ranks = [int(place != first) for place in range(2)]
                id = f"{name}{len(outcomes[name])}".ljust(32, "0")
                outcomes[name].append(visitor.submit(task, {"kind": "comparison", "ranks": ranks}, id=id).json())
    assert [one["paused"] for one in outcomes["good"]] == [False] * 4
    assert [one["paused"] for one in outcomes["bad"]] == [False] * 3 + [True]
    assert store.labeler(bad.labeler_id).status == "paused"
    refused = bad.http.post("/api/v1/claims", json={})
    assert refused.status_code == 403 and "paused" in refused.json()["error"]
    assert len(list(store.judgments(checks=True))) == 8
    assert any(entry.action == "paused labeler" for entry in store.access.audit())


def test_own_items_come_back_to_measure_consistency(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from hearken.feedback.analysis import Book, agreement_page, labelers_page

    monkeypatch.setattr("hearken.server.desk.REPEAT_AFTER", 0)
    fill(store)
    visitor = site_of(store, "comparison", check_share=0.5).enter()
    known, repeats = {}, {}
    for number in range(60):
        for task in visitor.claim(2):
            texts = tuple(sorted(response["text"] for response in task["responses"]))
            item = store.item(task["item_id"])
            (repeats if item.repeat_of else known)[task["item_id"]] = texts
            first = [response["text"] for response in task["responses"]].index(texts[0])
            ranks = [int(place != first) for place in range(2)]
            visitor.submit(task, {"kind": "comparison", "ranks": ranks}, id=f"{number}-{task['item_id']}"[:32])
    assert len(known) == 3 and repeats and set(repeats.values()) <= set(known.values())
    row = next(row for row in labelers_page(Book.load(store)).rows if row.labeler_id == visitor.labeler_id)
    assert row.consistency.estimate == 1
    assert len(list(store.judgments())) == 3
    (again,) = agreement_page(Book.load(store), store).again
    assert again.name == "comparisons" and again.units == len(repeats) and again.raw.estimate == 1


def test_ratings_and_thumbs_that_are_asked_twice_are_counted(
    store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hearken.feedback.analysis import Book, agreement_page

    monkeypatch.setattr("hearken.server.desk.REPEAT_AFTER", 0)
    fill(store, ("rating", "thumb"))
    visitor = site_of(store, "rating", "thumb", check_share=0.5).enter()
    given: dict[str, int] = {}
    repeats: set[str] = set()
    for number in range(600):  # which item is asked again is drawn
        if len(repeats) == 6:
            break
        for task in visitor.claim(2):
            item = store.item(task["item_id"])
            again = item.repeat_of is not None
            repeats |= {item.id} if again else set()
            if item.kind == "thumb":
                said: dict[str, object] = {"kind": "thumb", "label": True}
            else:
                first = given.setdefault(item.response_ids[0], 1 + len(given))
                value = first if not again or first < 3 else first - 2
                said = {"kind": "rating", "ratings": {"overall": value}}
            visitor.submit(task, said, id=f"{number}-{task['item_id']}"[:32])
    found = {one.name: one for one in agreement_page(Book.load(store), store).again}
    assert found["thumbs"].raw.estimate == 1 and found["thumbs"].units == 3
    (rated,) = (one for name, one in found.items() if name != "thumbs")
    assert rated.units == 3 and 0 < rated.raw.estimate < 1 and rated.alpha.estimate < 1


# -- reading, writing, managing ----------------------------------------------------------------------------------


def test_the_owner_exports_everything(site: Site) -> None:
    visitor, owner = site.enter(), site.enter("owner", "Olga")
    visitor.submit(visitor.claim()[0], {"kind": "comparison", "ranks": [0, 1]})
    found = {}
    for what in ("prompts", "responses", "judgments", "items", "labelers"):
        answer = owner.http.get(f"/api/v1/export/{what}")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        found[what] = [json.loads(line) for line in answer.text.splitlines()]
    assert {name: len(rows) for name, rows in found.items() if name != "labelers"} == {
        "prompts": 3, "responses": 6, "judgments": 1, "items": 3,
    }  # fmt: skip
    assert found["responses"][0]["policy"] == SECRET_POLICY
    assert owner.http.get("/api/v1/export/judgments?since=1").text == ""
    assert owner.http.get("/api/v1/export/secrets").status_code == 422


def test_texts_that_cannot_be_encoded_are_shown_and_exported(store: FeedbackStore) -> None:
    from hearken.feedback.records import Prompt, Response

    prompt = Prompt(content="with \x00")
    responses = [Response(prompt_id=prompt.id, text=text) for text in ("\udfff", "b")]
    store.add_prompts([prompt])
    store.add_responses(responses)
    store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=tuple(one.id for one in responses))])
    site = site_of(store, "comparison")
    task = site.enter().claim(html=True)[0]
    assert task["prompt"][0]["text"] == "with \ufffd"
    assert {response["text"] for response in task["responses"]} == {"?", "b"}
    lines = site.enter("owner", "Olga").http.get("/api/v1/export/responses").text.splitlines()
    assert json.loads(lines[0])["text"] == "\udfff"


def test_settings_change_in_part_and_mistakes_are_named(site: Site) -> None:
    owner = site.enter("owner")
    changed = owner.http.patch("/api/v1/settings", json={"strength": 9, "tags": ["clear"]}).json()
    assert changed["settings"]["strength"] == 9 and changed["settings"]["check_share"] == 0.0
    wrong = owner.http.patch("/api/v1/settings", json={"strenght": 3})
    assert wrong.status_code == 400 and "Did you mean 'strength'?" in wrong.json()["hint"]
    assert owner.http.patch("/api/v1/settings", json={"scale": [5, 1]}).status_code == 400
    assert owner.http.get("/api/v1/settings").json()["settings"]["strength"] == 9
    assert site.enter(name="Ann").http.patch("/api/v1/settings", json={"strength": 3}).status_code == 403


def test_a_guideline_that_is_not_there_is_refused(site: Site) -> None:
    owner, visitor = site.enter("owner"), site.enter()
    task = visitor.claim()[0]
    ranks = {"kind": "comparison", "ranks": [0, 1]}
    for number in (0, 1, -1, 2**31):
        assert visitor.submit(task, ranks, guideline=number).status_code == 422
    owner.http.post("/api/v1/guidelines", json={"text": "Be kind."})
    assert visitor.submit(task, ranks, guideline=2).status_code == 422
    assert visitor.submit(task, ranks, guideline=1).status_code == 200


def test_a_flag_gives_one_of_the_owners_reasons_now_or_before(site: Site) -> None:
    owner, visitor = site.enter("owner"), site.enter()
    task = visitor.claim()[0]
    for reason in ("made up", "<b>harmful</b>", "harmful ", "x" * 201, ""):
        assert visitor.submit(task, {"kind": "flag", "reason": reason}).status_code == 422
    owner.http.patch("/api/v1/settings", json={"flags": ["rude"]})
    owner.http.patch("/api/v1/settings", json={"flags": ["wrong"]})
    for number, reason in enumerate(("rude", "wrong", "broken")):  # the page may be open since then
        other = site.enter(name=f"Visitor {number}")
        said = other.submit(other.claim()[0], {"kind": "flag", "reason": reason}, id=f"{number}" * 32)
        assert said.status_code == 200, said.text
    assert visitor.submit(task, {"kind": "flag", "reason": "ugly"}).status_code == 422


def test_nobody_keeps_an_item_longer_than_the_owner_grants(site: Site) -> None:
    owner, robot = site.enter("owner"), site.machine()
    for seconds in (901, 86_400, 86_401, 10**18, 0, -1):
        assert robot.post("/api/v1/claims", json={"lease_seconds": seconds}).status_code == 422
    assert robot.post("/api/v1/claims", json={"lease_seconds": 900}).status_code == 200
    owner.http.patch("/api/v1/settings", json={"lease_seconds": 1_200})
    assert robot.post("/api/v1/claims", json={"lease_seconds": 1_200}).status_code == 200


def test_names_and_words_are_checked_where_they_come_in(site: Site) -> None:
    owner, writer = site.enter("owner"), site.machine("writer", ("write",))
    bad = "Ann\u202e"
    asked = [
        owner.http.post("/welcome", json={"name": bad, "consent": True}),
        owner.http.post("/account", json={"login": bad, "password": "correct horse"}),
        owner.http.post("/api/v1/invites", json={"note": bad}),
        owner.http.post("/api/v1/tokens", json={"name": bad, "scopes": ["read"]}),
        writer.post("/api/v1/labelers", json={"name": bad, "kind": "ai"}),
    ]
    words: list[dict[str, object]] = [
        {"project": bad}, {"question": "a\nb"}, {"flags": [bad]}, {"tags": ["a", "a"]}, {"span_labels": [""]},
        {"tags": ["x" * 101]}, {"attributes": [{"name": "a\x00"}]}, {"about_you": [{"name": "a", "options": ["\x1b"]}]},
        {"budget": 1e999}, {"undo_seconds": 10**12}, {"lease_seconds": 10**6}, {"lease_seconds": 1},
    ]  # fmt: skip
    asked += [
        owner.http.patch("/api/v1/settings", content=json.dumps(one), headers={"Content-Type": "application/json"})
        for one in words
    ]
    assert [answer.status_code for answer in asked] == [400] * len(asked), [answer.text for answer in asked]
    assert site.store.access.settings()[1] == {"check_share": 0.0}


def test_each_judgment_keeps_the_guideline_it_was_made_under(site: Site) -> None:
    owner, visitor = site.enter("owner"), site.enter(name="Ann")
    assert owner.http.post("/api/v1/guidelines", json={"text": "Be kind."}).json()["version"] == 1
    task = visitor.claim()[0]
    owner.http.post("/api/v1/guidelines", json={"text": "Be kind and true."})
    visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]}, guideline=task["guideline"])
    assert next(site.store.judgments()).guideline == 1
    assert visitor.claim()[0]["guideline"] == 2


def test_people_change_roles_and_come_back_on_another_device(site: Site) -> None:
    owner, ann = site.enter("owner", "Olga"), site.enter(name="Ann")
    people = {one["name"]: one for one in owner.http.get("/api/v1/people").json()}
    assert people["Ann"]["role"] == "labeler" and people["Ann"]["labeling"] == "active"
    again = owner.http.post("/api/v1/invites", json={"role": "labeler", "account_id": ann.account_id}).json()
    browser = site.browser()
    assert browser.post("/enter", json={"secret": again["path"].split("#")[1]}).status_code == 200
    assert len(owner.http.get("/api/v1/people").json()) == 2
    where = f"/api/v1/people/{ann.account_id}"
    assert owner.http.patch(where, json={"labeling": "paused"}).json()["labeling"] == "paused"
    assert ann.http.post("/api/v1/claims", json={}).status_code == 403
    assert owner.http.patch(where, json={"labeling": "active", "role": "viewer"}).json()["role"] == "viewer"
    assert ann.http.get("/api/v1/progress").status_code == 401  # a new role ends the sessions
    mine = f"/api/v1/people/{owner.account_id}"
    assert owner.http.patch(mine, json={"role": "labeler"}).status_code == 400
    actions = [entry["action"] for entry in owner.http.get("/api/v1/audit").json()]
    assert {"invited", "changed account", "came by link"} <= set(actions)


def test_a_revoked_invite_lets_nobody_in(site: Site) -> None:
    owner = site.enter("owner")
    made = owner.http.post("/api/v1/invites", json={"note": "Bob"}).json()
    assert owner.http.delete(f"/api/v1/invites/{made['invite']['id']}").status_code == 204
    assert site.browser().post("/enter", json={"secret": made["path"].split("#")[1]}).status_code == 403


def test_a_writer_fills_the_queue_and_adds_labelers_but_no_people(site: Site) -> None:
    writer = site.machine("writer", ("write",))
    assert writer.post("/api/v1/prompts", json={"prompts": [{"content": "New."}]}).json() == {"new": 1}
    prompt = next(one for one in site.store.prompts() if one.content == "New.")
    texts = [{"prompt_id": prompt.id, "text": text} for text in ("a", "b")]
    assert writer.post("/api/v1/responses", json={"responses": texts}).json() == {"new": 2}
    ids = [one.id for one in site.store.responses(prompt_id=prompt.id)]
    assert (
        writer.post("/api/v1/items", json={"items": [{"prompt_id": prompt.id, "response_ids": ids}]}).json()["new"] == 1
    )
    assert writer.post("/api/v1/labelers", json={"name": "sim", "kind": "person"}).status_code == 422
    ann = site.enter()
    assert writer.post("/api/v1/labelers", json={"name": "x", "id": ann.labeler_id}).status_code == 403
    made = writer.post("/api/v1/labelers", json={"name": "sim", "id": "sim"}).json()
    assert site.store.access.token(made["token"]).labeler_id == "sim"  # type: ignore[union-attr]


def test_unknown_things_are_one_line(site: Site) -> None:
    owner = site.enter("owner")
    for method, path in (
        ("DELETE", "tokens/x"),
        ("DELETE", "webhooks/x"),
        ("PATCH", "people/x"),
        ("DELETE", "invites/x"),
    ):
        answer = owner.http.request(method, f"/api/v1/{path}", json={})
        assert answer.status_code == 400 and answer.json()["error"].startswith("no ")
    assert owner.http.get("/api/v1/nothing").json() == {"error": "Not Found", "hint": ""}
    page = owner.http.get("/nothing", headers={"Accept": "text/html"})
    assert page.status_code == 404 and "There is no such page" in page.text
