from __future__ import annotations

import json
from pathlib import Path

import pytest

from hearken.algorithms.stage import Inputs
from hearken.errors import UserError
from hearken.training.artifact import Artifact, claim_folder, finish, hash_files, release_folder, write_json
from hearken.training.options import TrainingOptions


def test_a_claimed_folder_is_given_back_only_while_empty(tmp_path: Path) -> None:
    out = tmp_path / "deep/out"
    claim_folder(out, "sft", Inputs(model="m"), TrainingOptions())
    release_folder(out)
    assert not out.exists()
    claim_folder(out, "sft", Inputs(model="m"), TrainingOptions())
    (out / "run/metrics.jsonl").write_text("{}")
    release_folder(out)
    assert (out / "run/request.json").exists()
    with pytest.raises(UserError, match=r"other settings \(inputs.model\)"):
        claim_folder(out, "sft", Inputs(model="n"), TrainingOptions())
    claim_folder(out, "sft", Inputs(model="m"), TrainingOptions())  # resumed


def test_the_manifest_says_where_it_came_from(tmp_path: Path) -> None:
    inputs = Inputs(model="m", reward="r", parents={"snapshot": "s"})
    made = finish(
        tmp_path,
        "ppo",
        inputs=inputs,
        options=TrainingOptions(seed=7),
        data={"rows": 1},
        metrics={"kl": 2.0},
        seconds=1,
    )
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert {"kind", "parents", "options", "data", "seed", "versions", "metrics", "created"} <= content.keys()
    assert content["parents"] == {"model": "m", "reward": "r", "snapshot": "s"} and content["seed"] == 7
    assert Artifact.load(tmp_path) == made and made.metrics == {"kl": 2.0}
    with pytest.raises(UserError, match="not a finished artifact"):
        Artifact.load(tmp_path / "none")


def test_a_file_is_old_or_new_never_half(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_hashes_are_of_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_text("x")
    one, two = hash_files((str(tmp_path / "a"),)), hash_files((str(tmp_path / "b"),))
    assert one == two and len(one or "") == 64
    (tmp_path / "a").write_text("y")
    assert hash_files((str(tmp_path / "a"),)) != one
    assert hash_files(("owner/name",)) is None
