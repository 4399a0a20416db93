from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from hearken.algorithms import stage as stages
from hearken.config import FORMER

Run = Callable[..., Result]
BASE = ("train", "toy", "--model", "base", "--data", "a.jsonl")


def test_options_come_from_the_model(hearken: Run, toy) -> None:
    text = hearken("train", "toy", "--help").stdout
    assert "Peak learning rate. (default 0.001, > 0)" in text
    assert "linear|cosine" in text and "Fixes [every] draw. (default 0)" in text
    assert "--no-whiten" in text and "--merge" in text and "--no-merge" not in text
    assert "--ref" in text and "--ptx" not in text, "only the inputs that the stage reads"
    assert text.index("Toy options") < text.index("Shared options")
    assert "Example:  hearken train toy --model my-model --data data.jsonl --out my-toy" in text


def test_what_held_out_data_is_for_is_said_by_stage(hearken: Run) -> None:
    means = {"sft": "(-o validation=0.05)", "dpo": "(-o validation=0.1)", "a2c": "prompts for --judge;"}
    for stage, said in means.items():
        assert said in " ".join(hearken("train", stage, "--help").stdout.split()), stage
    for stage in ("rloo", "grpo", "reinforce", "online_dpo", "rft", "ilql", "trpo"):
        assert "--validation" not in hearken("train", stage, "--help").stdout, stage


def test_stages_are_listed(hearken: Run, toy) -> None:
    text = hearken("train", "--help").stdout
    for name in ("sft", "reward", "ppo", "toy"):
        assert name in text
    wrong = hearken("train", "toi")
    assert wrong.exit_code == 2 and "No such command 'toi'" in wrong.stderr


def test_defaults_stand_where_nothing_is_given(hearken: Run, toy, tmp_path: Path) -> None:
    done = hearken(*BASE, "--data", "b.jsonl", "--out", "out")
    assert done.exit_code == 0, done.stderr
    (inputs, options, out) = toy.calls[0]
    assert (inputs.model, inputs.data, inputs.ref, out) == ("base", ("a.jsonl", "b.jsonl"), None, Path("out"))
    assert options == type(options)()
    assert "metrics.loss" in done.stdout and "0.5" in done.stdout


def test_later_sources_are_stronger(hearken: Run, toy, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text("model: other\ndata: c.jsonl\nlr: 0.5\nseed: 7\nmerge: true\nlayers: [9]\n")
    words = ("--config", "toy.yaml", "-o", "lr=1e-4", "--set", "schedule=cosine", "--schedule", "linear")
    done = hearken("train", "toy", "--model", "base", *words, "--floor", "none", "--no-whiten", "--out", "out")
    assert done.exit_code == 0, done.stderr
    inputs, options, _ = toy.calls[0]
    assert (inputs.model, inputs.data) == ("base", ("c.jsonl",))
    assert options.model_dump() == {
        "seed": 7, "lr": 1e-4, "schedule": "linear", "whiten": False, "merge": True, "floor": None, "layers": [9],
    }  # fmt: skip


def test_lists_are_read_as_yaml(hearken: Run, toy) -> None:
    hearken(*BASE, "--layers", "[3, 4]", "--merge", "--out", "out")
    assert toy.calls[0][1].layers == [3, 4] and toy.calls[0][1].merge


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "o", "--lr", "-1"), "Error: train toy: lr: Input should be greater than 0 (got '-1')"),
        (("--out", "o", "--schedule", "cosin"), "schedule: Input should be 'linear' or 'cosine'"),
        (("--out", "o", "-o", "shedule=cosine"), "unknown key 'shedule'\nDid you mean 'schedule'?"),
        (("--out", "o", "-o", "lr"), "not of the form key=value"),
        (("--out", "o", "--config", "none.yaml"), "cannot read none.yaml"),
        ((), "--out is missing"),
        (("--out", "o", "--resume"), "there is no run in o"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(
    hearken: Run, toy, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = hearken(*BASE, *words)
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2
    assert not done.stdout and not toy.calls and not list(tmp_path.iterdir())


def test_missing_inputs_are_named(hearken: Run, toy) -> None:
    done = hearken("train", "toy", "--data", "a.jsonl", "--out", "o")
    assert done.exit_code == 2 and "train toy needs --model" in done.stderr


def test_an_unknown_option_names_the_nearest(hearken: Run, toy) -> None:
    done = hearken(*BASE, "--out", "o", "--shedule", "cosine")
    assert done.exit_code == 2 and "--schedule" in done.stderr


def test_json_is_one_object_and_nothing_else(hearken: Run, toy) -> None:
    done = hearken(*BASE, "--out", "out", "--json")
    assert json.loads(done.stdout) == {"out": "out", "kind": "toy", "metrics": {"loss": 0.5}}
    assert "a library chatters" in done.stderr


def test_finished_work_is_not_overwritten(hearken: Run, toy, tmp_path: Path) -> None:
    assert hearken(*BASE, "--out", "out").exit_code == 0
    again = hearken(*BASE, "--out", "out")
    assert again.exit_code == 2 and "already holds a finished artifact" in again.stderr
    assert hearken(*BASE, "--out", "out", "--lr", "0.1", "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["options"]["lr"] == 0.1


def interrupt() -> None:
    raise KeyboardInterrupt


def test_resume_needs_no_other_words(hearken: Run, toy) -> None:
    toy.act = interrupt
    stopped = hearken(*BASE, "--lr", "0.25", "--ref", "sft", "--out", "out")
    assert stopped.exit_code == 130 and "run the same command again" in stopped.stderr
    toy.act = lambda: None
    done = hearken("train", "toy", "--resume", "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert toy.calls[0] == toy.calls[1]


def test_resume_refuses_other_settings_and_stages(hearken: Run, toy) -> None:
    toy.act = interrupt
    hearken(*BASE, "--out", "out")
    assert "other settings (options.lr)" in hearken("train", "toy", "--resume", "--lr", "0.9", "--out", "out").stderr
    assert "holds a run of 'toy'" in hearken("train", "sft", "--resume", "--out", "out").stderr


def test_dry_run_prints_options_that_config_takes(hearken: Run, toy, tmp_path: Path, monkeypatch) -> None:
    figures = {"rows": 12, "memory": {"weights": 1e9}, "seconds": 60.0}
    monkeypatch.setattr("hearken.cli.stages.estimate", lambda stage, inputs, options: figures)
    words = ("--lr", "2e-5", "--no-whiten", "--dry-run", "--out", "out")
    done = hearken(*BASE, *words)
    assert done.exit_code == 0, done.stderr
    assert yaml.safe_load(done.stdout)["data"] == ["a.jsonl"]
    assert "# memory.weights: 1.00 GB\n# seconds: 1 min 0 s\n" in done.stdout
    assert not toy.calls and not list(tmp_path.iterdir()), "nothing was trained or written"

    told = json.loads(hearken(*BASE, *words, "--json").stdout)
    assert told["estimate"] == figures and told["options"]["lr"] == 2e-5

    (tmp_path / "dry.yaml").write_text(done.stdout)
    hearken("train", "toy", "--config", "dry.yaml", "--out", "out")
    assert toy.calls[0][1].model_dump() == told["options"]


def test_builtin_options_make_commands(hearken: Run) -> None:
    for stage in stages.builtin():
        done = hearken("train", stage.name, "--help")
        assert done.exit_code == 0, done.output
        for name, field in stage.options.model_fields.items():
            assert field.description, f"{stage.name}: {name} has no description"


def test_former_flags_work_and_say_so(hearken: Run, toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMER, "rate", "lr")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = hearken(*BASE, "-o", "rate=0.1", "--rate", "0.5", "--out", "out")
    assert done.exit_code == 0, done.stderr
    assert "Warning: --rate is now --lr\n" in done.stderr
    assert toy.calls[0][1].lr == 0.5
    assert "--rate" not in hearken("train", "toy", "--help").stdout
