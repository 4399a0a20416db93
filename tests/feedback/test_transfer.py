"""Files into the feedback database and out again, unchanged, in every layout."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearken.errors import UserError
from hearken.feedback.analysis.weights import judgment_weights
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import canonical, read_examples
from hearken.feedback.records import (
    ComparisonPayload,
    EditPayload,
    Guideline,
    Judgment,
    Labeler,
    Prompt,
    QueueItem,
    Response,
    SkipPayload,
    ThumbPayload,
)
from hearken.feedback.snapshot import load_snapshot, snapshot
from hearken.feedback.splits import deduplicate
from hearken.feedback.store import FeedbackStore
from hearken.feedback.transfer import EXPORT_LAYOUTS, export, import_file
from hearken.progress import quiet

SHARED = Path(os.environ.get("HEARKEN_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    with quiet():
        yield


@pytest.fixture
def db(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        yield store


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


ASK = [{"role": "user", "content": "Hello"}]
HI, GO = ([{"role": "assistant", "content": text}] for text in ("Hi", "Go"))

FILES: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"prompt": "p", "chosen": "a", "rejected": "b", "id": 7},
        {"prompt": ASK, "chosen": HI, "rejected": GO, "strength": 0.25, "weight": 2.5},
        {"prompt": "p", "chosen": "b", "rejected": "a", "share": 0.75, "weight": 1.0},
        {"prompt": "p", "chosen": "a", "rejected": "b", "id": 7},  # twice in one file: two judgments
    ],
    "implicit": [{"chosen": ASK + HI, "rejected": ASK + GO, "prompt": "Hello"}],
    "hh": [{"chosen": "\n\nHuman: Hm\n\nAssistant: a ", "rejected": "\n\nHuman: Hm\n\nAssistant: b"}],
    "rankings": [
        {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 0, None], "source": {"x": [1]}},
        {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 0], "share": 0.5},
        {"prompt": "q", "responses": ["a", "a", "b"], "ranks": [0, 0, 1]},
    ],
    "binary": [{"prompt": "p", "completion": "a", "label": True}, {"prompt": ASK, "completion": HI, "label": False}],
    "ratings": [{"prompt": "p", "completion": "a", "ratings": {"x": 3, "y": 0.5}, "low": 0, "note": None}],
    "score": [{"prompt": "p", "completion": "a", "score": 3}],
    "rating": [{"prompt": "p", "completion": "a", "rating": 3.5}],
    "sft": [{"prompt": "p", "completion": "a"}, {"prompt": ASK, "completion": HI, "weight": 0.5}],
    "messages": [{"messages": ASK + HI, "id": "x"}],
    "prompts": [{"prompt": "p", "topic": "t"}, {"prompt": ASK}],
}


@pytest.mark.parametrize("layout", FILES)
def test_in_and_out_unchanged(db: FeedbackStore, tmp_path: Path, layout: str) -> None:
    source = write(tmp_path / "in.jsonl", *FILES[layout])
    first = import_file(db, source)
    assert first.read.layouts == {layout}
    assert first.judgments == (0 if layout == "prompts" else len(FILES[layout]))
    again = import_file(db, source)
    assert (again.prompts, again.responses, again.judgments) == (0, 0, 0)
    report = export(db, tmp_path / "out.jsonl", layout)
    assert lines(tmp_path / "out.jsonl") == FILES[layout]
    assert (report.rows, report.left_out) == (len(FILES[layout]), Counter())


def test_in_and_out_unchanged_on_either_database(store: FeedbackStore, tmp_path: Path) -> None:
    odd = {"prompt": "\x00 \u2028", "responses": ["ä\x00", "\U0001f600", "\t."], "ranks": [0, 1, None], "n": "\x00"}
    import_file(store, write(tmp_path / "in.jsonl", odd, *FILES["rankings"]))
    assert import_file(store, tmp_path / "in.jsonl").judgments == 0
    export(store, tmp_path / "out.jsonl.gz", "rankings")
    with gzip.open(tmp_path / "out.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == [odd, *FILES["rankings"]]
    export(store, tmp_path / "raw.jsonl", "raw")
    assert import_file(store, tmp_path / "raw.jsonl").judgments == 0


def test_every_layout_is_tried() -> None:
    assert set(FILES) | {"raw", "snapshot"} == set(EXPORT_LAYOUTS)


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(str.strip)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": text, "responses": st.lists(text, min_size=2, max_size=4, unique=True)},
            optional={"weight": st.floats(0, 9), "note": st.none() | text | st.lists(st.integers(), max_size=2)},
        ).flatmap(
            lambda row: st.lists(
                st.integers(0, 2), min_size=len(row["responses"]) - 1, max_size=len(row["responses"]) - 1
            ).map(lambda ranks: row | {"ranks": [0, *ranks]})
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_rankings_in_and_out_unchanged(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        with FeedbackStore(folder / "feedback.db") as store:
            import_file(store, write(folder / "in.jsonl", *rows))
            export(store, folder / "out.jsonl", "rankings")
        assert [json.loads(line) for line in (folder / "out.jsonl").read_bytes().split(b"\n")[:-1]] == rows


def test_rankings_as_pairs_and_thumbs(db: FeedbackStore, tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "responses": ["a", "b", "c", "d"], "ranks": [1, 0, 1, None], "id": 1},
        {"prompt": "q", "responses": ["a", "b"], "ranks": [0, 0]},
    ]
    import_file(db, write(tmp_path / "in.jsonl", *rows))
    report = export(db, tmp_path / "pairs.jsonl", "pairs")
    assert [(row["chosen"], row["rejected"], row["id"]) for row in lines(tmp_path / "pairs.jsonl")] == [
        ("b", "a", 1),
        ("b", "c", 1),
    ]
    assert report.left_out == {"tied pairs": 2}
    report = export(db, tmp_path / "binary.jsonl", "binary")
    assert [(row["completion"], row["label"]) for row in lines(tmp_path / "binary.jsonl")] == [
        ("b", True),
        ("c", False),  # of the worst the last, as KTO reads rankings
    ]
    assert str(report) == f"2 rows in {tmp_path / 'binary.jsonl'}; left out: 1 (ties)"


def test_edits_are_demonstrations_and_pairs(db: FeedbackStore, tmp_path: Path) -> None:
    import_file(db, write(tmp_path / "in.jsonl", {"prompt": "p", "completion": "a", "label": True}))
    judgment = next(db.judgments())
    (response,) = judgment.response_ids
    edit = EditPayload(response_id=response, text="better")
    db.submit(Judgment(prompt_id=judgment.prompt_id, labeler_id=judgment.labeler_id, payload=edit))
    export(db, tmp_path / "sft.csv", "sft")
    export(db, tmp_path / "pairs.jsonl", "pairs")
    assert (tmp_path / "sft.csv").read_text().split() == ["prompt,completion", "p,better"]
    assert lines(tmp_path / "pairs.jsonl") == [{"prompt": "p", "chosen": "better", "rejected": "a"}]


def test_splits_and_as_of(db: FeedbackStore, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(40)]
    import_file(db, write(tmp_path / "in.jsonl", *rows), validation=0.25)
    counts = Counter(prompt.split for prompt in db.prompts())
    assert set(counts) == {"train", "validation"}
    assert export(db, tmp_path / "v.jsonl", split="validation").rows == counts["validation"]
    assert export(db, tmp_path / "early.jsonl", as_of=3).rows == 3


def test_two_files_share_prompts_and_responses(db: FeedbackStore, tmp_path: Path) -> None:
    import_file(db, write(tmp_path / "a.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}))
    report = import_file(db, write(tmp_path / "b.jsonl", {"prompt": "p", "completion": "a", "label": True}))
    assert (report.prompts, report.responses, report.judgments) == (0, 0, 1)
    other = import_file(db, tmp_path / "b.jsonl", labeler="someone else")
    assert other.judgments == 1
    assert {labeler.name for labeler in db.labelers(kind="import")} == {"import", "someone else"}


def test_one_prompt_with_two_answers_is_told(db: FeedbackStore, tmp_path: Path) -> None:
    """A reward function is told one of the two: nobody should have to find out which."""
    first = {"prompt": "2 + 2 =", "answer": "4"}
    rows = [{"prompt": "2 + 2 ="}, first, first, first | {"answer": "5"}]
    with pytest.warns(UserWarning, match=r"twice\.jsonl: 1 rows repeat a prompt with another 'answer'"):
        import_file(db, write(tmp_path / "twice.jsonl", *rows))
    assert [p.metadata for p in db.prompts()] == [{"answer": "4"}]


def test_a_bad_file_stores_nothing(db: FeedbackStore, tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "in.jsonl", good, good | {"rejected": "a"})
    with pytest.raises(UserError, match=r"in\.jsonl, line 2: chosen and rejected are equal"):
        import_file(db, path)
    assert not list(db.prompts())
    report = import_file(db, path, on_bad="skip")
    assert (report.judgments, report.read.skipped) == (1, {"chosen and rejected are equal": 1})
    with pytest.raises(UserError, match="plain text is not feedback"):
        import_file(db, write(tmp_path / "text.jsonl", {"text": "x"}))


def test_nothing_to_export(db: FeedbackStore, tmp_path: Path) -> None:
    for layout in ("pairs", "binary", "sft"):
        with pytest.raises(UserError, match=f"nothing to export as '{layout}'"):
            export(db, tmp_path / "out.jsonl", layout)
    with pytest.raises(UserError, match="holds no 'text'"):
        export(db, tmp_path / "out.jsonl", "text")
    with pytest.raises(UserError, match="Did you mean 'pairs'"):
        export(db, tmp_path / "out.jsonl", "pair")
    assert not (tmp_path / "out.jsonl").exists()


# --- raw -------------------------------------------------------------------------------------------------------------


def comparable(path: Path) -> list[dict[str, Any]]:
    """A dump without what a restored database cannot share: numbers of judgments, times of guidelines, tombstones."""
    left = [row for row in lines(path) if row["type"] != "tombstone"]
    return [
        {k: v for k, v in row.items() if k != "seq" and (row["type"], k) != ("guideline", "created")} for row in left
    ]


def test_raw_restores_everything(db: FeedbackStore, tmp_path: Path) -> None:
    prompts = [Prompt(content=f"p{n}", split="train" if n else "validation", metadata={"n": n}) for n in range(3)]
    answers = [
        Response(prompt_id=p.id, text=f"{k}", policy="sft", token_ids=(1, k), seed=3, sample=k, sampling={"t": 1})
        for p in prompts
        for k in range(2)
    ]
    items = [
        QueueItem(prompt_id=p.id, response_ids=tuple(r.id for r in answers if r.prompt_id == p.id), slots=2, round=1)
        for p in prompts
    ]
    db.add_prompts(prompts)
    db.add_responses(answers)
    db.enqueue(items)
    guideline: Guideline = db.add_guideline("Be kind")
    for name in ("ann", "bob"):
        db.add_labeler(Labeler(id=name, name=name, attributes={"group": 1}))

    def say(id: str, labeler: str, item: QueueItem, *ranks: int, **more: Any) -> None:
        payload = ComparisonPayload(response_ids=item.response_ids, ranks=ranks) if ranks else SkipPayload(reason="x")
        db.submit(
            Judgment(
                id=id, prompt_id=item.prompt_id, labeler_id=labeler, item_id=item.id, payload=payload,
                guideline=guideline.version, seconds=2.5, tags=("t",), **more,
            )
        )  # fmt: skip

    say("1", "ann", items[0], 0, 1)
    say("2", "bob", items[0], 1, 0)
    say("3", "ann", items[0], 1, 0)  # a revision
    say("4", "ann", items[1])
    say("5", "ann", items[2], 0, 0)
    db.withdraw("5")
    say("6", "bob", items[2], 0, 1)
    db.submit(
        Judgment(
            id="7",
            prompt_id=prompts[0].id,
            labeler_id="ann",
            payload=ThumbPayload(response_id=answers[0].id, label=True),
        )
    )
    db.erase("judgment", "6", "asked")
    db.close_items([items[1].id])

    export(db, tmp_path / "raw.jsonl", "raw")
    with FeedbackStore(tmp_path / "new.db") as new:
        report = import_file(new, tmp_path / "raw.jsonl")
        assert (report.prompts, report.responses, report.judgments) == (3, 6, 7)
        again = import_file(new, tmp_path / "raw.jsonl")
        assert (again.prompts, again.responses, again.judgments) == (0, 0, 0)
        export(new, tmp_path / "again.jsonl", "raw")
        assert comparable(tmp_path / "again.jsonl") == comparable(tmp_path / "raw.jsonl")
        assert [j.id for j in new.judgments()] == [j.id for j in db.judgments()] == ["2", "3", "4", "7"]
        assert new.progress() == db.progress().model_copy(update={"leased": 0})  # leases are not carried over
        assert new.verify() == []


def test_raw_after_erasure_of_a_prompt_and_a_labeler(db: FeedbackStore, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(3)]
    import_file(db, write(tmp_path / "in.jsonl", *rows))
    import_file(db, tmp_path / "in.jsonl", labeler="gone")
    db.erase("labeler", "import-gone", "asked")
    db.erase("prompt", next(db.prompts()).id, "asked")
    export(db, tmp_path / "raw.jsonl", "raw")
    with FeedbackStore(tmp_path / "new.db") as new:
        import_file(new, tmp_path / "raw.jsonl")
        assert [j.id for j in new.judgments()] == [j.id for j in db.judgments()]
        assert len(list(new.judgments())) == 2
    # What was erased does not come back when its file is imported again.
    again = import_file(db, tmp_path / "in.jsonl")
    assert (again.prompts, again.judgments) == (0, 0)


def test_bad_raw_dumps(db: FeedbackStore, tmp_path: Path) -> None:
    header = {"type": "hearken", "version": 1}
    cases: list[tuple[list[Any], str]] = [
        ([{"type": "hearken", "version": 9}], "line 1: a dump of version 9"),
        ([header, {"type": "elf"}], "line 2: no known type of record"),
        ([header, {"type": "prompt"}], "line 2: content: Field required"),
        ([header, ["x"]], "line 2: the row is no object"),
    ]
    for rows, message in cases:
        with pytest.raises(UserError, match=message):
            import_file(db, write(tmp_path / "raw.jsonl", *rows))
    with pytest.raises(UserError, match="not a raw dump"):
        import_file(db, write(tmp_path / "raw.jsonl", {"prompt": "p"}), format="raw")
    with pytest.raises(UserError, match="a raw dump is JSONL"):
        export(db, tmp_path / "raw.csv", "raw")


# --- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_dialogues_in_and_out(db: FeedbackStore, tmp_path: Path) -> None:
    path = SHARED / "hh-harmless.jsonl.gz"
    if not path.exists():
        pytest.skip(f"real data is not at {SHARED} (set HEARKEN_SHARED_DATA)")
    report = import_file(db, path, on_bad="skip")
    assert (report.read.rows, report.judgments) == (1800, 1796)
    export(db, tmp_path / "out.jsonl.gz", "hh")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    kept = [row for row in rows if not row["chosen"].endswith("\n\nAssistant: ")]
    with gzip.open(tmp_path / "out.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == kept


def test_votes_add_up_in_the_database_and_come_out_again(db: FeedbackStore, tmp_path: Path) -> None:
    """Repeated rows are votes; the same file again, and a row with its labeler again, are not."""
    vote, other = ({"prompt": "p", "chosen": c, "rejected": r} for c, r in ("ab", "ba"))
    named = vote | {"labeler": "ana"}
    path = write(tmp_path / "in.jsonl", vote, vote, vote, other, named, named)
    first = import_file(db, path)
    assert (first.judgments, first.known, first.twice) == (5, 0, 1)
    assert "1 rows left out: the same judgment twice" in str(first)
    again = import_file(db, path)
    assert (again.judgments, again.known, again.twice) == (0, 5, 1)
    assert "5 judgments were there already" in str(again)
    more = import_file(db, write(tmp_path / "more.jsonl", vote, vote, vote, vote, other))
    assert (more.judgments, more.known) == (1, 4)  # the file has grown by one vote
    export(db, tmp_path / "out.jsonl", "pairs")
    assert Counter(row["chosen"] for row in lines(tmp_path / "out.jsonl")) == {"a": 5, "b": 1}
    made = snapshot(db, ["comparison"], None, None, tmp_path / "s.parquet")
    kept = deduplicate(load_snapshot(made.path)[1]).kept
    assert Counter(row.ranks[row.responses.index("a")] for row in kept) == {0: 5, 1: 1}


def test_a_column_says_who_judged(db: FeedbackStore, tmp_path: Path) -> None:
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    rows = [
        pair | {"annotator": "ann"}, pair | {"annotator": "bob"}, pair | {"annotator": None}, pair | {"worker": 7},
        pair | {"worker": "7", "annotator": ""}, pair | {"labeler": "ann", "worker": "w"},
        pair | {"annotator": ["x", "y"]}, pair | {"worker": True}, pair | {"annotator_id": 3.0},
        pair | {"judge": "a/b"},
    ]  # fmt: skip
    source = write(tmp_path / "in.jsonl", *rows)
    done = import_file(db, source, labeler="the set")
    assert {column: dict(who) for column, who in done.labelers.items()} == {
        "annotator": {"ann": 1, "bob": 1}, "worker": {"7": 2}, "labeler": {"ann": 1}, "annotator_id": {"3": 1},
        "judge": {"a/b": 1}, "": {"the set": 3},
    }  # fmt: skip
    names = {labeler.id: labeler.name for labeler in db.labelers()}
    assert {labeler.kind for labeler in db.labelers()} == {"import"} and "/" not in "".join(names)
    told = Counter(names[judgment.labeler_id] for judgment in db.judgments())
    assert told == {"ann": 2, "bob": 1, "7": 2, "3": 1, "a/b": 1, "the set": 3}
    assert import_file(db, source, labeler="the set").judgments == 0


def as_before(store: FeedbackStore, path: Path, labeler: str) -> None:
    """Import as versions did that read no labeler from the rows, and put the name as it stood into the labeler's id."""
    judge = store.add_labeler(Labeler(id=f"import-{labeler}", name=labeler, kind="import"))
    for example in read_examples(path):
        assert isinstance(example, Comparison)
        prompt = Prompt(content=example.prompt)
        shown = [Response(prompt_id=prompt.id, text=text) for text in example.responses]
        store.add_prompts([prompt])
        store.add_responses(shown)
        payload = ComparisonPayload(response_ids=tuple(r.id for r in shown), ranks=example.ranks)
        id = hashlib.sha256(f"{judge.id} {canonical.dump(example)}".encode()).hexdigest()[:32]
        store.submit(
            Judgment(id=id, prompt_id=prompt.id, labeler_id=judge.id, payload=payload, metadata=example.metadata)
        )


def test_what_an_older_version_imported_under_one_name_is_not_doubled(db: FeedbackStore, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "labeler": f"w{i % 3}"} for i in range(250)]
    rows += [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    old = write(tmp_path / "in.jsonl", *rows)
    import_file(db, write(tmp_path / "other.jsonl", rows[0] | {"prompt": "another"}))  # by this version: under w0
    as_before(db, old, "the crowd, 2024")
    grown = write(tmp_path / "in.jsonl", *rows, rows[0] | {"prompt": "new"})
    with pytest.warns(UserWarning, match="imported 250 of its judgments, all under the labeler 'the crowd, 2024'"):
        done = import_file(db, grown)
    assert (done.judgments, done.known) == (2, 250)  # the new row, and that without a labeler, said to be by "import"
    with pytest.warns(UserWarning, match="imported 251 of its judgments"):
        again = import_file(db, grown, labeler="the crowd, 2024")
    assert (again.judgments, again.known) == (0, 252)
    names = {labeler.id: labeler.name for labeler in db.labelers()}
    told = Counter(names[judgment.labeler_id] for judgment in db.judgments())
    assert told == {"the crowd, 2024": 251, "w0": 2, "import": 1}
    db.erase("labeler", "import-the crowd, 2024", "asked for")
    with pytest.warns(UserWarning, match="imported 251"):
        assert import_file(db, grown, labeler="the crowd, 2024").judgments == 0


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_labelers_survive_export_and_import(tmp_path: Path, suffix: str) -> None:
    """Imported ones by their own column; people's names only where they are asked for."""
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b", "worker": f"w{i % 3}"} for i in range(6)]

    def who(store: FeedbackStore) -> dict[str, str]:
        names = {labeler.id: labeler.name for labeler in store.labelers()}
        prompts = {prompt.id: prompt.content for prompt in store.prompts()}
        return {prompts[judgment.prompt_id]: names[judgment.labeler_id] for judgment in store.judgments()}

    with FeedbackStore(tmp_path / "one.db") as store:
        import_file(store, write(tmp_path / "in.jsonl", *rows))
        zoe = store.add_labeler(Labeler(name="Zoë"))
        prompt = Prompt(content="p6")
        both = [Response(prompt_id=prompt.id, text=text) for text in "ab"]
        store.add_prompts([prompt])
        store.add_responses(both)
        payload = ComparisonPayload(response_ids=tuple(r.id for r in both), ranks=(0, 1))
        store.submit(Judgment(prompt_id=prompt.id, labeler_id=zoe.id, payload=payload))
        wanted = who(store)
        for name, labelers in (("plain", False), ("named", True)):
            export(store, tmp_path / f"{name}.{suffix}", labelers=labelers)
    assert wanted == {f"p{i}": f"w{i % 3}" for i in range(6)} | {"p6": "Zoë"}
    for name, last in (("plain", "import"), ("named", "Zoë")):
        with FeedbackStore(tmp_path / f"{name}.db") as store:
            import_file(store, tmp_path / f"{name}.{suffix}")
            assert who(store) == wanted | {"p6": last}
            assert {labeler.kind for labeler in store.labelers()} == {"import"}


def test_reliability_of_imported_labelers(tmp_path: Path) -> None:
    """Five agree with the truth nine times in ten and one by chance: the weights tell them apart."""
    draw, rows = random.Random(0), []
    for i in range(80):
        best = draw.choice("ab")
        for who in range(6):
            said = best if draw.random() < (0.9 if who else 0.5) else "ab".replace(best, "")
            rows.append({"prompt": f"p{i}", "chosen": said, "rejected": "ab".replace(said, ""), "annotator_id": who})
    with FeedbackStore(tmp_path / "d.db") as store:
        import_file(store, write(tmp_path / "in.jsonl", *rows))
        weights = judgment_weights(store, "reliability")
    assert len(weights) == 6 and weights["import-0"] < 0.5 * min(w for id, w in weights.items() if id != "import-0")
