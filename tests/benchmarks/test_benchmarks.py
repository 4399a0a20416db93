"""The benchmarks: their own pieces; nightly, that each runs from start to end (`--fast`: its figures mean nothing)."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Message, Thumb
from hearken.statistics.intervals import Interval

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("HEARKEN_SHARED_DATA") or ROOT.parent / "shared" / "data")
needs_data = pytest.mark.skipif(
    not (SHARED / "README.md").exists(), reason=f"the real data is not at {SHARED} (set HEARKEN_SHARED_DATA)"
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def imports_of(script: Path) -> list[tuple[str, str]]:
    """Module and name of all that a script imports from the package, at its head or within a function."""
    nodes = [node for node in ast.walk(ast.parse(script.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    return [(n.module, a.name) for n in nodes for a in n.names if n.module and n.module.split(".")[0] == "hearken"]


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_from_the_package_exists(script: Path) -> None:
    """A benchmark runs nightly alone; a renamed function is seen at once all the same."""
    if script.stem == "control":
        pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')
    for module, name in imports_of(script):
        assert hasattr(import_module(module), name) or find_spec(f"{module}.{name}"), f"{module}.{name}"


def test_missing_data_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import common

    monkeypatch.setenv("HEARKEN_SHARED_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"hh-harmless\.jsonl\.gz is not in") as error:
        common.shared("hh-harmless.jsonl.gz")
    assert "HEARKEN_SHARED_DATA" in error.value.hint


def test_a_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    import common

    common.table("Title", ("model", "accuracy"), [("ours", common.percent(Interval(0.6123, 0.588, 0.635)))])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "Title"
    assert lines[2:] == [
        "| model | accuracy          |",
        "|-------|-------------------|",
        "| ours  | 61.2 [58.8, 63.5] |",
    ]


def test_folds_keep_a_prompt_together_and_are_even() -> None:
    from human_preferences import folds_by_prompt

    prompts = [f"p{i % 50}" for i in range(120)]
    folds = folds_by_prompt(prompts, 5, seed=1)
    assert all(len({f for p, f in zip(prompts, folds, strict=True) if p == q}) == 1 for q in set(prompts))
    unique = dict(zip(prompts, folds, strict=True))
    assert np.bincount(list(unique.values())).tolist() == [10] * 5


def test_bigrams_learn_what_a_pair_of_words_says() -> None:
    pytest.importorskip("sklearn")
    from human_preferences import bigrams

    def row(better: str, worse: str) -> Comparison:
        return Comparison((Message("user", "?"),), (better, worse), (0, 1))

    # Single words are the same on both sides: only their order tells.
    training = [row(f"not good {i}", f"good not {i}") for i in range(20)]
    leads = bigrams(training, [row("this is not good", "this is good not"), row("good not", "not good")])
    assert leads[0] > 0 > leads[1]


def test_the_gold_judge_reads_words_and_says_a_probability() -> None:
    pytest.importorskip("sklearn")
    from sentiment import gold_judge

    rows = [Thumb("a film", f" that is {w}", w == "lovely") for w in ("lovely", "dreadful") for _ in range(5)]
    gold, accuracy = gold_judge(rows, rows)
    assert accuracy == 1.0
    high, low = gold(["lovely", "dreadful"])
    assert 1 > high > 0.5 > low > 0


def test_distinct_ratio() -> None:
    from sentiment import distinct_ratio

    varied = [f"word{i} follows word{i + 1} here" for i in range(40)]
    same = distinct_ratio(varied, varied)
    assert (same.estimate, same.low, same.high) == (1, 1, 1)
    collapsed = distinct_ratio(["the best best best film"] * 40, varied)
    assert collapsed.estimate < 0.1 and collapsed.high < 0.2


def test_requirements_fail_where_they_should() -> None:
    from sentiment import requirements

    def at(x: float) -> Interval:
        return Interval(x, x, x)

    good = {"gain": at(0.16), "kl": at(4.0), "distinct_2_ratio": at(0.95), "perplexity_ratio": at(0.9)}
    assert all(requirements(good).values())
    for bad in ({"gain": at(0.1)}, {"kl": at(6.0)}, {"distinct_2_ratio": at(0.5)}, {"perplexity_ratio": at(0.5)}):
        assert list(requirements(good | bad).values()).count(False) == 1


def test_walks_are_scored_by_their_length() -> None:
    from random_walks import LONGEST, Graph, draw, heard, optimality, said

    small = Graph(((), (0, 2), (0,), (1,)), (1, 2, 2, 3))
    assert small.optimality([1, 0]) == small.optimality([3, 1, 0]) == 1
    assert small.optimality([1, 2, 0]) == (LONGEST - 3) / (LONGEST - 2)
    for wrong in ([1, 3, 0], [3, 1], [1, 0, 2], [-1, 0]):
        assert small.optimality(wrong) == 0
    assert heard(said([3, 1, 0])) == [3, 1, 0] and heard("b zz") == [1, -1]
    world, walks = draw(1000)
    assert np.mean([world.optimality(path) for path in walks]) == pytest.approx(0.352, abs=5e-4), "trlX's behaviour"
    path = [5]
    while path[-1] != 0:
        path.append(min(world.edges[path[-1]], key=lambda n: world.shortest[n]))
    assert optimality([said(path[:1])], [said(path[1:])], [{"graph": 1000}]) == [1.0]


def test_a_talk_is_laid_out_as_the_model_will_meet_it() -> None:
    from tales_tasks import content, document

    assert content("answer", "Tale.\nWho?") == "Tale.\nWho?"
    assert document("answer", "Tale.\nWho?", "It.") == "Tale.\nWho?It."
    talk = "Tale.\nWell?\n\nGood.\n\nMore?"
    assert [m.role for m in content("talk", talk)] == ["user", "assistant", "user"]
    said = "\n\nHuman: Tale.\nWell?\n\nAssistant: Good.\n\nHuman: More?\n\nAssistant: Yes."
    assert document("talk", talk, "Yes.") == said


def test_the_frontier_is_a_picture_of_its_own() -> None:
    from xml.etree import ElementTree

    from sentiment_frontier import METHODS, plot

    def at(x: float) -> Interval:
        return Interval(x, x, x)

    picture = plot({m: [{"gain": at(0.1 * i), "kl": at(float(i))} for i in (1, 2)] for m in METHODS})
    root = ElementTree.fromstring(picture)
    texts = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert root.tag.endswith("svg") and texts >= set(METHODS)
    assert "--series-0" in picture, "its colours come with it"


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("script", "key"),
    [
        pytest.param("human_preferences", "accuracy", marks=needs_data),
        pytest.param("rankings", "tau", marks=needs_data),
        pytest.param("sentiment", "policies", marks=needs_data),
        pytest.param("sentiment_frontier", "frontier", marks=needs_data),
        ("tales_tasks", "policies"),
        ("random_walks", "policies"),
        ("arithmetic", "policies"),
        ("rounds", "arms"),
        ("tastes", "accuracy"),
    ],
)
def test_runs_from_start_to_end(script: str, key: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "figures.json"
    command = [sys.executable, f"benchmarks/{script}.py", "--fast", "--out", str(out), "--work", str(tmp_path / "work")]
    command += ["--plot", str(tmp_path / "plot.svg")] if script == "sentiment_frontier" else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "| " in done.stdout
    figures = json.loads(out.read_text("utf-8"))
    assert figures["fast"] is True
    assert figures[key]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "key", "plots"),
    [("pessimism", "best_of_n", 6), ("overoptimisation", "direct", 5), ("confident_and_wrong", "paths", 3)],
)
def test_the_simulations_run(name: str, key: str, plots: int, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--fast", "--out", out, "--work", tmp_path / "work"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(out.read_text("utf-8"))[key]
    drawn = out.with_suffix(".html").read_text("utf-8")
    assert drawn.count("<svg") == plots and "no data" not in drawn


@pytest.mark.nightly
def test_the_real_model_runs_with_a_tiny_one(tmp_path: Path) -> None:
    from chat_folder import write_chat_folder

    model, out = write_chat_folder(tmp_path / "tiny"), tmp_path / "figures.json"
    command = [sys.executable, ROOT / "benchmarks" / "real_model.py", "--fast", "--seeds", "1", "--model", model]
    ran = subprocess.run(
        [*command, "--out", out, "--work", tmp_path / "work"], capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(out.read_text("utf-8"))
    assert len(found["judge_on_known_pairs"]) == 8 and set(found["runs"]) == {"1"}
    assert "wins by the independent judge" in ran.stdout and "nan" in ran.stdout  # one seed has no spread
