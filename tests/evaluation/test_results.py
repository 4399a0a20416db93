"""The result of an evaluation, as it is held and as it stands in a file; and files of the form before versions."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import hearken
from hearken.errors import UserError
from hearken.evaluation.results import (
    EvaluationResult,
    GroupOfJudges,
    JudgedBy,
    Likelihood,
    Perplexity,
    Phrase,
    PolicyResult,
    Spread,
    Standing,
    TaskScores,
    read_evaluation,
    write_evaluation,
)
from hearken.evaluation.summary import NotesSummary
from hearken.feedback.examples import Message
from hearken.statistics.intervals import Interval

NAN = math.nan
HALF = Interval(0.5, 0.4, 0.6)
SUMMARY: dict[str, Any] = {
    "seed": 1, "model": "tiny",
    "reward": {
        "accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 1.0, "length_accuracy": 0.5, "ceiling": 0.8,
    },
    "policy": {
        "win_rates": {"judge": [0.5, 0.4, 0.6], "reward": [0.5, None, None]},
        "win_rates_by_reading": {"easy": [0.5, 0.4, 0.6]}, "win_rate_by_group": {"warm": 0.5, "brisk": None},
        "kl": 3.0, "ended": 1.0, "ended_before": 0.5, "gold": 1.0, "gold_before": 0.0, "length": 9.0,
        "length_before": 8.0, "says": 1.0, "says_before": 0.5, "distinct_2": 0.75, "distinct_2_before": None,
    },
    "perplexity": {"before": 9.0, "after": 9.5},
}  # fmt: skip
OLD: dict[str, Any] = {
    "baseline": "r00-sft", "judge": "the reward model (a proxy: ask people before you believe it)",
    "prompts": ["Tell a tale.", [{"role": "user", "content": "And another?"}]],
    "policies": {
        "r00-sft": {
            "kl": [0.0, 0.0, 0.0], "length": [4.0, None, None], "eos_share": [1.0, 1.0, 1.0],
            "entropy": [NAN, NAN, NAN], "proxy": [0.5, 0.0, 1.0], "distinct_2": 0.75, "length_drift": [0.0, 0.0, 0.0],
            "phrases": [], "responses": ["a fox ran", "an owl"], "scores": [0.0, 1.0],
        },
        "r01-ppo": {
            "kl": [3.0, 2.0, 4.0], "distinct_2": 1.0, "length_drift": [1.0, 0.0, 2.0],
            "phrases": [{"text": "what a day", "share": 0.5, "before": 0.0}],
            "responses": ["what a day it was", "an owl"], "scores": [2.0, 1.0], "golds": [0.25, 1.0],
            "parses": [True, False], "win_rate": [0.75, 0.5, 1.0], "comparisons": 2,
            "win_rate_by_group": {"hearth": [0.5, 0.4, 0.6]},
            "win_rates": {"judge": [0.75, 0.5, 1.0]}, "win_rates_by_reading": {"easy": [0.5, 0.4, 0.6]},
            "likelihood": {"preferred": [-1.0, -2.0, -0.5], "other": [-3.0, -4.0, -2.0]},
            "perplexities": {"plain.txt": {"token": 9.0, "byte": 2.0}}, "perplexity": 9.0,
            "tasks": {"sums": {"perplexity": 3.0, "rows": 8, "acc": [0.5, 0.4, 0.6], "chance": 0.25}},
        },
        "r00-base": {"perplexity": 12.0},
    },
    "artifacts": {"r00-sft": "artifacts/r00-sft", "r01-ppo": "artifacts/r01-ppo"}, "reward": "r01-reward",
    "created": "2026-01-01T00:00:00+00:00", "length_effect": [0.1, NAN, NAN],
    "leaderboard": [
        {"place": 1, "policy": "r01-ppo", "strength": [0.5, 0.4, 0.6], "strength_at_equal_length": [0.5, 0.4, 0.6],
         "beats_baseline": [0.75, 0.5, 1.0], "wins": 1.5, "ties": 0.5, "losses": 0.0, "level_with": ["r00-sft"]},
        {"place": 2, "policy": "r00-sft", "strength": [-0.5, -0.6, -0.4],
         "strength_at_equal_length": [-0.5, -0.6, -0.4], "beats_baseline": None, "wins": 0.0, "ties": 0.5,
         "losses": 1.5, "level_with": ["r01-ppo"]},
    ],
    "groups": {"hearth": {"by": "group", "key": "", "labelers": 3, "comparisons": 7}},
    "seeds": {"kl": {"mean": [3.0, 1.0, 5.0], "deviation": NAN, "lowest": 2.0, "highest": 4.0, "seeds": 2}},
    "ceiling": 0.8, "summary": SUMMARY,
}  # fmt: skip
"""What was written before results had a version, and a type."""


def typed(old: dict[str, Any] = OLD) -> EvaluationResult:
    """The same, written out by hand."""
    easy = {"easy": HALF}
    ours = PolicyResult(
        kl=Interval(3, 2, 4), distinct_2=1.0, length_drift=Interval(1, 0, 2),
        phrases=(Phrase(text="what a day", share=0.5, before=0.0),), responses=("what a day it was", "an owl"),
        scores=(2.0, 1.0), golds=(0.25, 1.0), parses=(True, False), win_rate=Interval(0.75, 0.5, 1), comparisons=2,
        win_rate_by_group={"hearth": HALF}, win_rate_by_judge={"judge": Interval(0.75, 0.5, 1)},
        win_rate_by_reading=easy, likelihood=Likelihood(preferred=Interval(-1, -2, -0.5), other=Interval(-3, -4, -2)),
        perplexities={"plain.txt": Perplexity(token=9, byte=2)}, perplexity=9.0,
        tasks={"sums": TaskScores(perplexity=3, rows=8, acc=HALF, chance=0.25)},
    )  # fmt: skip
    base = PolicyResult(
        kl=Interval(0, 0, 0), length=Interval(4, NAN, NAN), eos_share=Interval(1, 1, 1),
        entropy=Interval(NAN, NAN, NAN), proxy=Interval(0.5, 0, 1), distinct_2=0.75, length_drift=Interval(0, 0, 0),
        responses=("a fox ran", "an owl"), scores=(0.0, 1.0),
    )  # fmt: skip
    low = Interval(-0.5, -0.6, -0.4)
    return EvaluationResult(
        baseline="r00-sft", reward="r01-reward", created="2026-01-01T00:00:00+00:00",
        judge=JudgedBy(
            kind="reward", name="r01-reward", words="the reward model",
            remark="a proxy: ask people before you believe it",
        ),
        prompts=("Tell a tale.", (Message("user", "And another?"),)),
        policies={"r00-sft": base, "r01-ppo": ours, "r00-base": PolicyResult(perplexity=12.0)},
        artifacts={"r00-sft": "artifacts/r00-sft", "r01-ppo": "artifacts/r01-ppo"},
        leaderboard=(
            Standing(place=1, policy="r01-ppo", strength=HALF, strength_at_equal_length=HALF, wins=1.5, ties=0.5,
                     beats_baseline=Interval(0.75, 0.5, 1), level_with=("r00-sft",)),
            Standing(place=2, policy="r00-sft", strength=low, strength_at_equal_length=low, ties=0.5, losses=1.5,
                     level_with=("r01-ppo",)),
        ),
        length_effect=Interval(0.1, NAN, NAN),
        groups={"hearth": GroupOfJudges(by="group", labelers=3, comparisons=7)},
        seeds=(Spread(name="kl", mean=Interval(3, 1, 5), lowest=2, highest=4, seeds=2, deviation=NAN),),
        ceiling=0.8, summary=NotesSummary(**SUMMARY),
    )  # fmt: skip


def same(one: EvaluationResult, other: EvaluationResult) -> bool:
    """Equal, NaN with NaN too."""
    return repr(one) == repr(other)


def test_a_file_of_the_form_before_versions_is_brought_into_todays(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(OLD))
    assert same(hearken.read_evaluation(tmp_path), typed())
    assert same(hearken.read_evaluation(str(tmp_path / "evaluation.json")), typed())


def test_paths_within_the_project_are_stored_as_seen_from_it(tmp_path: Path) -> None:
    root, hub = tmp_path / "p", "org/model"
    policy, beside = str(root / "artifacts" / "r01-ppo"), str(tmp_path / "base")
    result = EvaluationResult(artifacts={"a": policy, "b": f"best-of-8@{policy}", "c": hub, "d": beside})
    for file in (root / "evaluation.json", root / "artifacts" / "r01-evaluation" / "evaluation.json"):
        write_evaluation(file, result)
        stored = json.loads(file.read_text())["artifacts"]
        assert stored == {
            "a": "./artifacts/r01-ppo", "b": "best-of-8@./artifacts/r01-ppo", "c": hub, "d": beside,
        }  # fmt: skip
        assert hearken.read_evaluation(file) == result
    moved = root.rename(tmp_path / "q")
    assert hearken.read_evaluation(moved).artifacts["b"] == f"best-of-8@{moved / 'artifacts' / 'r01-ppo'}"


def test_a_file_with_paths_in_full_is_read_where_the_project_is(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "r01-ppo").mkdir(parents=True)
    file = tmp_path / "evaluation.json"
    before = {"version": 1, "artifacts": {"a": "/gone/p/artifacts/r01-ppo", "b": "/gone/base", "c": "org/model"}}
    file.write_text(json.dumps(before))
    found = hearken.read_evaluation(file).artifacts
    assert found == {"a": str(tmp_path / "artifacts" / "r01-ppo"), "b": "/gone/base", "c": "org/model"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.json"
    write_evaluation(file, typed())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(file.read_text("utf-8"), parse_constant=refuse)
    assert content["version"] == 1 and content["judge"]["kind"] == "reward"
    assert content["policies"]["r00-sft"]["length"] == {"estimate": 4.0, "low": None, "high": None}
    assert content["prompts"] == OLD["prompts"]
    assert same(read_evaluation(file), typed()) and typed().seeds[0].deviation is None
    scored = EvaluationResult(policies={"p": PolicyResult(scores=(1.0, NAN))})
    write_evaluation(file, scored)
    assert same(read_evaluation(file), scored), "each response keeps its place"


@pytest.mark.parametrize(
    ("sentence", "kind", "name", "words"),
    [
        ("the gold reward", "gold", "", "the gold reward"),
        ("the reward model (a proxy)", "reward", "r01-reward", "the reward model"),
        ("people", "people", "", "people"),
        ("an AI labeler", "ai", "", "an AI labeler"),
        ("simulated labelers", "simulated", "", "simulated labelers"),
        ("an untuned model that reads both answers (no labeler, no reward model)", "reader", "r00-sft",
         "an untuned model that reads both answers"),
    ],
)  # fmt: skip
def test_every_judge_of_before_is_known(tmp_path: Path, sentence: str, kind: str, name: str, words: str) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(OLD | {"judge": sentence}))
    judge = read_evaluation(file).judge
    assert judge is not None and (judge.kind, judge.name, judge.words) == (kind, name, words)
    assert str(judge) == sentence


def test_what_the_first_evaluations_did_not_say_is_told_from_the_texts(tmp_path: Path) -> None:
    first = json.loads(json.dumps(OLD))
    for figures in first["policies"].values():
        for key in ("length_drift", "phrases", "distinct_2"):
            figures.pop(key, None)
    (tmp_path / "evaluation.json").write_text(json.dumps(first))
    found = read_evaluation(tmp_path).policies
    drift = found["r01-ppo"].length_drift
    assert drift is not None and drift.estimate == (2 + 0) / 2, "words more than the baseline's"
    assert found["r01-ppo"].distinct_2 == 1.0 and found["r00-base"].length_drift is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no evaluation"),
        (json.dumps({"version": 2}), "newer Hearken"),
        (json.dumps(OLD | {"judge": "the cat"}), "judged by 'the cat', which is unknown"),
        (json.dumps({"version": 1, "policies": {"a": {"win_rates": 1}}}), "policies.a.win_rates"),
        (json.dumps({"version": 1, "prompts": 3}), "prompts"),
        (json.dumps(OLD | {"policies": {"a": {"kl": "much"}}}), "policies.a.kl"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, content: str, what: str) -> None:
    file = tmp_path / "evaluation.json"
    file.write_text(content)
    with pytest.raises(UserError, match=what) as refused:
        read_evaluation(file)
    assert str(file) in refused.value.what and "hearken evaluate" in refused.value.hint
    with pytest.raises(UserError, match=r"cannot read .*elsewhere"):
        read_evaluation(tmp_path / "elsewhere")


def test_a_result_is_not_changed_but_copied() -> None:
    result = typed()
    with pytest.raises(ValidationError):
        result.baseline = "r01-ppo"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        result.but(base="r01-ppo")
    with pytest.raises(ValidationError):
        result.policies["r01-ppo"].but(win_rate="high")
    assert result.but(baseline="r01-ppo").answers("r00-sft") == ("a fox ran", "an owl")
    assert result.answers("r00-base") == result.answers("nobody") == ()


def test_a_notebook_needs_no_torch(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation.json", typed())
    read = "import sys, hearken; r = hearken.read_evaluation(sys.argv[1]); print(r.judge, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", read, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{typed().judge} False"


def test_the_documentation_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    section = text.partition("## The evaluation itself")[2].partition("\n## ")[0]
    of_result, of_policy = section.partition("| of a policy |")[::2]
    for table, model in ((of_result, EvaluationResult), (of_policy, PolicyResult)):
        cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(model.model_fields)
