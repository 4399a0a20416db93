"""Live conversation: two answers stream, one is chosen, and the talk goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from people_world import SECRET_POLICY, Running, Site, Visitor

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
