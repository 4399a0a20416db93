"""The feedback store on SQLite and PostgreSQL: what goes in comes out, revisions, snapshots, erasure, care."""

from __future__ import annotations

import re
import sqlite3
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hearken.errors import Unavailable, UserError
from hearken.feedback import database
from hearken.feedback.examples import Message
from hearken.feedback.queue import FILLS_NO_SLOT
from hearken.feedback.records import (
    KINDS,
    ComparisonPayload,
    CritiquePayload,
    DemonstrationPayload,
    EditPayload,
    FlagPayload,
    ItemKind,
    Judgment,
    Labeler,
    Payload,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    SkipPayload,
    Span,
    SpanFlagPayload,
    ThumbPayload,
    prompt_id,
)
from hearken.feedback.store import FeedbackStore


def judge(item: QueueItem, labeler: str = "ann", **fields: Any) -> Judgment:
    payload = fields.pop("payload", None) or ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1))
    return Judgment(prompt_id=item.prompt_id, item_id=item.id, labeler_id=labeler, payload=payload, **fields)


# -- what goes in comes out ------------------------------------------------------------------------------------------


def test_records_come_back_as_they_went_in(store: FeedbackStore) -> None:
    prompt = Prompt(
        content=(Message("system", "Be kind."), Message("user", "Grüß Gott — 你好 \N{PILE OF POO} \x00 \t\n")),
        split="validation",
        metadata={"source": "a file", "nested": {"n": [1, 2.5, None, True]}},
    )
    response = Response(
        prompt_id=prompt.id,
        text="\x00 lone \ud800 surrogate",
        messages=(Message("assistant", "one"), Message("tool", "two")),
        token_ids=(5, 0, 2**31),
        finish_reason="eos",
        policy="r01-ppo",
        round=1,
        sampling={"temperature": 0.7, "top_p": 1.0},
        seed=2**62,
        sample=3,
        payload="media/clip.npz",
    )
    labeler = Labeler(id="l", name="Łukasz \x00", kind="ai", attributes={"years": 3})
    item = QueueItem(
        prompt_id=prompt.id,
        response_ids=(response.id,),
        kind="rating",
        slots=3,
        priority=0.1,
        selection="uncertainty",
        propensity=0.25,
        is_gold=True,
        expected={"ratings": {"overall": 5}},
        metadata={"why": "gold"},
    )
    assert store.add_prompts([prompt]) == 1
    assert store.add_responses([response]) == 1
    assert store.add_labeler(labeler) == labeler
    assert store.enqueue([item]) == 1
    assert store.prompt(prompt.id) == prompt
    assert store.response(response.id) == response
    assert store.item(item.id) == item
    assert list(store.prompts()) == [prompt]
    assert list(store.responses()) == [response]
    assert list(store.items()) == [item]
    assert store.labelers() == [labeler]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
def test_any_text_survives(store: FeedbackStore, words: str) -> None:
    prompt = Prompt(content="One")
    store.add_prompts([prompt])
    epoch = datetime(2020, 1, 1, tzinfo=UTC)  # drawn twice, the same text is the same response
    response = Response(prompt_id=prompt.id, text=words, metadata={"words": words}, created=epoch)
    store.add_responses([response])
    assert store.response(response.id) == response


def test_adding_twice_adds_nothing(store: FeedbackStore, fill: Any) -> None:
    prompts, answers, items = fill(store, prompts=3)
    assert store.add_prompts([*prompts, *prompts, Prompt(content="new"), Prompt(content="new")]) == 1
    assert store.add_responses([response for pair in answers for response in pair]) == 0
    assert store.enqueue(items) == 0
    renamed = Labeler(id="ann", name="Somebody else")
    assert store.add_labeler(renamed).name == "Ann"


def test_the_same_prompt_is_one_prompt_and_two_samples_are_two_responses() -> None:
    assert Prompt(content="x").id == prompt_id("x") == Prompt(content="x", split="validation").id
    assert Prompt(content="x").id != Prompt(content="x", domain="control").id
    one, two = (Response(prompt_id="p", text="same", seed=0, sample=k) for k in range(2))
    assert one.id != two.id
    assert one.id == Response(prompt_id="p", text="same", seed=0, sample=0).id


def test_order_of_adding_is_kept_over_many_pages(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hearken.feedback.store._PAGE", 7)
    prompts = [Prompt(content=str(n), split="train" if n % 3 else "validation") for n in range(50)]
    store.add_prompts(prompts)
    assert [prompt.content for prompt in store.prompts()] == [str(n) for n in range(50)]
    assert [p.content for p in store.prompts(split="validation")] == [str(n) for n in range(0, 50, 3)]


def test_times_are_utc_and_exact(store: FeedbackStore) -> None:
    when = datetime(2024, 7, 1, 12, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    store.add_prompts([Prompt(content="p", created=when)])
    (back,) = store.prompts()
    assert back.created == when and back.created.utcoffset() == timedelta(0)
    with pytest.raises(ValidationError):
        Prompt(content="p", created=datetime(2024, 7, 1))


def test_splits_can_be_set(store: FeedbackStore, fill: Any) -> None:
    prompts, _, _ = fill(store, prompts=3)
    store.set_splits({prompts[0].id: "validation", prompts[2].id: "validation"})
    assert [p.id for p in store.prompts(split="validation")] == [prompts[0].id, prompts[2].id]
    assert {r.prompt_id for r in store.responses(split="train")} == {prompts[1].id}
    with pytest.raises(UserError, match="nowhere"):
        store.set_splits({"nowhere": "train"})


def test_guidelines_have_versions(store: FeedbackStore) -> None:
    assert store.add_guideline("Be fair.").version == 1
    assert store.add_guideline("Be fair.").version == 1
    assert store.add_guideline("Be kind.").version == 2
    assert [guideline.text for guideline in store.guidelines()] == ["Be fair.", "Be kind."]


# -- judgments -------------------------------------------------------------------------------------------------------


def test_what_can_be_asked_for_is_every_kind_that_fills_a_slot() -> None:
    assert {*get_args(ItemKind)} == {*KINDS} - FILLS_NO_SLOT


def test_every_kind_of_judgment(store: FeedbackStore, fill: Any) -> None:
    (prompt,), ((first, second),), _ = fill(store)
    payloads: list[Payload] = [
        ComparisonPayload(response_ids=(first.id, second.id), ranks=(0, 0), strength=0.5, share=0.75),
        ComparisonPayload(response_ids=(second.id, first.id), ranks=(None, 0)),
        RatingPayload(response_id=first.id, ratings={"overall": 4, "safety": 1.5}, low=0, high=5),
        ThumbPayload(response_id=first.id, label=False),
        EditPayload(response_id=first.id, text="Better."),
        CritiquePayload(response_id=first.id, text="Too long."),
        DemonstrationPayload(text="I would say."),
        SpanFlagPayload(response_id=first.id, spans=(Span(start=0, end=3, label="untrue", note="no"),)),
        SkipPayload(reason="cannot read it"),
        FlagPayload(reason="private", response_id=second.id),
    ]
    sent = [
        Judgment(
            prompt_id=prompt.id,
            labeler_id="ann",
            payload=payload,
            seconds=3.25,
            order=(1, 0),
            order_seed=7,
            guideline=1,
            round=2,
            weight=0.5,
            tags=("careful",),
            metadata={"device": "phone"},
        )
        for payload in payloads
    ]
    stored = store.submit_all(sent)
    assert [judgment.seq for judgment in stored] == list(range(1, 11))
    assert [judgment.model_copy(update={"seq": None}) for judgment in stored] == sent
    assert list(store.judgments()) == stored
    assert list(store.judgments(kinds=("thumb", "skip"))) == [stored[3], stored[8]]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"kind": "comparison", "response_ids": ["a", "b"], "ranks": [0]}, "1 ranks for 2"),
        ({"kind": "comparison", "response_ids": ["a", "a"], "ranks": [0, 1]}, "twice"),
        ({"kind": "comparison", "response_ids": ["a", "b"], "ranks": [0, -1]}, "greater than or equal to 0"),
        ({"kind": "comparison", "response_ids": ["a", "b", "c"], "ranks": [0, 1, 2], "strength": 0.5}, "two responses"),
        ({"kind": "rating", "response_id": "a", "ratings": {"overall": 6}}, "outside the scale"),
        ({"kind": "rating", "response_id": "a", "ratings": {"overall": float("nan")}}, "finite"),
        ({"kind": "span_flag", "response_id": "a", "spans": [{"start": 3, "end": 3, "label": "x"}]}, "after it starts"),
        ({"kind": "applause"}, "applause"),
        ({"kind": "thumb", "response_id": "a", "label": True, "labal": 1}, "Extra inputs"),
    ],
)
def test_payloads_that_make_no_sense_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Judgment.model_validate({"prompt_id": "p", "labeler_id": "l", "payload": fields})


def test_sending_again_changes_nothing(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store)
    judgment = judge(item)
    first = store.submit(judgment)
    assert store.submit(judgment) == first == store.submit_all([judgment, judgment])[1]
    assert store.progress().judgments == {"comparison": 1}
    other = judge(item, id=judgment.id, payload=ComparisonPayload(response_ids=item.response_ids, ranks=(1, 0)))
    with pytest.raises(UserError, match="says something else"):
        store.submit(other)


def test_a_second_answer_is_a_revision_and_as_of_sees_the_first(store: FeedbackStore, fill: Any) -> None:
    _, _, items = fill(store, prompts=2)
    first = store.submit(judge(items[0]))
    other = store.submit(judge(items[1]))
    pinned = store.last_seq()
    second = store.submit(judge(items[0], payload=ComparisonPayload(response_ids=items[0].response_ids, ranks=(1, 0))))
    assert second.supersedes == first.id and second.seq == 3
    assert list(store.judgments()) == [other, second]
    assert list(store.judgments(as_of=pinned)) == [first, other]
    assert list(store.judgments(as_of=1)) == [first]
    assert list(store.judgments(as_of=second.seq)) == [other, second]
    assert list(store.judgments(history=True)) == [first, other, second]
    assert store.item(items[0].id).filled == 1
    with pytest.raises(UserError, match="no longer in force"):
        store.submit(judge(items[0], supersedes=first.id))
    third = store.submit(judge(items[0], supersedes=second.id))
    assert list(store.judgments()) == [other, third]
    assert store.verify() == []


def test_withdrawing_opens_the_slot_and_lends_the_item_again(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store, labelers=("ann", "bob"))
    judgment = store.submit(judge(item))
    assert store.claim("bob") == []
    claim = store.withdraw(judgment.id)
    assert claim is not None and claim.item.id == item.id and claim.item.filled == 0
    assert store.claim("bob") == []  # it is Ann's for now
    assert list(store.judgments()) == []
    assert list(store.judgments(as_of=1)) == [judgment]
    again = store.submit(judge(item))
    assert not again.extra
    assert store.withdraw(judgment.id) is None  # sent twice
    assert list(store.judgments()) == [again]
    assert store.verify() == []


def test_judgments_in_one_batch_see_each_other(store: FeedbackStore, fill: Any) -> None:
    _, _, (item,) = fill(store, labelers=("ann", "bob"))
    first, second, late = store.submit_all([judge(item), judge(item), judge(item, "bob")])
    assert second.supersedes == first.id
    assert (first.extra, second.extra, late.extra) == (False, False, True)
    assert [judgment.id for judgment in store.judgments()] == [second.id, late.id]
    assert store.verify() == []


def test_filters(store: FeedbackStore, fill: Any) -> None:
    prompts, answers, items = fill(store, prompts=2, labelers=("ann", "bob"), slots=3)
    store.set_splits({prompts[1].id: "validation"})
    other = Response(prompt_id=prompts[0].id, text="Another", policy="ppo")
    store.add_responses([other])
    gold = QueueItem(prompt_id=prompts[0].id, response_ids=(answers[0][0].id, other.id), is_gold=True, round=2)
    repeat = QueueItem(prompt_id=prompts[0].id, response_ids=items[0].response_ids, repeat_of=items[0].id)
    store.enqueue([gold, repeat])
    a, b, c, g, r = store.submit_all(
        [judge(items[0]), judge(items[1]), judge(items[0], "bob"), judge(gold), judge(repeat)]
    )
    assert list(store.judgments()) == [a, b, c]
    assert list(store.judgments(checks=True)) == [g, r]
    assert list(store.judgments(checks=None)) == [a, b, c, g, r]
    assert list(store.judgments(split="validation")) == [b]
    assert list(store.judgments(labeler_id="bob")) == [c]
    assert list(store.judgments(prompt_id=prompts[1].id)) == [b]
    assert list(store.judgments(item_id=items[0].id)) == [a, c]
    assert list(store.judgments(round=2, checks=None)) == [g]
    assert list(store.judgments(since=2)) == [c]


def test_what_does_not_fit_is_refused_and_nothing_is_stored(store: FeedbackStore, fill: Any) -> None:
    prompts, answers, items = fill(store, prompts=2)
    item = items[0]
    wrong: list[tuple[Judgment, str]] = [
        (judge(item, "nobody"), "labeler 'nobody'"),
        (judge(item.model_copy(update={"id": "nothing"})), "item 'nothing'"),
        (Judgment(prompt_id="none", labeler_id="ann", payload=SkipPayload()), "prompt 'none'"),
        (judge(item, payload=ThumbPayload(response_id=item.response_ids[0], label=True)), "asks for a comparison"),
        (judge(item, payload=ComparisonPayload(response_ids=items[1].response_ids, ranks=(0, 1))), "another prompt"),
        (judge(item, payload=ComparisonPayload(response_ids=("x", "y"), ranks=(0, 1))), "response 'x'"),
        (judge(item, supersedes="nothing"), "supersedes 'nothing'"),
    ]
    for judgment, complaint in wrong:
        with pytest.raises(UserError, match=complaint):
            store.submit_all([judge(items[1]), judgment])
    with pytest.raises(UserError, match="prompt 'none'"):
        store.add_responses([Response(prompt_id="none")])
    with pytest.raises(UserError, match="another prompt"):
        store.enqueue([QueueItem(prompt_id=prompts[0].id, response_ids=tuple(r.id for r in answers[1]))])
    with pytest.raises(UserError, match="cannot be stored"):
        store.add_prompts([Prompt(content="x", metadata={"loss": float("nan")})])
    assert store.last_seq() == 0 and len(list(store.prompts())) == 2


# -- erasure and care ------------------------------------------------------------------------------------------------

SECRET = "the telephone number of a real person"


def test_erasing_a_labeler_leaves_the_fact_and_not_the_words(store: FeedbackStore, fill: Any) -> None:
    (prompt,), ((first, _),), (item,) = fill(store, labelers=("bob",))
    store.add_labeler(Labeler(id="ann", name=SECRET, attributes={"about": SECRET}))
    kept = Judgment(prompt_id=prompt.id, labeler_id="bob", payload=DemonstrationPayload(text="Kept."))
    words = Judgment(
        prompt_id=prompt.id,
        labeler_id="ann",
        payload=EditPayload(response_id=first.id, text=SECRET),
        tags=(SECRET,),
        metadata={"note": SECRET},
    )
    store.submit_all([kept, words, judge(item)])
    assert store.erase("labeler", "ann", "asked for it") == 3
    assert store.erase("labeler", "ann", "asked again") == 0
    assert [judgment.id for judgment in store.judgments(checks=None)] == [kept.id]
    assert [judgment.id for judgment in store.judgments(as_of=3, history=True)] == [kept.id]
    gone = store.judgment(words.id)
    assert (gone.kind, gone.seq, gone.tags, gone.metadata) == ("erased", 2, (), {})
    assert store.item(item.id).filled == 0 and not store.item(item.id).done
    assert [(stone.target, stone.target_id, stone.reason) for stone in store.tombstones()] == [
        ("labeler", "ann", "asked for it")
    ]
    with pytest.raises(UserError, match="paused"):
        store.claim("ann")
    assert store.submit(words).kind == "erased"  # sent again by a client that does not know: stays erased
    assert store.last_seq() == 3 and store.verify() == []


def test_erasing_a_prompt_or_a_response(store: FeedbackStore, fill: Any) -> None:
    prompts, answers, items = fill(store, prompts=3, slots=2)
    store.submit_all([judge(item) for item in items])
    assert store.erase("prompt", prompts[0].id, "private") == 4  # itself, two responses, one judgment
    assert store.erase("response", answers[1][0].id, "illegal") == 2
    assert store.erase("judgment", next(store.judgments(item_id=items[2].id)).id, "mistake") == 1
    assert [prompt.id for prompt in store.prompts()] == [prompts[1].id, prompts[2].id]
    assert [response.id for response in store.responses()] == [r.id for r in (answers[1][1], *answers[2])]
    assert list(store.judgments()) == []
    for missing in (store.prompt, store.response):
        with pytest.raises(UserError, match="erased"):
            missing(prompts[0].id if missing == store.prompt else answers[0][0].id)
    assert [item.done for item in store.items()] == [True, True, False]
    with pytest.raises(UserError, match="was erased"):
        store.submit(judge(items[0]))
    assert store.add_prompts([prompts[0]]) == 0  # importing the file again does not bring it back
    assert [prompt.id for prompt in store.prompts()] == [prompts[1].id, prompts[2].id]
    assert len(store.tombstones()) == 3 and store.verify() == []


def test_erased_bytes_are_gone_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        prompt = Prompt(content=f"Call {SECRET}")
        store.add_prompts([prompt, *(Prompt(content=str(n)) for n in range(100))])
        store.add_responses([Response(prompt_id=prompt.id, text=SECRET * 500)])
        assert any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
        store.erase("prompt", prompt.id, "asked for it")
        assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_backup_is_whole_while_the_store_is_in_use(tmp_path: Path, fill: Any) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        _, _, items = fill(store, prompts=5)
        store.submit(judge(items[0]))
        copy = store.backup(tmp_path / "copy.db")
        store.submit(judge(items[1]))
        with pytest.raises(UserError, match="exists"):
            store.backup(copy)
        with pytest.raises(UserError, match="cannot back up"):
            store.backup(tmp_path / "no" / "copy.db")
    with FeedbackStore(copy, create=False) as restored:
        assert restored.last_seq() == 1 and restored.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "feedback.db"]


def test_verify_finds_damage(tmp_path: Path, fill: Any) -> None:
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        _, _, items = fill(store, prompts=2)
        store.submit_all([judge(item) for item in items])
        assert store.verify() == []
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE queue_items SET filled = 7 WHERE id = ?", (items[0].id,))
            connection.execute("DELETE FROM judgments WHERE seq = 1")
            connection.execute('UPDATE judgments SET payload = \'{"kind": "thumb"}\' WHERE seq = 2')
        found = "\n".join(store.verify())
    assert items[0].id in found and "judgments are missing" in found and "judgment " in found


def test_bulk_writes_are_fast(tmp_path: Path) -> None:
    """A generous bound (several times what it takes) that row-by-row commits would miss by far."""
    started = time.perf_counter()
    with FeedbackStore(tmp_path / "feedback.db") as store:
        prompts = [Prompt(content=f"Prompt {n}") for n in range(400)]
        responses = [Response(prompt_id=p.id, text="word " * 60, sample=k) for p in prompts for k in range(4)]
        items = [
            QueueItem(prompt_id=p.id, response_ids=tuple(r.id for r in responses[4 * n : 4 * n + 4]), slots=3)
            for n, p in enumerate(prompts)
        ]
        store.add_prompts(prompts)
        store.add_responses(responses)
        store.enqueue(items)
        names = [store.add_labeler(Labeler(id=str(n), name=str(n), kind="simulated")).id for n in range(3)]
        payloads = [ComparisonPayload(response_ids=item.response_ids, ranks=(0, 1, 1, 2)) for item in items]
        pairs = list(zip(items, payloads, strict=True))
        stored = store.submit_all([judge(item, name, payload=said) for name in names for item, said in pairs])
        assert len(stored) == 1200 and store.progress().items_done == 400
    assert time.perf_counter() - started < 5


# -- what a person can get wrong -------------------------------------------------------------------------------------


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        (lambda tmp: tmp / "missing" / "feedback.db", "folder .* does not exist"),
        (lambda tmp: tmp, "is a folder"),
        (lambda tmp: _file(tmp / "notes.db", b"Not a database at all, only some text.\n" * 9), "not a database"),
        (lambda tmp: "mysql://host/name", "'mysql' are not supported"),
        (lambda tmp: "postgresql://host:port/name", "cannot be read"),
        (lambda tmp: "postgresql://me@[/name", "cannot reach"),
        (lambda tmp: "postgresql://me:sesame@127.0.0.1:1/x", r"cannot reach postgresql\+psycopg://me:\*\*\*@"),
    ],
)
def test_a_wrong_location_is_one_line(tmp_path: Path, place: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        FeedbackStore(place(tmp_path))
    assert "\n" not in str(caught.value) and "sesame" not in str(caught.value) and caught.value.hint


def test_other_tables_and_missing_files_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE invoices (id)")
    with pytest.raises(UserError, match="invoices"):
        FeedbackStore(tmp_path / "other.db")
    with pytest.raises(UserError, match="no such database"):
        FeedbackStore(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_a_locked_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    path = tmp_path / "feedback.db"
    with FeedbackStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            store.add_prompts([Prompt(content="p")])
        assert list(store.prompts()) == []  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert store.add_prompts([Prompt(content="p")]) == 1


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add_prompts([Prompt(content="before")])
        with store._database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        from sqlalchemy import event

        @event.listens_for(store._database.engine, "begin")
        def _small(connection: Any) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(Unavailable, match="disk is full"):
            store.add_prompts([Prompt(content="x" * 10_000_000)])
        event.remove(store._database.engine, "begin", _small)
        assert [prompt.content for prompt in store.prompts()] == ["before"]
        assert store.verify() == []


def test_the_password_is_never_shown(location: str) -> None:
    with FeedbackStore(location) as store:
        assert not re.search(r":[^/@*]+@", store.name)


def test_default_clock_is_utc() -> None:
    assert Prompt(content="now").created.tzinfo is UTC


def test_the_example_in_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "database.md").read_text()
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
