"""Losses and gradients beside TRL's trainers, on the same tiny models and the very tokens of TRL's batch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from hearken.algorithms.dpo_options import DPOConfig
from hearken.algorithms.pair_losses import losses
from hearken.domains.text.data import Judged
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.direct import kto, kto_reference_point, sequence_logprobs

trl = pytest.importorskip("trl")

PAIRS = [
    {"prompt": f"tell {i} the", "chosen": " fox runs" + " home" * i, "rejected": " owl sleeps" + " hill" * (3 - i)}
    for i in range(4)
]  # fmt: skip
THUMBS = [{"prompt": p["prompt"], "completion": p["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
          for i, p in enumerate(PAIRS)]  # fmt: skip


def theirs(world, out: Path, kind: str, rows: list[Any], **config: Any) -> tuple[Any, dict[str, Tensor], Any]:
    """TRL's trainer with policy and reference, its first batch, and the policy with TRL's gradient in it."""
    from datasets import Dataset

    policy, reference = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (world.sft, world.base))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = getattr(trl, f"{kind}Config")(
            output_dir=str(out), report_to="none", use_cpu=True, bf16=False, per_device_train_batch_size=4,
            gradient_checkpointing=False, dataloader_pin_memory=False, **config,
        )  # fmt: skip
        trainer = getattr(trl, f"{kind}Trainer")(
            model=policy, ref_model=reference, args=arguments, train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(world.sft),
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.eval()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
    return loss.detach(), batch, trainer.model


def sequences(ids: Tensor, keep: Tensor, completion: Tensor) -> list[Group]:
    """Rows of a padded batch as prompt and response."""
    found = []
    for row, real, answer in zip(ids, keep.bool(), completion.bool(), strict=True):
        found.append(Group(row[real & ~answer].tolist(), [row[real & answer].tolist()]))
    return found


def ours(world) -> tuple[TokenScorer, TokenScorer]:
    policy, reference = (AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (world.sft, world.base))
    return TokenScorer(policy), TokenScorer(reference).requires_grad_(False)


def same_gradients(mine: Any, other: Any) -> None:
    there = dict(other.named_parameters())
    for name, parameter in mine.named_parameters():
        torch.testing.assert_close(parameter.grad, there[name].grad, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dpo", "robust", "ipo", "hinge"])
def test_pairs(world, tmp_path: Path, loss: str) -> None:
    kind = {"dpo": "sigmoid"}.get(loss, loss)
    smoothing = {"label_smoothing": 0.2} if loss == "robust" else {}
    want, batch, model = theirs(world, tmp_path, "DPO", PAIRS, loss_type=[kind], beta=0.3, **smoothing)
    rows = sequences(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    half = len(rows) // 2
    pairs = [
        Judged(Group(a.prompt, [*a.responses, *b.responses]), "comparison", (0, 1))
        for a, b in zip(rows[:half], rows[half:], strict=True)
    ]
    policy, reference = ours(world)
    layout = lay_out([p.group for p in pairs])
    fixed = sequence_logprobs(reference(layout).logprobs, layout.mask)
    average = "mean" if loss == "ipo" else "sum"
    options = DPOConfig(loss=loss, beta=0.3, epsilon=0.2, log_ratio=average)
    got = losses(policy, pairs, fixed, options).loss.mean()
    got.backward()
    assert got.item() == pytest.approx(want.item(), abs=1e-5)
    same_gradients(policy.model, model)


def test_thumbs(world, tmp_path: Path) -> None:
    want, batch, model = theirs(world, tmp_path, "KTO", THUMBS, beta=0.3, undesirable_weight=1.5)
    matched = sequences(batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    mismatched = sequences(batch["KL_input_ids"], batch["KL_attention_mask"], batch["KL_completion_mask"])
    policy, reference = ours(world)

    def ratios(groups: list[Group]) -> Tensor:
        layout = lay_out(groups)
        return sequence_logprobs(policy(layout).logprobs - reference(layout).logprobs, layout.mask)

    z0 = kto_reference_point(ratios(mismatched))
    labels = torch.as_tensor(batch["label"])
    got = kto(ratios(matched), labels, z0, 0.3, undesirable=1.5).mean()
    got.backward()
    assert 0 < labels.sum() < 4
    assert got.item() == pytest.approx(want.item(), abs=1e-5)
    same_gradients(policy.model, model)
