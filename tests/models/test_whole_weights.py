"""What is loaded is what stands in the files: nothing made up for a weight that is missing, nothing passed over."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import transformers as T
from safetensors.torch import load_file, save_file
from tiny_models import tokenizer, write_base

from hearken.errors import UserError
from hearken.models.loading import load_policy, load_reward, new_reward
from hearken.models.scorers import TokenScorer, probe

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by PEFT, with `init_lora_weights` off in its config: what is missing would not even be zero."""
    how = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    out = tmp_path_factory.mktemp("whole") / "adapter"
    peft.get_peft_model(T.AutoModelForCausalLM.from_pretrained(base), how).save_pretrained(out)
    return out


def changed(folder: Path, out: Path, change: Callable[[Weights], Weights]) -> str:
    """A copy of a folder with other weights."""
    shutil.copytree(folder, out)
    (file,) = out.glob("*.safetensors")
    save_file({k: v.clone() for k, v in change(load_file(file)).items()}, file, {"format": "pt"})
    return str(out)


def described(folder: Path, out: Path, **other: object) -> str:
    """A copy of a folder whose configuration says something else."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text("utf-8"))
    (out / "config.json").write_text(json.dumps(config | other), "utf-8")
    return str(out)


def test_weights_that_are_missing_are_refused(base: Path, tmp_path: Path) -> None:
    short = changed(base, tmp_path / "short", lambda w: {k: v for k, v in w.items() if "up_proj" not in k})
    for load in (load_policy, lambda name: new_reward(name, 0)):
        with pytest.raises(UserError, match=r"weights are missing in its files, the first .*0\.mlp\.up_proj"):
            load(short)
    layers = T.AutoConfig.from_pretrained(base).num_hidden_layers
    with pytest.raises(UserError, match=rf"the first model\.layers\.{layers}\."):
        load_policy(described(base, tmp_path / "deep", num_hidden_layers=layers + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_policy(str(base))
        new_reward(str(base), 0)


def test_weights_of_other_sizes_are_refused_with_both(base: Path, tmp_path: Path) -> None:
    config = T.AutoConfig.from_pretrained(base)
    narrow = described(base, tmp_path / "narrow", intermediate_size=config.intermediate_size - 8)
    with pytest.raises(UserError, match=rf"two sizes, \d+ x {config.intermediate_size} and \d+ x"):
        load_policy(narrow)


def test_weights_without_a_place_are_said(base: Path, tmp_path: Path) -> None:
    more = changed(base, tmp_path / "more", lambda w: w | {"model.layers.9.mlp.up_proj.weight": torch.zeros(2, 2)})
    with pytest.warns(UserWarning, match=r"no place for 1 of its weights \(model\.layers\.9"):
        load_policy(more)


def test_a_reward_model_without_its_head_is_refused(base: Path, tmp_path: Path) -> None:
    model, tok = new_reward(str(base), 0)
    model.save_pretrained(tmp_path / "rm")
    tok.save_pretrained(tmp_path / "rm")
    headless = changed(
        tmp_path / "rm", tmp_path / "headless", lambda w: {k: v for k, v in w.items() if k != "score.weight"}
    )
    with pytest.raises(UserError, match=r"1 weights are missing in its files, the first score.weight"):
        load_reward(headless)
    assert load_reward(str(tmp_path / "rm"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda w: {k: v for k, v in w.items() if "layers.1" not in k},
            "missing in its files, the first model.layers.1",
        ),
        (lambda w: {k.replace("model.model", "model.transformer"): v for k, v in w.items()}, "are missing"),
        (lambda w: w | {k.replace("s.1", "s.7"): v for k, v in w.items() if "s.1" in k}, "no place in its base.*s.7"),
        (lambda w: {k: torch.cat([v, v], int("lora_B" in k)) for k, v in w.items()}, "other sizes than its base"),
    ],
    ids=["a layer less", "other names", "a layer more", "another rank"],
)
def test_an_adapter_that_does_not_fit_is_refused(
    adapter: Path, tmp_path: Path, change: Callable[[Weights], Weights], match: str
) -> None:
    assert load_policy(str(adapter))
    with pytest.raises(UserError, match=match):
        load_policy(changed(adapter, tmp_path / "a", change))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n", None])
def test_files_that_are_cut_or_pointers_are_refused(base: Path, tmp_path: Path, content: bytes | None) -> None:
    shutil.copytree(base, tmp_path / "torn")
    file = tmp_path / "torn" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(UserError, match=r"the weights of .* are cut or no weights"):
        load_policy(str(tmp_path / "torn"))


def test_code_in_a_models_folder_is_not_run(base: Path, tmp_path: Path) -> None:
    """Nor asks transformers at the terminal whether it may."""
    own = described(base, tmp_path / "own", model_type="own", auto_map={"AutoConfig": "own.C"})
    (tmp_path / "own" / "own.py").write_text("raise SystemExit('was run')\n", "utf-8")
    with pytest.raises(UserError, match="contains custom code"):
        load_policy(own)


def test_weights_that_are_no_numbers_are_named(base: Path, tmp_path: Path) -> None:
    broken = changed(
        base, tmp_path / "nan", lambda w: {k: v * float("nan") if "up_proj" in k else v for k, v in w.items()}
    )
    with pytest.raises(UserError, match=r"are no numbers \(NaN\)"):
        probe(TokenScorer(load_policy(broken)))


def test_a_model_that_reads_ahead_is_refused() -> None:
    """BERT loads as a causal language model, and sees the whole answer."""
    config = T.BertConfig(
        vocab_size=len(tokenizer()), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    with pytest.raises(UserError, match="this BertLMHeadModel reads ahead"):
        probe(TokenScorer(T.BertLMHeadModel(config).eval()), 64)
    config.is_decoder = True
    with pytest.warns(UserWarning, match="cannot be packed"):
        probe(TokenScorer(T.BertLMHeadModel(config).eval()), 64)
