"""What a folder promises: the same from every working directory and after a move, and only with what it began with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_base, write_rows
from transformers import AutoModelForCausalLM

from hearken.algorithms.stage import Inputs, find_stage, train
from hearken.errors import UserError
from hearken.models.loading import load_policy, new_reward, save
from hearken.training.artifact import Artifact, claim_folder, read_record, request_of

QUIET: dict[str, Any] = {"trackers": "none", "precision": "fp32", "validation": 0.0}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and data, where one works."""
    folder = tmp_path / "home"
    write_base(folder / "models" / "base")
    write_rows(folder / "d.jsonl", [{"prompt": f"the {w}", "completion": " fox runs"} for w in ("owl", "bear", "fox")])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits  # type: ignore[no-any-return]


def test_an_adapter_is_found_from_anywhere_and_by_peft(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    train("sft", model="models/base", data="d.jsonl", out="adapter", lora=2, lr=1e-2, **QUIET)
    here = logits(load_policy("adapter"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    for found in (
        load_policy(str(home / "adapter")),
        AutoModelForCausalLM.from_pretrained(home / "adapter"),
        peft.AutoPeftModelForCausalLM.from_pretrained(home / "adapter"),
    ):
        torch.testing.assert_close(logits(found), here)
    assert (logits(load_policy(str(home / "models/base"))) - here).abs().max() > 1e-3
    train("sft", model=home / "adapter", data=home / "d.jsonl", out="further", **QUIET)
    torch.testing.assert_close(logits(load_policy("further")), logits(load_policy(os.path.abspath("further"))))

    # base and adapter are moved together: transformers cannot know, hearken does
    shutil.move(home, tmp_path / "moved")
    torch.testing.assert_close(logits(load_policy(str(tmp_path / "moved/adapter"))), here)
    reward, _ = new_reward(str(tmp_path / "moved/adapter"), 0)
    assert type(reward).__name__ == "LlamaForSequenceClassification"
    shutil.rmtree(tmp_path / "moved/models")
    with pytest.raises(UserError, match=r"adapter of the base model .*models/base, which is not there"):
        load_policy(str(tmp_path / "moved/adapter"))


def test_a_manifest_names_its_files_from_anywhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = train("sft", model="models/base", data="d.jsonl", out="sft", **QUIET)
    want = {"model": str(home / "models/base"), "data": [str(home / "d.jsonl")]}
    monkeypatch.chdir(tmp_path)
    manifest = Artifact.load(made.path if made.path.is_absolute() else home / "sft").manifest
    assert {key: manifest["inputs"][key] for key in want} == want
    assert manifest["parents"]["model"] == want["model"] and manifest["data"]["files"] == want["data"]

    shutil.copytree(home, tmp_path / "copy")
    there = Artifact.load(tmp_path / "copy/sft").manifest
    assert there["inputs"]["model"] == str(tmp_path / "copy/models/base")
    assert there["inputs"]["data"] == there["data"]["files"] == [str(tmp_path / "copy/d.jsonl")]
    assert there["parents"]["model"] == str(tmp_path / "copy/models/base")


def test_paths_in_full(home: Path) -> None:
    inputs = Inputs(
        "models/base", ("d.jsonl", "org/data"), reward="models/base,rule:length*0.5,models/base#kind*2", ref="org/name",
        parents={"samples": "d.jsonl"},
    )  # fmt: skip
    base = str(home / "models/base")
    full = inputs.settled()
    assert (full.model, full.data, full.ref) == (base, (str(home / "d.jsonl"), "org/data"), "org/name")
    assert full.reward == f"{base},rule:length*0.5,{base}#kind*2" and full.parents == {"samples": str(home / "d.jsonl")}
    assert inputs.files() == [base, str(home / "d.jsonl")]
    (home / "a,b*2").mkdir()
    assert Inputs(reward="a,b*2").settled().reward == str(home / "a,b*2"), "a path that exists is one term"


def begin(out: str, **more: Any) -> None:
    """Claim a folder, as a run does that is then killed."""
    options = find_stage("sft").options.parse(QUIET | more, where="test")
    claim_folder(Path(out), "sft", Inputs("models/base", ("d.jsonl",), ref="models/other"), options)


@pytest.mark.parametrize("changed", ["d.jsonl", "models/base/model.safetensors", "models/other/config.json"])
def test_a_run_is_not_resumed_with_other_files(home: Path, changed: str) -> None:
    shutil.copytree("models/base", "models/other")
    begin("out")
    begin("out")  # nothing has changed
    (home / "models/base/card.json").write_text("{}")  # what others know of a model is no part of it
    begin("out")
    before = Path(changed).read_bytes()
    Path(changed).write_bytes(before + b"\n")
    whole = home / (changed if changed == "d.jsonl" else changed.rpartition("/")[0])
    with pytest.raises(UserError, match=f"^{whole} has changed since the unfinished run in out began") as error:
        begin("out")
    assert "--overwrite" in (error.value.hint or "")
    Path(changed).write_bytes(before)
    begin("out")
    os.remove("d.jsonl")
    with pytest.raises(UserError, match=r"d\.jsonl is gone since"):
        begin("out")


def test_a_killed_run_goes_on_from_another_folder_and_after_a_move(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("models/base", "models/other")
    begin("out")
    monkeypatch.chdir(tmp_path / "elsewhere")
    options = find_stage("sft").options.parse(QUIET, where="test")
    given = {"model": str(home / "models/base"), "data": (str(home / "d.jsonl"),), "ref": str(home / "models/other")}
    claim_folder(home / "out", "sft", Inputs(**given), options)  # type: ignore[arg-type]
    shutil.move(home, tmp_path / "moved")
    saved = read_record(tmp_path / "moved/out/run/request.json")
    moved = Inputs(
        str(tmp_path / "moved/models/base"),
        (str(tmp_path / "moved/d.jsonl"),),
        ref=str(tmp_path / "moved/models/other"),
    )
    assert request_of("sft", moved, options)["inputs"] == saved["inputs"]
    claim_folder(tmp_path / "moved/out", "sft", moved, options)


def test_the_settings_of_an_adapters_base_that_do_not_name_eos_are_said(home: Path) -> None:
    with pytest.warns(UserWarning, match=r"responses end with '<\|im_end\|>', which the settings of the base"):
        train("sft", model="models/base", data="d.jsonl", out="adapter", lora=2, eos="<|im_end|>", **QUIET)
    assert json.loads(Path("adapter/adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


def test_reward_models_are_saved_whole(home: Path) -> None:
    reward, tokenizer = new_reward("models/base", 0)
    save(reward, tokenizer, home / "rm")
    assert (home / "rm/model.safetensors").is_file()
