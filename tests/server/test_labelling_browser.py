"""The labelling pages in a real browser: every kind of judgment by keys alone and by pointer, on a desk and a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from people_world import Running, fill, running

from hearken.feedback.access import Account
from hearken.feedback.records import ItemKind, Judgment, Prompt, QueueItem, Response, utc_now
from hearken.feedback.store import FeedbackStore
from hearken.server import desk

pytestmark = pytest.mark.slow

SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
Open = Callable[..., tuple[Any, Running]]
WRITTEN = ("edit", "critique", "demonstration")
READ = 350
"""Milliseconds after which the page takes an answer to the item that has just come."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all these tests; each puts its own items into the queue."""
    with running(tmp_path_factory.mktemp("labelling") / "feedback.db", lambda store: None) as found:
        yield found


@pytest.fixture
def open_page(server: Running, chromium: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """One sort of item in the queue, and a page on which somebody has just begun; errors of the page fail the test."""
    contexts, problems = [], []
    monkeypatch.setattr(desk, "FRESH", 0.0)

    def start(
        *kinds: str, k: int = 2, prompts: int = 3, size: str = "desk", practice: bool = False, **settings: Any
    ) -> Any:
        store = server.store
        store.close_items(item.id for item in store.items())
        more = {} if practice else {"practice": []}
        values = {"kinds": list(kinds), "check_share": 0.0, **more, **settings}
        store.access.set_settings(values)
        fill(store, kinds, k=k, prompts=prompts, round=this_round(server) + 1)
        person = store.access.add_account(Account(name="Ann", consented=utc_now()))
        touch = {"has_touch": True, "is_mobile": True} if size == "phone" else {}
        context = chromium.new_context(viewport=SIZES[size], **touch)
        contexts.append(context)
        context.add_cookies([server.cookie(person)])
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(f"{server.url}/label")
        page.locator("#desk .question").wait_for()
        page.wait_for_timeout(READ)
        return page, server

    yield start
    for context in contexts:
        context.close()
    assert problems == []


def this_round(running: Running) -> int:
    """Which test's items are in the queue: the largest number of a round."""
    return max((item.round or 0 for item in running.store.items()), default=0)


def taken(running: Running) -> list[Judgment]:
    """The judgments in force on this test's items."""
    return list(running.store.judgments(round=this_round(running) or None))


def stored(page: Any, running: Running, count: int = 1) -> list[Judgment]:
    """The judgments in force on this test's items, once there are ``count``."""
    for _ in range(400):
        found = taken(running)
        if len(found) >= count:
            page.wait_for_timeout(READ)
            return found
        page.wait_for_timeout(25)
    raise AssertionError(f"{len(found)} of {count} judgments arrived")


def texts(running: Running, judgment: Judgment) -> dict[str, int | None]:
    """Rank by text."""
    pairs = zip(judgment.payload.response_ids, judgment.payload.ranks, strict=True)  # type: ignore[union-attr]
    return {running.store.response(one).text: rank for one, rank in pairs}


def shown(page: Any, place: int) -> str:
    """The text at a place."""
    return str(page.locator(f'.response[data-place="{place}"] .content').inner_text()).strip()


def following(page: Any, last: str) -> str:
    """The prompt of the item that comes after the one with the prompt ``last``."""
    for _ in range(100):
        prompt = page.locator(".prompt")
        if prompt.count() and (found := str(prompt.inner_text())) != last:
            page.wait_for_timeout(READ)
            return found
        page.wait_for_timeout(50)
    raise AssertionError("no other item came")


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("*", "")).strip()


# -- by keyboard alone -------------------------------------------------------------------------------------------


def test_pairs_by_keyboard(open_page: Open) -> None:
    page, running = open_page("comparison")
    winner = plain(shown(page, 1))
    page.keyboard.press("2")
    judgment = stored(page, running)[0]
    best = [text for text, rank in texts(running, judgment).items() if rank == 0]
    assert [plain(text) for text in best] == [winner]
    assert judgment.seconds is not None and judgment.order is not None
    page.keyboard.press("0")
    assert set(texts(running, stored(page, running, 2)[1]).values()) == {0}
    page.keyboard.press("b")
    assert stored(page, running, 3)[2].tags == ("both bad",)
    page.get_by_role("heading", name="All done for now").wait_for()


def test_nine_steps_by_keyboard(open_page: Open) -> None:
    page, running = open_page("comparison", strength=9)
    first = plain(shown(page, 0))
    page.keyboard.press("1")
    judgment = stored(page, running)[0]
    assert judgment.payload.strength == 1.0  # type: ignore[union-attr]
    assert [plain(t) for t, rank in texts(running, judgment).items() if rank == 0] == [first]
    page.keyboard.press("6")
    assert stored(page, running, 2)[1].payload.strength == 0.25  # type: ignore[union-attr]
    page.keyboard.press("0")
    assert set(texts(running, stored(page, running, 3)[2]).values()) == {0}


def test_rankings_by_keyboard(open_page: Open) -> None:
    page, running = open_page("comparison", k=4)
    order = [plain(shown(page, place)) for place in range(4)]
    for key in ("3", "1", "0", "4", "Enter"):
        page.keyboard.press(key)
    ranks = {plain(text): rank for text, rank in texts(running, stored(page, running)[0]).items()}
    assert ranks == {order[2]: 0, order[0]: 1, order[3]: 1, order[1]: None}


def test_ratings_by_keyboard(open_page: Open) -> None:
    attributes = [{"name": "true", "about": "Is it so?"}, {"name": "kind"}]
    page, running = open_page("rating", attributes=attributes)
    page.keyboard.press("Enter")
    assert "Not rated yet: true" in page.locator("#toast").text_content()
    for key in ("4", "2", "ArrowUp", "5", "Enter"):
        page.keyboard.press(key)
    assert stored(page, running)[0].payload.ratings == {"true": 5.0, "kind": 2.0}  # type: ignore[union-attr]


def test_thumbs_by_keyboard(open_page: Open) -> None:
    page, running = open_page("thumb")
    page.keyboard.press("1")
    stored(page, running)
    page.keyboard.press("2")
    assert [one.payload.label for one in stored(page, running, 2)] == [True, False]  # type: ignore[union-attr]


def test_writing_by_keyboard(open_page: Open) -> None:
    page, running = open_page(*WRITTEN, prompts=1)
    for done in range(3):
        page.keyboard.press("Control+Enter")
        assert page.locator("#toast").text_content()  # nothing empty, nothing unchanged
        assert len(taken(running)) == done
        page.keyboard.press("Control+End")
        page.keyboard.type(" Words 123 of mine, s f u.")
        page.keyboard.press("Control+Enter")
        judgments = stored(page, running, done + 1)
    assert sorted(one.kind for one in judgments) == sorted(WRITTEN)
    assert all(one.payload.text.endswith("Words 123 of mine, s f u.") for one in judgments)  # type: ignore[union-attr]


def test_passages_by_keyboard(open_page: Open) -> None:
    page, running = open_page("span_flag")
    text = running.store.response(running.store.item(first_item(page)).response_ids[0]).text
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "2", "Enter"):
        page.keyboard.press(key)
    span = stored(page, running)[0].payload.spans[0]  # type: ignore[union-attr]
    assert span.label == "harmful" and text[span.start : span.end] == " ".join(text.split()[1:3])
    page.keyboard.press("0")
    assert stored(page, running, 2)[1].payload.spans == ()  # type: ignore[union-attr]


def first_item(page: Any) -> str:
    """The item that the labeler has: lent longest ago."""
    found = page.evaluate(
        """async () => (await (await fetch('/api/v1/claims', {method: 'POST', body: '{"n": 9}',
        headers: {'Content-Type': 'application/json', 'X-CSRF-Token': document.querySelector('meta[name=csrf]').content}
        })).json()).tasks.map((task) => [task.item_id, task.responses[0].text])"""
    )
    words = page.locator(".words").inner_text()
    return str(next(item for item, text in found if text == words))


def test_skip_flag_undo_and_help_by_keyboard(open_page: Open) -> None:
    page, running = open_page("comparison")
    page.keyboard.press("?")
    assert "A is better" in page.locator("#help").inner_text()
    page.keyboard.press("Escape")
    skipped = following(page, "")
    page.keyboard.press("s")
    assert stored(page, running)[0].kind == "skip"
    flagged = following(page, skipped)
    page.keyboard.press("f")
    page.locator("#flag").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.type("My address is in it.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    flag = stored(page, running, 2)[1].payload
    assert flag.reason == "private" and flag.note == "My address is in it."  # type: ignore[union-attr]
    before = following(page, flagged)
    page.keyboard.press("1")
    stored(page, running, 3)
    page.keyboard.press("u")
    page.locator('.step[aria-pressed="true"]').wait_for()
    assert following(page, "") == before
    assert [one.kind for one in taken(running)] == ["skip", "flag"]
    page.keyboard.press("2")
    assert stored(page, running, 3)[2].extra is False


def test_practice_by_keyboard(open_page: Open) -> None:
    page, running = open_page("comparison", practice=True)
    for _ in range(3):
        page.locator(".practice").wait_for()
        page.wait_for_timeout(READ)
        page.keyboard.press("1")
        page.locator(".explanation").wait_for()
        page.keyboard.press("Enter")
        page.locator(".explanation").wait_for(state="detached")
    page.locator(".practice").wait_for(state="detached")
    page.locator(".question").wait_for()
    page.wait_for_timeout(READ)
    page.keyboard.press("1")
    assert len(stored(page, running)) == 1


# -- by mouse and by finger --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_pairs_by_pointer(open_page: Open, size: str) -> None:
    page, running = open_page("comparison", size=size)
    press(page, page.get_by_role("button", name="B is better"), size)
    stored(page, running)
    press(page, page.locator("#bar").get_by_role("button", name="Undo"), size)
    page.locator('.step[aria-pressed="true"]').wait_for()
    page.wait_for_timeout(READ)
    assert taken(running) == []
    press(page, page.get_by_role("button", name="Tie"), size)
    assert set(texts(running, stored(page, running)[0]).values()) == {0}


def press(page: Any, target: Any, size: str) -> None:
    """Click, or tap."""
    target.tap() if size == "phone" else target.click()


@pytest.mark.parametrize("size", SIZES)
def test_rankings_by_pointer(open_page: Open, size: str) -> None:
    """Two by their buttons, one dragged above them, one dragged onto the best (a tie)."""
    page, running = open_page("comparison", k=4, size=size)
    order = [plain(shown(page, place)) for place in range(4)]
    for place in (0, 1):
        press(page, page.locator(f'.response[data-place="{place}"] .rank'), size)
    drag(page, '[data-chip="2"]', '[data-gap="0"]')
    drag(page, '[data-chip="3"]', '[data-tier="0"] [data-chip="2"]')
    press(page, page.locator(".bar .primary"), size)
    ranks = {plain(text): rank for text, rank in texts(running, stored(page, running)[0]).items()}
    assert ranks == {order[2]: 0, order[3]: 0, order[0]: 1, order[1]: 2}


def drag(page: Any, start: str, end: str) -> None:
    """From the middle of one element to the middle of another."""
    boxes = [page.locator(one).bounding_box() for one in (start, end)]
    (x0, y0), (x1, y1) = ((box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes)
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    page.mouse.move(x1, y1)
    page.mouse.up()


@pytest.mark.parametrize("size", SIZES)
def test_ratings_and_thumbs_by_pointer(open_page: Open, size: str) -> None:
    page, running = open_page("rating", "thumb", prompts=1, size=size)
    for done in (1, 2):
        page.locator(".attributes, .bar .step").first.wait_for()
        if page.locator(".attributes").count():
            page.locator('.marks input[value="3"]').check()
            press(page, page.get_by_role("button", name="Send"), size)
        else:
            press(page, page.get_by_role("button", name="Good"), size)
        stored(page, running, done)
        page.locator("#desk .question, #desk .rest").first.wait_for()
    assert sorted(one.kind for one in taken(running)) == ["rating", "thumb"]


@pytest.mark.parametrize("size", SIZES)
def test_passages_by_pointer(open_page: Open, size: str) -> None:
    page, running = open_page("span_flag", size=size)
    words = page.locator(".word")
    said = words.nth(1).inner_text()
    press(page, words.nth(1), size)
    press(page, page.get_by_role("button", name="unclear"), size)
    press(page, page.get_by_role("button", name="Send"), size)
    judgment = stored(page, running)[0]
    span = judgment.payload.spans[0]  # type: ignore[union-attr]
    text = running.store.response(judgment.response_ids[0]).text
    assert text[span.start : span.end] == said and span.label == "unclear"


@pytest.mark.parametrize("size", SIZES)
def test_writing_by_pointer(open_page: Open, size: str) -> None:
    page, running = open_page(*WRITTEN, prompts=1, size=size)
    for done in range(3):
        page.locator("#writing").fill("Something else.")
        press(page, page.get_by_role("button", name="Send"), size)
        judgments = stored(page, running, done + 1)
    assert sorted(one.kind for one in judgments) == sorted(WRITTEN)
    assert {one.payload.text for one in judgments} == {"Something else."}  # type: ignore[union-attr]


def test_reasons_wait_for_the_choice_to_be_sent(open_page: Open) -> None:
    page, running = open_page("comparison", tags=["clearer", "safer"])
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert taken(running) == []
    page.keyboard.press("Shift+Digit2")
    page.keyboard.press("Enter")
    assert stored(page, running)[0].tags == ("safer",)
    page.get_by_role("button", name="clearer").click()
    page.get_by_role("button", name="A is better").click()
    page.get_by_role("button", name="Send").click()
    assert stored(page, running, 2)[1].tags == ("clearer",)


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_two_clicks_are_one_answer(open_page: Open) -> None:
    page, running = open_page("comparison")
    # The next item is there at once, with its buttons in the same place: a second click must not answer it unseen.
    ways = (
        lambda: page.evaluate("() => { for (let i = 0; i < 3; i++) document.querySelector('.step').click(); }"),
        lambda: page.locator(".step").first.dblclick(),
        lambda: [page.keyboard.press("1") for _ in range(3)],
    )
    for done, again in enumerate(ways):
        again()
        stored(page, running, done + 1)
        page.wait_for_timeout(500)
        assert len(taken(running)) == done + 1


def test_an_answer_without_a_connection_is_kept_and_sent_later(run_server: Any, chromium: Any) -> None:
    running = run_server(lambda store: (fill(store), store.access.set_settings({"practice": [], "check_share": 0.0})))
    context = chromium.new_context()
    page = context.new_page()
    page.goto(running.link)
    page.get_by_role("button", name="I agree").click()
    page.locator(".question").wait_for()
    page.wait_for_timeout(500)  # the next item is fetched ahead
    context.set_offline(True)
    page.keyboard.press("1")
    page.locator("#notice:not([hidden])").wait_for()
    assert "No connection. 1 answer waits to be sent" in page.locator("#notice").inner_text()
    assert running.store.last_seq() == 0
    context.set_offline(False)
    assert len(stored(page, running)) == 1
    context.close()


def test_what_was_begun_is_there_after_a_reload(open_page: Open) -> None:
    page, _ = open_page("demonstration")
    page.locator("#writing").fill("Half a thou")
    page.reload()
    page.locator("#writing").wait_for()
    assert page.locator("#writing").input_value() == "Half a thou"


def test_attacks_run_nothing_in_the_page(run_server: Any, chromium: Any) -> None:
    from test_render import CORPUS

    def prepare(store: FeedbackStore) -> None:
        prompt = Prompt(content="\n\n".join(text for text in CORPUS if "\ud800" not in text))
        bad = [Response(prompt_id=prompt.id, text="\n\n".join(part)) for part in (CORPUS[::2], CORPUS[1::2])]
        store.add_prompts([prompt])
        store.add_responses(bad)
        store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=(bad[0].id, bad[1].id))])
        store.access.set_settings({"practice": [], "check_share": 0.0})

    running = run_server(prepare)
    context = chromium.new_context()
    page = context.new_page()
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if not request.url.startswith(running.url) else None)
    page.on("dialog", lambda dialog: outside.append(dialog.message))
    page.goto(running.link)
    page.get_by_role("button", name="I agree").click()
    page.locator(".sides").wait_for()
    page.keyboard.press("d")
    page.wait_for_timeout(500)
    assert outside == []
    assert page.locator("#desk script, #desk img, #desk svg, #desk iframe, #desk form, #desk style").count() == 0
    context.close()


# -- what is seen ------------------------------------------------------------------------------------------------


@pytest.fixture
def compare(run_server: Any, chromium: Any) -> Iterator[Callable[..., Any]]:
    """A page with one pair of these texts."""
    contexts = []

    def start(*texts: str) -> Any:
        def prepare(store: FeedbackStore) -> None:
            prompt = Prompt(content="Which $x$?")
            both = [Response(prompt_id=prompt.id, text=text, sample=number) for number, text in enumerate(texts)]
            store.add_prompts([prompt])
            store.add_responses(both)
            store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=tuple(one.id for one in both))])
            store.access.set_settings({"practice": [], "check_share": 0.0})

        running = run_server(prepare)
        context = chromium.new_context()
        contexts.append(context)
        page = context.new_page()
        page.goto(running.link)
        page.get_by_role("button", name="I agree").click()
        page.locator(".question").wait_for()
        page.wait_for_timeout(READ)
        return page

    yield start
    for context in contexts:
        context.close()


def marked(page: Any) -> list[str]:
    return sorted(page.locator("mark:visible").all_inner_texts())


def test_differences_are_marked_in_the_answer_as_it_is_shown(compare: Callable[..., Any]) -> None:
    same = "The **capital** of France, where $x^2$ holds, is quite surely"
    page = compare(f"{same} Paris and $a$.", f"{same} Lyon and $b$.")
    assert len(marked(page)) == 4 and {"Lyon", "Paris"} < set(marked(page))
    assert page.locator(".rendered strong:visible").count() == 2 and page.locator("mark math:visible").count() == 2
    page.keyboard.press("r")
    assert marked(page) == ["Lyon", "Paris", "a", "b"] and page.locator("math:visible").count() == 0
    page.keyboard.press("d")
    assert marked(page) == []


def test_differences_in_code_are_marked_when_asked_for(compare: Callable[..., Any]) -> None:
    page = compare("So:\n\n```python\nx = 1\n```", "So:\n\n```python\nx = 2\n```")
    assert marked(page) == [] and page.locator("pre .number:visible").count() == 2
    page.keyboard.press("d")
    assert marked(page) == ["1", "2"]


def test_answers_that_would_look_alike_come_as_written(compare: Callable[..., Any]) -> None:
    page = compare(r"It is $\frac12$.", r"It is $\frac{1}{2}$.")
    assert {shown(page, 0), shown(page, 1)} == {r"It is $\frac12$.", r"It is $\frac{1}{2}$."}
    page.keyboard.press("r")
    assert page.locator(".response math:visible").count() == 2


def test_the_page_shows_every_character_in_either_way(compare: Callable[..., Any]) -> None:
    page = compare("3. a\n5. b  \n\n\u200bx", "")
    texts = {re.sub(r"\s+", " ", shown(page, place)) for place in (0, 1)}
    assert texts == {"This response is empty.", "3. a 5. b␣␣ ⟨U+200B⟩x"}
    page.keyboard.press("r")
    assert "3. a↵\n5. b␣␣↵\n↵\n⟨U+200B⟩x" in [shown(page, place) for place in (0, 1)]


@pytest.mark.parametrize("kind", ["span_flag", "edit"])
def test_hidden_characters_are_shown_where_text_is_marked_or_edited(
    run_server: Any, chromium: Any, kind: ItemKind
) -> None:
    text = "One\u200b two\u202e three."

    def prepare(store: FeedbackStore) -> None:
        prompt = Prompt(content="Count.")
        response = Response(prompt_id=prompt.id, text=text)
        store.add_prompts([prompt])
        store.add_responses([response])
        store.enqueue([QueueItem(prompt_id=prompt.id, response_ids=(response.id,), kind=kind)])
        store.access.set_settings({"practice": [], "check_share": 0.0, "kinds": [kind]})

    running = run_server(prepare)
    context = chromium.new_context()
    page = context.new_page()
    page.goto(running.link)
    page.get_by_role("button", name="I agree").click()
    page.locator(".question").wait_for()
    assert page.locator(".response .content").inner_text() == "One⟨U+200B⟩ two⟨U+202E⟩ three."
    page.wait_for_timeout(READ)
    if kind == "span_flag":
        page.locator(".word").nth(1).click()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        span = stored(page, running)[0].payload.spans[0]  # type: ignore[union-attr]
        assert text[span.start : span.end] == "two\u202e"
    context.close()


# -- accessibility -----------------------------------------------------------------------------------------------


def test_nothing_bars_anybody(run_server: Any, chromium: Any) -> None:
    """axe finds nothing on any page, for any kind of judgment, on a light desk and on a dark phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    kinds = list(get_args(ItemKind))
    about = [{"name": "age", "options": ["under 30", "30 or more"]}, {"name": "languages"}]
    settings = {"kinds": kinds, "tags": ["clear"], "about_you": about, "strength": 9, "check_share": 0.0}

    def prepare(store: FeedbackStore) -> None:
        fill(store, tuple(kinds), prompts=1)
        fill(store, ("comparison",), k=4, prompts=1)
        store.access.set_settings(settings)
        store.add_guideline("# How\n\nRead *both*.\n\n1. Decide.")

    running = run_server(prepare)
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()
    found: dict[str, str] = {}

    def check(name: str) -> None:
        for size, scheme in (("phone", "dark"), ("desk", "light")):
            page.set_viewport_size(SIZES[size])
            page.emulate_media(color_scheme=scheme)
            for problem in axe.run(page).response["violations"]:
                nodes = "; ".join(node["html"][:120] for node in problem["nodes"][:3])
                found[f"{name}, {size}, {scheme}: {problem['id']}"] = nodes

    page.goto(running.link)
    page.wait_for_url("**/welcome")
    check("welcome")
    page.get_by_role("button", name="I agree").click()
    seen: set[str] = set()
    for _ in range(40):
        page.locator("#desk .question, #desk .rest").first.wait_for()
        kind = page.evaluate("document.body.dataset.kind")
        if kind not in seen:
            seen.add(kind)
            check(kind)
        if kind == "none":
            break
        page.keyboard.press("Escape")
        page.wait_for_timeout(READ)
        page.get_by_role("button", name="Skip").click()
        if page.locator(".explanation").count() or page.locator(".practice").count():
            page.locator("#next").click()
        page.wait_for_timeout(READ)
    assert seen == {"pair", "ranking", "rating", "thumb", "edit", "critique", "demonstration", "spans", "none"}
    page.get_by_role("button", name="Guideline").click()
    check("guideline")
    for path in ("account", "login"):
        page.goto(f"{running.url}/{path}")
        check(path)
        context.clear_cookies()
    context.close()
    assert found == {}
