"""Every mistake is one line that says what is wrong and what to do, before work starts; nothing is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tokenizer, write_base, write_rows

import hearken.training.run as runs
from hearken.algorithms.stage import Inputs, estimate, find_stage, train
from hearken.errors import UserError

LONG = {"prompt": "the fox " * 200, "completion": " sleeps"}


def rows(tmp_path: Path, *content: Any) -> Path:
    return write_rows(tmp_path / "rows.jsonl", list(content))


def without_eos(tmp_path: Path) -> Path:
    return write_base(tmp_path / "noeos", tokenizer(pad_token="<pad>"))


def raw(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "raw.jsonl"
    path.write_text(text)
    return path


def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


CASES: dict[str, tuple[str, Callable[[Any, Path], dict[str, Any]], str]] = {
    "no model folder": ("sft", lambda w, t: {"model": t / "none"}, "none does not exist"),
    "no model in it": ("sft", lambda w, t: {"model": folder(t)}, "is not a model folder"),
    "a model of no kind": ("sft", lambda w, t: {"model": broken(t)}, "cannot load"),
    "reward as model": ("ppo", lambda w, t: {"model": w.reward}, "is a reward model"),
    "causal as reward": ("ppo", lambda w, t: {"reward": w.base}, "not a reward model.*hearken train reward"),
    "no reward": ("ppo", lambda w, t: {"reward": None}, "train ppo needs --reward"),
    "reward for sft": ("sft", lambda w, t: {"reward": w.reward}, "train sft does not read --reward"),
    "no eos": ("sft", lambda w, t: {"model": without_eos(t)}, r"no end-of-sequence token.*--eos"),
    "unknown eos": ("sft", lambda w, t: {"eos": "<none>"}, "no token '<none>'"),
    "long prompt": ("sft", lambda w, t: {"data": rows(t, LONG)}, r"row 1 has \d+ tokens.*long_prompts=truncate"),
    "only long prompts": ("sft", lambda w, t: {"data": rows(t, LONG), "long_prompts": "drop"}, "no row is left"),
    "beyond the context": ("sft", lambda w, t: {"max_length": 500}, "exceeds the model's context of 96"),
    "no room": ("ppo", lambda w, t: {"max_new_tokens": 96}, "leave no room for a prompt"),
    "unknown option": ("ppo", lambda w, t: {"kl_tagret": 6}, "option 'kl_tagret'. Did you mean 'kl_target'"),
    "batch_size": ("ppo", lambda w, t: {"batch_size": 9, "num_generations": 2}, "batch_size 9 is not a multiple"),
    "no file": ("sft", lambda w, t: {"data": t / "no.jsonl"}, "no.jsonl"),
    "empty file": ("sft", lambda w, t: {"data": raw(t, "")}, "empty"),
    "not JSON": ("sft", lambda w, t: {"data": raw(t, '{"prompt": "a", "completion": "b"}\n{"pro\n')}, r"raw.jsonl.*2"),
    "thumbs for sft": (
        "sft", lambda w, t: {"data": rows(t, {"prompt": "a", "completion": "b", "label": True}), "validation": 0},
        "row 1 is a thumb, which is not something to imitate",
    ),
    "prompts for reward": ("reward", lambda w, t: {"data": w.prompts}, "not a judgment"),
    "text for ppo": ("ppo", lambda w, t: {"data": w.text}, "plain text, not a prompt"),
    "empty response": (
        "sft", lambda w, t: {"data": rows(t, {"prompt": "a", "completion": ""})},
        r"rows.jsonl.*1.*'completion' is empty",
    ),
    "chosen is rejected": (
        "reward", lambda w, t: {"data": rows(t, {"prompt": "a", "chosen": "b", "rejected": "b"})}, r"rows.jsonl.*1",
    ),
    "no responses": (
        "dpo", lambda w, t: {"data": rows(t, {"prompt": "a", "responses": [], "ranks": []})},
        r"rows.jsonl.*1.*responses",
    ),
    "one response ranked": (
        "dpo", lambda w, t: {"data": rows(t, {"prompt": "a", "responses": ["b", "c"], "ranks": [0, None]})},
        r"rows.jsonl, line 1: fewer than two responses are ranked",
    ),
    "no reference": ("ppo", lambda w, t: {"ref": t / "none"}, "none does not exist"),
    "a reference that judges": ("ppo", lambda w, t: {"ref": w.reward}, "is a reward model"),
    "ratings for kto": (
        "kto", lambda w, t: {"data": rows(t, {"prompt": "a", "completion": "b", "ratings": {"x": 3}})}, "not a thumb",
    ),
    "attribute of nobody": ("reward", lambda w, t: {"weights": {"kind": 1}}, "nobody rated 'kind'"),
    "attribute of a plain reward": ("ppo", lambda w, t: {"reward": f"{w.reward}#kind"}, "It has one score alone"),
    "half an attribute": ("ppo", lambda w, t: {"reward": "#kind"}, "is not model#attribute"),
    "leakage": ("sft", lambda w, t: {"validation": w.demonstrations}, "validation data .* are in the training data"),
    "held out for nobody": ("ppo", lambda w, t: {"validation": w.prompts}, "prompts for a judge, and there is none"),
    "thumbs as ptx": (
        "ppo", lambda w, t: {"ptx": rows(t, {"prompt": "a", "completion": "b", "label": True})},
        "--ptx, row 1 is a thumb, which is not something to imitate",
    ),
    "counts as ptx": (
        "ppo", lambda w, t: {"ptx": rows(t, {"prompt": "a", "completion": "b", "label": 1})},
        r"rows.jsonl.*1 in every row.*; or --ptx-format binary reads",
    ),
    "a layout of ptx": ("ppo", lambda w, t: {"ptx": w.text, "ptx_format": "txt"}, "unknown format 'txt'.*'text'"),
    "prompts as references": (
        "reward", lambda w, t: {"references": w.prompts}, "--references, row 1 is a prompt, which is not",
    ),
    "a layout of references": (
        "reward", lambda w, t: {"references": w.demonstrations, "references_format": "pairs"},
        r"sft.jsonl.*1.*'chosen' is missing",
    ),
    "encoding": ("sft", lambda w, t: {"data": cp1252(t)}, "cp1252"),
}  # fmt: skip


def broken(tmp_path: Path) -> Path:
    made = folder(tmp_path)
    (made / "config.json").write_text('{"model_type": "nonesuch"}')
    return made


def cp1252(tmp_path: Path) -> Path:
    path = tmp_path / "old.txt"
    path.write_bytes("naïve café and more of it".encode("cp1252"))
    return path


def given(world, stage: str) -> dict[str, Any]:
    return {
        "sft": {"model": world.base, "data": world.demonstrations},
        "reward": {"model": world.base, "data": world.pairs},
        "dpo": {"model": world.base, "validation": 0},
        "kto": {"model": world.base, "validation": 0},
        "ppo": {
            "model": world.sft,
            "data": world.prompts,
            "reward": world.reward,
            "batch_size": 4,
            "max_new_tokens": 8,
        },
    }[stage]


@pytest.mark.parametrize("case", CASES)
def test_mistakes(world, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.Run, "steps", lambda *_: pytest.fail("work had begun"))
    stage, make, message = CASES[case]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message) as told:
        train(stage, out=out, trackers="none", **given(world, stage) | make(world, tmp_path))
    assert "\n" not in str(told.value) and told.value.hint
    assert not out.exists(), "the folder is free for the mended command"


def test_a_dry_run_finds_the_same_mistakes(world, tmp_path: Path) -> None:
    stage = find_stage("sft")
    inputs = Inputs(model=str(world.base), data=(str(rows(tmp_path, LONG)),))
    with pytest.raises(UserError, match="row 1 has"):
        estimate(stage, inputs, stage.options())


@pytest.mark.parametrize("way", ["drop", "truncate"])
def test_long_prompts_can_be_dropped_or_cut(world, tmp_path: Path, way: str) -> None:
    data = rows(tmp_path, LONG, {"prompt": "the bear", "completion": " sings"})
    artifact = train(
        "sft", model=world.base, data=data, out=tmp_path / "out", long_prompts=way, validation=0, trackers="none"
    )
    said = artifact.manifest["data"]["truncation"]
    assert ("1 rows were left out" if way == "drop" else "1 prompts lost their beginning") in said
    assert artifact.manifest["data"]["sequences"] == (1 if way == "drop" else 2)


def test_out_folders(world, tmp_path: Path) -> None:
    words = given(world, "sft") | {"trackers": "none", "batch_size": 24}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="exists and is not an unfinished run"):
        train("sft", out=mine, overwrite=True, **words)
    assert (mine / "thesis.txt").exists()
    with pytest.raises(UserError, match="is a file"):
        train("sft", out=mine / "thesis.txt", **words)

    done = train("sft", out=tmp_path / "done", **words)
    before = (done.path / "manifest.json").read_text()
    with pytest.raises(UserError, match=r"already holds a finished artifact.*--overwrite"):
        train("sft", out=done.path, **words)
    assert (done.path / "manifest.json").read_text() == before
    assert train("sft", out=done.path, overwrite=True, **words | {"seed": 5}).manifest["seed"] == 5

    half = tmp_path / "half"
    shutil.copytree(done.path / "run", half / "run")
    with pytest.raises(UserError, match=r"unfinished run with other settings \(options.lr\)"):
        train("sft", out=half, **words | {"seed": 5, "lr": 0.5})
    assert (half / "run/request.json").exists(), "an unfinished run is never given up"


def test_bad_rows_can_be_skipped_and_are_counted(world, tmp_path: Path) -> None:
    data = rows(
        tmp_path, {"prompt": "a", "completion": ""}, *({"prompt": f"tell {i}", "completion": " home"} for i in range(5))
    )
    with pytest.warns(UserWarning, match="6 rows, 5 examples, 1 skipped"):
        artifact = train("sft", model=world.base, data=data, out=tmp_path / "out", on_bad="skip", trackers="none")
    (said,) = json.loads((artifact.path / "manifest.json").read_text())["data"]["skipped"].values()
    assert "'completion' is empty: 1" in said and "the first" in said


def test_encoding_reaches_every_input(world, tmp_path: Path) -> None:
    old = cp1252(tmp_path)
    words = given(world, "ppo") | {"trackers": "none", "episodes": 4, "ptx": old, "epochs": 1}
    with pytest.raises(UserError):
        train("ppo", out=tmp_path / "out", **words)
    artifact = train("ppo", out=tmp_path / "out", encoding="cp1252", **words)
    assert artifact.manifest["data"]["ptx_pieces"] == 1
