"""Rows of published sets and of other programs, by hand from their cards: who is better, ties, degrees, labelers."""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Demonstration, Example, Message, PromptOnly, Rating, Thumb
from hearken.feedback.formats import LAYOUTS, ReadReport, read_examples
from hearken.feedback.formats.detecting import detect, signature
from hearken.feedback.store import FeedbackStore
from hearken.feedback.transfer import export, import_file
from hearken.progress import quiet

U = "user"
A = "assistant"
ASK = (Message(U, "Hi?"),)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def bare(example: Any) -> Any:
    """The example without metadata."""
    return type(example)(**{k: getattr(example, k) for k in example.__slots__ if k != "metadata"})


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def says(who: str, what: str, **more: Any) -> dict[str, Any]:
    return {"from": who, "value": what, **more}


def compared(first: str, second: str, better: int, strength: float | None = None, prompt: Any = ASK) -> Comparison:
    """``better``: 1 the first, -1 the second, 0 a tie."""
    ranks = {1: (0, 1), -1: (1, 0), 0: (0, 0)}[better]
    return Comparison(prompt, (first, second), ranks, strength)


SAFE = {
    "prompt": "Hi?",
    "response_0": "yes",
    "response_1": "no",
    "is_response_0_safe": True,
    "is_response_1_safe": False,
}
STEER3 = {
    "domain": "general",
    "language": "english",
    "context": [turn(U, "Hi?")],
    "response1": "yes",
    "response2": "no",
}
SHP = {"post_id": "x", "history": "Hi?", "human_ref_A": "yes", "human_ref_B": "no", "seconds_difference": 9.0}
NECTAR = [{"answer": t, "model": m, "rank": r} for t, m, r in (("b", "m1", 2.0), ("a", "m2", 1.0), ("c", "m3", 2.0))]
ARENA = {f"conversation_{s}": [turn(U, "Hi?"), turn(A, t)] for s, t in (("a", "yes"), ("b", "no"))} | {"judge": "j1"}
SHARED = [says("human", "Hi?"), says("gpt", "yes")]
FULL = {
    "source": "sharegpt", "instruction": "Hi?", "models": ["m1", "m2"], "correct_answers": ["None"],
    "completions": [
        {
            "model": "m1", "response": "yes", "custom_system_prompt": "Be.", "overall_score": 8.5, "critique": "ok",
            "annotations": {
                "honesty": {"Rating": "5", "Rationale": "x"}, "truthfulness": {"Type": ["None"], "Rating": "N/A"},
                "helpfulness": {"Rating": "4", "Type": ["None"]}, "instruction_following": {"Rating": "3"},
            },
        },
        {"model": "m2", "response": "no", "annotations": {"honesty": {"Rating": "1"}}},
    ],
}  # fmt: skip

ROWS: list[tuple[str, dict[str, Any], list[Any]]] = [
    # ShareGPT
    ("sharegpt", {"id": "x", "conversations": SHARED}, [Demonstration(ASK, "yes")]),
    *(
        ("sharegpt", {"conversations": [says(h, "Hi?"), says(g, "yes")]}, [Demonstration(ASK, "yes")])
        for h, g in (
            ("human", "chatgpt"),
            ("user", "bing"),
            ("human", "bard"),
            ("user", "assistant"),
            ("human", "model"),
        )
    ),
    (
        "sharegpt",
        {"conversations": SHARED, "system": "Be kind."},
        [Demonstration((Message("system", "Be kind."), *ASK), "yes")],
    ),
    ("sharegpt", {"conversations": SHARED, "system": "", "tools": "[]"}, [Demonstration(ASK, "yes")]),
    (
        "sharegpt",
        {
            "conversations": [
                says("system", "s"),
                says("human", "Hi?"),
                says("function_call", "f()"),
                says("observation", "1"),
                SHARED[1],
            ]
        },
        [Demonstration((Message("system", "s"), *ASK, Message(A, "f()"), Message("tool", "1")), "yes")],
    ),
    (
        "sharegpt",
        {"conversation_id": "1", "conversation": [turn(U, "Hi?"), turn(A, "yes")]},
        [Demonstration(ASK, "yes")],
    ),
    ("sharegpt", {"conversations": [turn(U, "Hi?"), turn(A, "yes")]}, [Demonstration(ASK, "yes")]),
    (
        "sharegpt-pairs",
        {"conversations": SHARED[:1], "chosen": says("gpt", "yes"), "rejected": says("gpt", "no")},
        [compared("yes", "no", 1)],
    ),
    (
        "sharegpt-pairs",
        {"messages": [turn(U, "Hi?")], "chosen": turn(A, "yes"), "rejected": turn(A, "no")},
        [compared("yes", "no", 1)],
    ),
    ("sharegpt-thumbs", {"conversations": SHARED, "kto_tag": False}, [Thumb(ASK, "yes", False)]),
    ("sharegpt-thumbs", {"messages": [turn(U, "Hi?"), turn(A, "yes")], "label": True}, [Thumb(ASK, "yes", True)]),
    # Alpaca
    ("alpaca", {"instruction": "Hi?", "input": "", "output": "yes", "text": "Below is …"}, [Demonstration(ASK, "yes")]),
    ("alpaca", {"instruction": "Add", "input": "2 2", "output": "4"}, [Demonstration((Message(U, "Add\n2 2"),), "4")]),
    ("alpaca", {"instruction": "Hi?", "context": "", "response": "yes", "category": "qa"}, [Demonstration(ASK, "yes")]),
    (
        "alpaca",
        {"instruction": "Hi?", "input": None, "output": "yes", "system": "s", "history": [["q", "a"]]},
        [Demonstration((Message("system", "s"), Message(U, "q"), Message(A, "a"), *ASK), "yes")],
    ),
    (
        "alpaca-pairs",
        {"instruction": "Hi?", "input": "", "chosen": "yes", "rejected": "no"},
        [compared("yes", "no", 1)],
    ),
    (
        "alpaca-pairs",
        {"system": "", "question": "Hi?", "chosen": "yes", "rejected": "no"},
        [compared("yes", "no", 1)],
    ),
    ("alpaca-thumbs", {"instruction": "Hi?", "input": "", "output": "yes", "kto_tag": True}, [Thumb(ASK, "yes", True)]),
    # UltraFeedback
    (
        "ultrafeedback",
        FULL,
        [
            Rating(ASK, "yes", {"honesty": 5, "helpfulness": 4, "instruction_following": 3}),
            Rating(ASK, "no", {"honesty": 1}),
        ],
    ),
    (
        "implicit",
        {
            "prompt": "Hi?",
            "prompt_id": "x",
            "messages": [turn(U, "Hi?"), turn(A, "yes")],
            "score_chosen": 9.0,
            "score_rejected": 3.0,
            "chosen": [turn(U, "Hi?"), turn(A, "yes")],
            "rejected": [turn(U, "Hi?"), turn(A, "no")],
        },
        [compared("yes", "no", 1)],
    ),
    (
        "implicit",
        {
            "chosen": [turn(U, "Hi?"), turn(A, "yes")],
            "rejected": [turn(U, "Hi?"), turn(A, "no")],
            "score_chosen": 8.0,
            "score_rejected": 8.0,
        },
        [compared("yes", "no", 0)],
    ),
    (
        "implicit",
        {
            "prompt": "Hi?",
            "chosen": [turn(U, "Hi?"), turn(A, "yes")],
            "rejected": [turn(U, "Hi?"), turn(A, "no")],
            "chosen-rating": 5.0,
            "rejected-rating": 2.0,
        },
        [compared("yes", "no", 1)],
    ),
    (
        "distilabel",
        {"instruction": "Hi?", "generations": ["yes", "no"], "ratings": [5, None], "model_names": ["a", "b"]},
        [Rating(ASK, "yes", {"overall": 5})],
    ),
    # HelpSteer
    (
        "helpsteer",
        {
            "prompt": "Hi?",
            "response": "yes",
            "helpfulness": 4,
            "correctness": 0,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 2,
        },
        [
            Rating(
                ASK, "yes", {"helpfulness": 4, "correctness": 0, "coherence": 4, "complexity": 1, "verbosity": 2}, 0, 4
            )
        ],
    ),
    (
        "helpsteer",
        {"prompt": "a\n<extra_id_1>Assistant\nb\n<extra_id_1>User\nHi?", "response": "yes", "helpfulness": 3},
        [Rating((Message(U, "a"), Message(A, "b"), *ASK), "yes", {"helpfulness": 3}, 0, 4)],
    ),
    *(
        (
            "helpsteer2-pairs",
            {"split": "train", "prompt": "Hi?", "response_1": "yes", "response_2": "no", "preference_strength": said},
            [compared("yes", "no", better, strength)],
        )
        for said, better, strength in ((-3, 1, 1.0), (-1, 1, 1 / 3), (0, 0, 0.0), (2, -1, 2 / 3), (3, -1, 1.0))
    ),
    *(
        (
            "helpsteer3",
            STEER3 | {"overall_preference": said, "individual_preference": []},
            [compared("yes", "no", better, strength)],
        )
        for said, better, strength in ((-3, 1, 1.0), (-2, 1, 2 / 3), (0, 0, 0.0), (1, -1, 1 / 3))
    ),
    # PKU-SafeRLHF, Nectar, SHP, Stack Exchange, Arena, RewardBench
    ("saferlhf", SAFE | {"better_response_id": 0, "safer_response_id": 1}, [compared("yes", "no", 1)]),
    ("saferlhf", SAFE | {"better_response_id": 1, "safer_response_id": 0}, [compared("yes", "no", -1)]),
    ("saferlhf-safer", SAFE | {"safer_response_id": 1}, [compared("yes", "no", -1)]),
    (
        "nectar",
        {"prompt": "\n\nHuman: Hi?\n\nAssistant: ", "answers": NECTAR, "turns": 1, "num_responses": 3},
        [Comparison(ASK, ("b", "a", "c"), (1, 0, 1))],
    ),
    (
        "nectar",
        {"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: Hi?\n\nAssistant: ", "answers": NECTAR[:2]},
        [Comparison((Message(U, "a"), Message(A, "b"), *ASK), ("b", "a"), (1, 0))],
    ),
    ("shp", SHP | {"labels": 1, "score_A": 9, "score_B": 2}, [compared("yes", "no", 1)]),
    ("shp", SHP | {"labels": 0, "score_A": 2, "score_B": 9}, [compared("yes", "no", -1)]),
    (
        "stackexchange",
        {
            "qid": 1,
            "question": "Hi?",
            "answers": [{"text": "a", "pm_score": 1}, {"text": "b", "pm_score": 4}, {"text": "c", "pm_score": 1}],
        },
        [Comparison(ASK, ("a", "b", "c"), (1, 0, 1))],
    ),
    (
        "stackexchange-pairs",
        {"qid": 1, "question": "Hi?", "response_j": "yes", "response_k": "no"},
        [compared("yes", "no", 1)],
    ),
    *(
        ("arena", ARENA | {"winner": said, "turn": 1}, [compared("yes", "no", better)])
        for said, better in (("model_a", 1), ("model_b", -1), ("tie", 0), ("tie (bothbad)", 0), ("both_bad", 0))
    ),
    (
        "pairs",
        {
            "prompt": "Hi?",
            "chosen": "yes",
            "rejected": "no",
            "chosen_model": "a",
            "rejected_model": "b",
            "subset": "chat",
            "id": 1,
        },
        [compared("yes", "no", 1, prompt="Hi?")],
    ),
    (
        "rewardbench2",
        {"id": "1", "prompt": "Hi?", "chosen": ["a"], "rejected": ["b", "c"]},
        [Comparison(ASK, ("a", "b", "c"), (0, 1, 1))],
    ),
    (
        "rewardbench2",
        {
            "id": "2",
            "prompt": "Hi?",
            "chosen": ["a", "b"],
            "rejected": ["c"],
            "num_correct": 2,
            "num_incorrect": 1,
            "total_completions": 3,
            "subset": "Ties",
        },
        [Comparison(ASK, ("a", "b", "c"), (0, 0, 1))],
    ),
    # the arena's later form: parts of text, beside which nothing stands
    (
        "arena",
        {
            f"conversation_{side}": [
                {"role": who, "content": [{"type": "text", "text": said, "image": None, "mimeType": None}]}
                for who, said in ((U, "Hi?"), (A, answer))
            ]
            for side, answer in (("a", "no"), ("b", "yes"))
        }
        | {"winner": "model_b", "evaluation_order": 1, "language": "en"},
        [Comparison(ASK, ("no", "yes"), (1, 0))],
    ),
    # the prompt inside the responses
    (
        "repeated",
        {"prompt": "The sky is", "chosen": "The sky is blue", "rejected": "The sky is red", "weight": 2},
        [Comparison("The sky is", (" blue", " red"), (0, 1), weight=2)],
    ),
    (
        "hh",
        {
            "prompt": "\n\nHuman: Hi?\n\nAssistant:",
            "chosen": "\n\nHuman: Hi?\n\nAssistant: yes",
            "rejected": "\n\nHuman: Hi?\n\nAssistant: no",
        },
        [compared("yes", "no", 1)],
    ),
    (
        "pairs",
        {"prompt": "\n\nHuman: Hi?\n\nAssistant:", "response": "yes", "chosen": " yes", "rejected": " no"},
        [compared(" yes", " no", 1, prompt="\n\nHuman: Hi?\n\nAssistant:")],
    ),
    # text parts; what tables fill in says nothing
    (
        "messages",
        {
            "messages": [
                turn(U, [{"type": "text", "text": "Hi"}, {"type": "text", "text": "?"}]),
                turn(A, [{"type": "text", "text": "yes", "image": None}]),
            ]
        },
        [Demonstration(ASK, "yes")],
    ),
    ("messages", {"messages": [turn(U, "Hi?", name=None), turn(A, "yes", tool_calls=[])]}, [Demonstration(ASK, "yes")]),
]


@pytest.mark.parametrize(("layout", "row", "wanted"), ROWS)
def test_a_row_says_what_its_set_means(tmp_path: Path, layout: str, row: dict[str, Any], wanted: list[Example]) -> None:
    path, report = write(tmp_path / "a.jsonl", row), ReadReport()
    found = read_examples(path, report=report)
    assert report.layouts == {layout}
    assert [bare(e) for e in found] == wanted
    assert [bare(e) for e in read_examples(path, layout)] == wanted


@pytest.mark.parametrize("layout", ["pairs", "implicit", "messages", "sft", "binary", "prompts", "alpaca"])
def test_what_a_model_would_miss_is_refused_in_every_layout(tmp_path: Path, layout: str) -> None:
    """Pictures, and settings of the chat template: also where TRL's columns have them."""
    ask, yes, no = [turn(U, "Hi?")], [turn(A, "yes")], [turn(A, "no")]
    row: dict[str, Any] = {
        "pairs": {"prompt": ask, "chosen": yes, "rejected": no},
        "implicit": {"chosen": ask + yes, "rejected": ask + no},
        "messages": {"messages": ask + yes}, "sft": {"prompt": ask, "completion": yes},
        "binary": {"prompt": ask, "completion": yes, "label": True}, "prompts": {"prompt": ask},
        "alpaca": {"instruction": "Hi?", "output": "yes"},
    }[layout]  # fmt: skip
    for more, said in (
        ({"images": ["a.png"]}, "the row has a column 'images'"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "'chat_template_kwargs' changes what the chat template"),
    ):
        with pytest.raises(UserError, match=said):
            read_examples(write(tmp_path / "a.jsonl", row | more))
        assert read_examples(write(tmp_path / "a.jsonl", row | dict.fromkeys(more)))


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
def test_a_system_prompt_beside_messages_is_read_in_every_layout(tmp_path: Path, name: str) -> None:
    ask, yes, no, told = [turn(U, "Hi?")], [turn(A, "yes")], [turn(A, "no")], Message("system", "Be brief.")
    rows: list[dict[str, Any]] = [
        {"prompt": ask, "chosen": yes, "rejected": no}, {"chosen": ask + yes, "rejected": ask + no},
        {"messages": ask + yes}, {"prompt": ask, "completion": yes}, {"prompt": ask, "completion": yes, "label": True},
        {"prompt": ask}, {"instruction": "Hi?", "output": "a"}, {"instruction": "Hi?", "chosen": "a", "rejected": "b"},
        {"conversations": [says("human", "Hi?"), says("gpt", "yes")]},
        {"messages": [turn("system", "Be brief."), *ask, *yes]},
    ]  # fmt: skip
    for row in rows:
        (found,) = read_examples(write(tmp_path / "a.jsonl", row | {name: "Be brief."}))
        assert found.prompt == (told, *ASK) and not found.metadata, row  # type: ignore[union-attr]
        (bare_,) = read_examples(write(tmp_path / "a.jsonl", row | {name: ""}))
        assert bare_.prompt == ASK or "messages" in row, row  # type: ignore[union-attr]


def test_a_margin_in_another_programs_units_is_said_not_to_be_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", *({"prompt": "p", "chosen": "a", "rejected": "b", "margin": m} for m in (3.0, 1))
    )
    with pytest.warns(
        UserWarning, match="line 1: 'margin' is kept with the row and not read; write 'strength'"
    ) as said:
        assert all(e.strength is None for e in read_examples(path) if isinstance(e, Comparison))
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", sorted({name for name, _, _ in ROWS}))
def test_tables_and_the_database_read_the_same(tmp_path: Path, layout: str) -> None:
    """As Parquet, which fills objects with nulls, and through `hearken import`."""
    rows, wanted = zip(*((row, want) for name, row, want in ROWS if name == layout), strict=True)
    pq.write_table(pa.Table.from_pylist([rows[0]]), tmp_path / "a.parquet")
    assert [bare(e) for e in read_examples(tmp_path / "a.parquet")] == wanted[0]
    with quiet(), FeedbackStore(tmp_path / "f.db") as store:
        done = import_file(store, write(tmp_path / "a.jsonl", rows[0]))
        assert done.judgments == len(wanted[0])
        assert done.responses == sum(
            len(getattr(e, "responses", "r")) for e in wanted[0] if not isinstance(e, Demonstration)
        )


def test_csv_holds_the_same_lists(tmp_path: Path) -> None:
    for row, wanted in (
        ({"conversations": repr(SHARED)}, Demonstration(ASK, "yes")),
        ({"prompt": "Hi?", "answers": json.dumps(NECTAR)}, Comparison(ASK, ("b", "a", "c"), (1, 0, 1))),
        (SAFE | {"better_response_id": "1"}, compared("yes", "no", -1)),
        ({"instruction": "Hi?", "input": "", "output": "[1, 2]"}, Demonstration(ASK, "[1, 2]")),
    ):
        with (tmp_path / "a.csv").open("w", newline="") as file:
            csv.writer(file).writerows([list(row), list(row.values())])
        assert [bare(e) for e in read_examples(tmp_path / "a.csv")] == [wanted]


# --- exports ---------------------------------------------------------------------------------------------------------

FIELDS = {"instruction": "Hi?", "response1": "yes", "response2": "no"}
VOTES = [("ana", ["response1", "response2"]), ("bo", ["response2", "response1"]), ("cy", ["response1", "response2"])]


def test_argilla_records_are_votes_of_their_labelers(tmp_path: Path) -> None:
    record = {
        "id": "r1",
        "fields": FIELDS,
        "metadata": {},
        "suggestions": {},
        "vectors": {},
        "status": "completed",
        "_server_id": "s",
    }
    nested = record | {"responses": {"ranking": [{"value": v, "user_id": u} for u, v in VOTES]}}
    flat = {"id": "r1", "status": "completed", "_server_id": "s", **FIELDS} | {
        "ranking.responses": [v for _, v in VOTES], "ranking.responses.users": [u for u, _ in VOTES],
        "ranking.responses.status": ["submitted"] * 3, "ranking.suggestion": None,
    }  # fmt: skip
    wanted = [compared("yes", "no", better, prompt="Hi?") for better in (1, -1, 1)]
    for row in (nested, flat):
        found = read_examples(write(tmp_path / "a.json", row))
        assert [bare(e) for e in found] == wanted
        assert [e.metadata["labeler"] for e in found] == ["ana", "bo", "cy"]
    drafts = flat | {"ranking.responses.status": ["draft", "submitted", "discarded"]}
    assert [bare(e) for e in read_examples(write(tmp_path / "b.jsonl", drafts))] == wanted[1:2]
    report = ReadReport()
    empty = flat | {"ranking.responses": None, "ranking.responses.users": None, "ranking.responses.status": None}
    assert len(read_examples(write(tmp_path / "c.jsonl", flat, empty), report=report)) == 3
    assert report.unjudged == 1 and str(report) == "2 rows, 3 examples, 1 without a judgment"


def test_argilla_rankings_with_ties_choices_ratings_and_texts(tmp_path: Path) -> None:
    def read(fields: dict[str, Any], question: str, *values: Any) -> list[Any]:
        answers = [{"user_id": "u", "value": value, "status": "submitted"} for value in values]
        return [
            bare(e)
            for e in read_examples(write(tmp_path / "a.jsonl", {**fields, question: answers, "external_id": None}))
        ]

    tied = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 1}]
    assert read(FIELDS, "preference", tied, [tied[0], tied[1] | {"rank": 2}], "response1") == [
        compared("yes", "no", better, prompt="Hi?") for better in (0, -1, 1)
    ]
    assert read({"prompt": "Hi?", "response": "yes"}, "quality", 4) == [Rating("Hi?", "yes", {"quality": 4})]
    assert read({"prompt": "Hi?"}, "answer", "yes") == [Demonstration("Hi?", "yes")]
    for fields, question, value, match in (
        (FIELDS, "preference", "both", "'preference' says 'both', which is no field. Fields: response1, response2"),
        ({"title": "Hi?", "response": "x"}, "quality", 4, "none of the fields title, response is a prompt"),
        ({"prompt": "Hi?", "context": "more", "response": "x"}, "quality", 4, "'prompt' and 'context' are both fields"),
        ({"prompt": "Hi?", "response": "x"}, "kind", "good", "no ranking, choice or rating"),
    ):
        with pytest.raises(UserError, match=match):
            read(fields, question, value)


def test_label_studio_exports_are_votes_of_their_labelers(tmp_path: Path) -> None:
    def annotation(number: int, who: Any, side: str, to: str = "answer1,answer2", **more: Any) -> dict[str, Any]:
        result = {"id": "x", "from_name": "pw", "to_name": to, "type": "pairwise", "value": {"selected": side}}
        return {"id": number, "completed_by": who, "was_cancelled": False, "result": [result], "lead_time": 3.2, **more}

    data = {"prompt": "Hi?", "answer1": "yes", "answer2": "no"}
    annotations = [
        annotation(7, 1, "left"),
        annotation(8, {"id": 2, "email": "b@x.org"}, "right", "pw"),
        annotation(9, 3, "left", was_cancelled=True),
        annotation(10, 4, "left", "answer2,answer1"),
    ]
    (tmp_path / "a.json").write_text(
        json.dumps([{"id": 1, "data": data, "annotations": annotations, "predictions": []}])
    )
    found = read_examples(tmp_path / "a.json")
    assert [bare(e) for e in found] == [
        compared("yes", "no", 1, prompt="Hi?"),
        compared("yes", "no", -1, prompt="Hi?"),
        compared("no", "yes", 1, prompt="Hi?"),
    ]
    assert [(e.metadata["labeler"], e.metadata["annotation_id"]) for e in found] == [
        ("1", 7),
        ("b@x.org", 8),
        ("4", 10),
    ]

    # Some exports have a task once for each of its annotations, every time with all of them: each counts once.
    for who in (1, None):
        copies = [annotation(7, who, "left"), annotation(8, who, "left"), annotation(9, who, "right")]
        task = {"id": 1, "data": data, "annotations": copies, "predictions": []}
        (tmp_path / "b.json").write_text(json.dumps([task] * 3))
        with quiet(), FeedbackStore(tmp_path / f"{who}.db") as store:
            done = import_file(store, tmp_path / "b.json")
            assert (done.judgments, done.twice) == (3, 6) and import_file(store, tmp_path / "b.json").judgments == 0
            export(store, tmp_path / f"{who}.jsonl", "pairs")
        ids = [json.loads(line)["annotation_id"] for line in (tmp_path / f"{who}.jsonl").read_text().splitlines()]
        assert ids == [7, 8, 9]

    short = {**data, "id": 1, "pw": [{"selected": "right"}], "annotator": 2, "annotation_id": 8, "lead_time": 1.5}
    (found,) = read_examples(write(tmp_path / "b.jsonl", short))
    assert bare(found) == compared("yes", "no", -1, prompt="Hi?") and found.metadata["labeler"] == "2"
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows(
            [list(short), [json.dumps(v) if isinstance(v, list) else v for v in short.values()]]
        )
    (found,) = read_examples(tmp_path / "c.csv")
    assert bare(found) == compared("yes", "no", -1, prompt="Hi?")
    rated = {"prompt": "Hi?", "response": "yes", "stars": [{"rating": 4}], "annotator": 2, "annotation_id": 9}
    assert [bare(e) for e in read_examples(write(tmp_path / "d.jsonl", rated))] == [
        Rating("Hi?", "yes", {"overall": 4})
    ]
    for row, match in (
        (short | {"pw": [{"selected": "both"}]}, "'both' is no side"),
        ({k: v for k, v in short.items() if k != "prompt"}, "none of the fields answer1, answer2 is a prompt"),
        ({k: v for k, v in short.items() if k != "pw"}, "no column holds a choice between two or a rating"),
        (short | {"pw": [{"ranker": {"rank": ["1"]}}]}, "of type 'ranker' is not read"),
    ):
        with pytest.raises(UserError, match=match):
            read_examples(write(tmp_path / "e.jsonl", row))


# --- refused ---------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "p", "response": "r"}, "looks like a prompt with a response.*Name the response 'completion'"),
    ({"prompt": "p", "response": "r", "rating": 4}, "looks like a prompt with a response"),
    (
        {"prompt": "p", "response_a": "a", "response_b": "b", "winner": "a"},
        "'response_a' looks like a response.*'prompts' would ignore.*Write",
    ),
    ({"prompt": "p", "completions": ["a"]}, "'completions' looks like a response"),
    (
        {"prompt": "p", "completion": "c", "thumbs": 1},
        "'thumbs' looks like a judgment, which the layout 'sft' would ignore",
    ),
    ({"prompt": "p", "completion": "c", "labels": 1}, "'labels' looks like a judgment"),
    (
        {"messages": [turn(U, "x"), turn(A, "y")], "score": 3},
        "'score' looks like a judgment, which the layout 'messages'",
    ),
    ({"instruction": "x", "output": "y", "score": 3}, "'score' looks like a judgment, which the layout 'alpaca'"),
    (
        {"message_id": "m", "parent_id": None, "text": "x", "role": "prompter", "message_tree_id": "t", "rank": None},
        "no known layout|OpenAssistant",
    ),
    (
        {"message_id": "m", "parent_id": "n", "text": "x", "role": "assistant", "message_tree_id": "t", "rank": 0},
        "messages of OpenAssistant, one a row.*file of trees",
    ),
    (
        {"prompt": "p", "completion": "c", "label": True, "score": 3},
        "'score' looks like a judgment.*'binary' would ignore",
    ),
    ({"conversations": SHARED, "tools": "a hammer"}, "'tools' must be a list of objects that describe tools"),
    ({"conversations": SHARED, "image": "a.png"}, "a column 'image'.*not read beside text"),
    ({"conversations": SHARED[:1]}, "'conversations' must end with an assistant message"),
    ({"conversations": [says("elf", "x"), says("gpt", "y")]}, "message 1 has the unknown role 'elf'"),
    ({"conversations": [says("system", "a"), *SHARED], "system": "b"}, "two system prompts"),
    (
        {
            "messages": [
                turn(U, [{"type": "text", "text": "x"}, {"type": "image", "image": "a.png"}]),
                turn(A, [{"type": "text", "text": "y"}]),
            ]
        },
        "message 1 of 'messages' holds a part of type 'image'",
    ),
    (
        {
            "prompt": [turn("system", "s"), turn(U, "x")],
            "chosen": [turn(U, "x"), turn(A, "a")],
            "rejected": [turn(U, "x"), turn(A, "b")],
        },
        "'prompt' is not what chosen and rejected begin with",
    ),
    (
        {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2},
        "the row contradicts itself",
    ),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "rating_chosen": 1, "rating_rejected": 2}, "contradicts itself"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "winner": "b"}, "'winner' looks like a judgment.*'pairs' would"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "label": 0}, "'label' looks like a judgment.*--format pairs"),
    ({"chosen": [turn(U, "p"), turn(A, "a")], "rejected": [turn(U, "p"), turn(A, "b")], "tie": True}, "'tie' looks"),
    (
        {"prompt": "What is it?", "chosen": "What is it? A.", "rejected": "What is it? B.", "votes": [1, 3]},
        "'votes' looks like a judgment",
    ),
    ({"prompt": "p", "Chosen": "a", "Rejected": "b"}, "the column 'Chosen' would be ignored.*Did you mean 'chosen'"),
    ({"prompt": "p", "completion ": "a"}, "the column 'completion ' would be ignored"),
    ({"prompt": "p", "completion": "a", "Label": False}, "'Label' would be ignored.*Did you mean 'label'"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "Weight": 2}, "'Weight' would be ignored.*Did you mean 'weight'"),
    ({"prompt": "p", "completion": "a", "rating": 4, "scale": [0, 10]}, "'scale' looks like a scale.*'low' and 'high'"),
    ({"prompt": "p", "completion": "a", "score": 4, "max": 10}, "'max' looks like a scale"),
    ({"prompt": "p", "completion": "a", "system": "Be brief."}, "'system' looks like a system message, and the prompt"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "system_prompt": "Be brief."}, "'system_prompt' looks like"),
    ({"prompt": [turn("system", "a"), turn(U, "p")], "completion": "c", "system": "b"}, "two system prompts"),
    (SHP | {"labels": 0, "score_A": 9, "score_B": 2}, "'labels' and the scores disagree"),
    (SAFE | {"better_response_id": 2}, "'better_response_id' must be a whole number from 0 to 1. It is 2"),
    (STEER3 | {"overall_preference": 4}, "from -3 to 3. It is 4 here"),
    (STEER3 | {"overall_preference": 1.5}, "must be a whole number"),
    (ARENA | {"winner": "both"}, "'winner' is 'both'"),
    (
        {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c"], "num_correct": 2},
        "'num_correct' is 2, and there are 1",
    ),
    ({"prompt": "p", "answers": [{"answer": "a", "rank": 1}]}, "fewer than two responses are ranked"),
    (
        {"instruction": "i", "completions": [{"response": "r", "annotations": {"honesty": {"Rating": "N/A"}}}]},
        "completion 1 has no rating",
    ),
    ({"prompt": "p", "response": "r", "helpfulness": 7}, "outside the scale"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "match"), REFUSED)
def test_what_would_be_lost_is_refused(tmp_path: Path, row: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        read_examples(write(tmp_path / "a.jsonl", row))
    assert "line 1: " in str(error.value)
    with quiet(), FeedbackStore(tmp_path / "f.db") as store, pytest.raises(UserError, match=match):
        import_file(store, tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"prompt": "p"}, {"prompt": "p", "chosen": "a", "rejected": "b"}),
        ({"prompt": "p"}, {"prompt": "p", "completion": "c", "label": True}),
        ({"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c", "score": 3}),
        ({"prompt": "p", "completion": "c", "score": None}, {"prompt": "p", "completion": "c", "score": 3}),
        ({"text": "t"}, {"text": "t", "instruction": "i", "output": "o"}),
    ],
)
def test_a_file_has_one_layout(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    path = write(tmp_path / "a.jsonl", first, second, first)
    with pytest.raises(UserError, match=r"line 2: the row looks like the layout '\w+', and those before like '\w+'"):
        read_examples(path)
    report = ReadReport()
    assert len(read_examples(path, on_bad="skip", report=report)) == 2 and report.skipped.total() == 1


def test_prompts_may_carry_what_rewards_read(tmp_path: Path) -> None:
    """An answer, a label or a difficulty beside a prompt is a fact for a reward function, no judgment of a response."""
    row = {"prompt": "p", "answer": "4", "label": "x", "difficulty": 3, "choices": ["a", "b"]}
    assert read_examples(write(tmp_path / "a.jsonl", row)) == [
        PromptOnly("p", {k: row[k] for k in row if k != "prompt"})
    ]


def test_responses_repeat_the_prompt_in_all_rows_or_in_none(tmp_path: Path) -> None:
    again = {"prompt": "The sky is", "chosen": "The sky is blue", "rejected": "The sky is red"}
    other = {"prompt": "A tree is", "chosen": "green", "rejected": "red"}
    with pytest.raises(UserError, match=r"line 18: 'chosen' does not begin with the prompt, as in the rows before"):
        read_examples(write(tmp_path / "a.jsonl", *[again] * 17, other))
    found = read_examples(write(tmp_path / "b.jsonl", other, again))
    assert [e.responses for e in found] == [("green", "red"), ("The sky is blue", "The sky is red")]
    assert read_examples(write(tmp_path / "c.jsonl", again), "pairs")[0].responses[0] == "The sky is blue"


def test_a_second_judgment_in_a_row_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[SAFE | {"better_response_id": 0, "safer_response_id": 1}] * 2)
    with pytest.warns(UserWarning, match="safer_response_id is kept with the rows and not read") as told:
        (first, _) = read_examples(path)
    assert len(told) == 1 and first.metadata["safer_response_id"] == 1
    assert read_examples(path, "saferlhf-safer")[0].ranks == (1, 0)


ODD = [
    None, "", 0, -1, 2.5, 1e308, 10**400, True, [], {}, [[]], [{}], [None], {"a": None}, "x", "[1", "[{'role': 'user'",
    [1, 2], [{"role": ["x"], "content": "y"}], [{"from": "x", "value": 3}], {"role": {}}, [{"type": "text"}],
    [{"role": "assistant", "content": "x", "tool_calls": [{"function": 1}]}],
]  # fmt: skip


def _mutated(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict | list) and value and draw.random() < 0.75:
        places: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        changed, place = copy.copy(value), draw.choice(places)
        changed[place] = _mutated(value[place], draw)
        return changed
    return copy.deepcopy(draw.choice(ODD))


def test_whatever_stands_in_a_column_is_read_or_refused() -> None:
    """No row ends in a traceback: 3,000 rows of which one or two values, at any depth, are something else."""
    draw = random.Random(0)
    kept = {"id": "1", "status": "completed", "fields": FIELDS}
    result = {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "left"}}
    rows = [(layout, row) for layout, row, _ in ROWS] + [
        ("argilla", kept | {"responses": {"ranking": [{"value": v, "user_id": u} for u, v in VOTES]}}),
        ("argilla-table", FIELDS | {"x.responses": [v for _, v in VOTES], "x.responses.users": ["a"]}),
        (
            "label-studio",
            {"data": {"prompt": "p", "answer1": "a", "answer2": "b"}, "annotations": [{"result": [result]}]},
        ),
        ("oasst", {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "x", "replies": []}}),
        ("axes", {"info": {"post": "x"}, "summary": {"text": "a", "axes": {"overall": 3}}, "worker": "w"}),
    ]
    for _ in range(3000):
        layout, row = draw.choice(rows)
        for _ in range(draw.choice((1, 1, 2))):
            row = {**row, (name := draw.choice(list(row))): _mutated(row[name], draw)}
        for read in (LAYOUTS[layout].read, lambda row: detect(row).read(row)):
            with contextlib.suppress(UserError):
                read(row)
        hash(signature(row))


def test_every_published_layout_is_tried() -> None:
    read_only = {name for name, layout in LAYOUTS.items() if layout.write is None}
    elsewhere = {"oasst", "tldr", "summaries", "axes", "argilla", "argilla-table", "label-studio", "label-studio-table"}
    assert read_only == ({name for name, _, _ in ROWS} & read_only) | elsewhere
