from __future__ import annotations

import shlex
from pathlib import Path

import torch
from safetensors.torch import save_file

from hearken.loop.recipes import command, count_weights, relative
from hearken.training.artifact import Artifact

MANIFEST = {
    "inputs": {"model": "/home/me/p/artifacts/r00-sft", "data": ["/home/me/p/snapshots/a b.parquet"], "ref": None},
    "options": {"stage": "dpo", "beta": 0.3, "lora": 0, "lora_targets": ["q", "v"], "merge": True},
}


def test_a_command_has_what_was_changed_and_no_path_of_this_machine() -> None:
    words = shlex.split(command(Artifact(Path("artifacts/r01-dpo"), "dpo", MANIFEST), Path("/home/me/p")))
    assert words[:5] == ["hearken", "train", "dpo", "--model", "artifacts/r00-sft"]
    assert "snapshots/a b.parquet" in words and "beta=0.3" in words and 'lora_targets=["q", "v"]' in words
    assert "lora=0" not in words and "/home" not in " ".join(words)
    assert words[-2:] == ["--out", "artifacts/r01-dpo"]
    assert command(Artifact(Path("x"), "no such stage", {})) == ""


def test_what_stands_elsewhere_is_named_by_its_last_part() -> None:
    assert relative("/new/place/artifacts/r00-sft", Path("/new/place")) == "artifacts/r00-sft"
    assert relative("/elsewhere/file.jsonl", Path("/new")) == "file.jsonl"
    assert relative("/elsewhere/file.jsonl", None) == "file.jsonl"
    assert relative("owner/name", Path("/new")) == "owner/name"


def test_weights_are_counted_from_headers(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "model.safetensors")
    assert count_weights(tmp_path) == 17
    (tmp_path / "other.safetensors").write_bytes(b"\x01")
    assert count_weights(tmp_path) == 17
    assert count_weights(tmp_path / "nowhere") is None
