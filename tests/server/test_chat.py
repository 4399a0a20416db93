"""Live conversation: two answers stream, one is chosen, and the talk goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from people_world import SECRET_POLICY, Running, Site, Visitor

import hearken.server.chat
from hearken.feedback.examples import Message
from hearken.feedback.store import FeedbackStore
from hearken.server.app import create_app


class Parrot:
    """A policy that says back what it heard, the second time in capitals."""

    name = SECRET_POLICY

    def __init__(self) -> None:
        self.heard: list[tuple[Message, ...]] = []

    def stream(self, messages: Sequence[Message], n: int, seed: int) -> Iterator[tuple[int, str]]:
        self.heard.append(tuple(messages))
        said = messages[-1].content
        for word in said.split():
            yield 0, f"{word.lower()} "
            yield 1, f"{word.upper()} "


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def talk(store: FeedbackStore, parrot: Parrot) -> Site:
    store.access.set_settings({"chat": True, "check_share": 0.0})
    return Site(store, create_app(store, policy=parrot))


def say(visitor: Visitor, text: str, previous: dict[str, Any] | None = None) -> tuple[list[str], dict[str, Any]]:
    """The two answers as they streamed, and the task."""
    before = None if previous is None else {name: previous[name] for name in ("item_id", "ticket")}
    answer = visitor.http.post("/api/v1/chat", json={"text": text, "previous": before})
    assert answer.status_code == 200, answer.text
    streamed, task = ["", ""], {}
    for line in map(json.loads, answer.text.splitlines()):
        if "task" in line:
            task = line["task"]
        else:
            streamed[line["place"]] += line["text"]
    assert SECRET_POLICY not in answer.text
    return streamed, task


def test_the_talk_goes_on_from_the_answer_that_was_chosen(talk: Site, parrot: Parrot) -> None:
    visitor = talk.enter()
    streamed, first = say(visitor, "Hello there")
    assert sorted(streamed) == ["HELLO THERE ", "hello there "]
    assert [response["text"] for response in first["responses"]] == streamed
    loud = streamed.index("HELLO THERE ")
    assert visitor.submit(first, {"kind": "comparison", "ranks": [int(place != loud) for place in (0, 1)]}).is_success
    _, second = say(visitor, "And now", first)
    assert [(m.role, m.content) for m in parrot.heard[1]] == [
        ("user", "Hello there"), ("assistant", "HELLO THERE "), ("user", "And now"),
    ]  # fmt: skip
    assert [turn["role"] for turn in second["prompt"]] == ["user", "assistant", "user"]
    judgment = next(talk.store.judgments())
    assert {talk.store.response(one).policy for one in judgment.response_ids} == {SECRET_POLICY}
    item = talk.store.item(judgment.item_id or "")
    assert item.selection == "chat" and item.done


def test_a_tie_goes_on_with_what_stood_first(talk: Site, parrot: Parrot) -> None:
    visitor = talk.enter()
    streamed, task = say(visitor, "Hello")
    assert visitor.submit(task, {"kind": "comparison", "ranks": [0, 0]}).is_success
    say(visitor, "More", task)
    assert parrot.heard[1][1].content == streamed[0]


def test_nobody_else_sees_or_continues_a_conversation(talk: Site) -> None:
    ann, bob = talk.enter(name="Ann"), talk.enter(name="Bob")
    _, task = say(ann, "My secret")
    assert bob.claim(9) == []
    answer = bob.http.post(
        "/api/v1/chat", json={"text": "Go on", "previous": {k: task[k] for k in ("item_id", "ticket")}}
    )
    assert answer.status_code == 403


def test_without_a_choice_it_does_not_go_on(talk: Site) -> None:
    visitor = talk.enter()
    _, task = say(visitor, "Hello")
    before = {name: task[name] for name in ("item_id", "ticket")}
    answer = visitor.http.post("/api/v1/chat", json={"text": "More", "previous": before})
    assert answer.status_code == 409 and "no answer was chosen" in answer.json()["error"]
    assert visitor.http.post("/api/v1/chat", json={"text": "  "}).status_code == 422


def test_where_chat_is_off_there_is_nobody_to_talk_to(site: Site, store: FeedbackStore) -> None:
    visitor = site.enter()
    assert visitor.http.post("/api/v1/chat", json={"text": "Hello"}).status_code == 404
    assert visitor.http.get("/chat").status_code == 404


@pytest.mark.slow
def test_answers_of_a_real_policy_come_in_pieces(tmp_path: Any) -> None:
    from tiny_models import write_base

    from hearken.domains.text.talk import Talker
    from hearken.rollout.sampler import SamplingParameters

    path = write_base(tmp_path / "policy")
    talker = Talker(lambda: str(path), SamplingParameters(max_new_tokens=12), device="cpu")
    messages = (Message("user", "Tell me a tale."),)
    runs = [list(talker.stream(messages, 2, seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert {index for index, _ in runs[0]} == {0, 1} and len(runs[0]) > 4
    assert talker.name == "policy"


@pytest.mark.slow
def test_answers_keep_the_tokens_that_were_drawn(
    store: FeedbackStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer that gives back neither capitals nor spaces: what a choice trains is what was sampled."""
    from domains.families import family
    from tiny_models import write_base

    from hearken.domains.text.data import encoded
    from hearken.domains.text.encoder import TextEncoder
    from hearken.domains.text.talk import Talker
    from hearken.feedback.snapshot import load_snapshot, snapshot
    from hearken.rollout.sampler import SamplingParameters

    tokenizer = family("wordpiece", "chatml")
    path = write_base(tmp_path / "policy", tokenizer)
    talker = Talker(lambda: str(path), SamplingParameters(max_new_tokens=24), device="cpu")
    monkeypatch.setattr(hearken.server.chat, "secrets", SimpleNamespace(randbits=lambda bits: 1))
    store.access.set_settings({"chat": True, "check_share": 0.0})
    visitor = Site(store, create_app(store, policy=talker)).enter()
    streamed, task = say(visitor, "The fox")
    texts = {one.text: one for one in store.responses()}
    assert set(streamed) == set(texts) and "##" not in "".join(streamed)
    encoder = TextEncoder(tokenizer, 96)
    drawn = {text: list(one.token_ids or ()) for text, one in texts.items()}
    prompt = (Message("user", "The fox"),)
    assert all(drawn.values()) and [encoder.decode(drawn[text], prompt) for text in texts] == list(texts)
    assert not all(encoder.writes(prompt, text, ids) for text, ids in drawn.items()), "text alone would not do"
    assert visitor.submit(task, {"kind": "comparison", "ranks": [0, 1]}).is_success
    (row,) = load_snapshot(snapshot(store, ["comparison"], None, None, tmp_path / "s.parquet").path)[1]
    (group,) = encoded(row, encoder)
    assert group.responses == [drawn[text] for text in row.responses]


@pytest.mark.slow
def test_choices_and_words_survive_a_server_that_is_away(run_server: Any, chromium: Any, parrot: Parrot) -> None:
    """A choice made without a connection, a reload meanwhile, and what was typed: nothing is lost or stored twice."""
    running = run_server(
        lambda store: store.access.set_settings({"chat": True, "check_share": 0.0}), policy=parrot, landing="/chat"
    )
    context = chromium.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(running.link)
    page.get_by_role("button", name="I agree").click()
    page.wait_for_url("**/label")
    page.get_by_role("link", name="Chat").click()
    page.locator("#say").fill("Hello there")
    page.keyboard.press("Enter")
    page.locator(".step").first.wait_for()

    context.set_offline(True)
    page.keyboard.press("2")
    page.locator(".answer").wait_for()  # the page goes on at once
    page.locator("#notice", has_text="1 answer waits to be sent and is kept in this browser").wait_for()
    page.keyboard.type("And now")
    page.keyboard.press("Enter")
    page.locator("#toast", has_text="Your choice is not sent yet").wait_for()
    assert page.locator("#say").input_value() == "And now" and running.store.last_seq() == 0
    context.set_offline(False)
    page.locator("#notice").wait_for(state="hidden")
    assert running.store.last_seq() == 1
    page.locator("#say").focus()
    page.keyboard.press("Enter")
    page.locator(".step").first.wait_for()
    assert [len(heard) for heard in parrot.heard] == [1, 3], "the talk goes on from the choice"
    assert page.locator("#tally").inner_text() == "1 chosen"

    page.route("**/api/v1/judgments", lambda route: route.fulfill(status=503, body="{}"))
    page.keyboard.press("1")
    page.locator("#notice:not([hidden])").wait_for()
    page.locator("#say").fill("Half a thou")
    page.unroute("**/api/v1/judgments")
    page.reload()  # a closed page sends what it kept when it is opened again
    page.locator("#say").wait_for()
    for _ in range(200):
        if running.store.last_seq() == 2:
            break
        page.wait_for_timeout(50)
    found = list(running.store.judgments(history=True))
    assert len(found) == 2 == len({one.item_id for one in found}) and problems == []
    assert page.locator("#say").input_value() == "Half a thou"
    context.close()


@pytest.mark.slow
def test_a_conversation_in_a_browser(run_server: Callable[..., Running], chromium: Any, parrot: Parrot) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    running = run_server(lambda store: store.access.set_settings({"chat": True}), policy=parrot, landing="/chat")
    page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(running.link)
    page.get_by_role("button", name="I agree").click()
    page.wait_for_url("**/label")
    page.get_by_role("link", name="Chat").click()
    page.locator("#say").fill("Hello there")
    page.keyboard.press("Enter")
    page.locator(".step").first.wait_for()
    assert axe.run(page).response["violations"] == []
    page.keyboard.press("2")
    page.locator(".answer").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})  # and on, on a phone
    page.keyboard.type("And now")
    page.keyboard.press("Enter")
    page.locator(".step").first.wait_for()
    assert axe.run(page).response["violations"] == []
    page.get_by_role("button", name="A is better").click()
    page.locator(".answer").nth(1).wait_for()
    assert [len(heard) for heard in parrot.heard] == [1, 3]
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.locator('.step[aria-pressed="true"]').wait_for()
    assert len(list(running.store.judgments())) == 1 and problems == []
    page.context.close()
