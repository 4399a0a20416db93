"""Models whose ids mean something else than the policy's: refused, or not begun with; never read with wrong words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import sentence, tokenizer, write_base, write_rows
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from hearken.algorithms.ppo import load
from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.stage import Inputs, train
from hearken.errors import UserError
from hearken.models.loading import load_policy, new_reward, other_tokens


def embeddings(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight  # type: ignore[no-any-return]


def shuffled() -> PreTrainedTokenizerFast:
    """The tokenizer of `tiny_models`, its first two letters exchanged."""
    made = tokenizer()
    state = json.loads(made.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    one, other = (made.convert_ids_to_tokens(i) for i in (6, 7))
    words[one], words[other] = 7, 6
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **special)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def test_tokens_that_are_added_or_named_again_are_the_same_words(base: Path, tmp_path: Path) -> None:
    named = tokenizer()
    named.add_tokens(["<new>"])
    assert not other_tokens(named, str(base)) and not other_tokens(tokenizer(), str(base))
    load_policy(str(base)).save_pretrained(tmp_path / "bare")
    assert not other_tokens(shuffled(), str(tmp_path / "bare"))
    assert "its token 6 is" in other_tokens(shuffled(), str(base))


def test_a_reference_with_another_tokenizer_is_refused(base: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": "the fox", "chosen": " runs", "rejected": " sings"}] * 4)
    other = write_base(tmp_path / "other", shuffled())
    with pytest.raises(UserError, match=r"--ref .*other has another tokenizer than the policy: its token 6 is"):
        train("dpo", model=str(base), data=str(data), ref=str(other), out=tmp_path / "out", trackers="none")


@pytest.mark.parametrize("lora", [0, 2])
def test_a_value_model_does_not_start_from_a_reward_model_with_another_tokenizer(
    base: Path, tmp_path: Path, lora: int
) -> None:
    """Scores come through text; values are read from the policy's own tokens."""
    starts = []
    for name, made in (("same", tokenizer()), ("other", shuffled())):
        reward, tok = new_reward(str(write_base(tmp_path / f"of-{name}", made)), 1)
        with torch.no_grad():
            embeddings(reward).mul_(2)
        reward.save_pretrained(tmp_path / name)
        tok.save_pretrained(tmp_path / name)
        data = write_rows(tmp_path / "p.jsonl", [{"prompt": sentence(random.Random(i))} for i in range(4)])
        inputs = Inputs(str(base), (str(data),), reward=str(tmp_path / name))
        setup = load(inputs, PPOConfig(lora=lora, precision="fp32", max_new_tokens=8))
        starts.append(embeddings(setup.value.model))
    own = embeddings(load_policy(str(base)))
    assert torch.equal(starts[0], 2 * own) and torch.equal(starts[1], own)
