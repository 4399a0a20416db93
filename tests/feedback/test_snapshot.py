"""Dataset snapshots: what is in force becomes examples, frozen and hashed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hearken.errors import UserError
from hearken.feedback.examples import (
    Comparison,
    Demonstration,
    Document,
    Example,
    Message,
    PromptOnly,
    Rating,
    Thumb,
    finished,
    sampled,
)
from hearken.feedback.formats import read_examples
from hearken.feedback.formats.canonical import content_hash, dump, load
from hearken.feedback.records import (
    ComparisonPayload,
    CritiquePayload,
    DemonstrationPayload,
    EditPayload,
    FlagPayload,
    Judgment,
    Labeler,
    Payload,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    SkipPayload,
    ThumbPayload,
)
from hearken.feedback.snapshot import inline_examples, load_snapshot, snapshot
from hearken.feedback.store import FeedbackStore

ALL = ("comparison", "rating", "thumb", "demonstration", "prompt")
PROMPT = Prompt(content=(Message("user", "Why?"),), metadata={"topic": "x"})
HELD_OUT = Prompt(content="held out", split="validation")
A, B, C = (Response(prompt_id=PROMPT.id, text=text) for text in ("a", "b", "c"))
OTHER = [Response(prompt_id=HELD_OUT.id, text=text) for text in ("a", "b")]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add_prompts([PROMPT, HELD_OUT])
        store.add_responses([A, B, C, *OTHER])
        for name in ("ann", "bob"):
            store.add_labeler(Labeler(id=name, name=name, attributes={"group": name[0]}))
        yield store


def say(store: FeedbackStore, id: str, payload: Payload, labeler: str = "ann", **more: Any) -> int:
    prompt = more.pop("prompt_id", PROMPT.id)
    return store.submit(Judgment(id=id, prompt_id=prompt, labeler_id=labeler, payload=payload, **more)).seq or 0


def rank(*ranks: int | None, **more: Any) -> ComparisonPayload:
    return ComparisonPayload(response_ids=tuple(r.id for r in (A, B, C)[: len(ranks)]), ranks=ranks, **more)


def found(store: FeedbackStore, *kinds: str, **how: Any) -> list[Example]:
    return list(inline_examples(store, kinds or ALL, provenance=False, **how))


def test_each_kind_of_judgment(db: FeedbackStore) -> None:
    prompt = PROMPT.content
    say(db, "1", rank(0, 1, strength=0.5), weight=2, metadata={"m": 1})
    say(db, "2", rank(2, None, 1))
    say(db, "3", RatingPayload(response_id=A.id, ratings={"x": 9}, low=0, high=10))
    say(db, "4", ThumbPayload(response_id=B.id, label=False))
    say(db, "5", EditPayload(response_id=A.id, text="better"))
    say(db, "6", DemonstrationPayload(text="mine"))
    for id, silent in (
        ("7", SkipPayload()),
        ("8", FlagPayload(reason="r")),
        ("9", CritiquePayload(response_id=A.id, text="t")),
        ("10", rank(0, None)),
    ):
        say(db, id, silent)
    assert found(db) == [
        PromptOnly(prompt, {"topic": "x"}),
        PromptOnly("held out"),
        Comparison(prompt, ("a", "b"), (0, 1), strength=0.5, weight=2, metadata={"m": 1}),
        Comparison(prompt, ("a", "b", "c"), (1, None, 0)),  # 0 is the best
        Rating(prompt, "a", {"x": 9}, 0, 10),
        Thumb(prompt, "b", False),
        Demonstration(prompt, "better"),
        Comparison(prompt, ("better", "a"), (0, 1)),
        Demonstration(prompt, "mine"),
    ]
    assert found(db, "demonstration") == [Demonstration(prompt, "better"), Demonstration(prompt, "mine")]
    assert [type(e) for e in found(db, "comparison")] == [Comparison] * 3
    with pytest.raises(UserError, match="unknown kind of example 'edit'"):
        found(db, "edit")


def test_a_response_that_was_cut_says_so(db: FeedbackStore) -> None:
    cut = Response(
        prompt_id=PROMPT.id, text="cut off", finish_reason="length", token_ids=(7, 8), metadata={"tokenizer": "x"}
    )
    db.add_responses([cut])
    say(db, "1", ComparisonPayload(response_ids=(A.id, cut.id), ranks=(0, 1)))
    say(db, "2", ThumbPayload(response_id=cut.id, label=True))
    say(db, "3", rank(0, 1))
    pair, thumb, whole = found(db, "comparison", "thumb")
    assert isinstance(pair, Comparison) and isinstance(thumb, Thumb) and isinstance(whole, Comparison)
    assert [finished(pair, r) for r in pair.responses] == [True, False] and not finished(thumb, thumb.response)
    assert sampled(pair, "cut off", "x") == [7, 8]
    assert sampled(pair, "cut off", "y") is None and sampled(pair, "a", "x") is None
    assert whole.metadata == {}


def test_only_what_is_in_force(db: FeedbackStore) -> None:
    say(db, "1", rank(0, 1))
    second = say(db, "2", rank(1, 0), supersedes="1")
    say(db, "3", ThumbPayload(response_id=A.id, label=True))
    db.withdraw("3")
    say(db, "4", ThumbPayload(response_id=B.id, label=True))
    db.erase("judgment", "4", "asked")
    assert [e.ranks for e in found(db) if isinstance(e, Comparison)] == [(1, 0)]
    assert not found(db, "thumb")
    assert [e.ranks for e in found(db, "comparison", as_of=1)] == [(0, 1)]
    assert [e.label for e in found(db, "thumb", as_of=second + 1)] == [True]


def test_one_example_per_judgment_of_an_item(db: FeedbackStore) -> None:
    item = QueueItem(prompt_id=PROMPT.id, response_ids=(A.id, B.id), slots=2, round=3)
    gold = QueueItem(prompt_id=PROMPT.id, response_ids=(A.id, C.id), is_gold=True, expected={})
    db.enqueue([item, gold])
    say(db, "1", rank(0, 1), "ann", item_id=item.id)
    say(db, "2", rank(0, 1), "bob", item_id=item.id)
    say(db, "3", ComparisonPayload(response_ids=(A.id, C.id), ranks=(0, 1)), item_id=gold.id)
    metadata = [e.metadata for e in inline_examples(db, ["comparison"])]
    assert metadata == [
        {"labeler": "ann", "judgment": "1", "item": item.id},
        {"labeler": "bob", "judgment": "2", "item": item.id},
    ]
    told = [e.metadata["attributes"] for e in inline_examples(db, ["comparison"], attributes=True)]
    assert told == [{"group": "a"}, {"group": "b"}]
    assert len(found(db, "comparison", round=3)) == 2
    assert not found(db, "comparison", round=4)


def test_a_snapshot_is_frozen(db: FeedbackStore, tmp_path: Path) -> None:
    say(db, "1", rank(0, 1, 1))
    held_out = ComparisonPayload(response_ids=tuple(r.id for r in OTHER), ranks=(0, 1))
    seq = say(db, "2", held_out, prompt_id=HELD_OUT.id)
    out = tmp_path / "data" / "s.parquet"
    made = snapshot(db, ["comparison"], "train", None, out)
    assert (made.as_of, made.counts, made.path) == (seq, {"comparison": 1}, out)
    say(db, "3", rank(1, 0, 0), supersedes="1")
    assert snapshot(db, ["comparison"], "train", seq, out) == made  # again: the same, nothing written
    assert snapshot(db, ["comparison"], "train", seq, tmp_path / "t.parquet").hash == made.hash
    with pytest.raises(UserError, match="holds something else"):
        snapshot(db, ["comparison"], "train", None, out)
    again, examples = load_snapshot(out)
    assert again == made
    assert examples == read_examples(out) == list(inline_examples(db, ["comparison"], "train", seq))
    assert examples[0].metadata == {"labeler": "ann", "judgment": "1", "item": None}


def test_judgments_about_policies_are_in_no_snapshot(db: FeedbackStore, tmp_path: Path) -> None:
    asked = QueueItem(prompt_id=PROMPT.id, response_ids=(A.id, B.id))
    compared = QueueItem(prompt_id=PROMPT.id, response_ids=(A.id, C.id), selection="evaluation")
    db.enqueue([asked, compared])
    say(db, "1", rank(0, 1), item_id=asked.id)
    say(db, "2", ComparisonPayload(response_ids=(A.id, C.id), ranks=(0, 1)), item_id=compared.id)
    say(db, "3", rank(1, 0), "bob")  # of no item: imported
    assert len(found(db, "comparison")) == 3, "an export has them"
    snapshot(db, ["comparison"], "train", None, tmp_path / "s.parquet")
    rows = read_examples(tmp_path / "s.parquet")
    assert {row.metadata["judgment"] for row in rows} == {"1", "3"}
    assert [item.id for item in db.items(selection="evaluation")] == [compared.id]


def test_a_snapshot_of_nothing(db: FeedbackStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no comparison in the split 'train' .* as of judgment 0"):
        snapshot(db, ["comparison"], "train", None, tmp_path / "s.parquet")
    with pytest.raises(UserError, match=r"ends in \.parquet"):
        snapshot(db, ["prompt"], None, None, tmp_path / "s.jsonl")
    assert snapshot(db, ["prompt"], "validation", None, tmp_path / "s.parquet").counts == {"prompt": 1}


def test_a_changed_snapshot_is_noticed(db: FeedbackStore, tmp_path: Path) -> None:
    say(db, "1", rank(0, 1))
    path = snapshot(db, ["comparison"], None, None, tmp_path / "s.parquet").path
    table = pq.read_table(path)
    lines = pa.array([table["example"][0].as_py().replace('"weight":1.0', '"weight":3.0')])
    pq.write_table(table.set_column(2, "example", lines), path)
    with pytest.raises(UserError, match="no longer match the hash"):
        load_snapshot(path)
    pq.write_table(pa.table({"text": ["x"]}), path)
    with pytest.raises(UserError, match="not a dataset snapshot"):
        load_snapshot(path)


EXAMPLES: list[Example] = [
    Comparison("p\ud800\x00", ("ä", ""), (None, 0), 0.1, 0.3, 2.0, {"z": [1, {"y": None}], "a": "ß"}),
    Rating((Message("system", ""), Message("user", "q")), "r", {"x": 3, "y": 0.1}, 0, 10),
    Thumb("p", "r", True),
    Demonstration("p", "r"),
    Document("d"),
    PromptOnly("p"),
]


def test_canonical_text_gives_the_example_back() -> None:
    names = ["comparison", "rating", "thumb", "demonstration", "document", "prompt"]
    assert [load(name, dump(example)) for name, example in zip(names, EXAMPLES, strict=True)] == EXAMPLES
    with pytest.raises(UserError, match="not a row of a snapshot"):
        load("thumb", dump(EXAMPLES[0]))


def test_equal_numbers_and_rankings_give_equal_lines() -> None:
    """Whatever fields an example has: those that are declared as numbers or tuples come back as such."""
    assert dump(Rating("p", "r", {"x": 3}, 0, 10, 1)) == dump(Rating("p", "r", {"x": 3.0}, 0.0, 10.0))
    whole = Comparison("p", ("a", "b"), (0, 1), 1, 1, 2)
    assert dump(whole) == dump(Comparison("p", ("a", "b"), (0, 1), 1.0, 1.0, 2.0))
    assert load("comparison", dump(whole)) == whole


def test_the_hash_is_of_the_contents_alone() -> None:
    digest = content_hash(EXAMPLES)
    shuffled = random.Random(0).sample(EXAMPLES, len(EXAMPLES))
    assert content_hash(shuffled) == digest
    assert content_hash(EXAMPLES + EXAMPLES[:1]) != digest
    assert content_hash([Thumb("p", "r", True, 1)]) == content_hash([Thumb("p", "r", True, 1.0)])
    changed = [Thumb("p", "r", False), Thumb("p", "s", True), Thumb("p", "r", True, metadata={"a": 1})]
    assert len({content_hash([e]) for e in (*changed, EXAMPLES[2])}) == 4
    # Fixed for good: manifests of existing projects name these hashes.
    line = b'thumb {"label":true,"metadata":{},"prompt":"p","response":"r","weight":1.0}'
    wanted = hashlib.sha256(hashlib.sha256(line).digest()).hexdigest()
    assert content_hash([Thumb("p", "r", True)]) == wanted
