"""Tasks in the manner of lm-eval, and perplexities."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_models import tokenizer, write_base
from transformers import AutoModelForCausalLM

from hearken.domains.text.sampling import open_frozen
from hearken.errors import UserError
from hearken.evaluation.capability import encode, load_task, perplexities, run_tasks, texts_of

CAPITALS = [
    {"country": "France", "choices": ["Paris", "Rome", "Oslo"], "answer": 0},
    {"country": "Norway", "choices": ["Paris", "Rome", "Oslo"], "answer": 2},
    {"country": "Italy", "choices": ["Paris", "Rome", "Oslo"], "answer": 1},
]
TASK = {
    "task": "capitals", "dataset_path": "capitals.jsonl", "output_type": "multiple_choice",
    "doc_to_text": "The capital of {{country}} is", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), tokenizer())


def write(folder: Path, rows: list[dict[str, Any]] = CAPITALS, **task: Any) -> Path:
    (folder / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK | task))
    return folder / "task.yaml"


def test_a_task_is_rendered(tmp_path: Path) -> None:
    loaded = load_task(write(tmp_path))
    assert loaded.name == "capitals" and loaded.questions[1].text == "The capital of Norway is"
    assert [q.answer for q in loaded.questions] == [0, 2, 1]
    shots = load_task(write(tmp_path, num_fewshot=2))
    first = shots.questions[0].text
    assert first.endswith("\n\nThe capital of France is") and "Norway is Oslo" in first
    assert "France is Paris" not in first
    columns = load_task(write(tmp_path, doc_to_text="country", doc_to_choice="choices", doc_to_target="answer"))
    assert columns.questions[2].text == "Italy" and columns.questions[2].answer == 1
    harness = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "capitals.jsonl"}}, "tag": ["x"],
               "metadata": {"version": 1.0}, "metric_list": [{"metric": "acc", "aggregation": "mean"}]}  # fmt: skip
    assert load_task(write(tmp_path, **harness)).questions == loaded.questions


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"doc_to_text": "{{contry}}"}, "row 1: 'contry' is undefined"),
        ({"doc_to_target": "Madrid"}, "none of the choices"),
        ({"doc_to_choice": None}, "needs doc_to_choice"),
        ({"doc_to_choice": "{{country}}"}, "gives no list"),
        ({"dataset_path": "nowhere.jsonl"}, "cannot read"),
        ({"outputtype": "x"}, "unknown key 'outputtype'"),
        ({"num_fewshot": 3}, "3 solved examples"),
        ({"doc_to_text": "{{ ''.__class__.__mro__ }}"}, "row 1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        load_task(write(tmp_path, **change))


def test_choices_are_ranked_by_their_likelihood(tmp_path: Path, base: Path) -> None:
    """Against the model's own logits, computed one choice at a time without packing."""
    loaded = load_task(write(tmp_path))
    opened, plain = open_frozen(str(base)), AutoModelForCausalLM.from_pretrained(base)
    right, nats, tokens = 0, 0.0, 0
    for question in loaded.questions:
        scores = []
        for choice in question.choices:
            context, answer = encode(opened, question.text, " " + choice)
            ids = opened.tokenizer(f"{question.text} {choice}")["input_ids"]
            assert [t for t in context + answer if t > 2] == [t for t in ids if t > 2]
            with torch.no_grad():
                logits = plain(torch.tensor([context + answer])).logits[0].log_softmax(-1)
            at = range(len(context) - 1, len(context) + len(answer) - 1)
            scores.append(sum(logits[i, t].item() for i, t in zip(at, answer, strict=True)))
            if len(scores) - 1 == question.answer:
                nats, tokens = nats - scores[-1], tokens + len(answer)
        right += scores.index(max(scores)) == question.answer
    found = run_tasks(str(base), [loaded])["capitals"]
    assert found.acc is not None and found.acc.estimate == pytest.approx(right / 3)
    assert found.chance == pytest.approx(1 / 3) and found.rate == found.acc
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-3) and found.rows == 3


def test_answers_are_generated_and_cut(tmp_path: Path, base: Path) -> None:
    generate = {"output_type": "generate_until", "generation_kwargs": {"max_gen_toks": 6, "until": ["zz"]}}
    loaded = load_task(write(tmp_path, doc_to_target="{{country}}", **generate))
    assert run_tasks(str(base), [loaded])["capitals"].exact_match.estimate == 0.0
    from hearken import sample

    said = [r[0] for r in sample(base, [q.text for q in loaded.questions], max_new_tokens=6, temperature=0)]
    rows = [row | {"said": text.strip()} for row, text in zip(CAPITALS, said, strict=True)]
    asked = load_task(write(tmp_path, rows, doc_to_target="said", **generate))
    assert run_tasks(str(base), [asked])["capitals"].exact_match.estimate == 1.0


def test_perplexity_a_token_and_a_byte(tmp_path: Path, base: Path) -> None:
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "the fox runs in a forest"}) + "\n")
    found = perplexities(str(base), texts_of([str(tmp_path / "text.jsonl")]))["text.jsonl"]
    assert found.token > found.byte > 1
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    with pytest.raises(UserError, match="no plain text"):
        texts_of([str(tmp_path / "pairs.jsonl")])
