from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_models import write_base, write_rows

from hearken.algorithms.stage import Inputs, check_places, find_stage
from hearken.errors import UserError
from hearken.models import names
from hearken.models.loading import load_policy


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that takes connections and never answers: nobody listens at its port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_mistyped_folder_is_said_at_once_with_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: None
) -> None:
    write_base(tmp_path / "artifacts" / "r00-sft")
    write_base(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    for name, hint in (
        ("my-modle", "my-model"),
        ("r00-stf", "artifacts/r00-sft"),
        ("./my-mode", "my-model"),
        ("x/y", ""),
    ):
        with pytest.raises(UserError) as error:
            names.check_model(name)
        assert name in error.value.what and (not hint or f"Did you mean {hint}?" == error.value.hint), error.value.hint
    with pytest.raises(UserError, match="my-modle: there is no such folder, and the Hub cannot be asked"):
        load_policy("my-modle")
    assert time.monotonic() - began < 5
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"not a model folder \(no config.json\)"):
        names.check_model("empty")


def test_a_name_that_nobody_resolves_does_not_hold_anyone_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names.socket, "create_connection", lambda *_: time.sleep(30) or io.BytesIO())
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    began = time.monotonic()
    with pytest.raises(UserError, match="does not answer within 1 s"):
        names.check_model("org/model")
    assert time.monotonic() - began < 4


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("http_proxy", raising=False)
        names.check_model("org/model")


def test_every_input_is_looked_for_before_anything_is_loaded(tmp_path: Path, silent: None) -> None:
    base = str(write_base(tmp_path / "base"))
    data = str(write_rows(tmp_path / "d.jsonl", [{"prompt": "the"}]))
    ppo, reward = find_stage("ppo"), find_stage("reward")
    check_places(ppo, Inputs(base, (data,), reward="rule:distinct", ref=base))
    wrong = [
        (Inputs(base, (str(tmp_path / "e.jsonl"),)), r"e\.jsonl: no such file"),
        (Inputs(base, ("owner/name",)), "owner/name: there is no such file, and the Hub cannot be asked"),
        (Inputs(base, (data,), ptx=(str(tmp_path / "none.txt"),)), r"none\.txt: no such file"),
        (Inputs(base, (data,), references=(str(tmp_path / "none.txt"),)), r"none\.txt: no such file"),
        (Inputs(base, (data,), ref="bsae"), "--ref bsae: there is no such folder"),
        (Inputs(base, (data,), reward="rm"), "--reward rm: there is no such folder"),
        (Inputs(base, (data,), reward=base), "is a LlamaForCausalLM, not a reward model"),
        (Inputs(base, (data,), reward="rule:lenght"), "has no function 'lenght'"),
        (Inputs(base, (data,), reward="nonesuch:score"), "ModuleNotFoundError"),
    ]
    for inputs, said in wrong:
        with pytest.raises(UserError, match=said) as error:
            check_places(reward if inputs.references else ppo, inputs)
        if "lenght" in said:
            assert error.value.hint == "Did you mean 'length'?"


@pytest.mark.slow
def test_the_command_line_says_so_without_loading_transformers(tmp_path: Path, silent: None) -> None:
    code = (
        "import sys; from hearken.algorithms.stage import Inputs, find_stage, run_stage; from pathlib import Path\n"
        "from hearken.errors import UserError\n"
        "stage = find_stage('sft')\n"
        "try: run_stage(stage, Inputs('nonesuch', ('d.jsonl',)), stage.options(), Path('out'))\n"
        "except UserError as error: print(error.what)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=dict(os.environ)
    )
    assert "nonesuch: there is no such folder" in done.stdout and done.stdout.endswith("[]\n"), done.stderr
    assert not (tmp_path / "out").exists()
