"""The contest with the peers: its clock, its models and its count of operations; and our side from start to end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "contest"))


def test_a_phase_inside_another_is_taken_out_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    from clock import Clock

    owner = SimpleNamespace(inner=lambda: time.sleep(0.02))
    owner.outer = lambda: (time.sleep(0.01), owner.inner())
    clock = Clock("cpu")
    clock.wrap(owner, "inner", "inner")
    clock.wrap(owner, "outer", "outer")
    owner.outer()  # before the clock begins nothing counts
    clock.begin()
    owner.outer()
    clock.lap()
    clock.result(more=1)
    found = json.loads(capsys.readouterr().out)
    assert found["phases"]["inner"] >= 0.02 and found["phases"]["outer"] >= 0.01
    assert sum(found["phases"].values()) <= found["laps"][0] + 1e-6
    assert found["more"] == 1 and found["peak_bytes"] >= found["start_bytes"] > 0


def test_the_rate_of_ending_gives_the_mean_length() -> None:
    from world import end_rate

    p, limit = end_rate(64), 64
    assert sum(p * (1 - p) ** (n - 1) * n for n in range(1, limit)) + limit * (1 - p) ** (limit - 1) == pytest.approx(
        32
    )


def test_models_end_at_the_asked_rate_or_never(tmp_path: Path) -> None:
    from world import Size, make_model

    from hearken.models.loading import load_policy, load_tokenizer

    size = Size(32, layers=2, vocabulary=64)
    assert load_tokenizer(str(make_model(tmp_path / "a", size, 0, 0.1)))("w3 w5 w63")["input_ids"] == [3, 5, 63]
    make_model(tmp_path / "b", size, 0, 0.0)
    ids = torch.randint(3, 64, (16, 24), generator=torch.Generator().manual_seed(1))
    for name, wanted in (("a", 0.1), ("b", 0.0)):
        with torch.no_grad():
            chances = load_policy(str(tmp_path / name))(input_ids=ids).logits.softmax(-1).mean((0, 1))
        assert chances[1] == pytest.approx(wanted, abs=0.03)
        assert chances[[0, 2]].max() < 1e-9


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    """All but causality: torch counts whole squares of attention, we the half that is needed."""
    from world import Size, make_model

    from hearken.models.loading import load_policy

    size = Size(32, layers=2, vocabulary=64)
    model = load_policy(str(make_model(tmp_path / "a", size, 0, 0.1)))
    model.set_attn_implementation("eager")  # the fused one is not counted on a CPU
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(1, 20, dtype=torch.long))
    square = size.forward([(0, 20)], head=20) + 4 * size.layers * size.hidden * (20 * 20 - 20 * 21 // 2)
    assert counter.get_total_flops() == square
    assert size.parameters == sum(p.numel() for p in model.parameters() if p.ndim > 1)
    shared = size.forward([(0, 5), (5, 7), (5, 7)]), size.forward([(0, 12), (0, 12)])
    assert shared[1] - shared[0] == size.forward([(0, 5)])


def test_tables_fill_the_page(tmp_path: Path) -> None:
    from page import write_docs

    point = {"x": 128, "per_second": 10.0, "share": 0.2}
    figures = {
        "losses": [{"kind": "sft", "of": "loss", "steps": 50, "first": 7.6, "last": 7.5, "worst": 2e-6}],
        "scaling": {"tokens": [point, point | {"x": 256, "per_second": 30.0, "share": 0.6}]},
    }
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- figures: losses -->\nold\n<!-- end -->\nb\n<!-- figures: ratios -->\nstays\n<!-- end -->\n"
    )
    write_docs(figures, page)
    text = page.read_text()
    assert "| sft   | loss     | 50    |" in text and "old" not in text and "stays" in text and text.startswith("a\n")
    chart = (tmp_path / "performance-tokens.svg").read_text()
    assert chart.startswith("<svg xmlns") and "256: 60% of the matmul rate" in chart


def test_missing_peers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import vs_trl

    monkeypatch.setenv("HEARKEN_TRL", str(ROOT / "no-such-python"))
    monkeypatch.setenv("HEARKEN_TRL_PPO", str(ROOT / "no-such-python"))
    found, missing = vs_trl.find_peers(SimpleNamespace(trl=None, trl_ppo=None))
    assert found == {} and len(missing) == 2
    assert "trl==1.16.*" in missing[0] and "--trl-ppo" in missing[1]


def test_each_method_has_rows_at_both_sizes() -> None:
    import vs_trl

    goals = {"dpo": 1.8, "kto": 1.8, "rloo": 2.0, "grpo": 2.0}
    for kind, goal in goals.items():
        rows = [r for r in vs_trl.ROWS if r.kind == kind]
        assert {r.hidden for r in rows} == {64, 256} and {r.goal for r in rows} == {goal}
        assert {r.peer for r in rows} == {"trl"} and kind in vs_trl.SETTINGS
        if kind in ("dpo", "kto"):
            assert {(r.hidden, r.cached) for r in rows} == {(h, c) for h in (64, 256) for c in (False, True)}
    assert len({(r.name, r.hidden) for r in vs_trl.ROWS}) == len(vs_trl.ROWS)


def test_a_gpu_gets_a_model_worth_it() -> None:
    import vs_trl
    import world

    rows = vs_trl.rows_on("cuda")
    assert vs_trl.rows_on("cpu") == vs_trl.ROWS and {r.kind for r in rows} == {r.kind for r in vs_trl.ROWS}
    assert {r.hidden for r in rows} == {world.GPU_HIDDEN}
    assert 0.5e9 < world.Size.of(world.GPU_HIDDEN).parameters < 1e9
    assert world.Size.of(256).parameters == world.Size(256).parameters


def test_what_direct_alignment_needs(tmp_path: Path) -> None:
    """In shares of one forward pass: three with gradient; DPO's reference one; KTO's mismatched pairs one or two."""
    import vs_trl

    contest = vs_trl.Contest(tmp_path, 1, 0, 1, "cpu", "fp32", True, {})
    size = vs_trl.Size(64)
    for kind, samples in (("dpo", 2), ("kto", 1)):
        shares = {}
        for cached in (False, True):
            row = vs_trl.Row("", kind, 64, 1.0, samples=samples, cached=cached)
            task = contest.task(row)
            rows = task.rows()
            tokens = vs_trl.world.real_tokens(rows)
            head = sum(sum(vs_trl.world.lengths(r)[1]) for r in rows)
            once = size.forward(vs_trl.world.spans(rows), head=head)
            shares[cached] = vs_trl.needed(size, row, task, {"laps": [1.0], "tokens": tokens}) / once
            assert vs_trl.units(row, task, {"laps": [1.0, 1.0], "tokens": tokens}) == 2 * task.batch
        if kind == "dpo":
            assert shares == {True: pytest.approx(3), False: pytest.approx(4)}
        else:
            assert shares[True] == pytest.approx(4)
            assert 5.5 < shares[False] < 6  # the reference computes each prompt once


def test_the_reward_of_the_contest_differs_within_a_group() -> None:
    from scoring import mean_number

    assert mean_number(["a"] * 3, ["w1024 w1024", "w2047", ""]) == [0.5, 2047 / 2048, 0.0]


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["sft", "reward", "dpo", "kto", "ppo", "rloo", "grpo", "sample"])
def test_our_side_runs(kind: str, tmp_path: Path) -> None:
    import vs_trl

    contest = vs_trl.Contest(tmp_path, 1, 0, 1, "cpu", "fp32", True, {})
    samples = {"reward": 2, "dpo": 2, "rloo": 4, "grpo": 4}.get(kind, 1)
    row = vs_trl.Row("", kind, 64, 1.0, samples=samples, stops=True)
    task = contest.task(row)
    found = contest.side(task)
    assert found["laps"] and all(lap > 0 for lap in found["laps"])
    assert vs_trl.units(row, task, found) > 0
    assert 0 < vs_trl.needed(contest.size(row), row, task, found) / sum(found["laps"]) < 1e13
    if row.samples_first:
        assert {"sampling", "scoring", "forward", "backward", "optimiser"} == set(found["phases"])
        assert 8 < found["metrics"]["length"] < 60
    if kind in ("sft", "reward", "dpo", "kto"):
        assert math.isfinite(found["losses"][-1])
        assert 0 < found["tokens"] < vs_trl.world.real_tokens(task.rows())  # the first step warms up


@pytest.mark.nightly
def test_the_script_without_peers(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/vs_trl.py", "--fast", "--parts", "rows", "--only", "1 a prompt.*64"]
    more = ["--out", str(tmp_path / "f.json"), "--work", str(tmp_path / "w"), "--trl", "none", "--trl-ppo", "none"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Missing: TRL") == 2
    (one,) = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert one["ratio"] > 0 and one["row"]["hidden"] == 64
