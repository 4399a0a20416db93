"""Adapters on heads and embeddings: saved, loaded and merged they compute the same; on a tied pair they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from tiny_models import tokenizer, write_base
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from hearken.errors import UserError
from hearken.models.loading import add_adapter, load_policy, load_tokenizer, merge_adapter, save

IDS = torch.arange(5, 25)[None]


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model.eval()(IDS).logits
    return found


def trained(model: PreTrainedModel) -> Tensor:
    """Fit the adapter to a text, and say what the model computes then."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=0.05)
    for _ in range(5):
        model(IDS, labels=IDS).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return logits(model)


def saved(model: PreTrainedModel, base: Path, out: Path) -> Path:
    for one in model.peft_config.values():
        one.base_model_name_or_path = str(base)
    save(model, tokenizer(), out)
    return out


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    return write_base(tmp_path / "untied", tie_word_embeddings=False)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", "lm_head", "embed_tokens", "embed_tokens,lm_head", "q_proj,lm_head"])
def test_saved_loaded_and_merged_are_equal(untied: Path, tmp_path: Path, targets: str) -> None:
    model = load_policy(str(untied))
    add_adapter(model, "policy", 4, targets=targets)
    wanted = trained(model)
    assert (logits(load_policy(str(untied))) - wanted).abs().max() > 0.1, "it has learned something"
    out = saved(model, untied, tmp_path / "adapter")
    merged = merge_adapter(load_policy(str(out)))
    save(merged, load_tokenizer(str(out)), tmp_path / "merged")
    loads: dict[str, Callable[[], Any]] = {
        "hearken": lambda: load_policy(str(out)),
        "transformers": lambda: AutoModelForCausalLM.from_pretrained(out),
        "peft": lambda: AutoPeftModelForCausalLM.from_pretrained(out),
        "peft, merged": lambda: AutoPeftModelForCausalLM.from_pretrained(out).merge_and_unload(),
        "merged": lambda: merged,
        "merged and saved": lambda: AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
    }
    for name, load in loads.items():
        torch.testing.assert_close(logits(load()), wanted, rtol=0, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("targets", ["lm_head", "embed_tokens", "q_proj,embed_tokens"])
def test_one_matrix_of_two_layers_is_refused(tmp_path: Path, targets: str) -> None:
    model = load_policy(str(write_base(tmp_path / "tied")))
    with pytest.raises(UserError, match=r"embed_tokens.*one matrix|lm_head.*one matrix"):
        add_adapter(model, "policy", 4, targets=targets)
    add_adapter(model, "policy", 4)  # all-linear leaves them out


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize(
    "how",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ],
)
def test_another_programs_adapter_that_parts_a_tied_pair(tmp_path: Path, how: dict[str, Any]) -> None:
    """Merged, the pair stays parted: also in the configuration, by which it is loaded."""
    base = write_base(tmp_path / "tied")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.add_adapter(LoraConfig(task_type="CAUSAL_LM", r=4, **how), adapter_name="default")
    wanted = trained(model)
    out = saved(model, base, tmp_path / "adapter")
    torch.testing.assert_close(logits(load_policy(str(out))), wanted, rtol=0, atol=1e-4)
    merged = merge_adapter(load_policy(str(out)))
    torch.testing.assert_close(logits(merged), wanted, rtol=0, atol=1e-4)
    save(merged, load_tokenizer(str(out)), tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(again), wanted, rtol=0, atol=1e-4)
    assert again.config.tie_word_embeddings is False
