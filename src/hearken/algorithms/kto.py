"""KTO: Ethayarajh et al. 2024. A policy from thumbs, by how people weigh gains and losses.

r = log π(y|x) - log π_ref(y|x)
repeat, over minibatches of responses with a thumb:
    z0 = max(0, mean of r over mismatched pairs (x_i, y_{i+1}) of the batch), without gradient
    loss = λ_D (1 - σ(β(r - z0))) where the thumb is up, λ_U (1 - σ(β(z0 - r))) where it is down

Each prompt has one mismatched response for the whole run: that of a row with another prompt (`thumbs.partners`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.estimate import likelihood, tokens_of
from hearken.algorithms.kto_options import KTOConfig
from hearken.algorithms.recorded import Setup, set_up
from hearken.algorithms.stage import Inputs
from hearken.algorithms.thumbs import Opinion, balance, opinions
from hearken.domains.text.data import judgments
from hearken.models.layout import lay_out
from hearken.objectives.direct import kto, kto_reference_point, sequence_logprobs
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.reference import Reference, logprob_sums
from hearken.training.run import Run

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


@dataclass
class KTOSetup(Setup[Opinion]):
    """With λ_D and λ_U."""

    weights: tuple[float, float]


def load(inputs: Inputs, options: KTOConfig) -> KTOSetup:
    """Open the policy and its reference, and encode the thumbs."""
    setup = set_up(
        inputs, options, lambda rows, encoder: opinions(judgments(rows, encoder), options.seed, encoder.max_length),
        nothing="nothing good or bad", with_reference=True,
    )  # fmt: skip
    weights = balance(setup.data, options, ", ".join(inputs.data))
    up = sum(o.label for o in setup.data)
    setup.facts |= {"thumbs_up": up, "thumbs_down": len(setup.data) - up}
    setup.facts |= {"desirable": weights[0], "undesirable": weights[1]}
    return KTOSetup(**vars(setup), weights=weights)


def run(inputs: Inputs, options: KTOConfig, out: Path) -> Artifact:
    """Fit ``inputs.model`` to the thumbs of ``inputs.data`` and write the policy to ``out``."""
    setup = load(inputs, options)
    scorer, data = setup.scorer, setup.data
    order = setup.order(options)
    total = max(round(options.epochs * len(data) / order.batch), 1)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        reference = Reference(setup.reference, [o.both for o in data], options)
        held_out = Reference(setup.reference, [o.both for o in setup.held_out], options)
        for step in run.steps(total):
            chosen = order.endless(step)  # batches of one size: a last one of one row would have no mismatched pair
            batch = [data[i] for i in chosen]
            groups = [o.group for o in batch]
            weight = distributed.total(sum(o.weight for o in batch)) or 1.0
            ref, ref_mismatched = both(reference, chosen)
            sums = {"loss": 0.0, "reward_up": 0.0, "reward_down": 0.0}
            up = max(distributed.total(sum(o.label for o in batch)), 1)
            down = max(distributed.total(sum(not o.label for o in batch)), 1)
            mismatched = logprob_sums(scorer, [o.mismatched for o in batch], options.tokens) - ref_mismatched
            z0 = kto_reference_point(mismatched, distributed.mean)
            for part in run.microbatches(groups, scorer):
                layout = lay_out([groups[i] for i in part], scorer.device)
                ratio = sequence_logprobs(scorer(layout).logprobs, layout.mask) - ref[part]
                some = [batch[i] for i in part]
                labels = torch.tensor([o.label for o in some], device=scorer.device)
                found = losses(ratio, labels, z0, some, setup.weights, options)
                run.backward(found.sum() / weight)
                sums["loss"] += found.sum().item() / weight
                sums["reward_up"] += options.beta * ratio.detach()[labels].sum().item() / up
                sums["reward_down"] += options.beta * ratio.detach()[~labels].sum().item() / down
            run.log(**distributed.totals(sums), z0=z0.item(), **optimiser.step(step))

        metrics = {"train_loss": run.last("loss")["loss"], "steps": total}
        metrics |= evaluate(setup, held_out, options)
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


def losses(
    ratio: Tensor, labels: Tensor, z0: Tensor, batch: Sequence[Opinion], weights: tuple[float, float],
    options: KTOConfig,
) -> Tensor:  # fmt: skip
    """(B,) weighted losses of log-ratios (B,)."""
    found = kto(ratio, labels, z0, options.beta, desirable=weights[0], undesirable=weights[1])
    return found * found.new_tensor([o.weight for o in batch])


def both(reference: Reference, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B,) log π_ref of the responses of the rows ``chosen``, and of their mismatched pairs."""
    sums = reference.of(chosen)
    assert sums is not None  # KTO has a reference
    matched, mismatched = sums.view(-1, 2).unbind(-1)
    return matched, mismatched


def evaluate(setup: KTOSetup, reference: Reference, options: KTOConfig) -> dict[str, float]:
    """Loss on held-out thumbs, and how often the reward lies on the right side of z0; empty for fewer than two."""
    scorer, held_out = setup.scorer, setup.held_out
    if len(held_out) < 2:
        return {}
    ref, ref_mismatched = both(reference, range(len(held_out)))
    z0 = kto_reference_point(
        logprob_sums(scorer, [o.mismatched for o in held_out], options.tokens, "Held-out thumbs, mismatched")
        - ref_mismatched
    )  # fmt: skip
    ratio = logprob_sums(scorer, [o.group for o in held_out], options.tokens, "Held-out thumbs") - ref
    labels = torch.tensor([o.label for o in held_out], device=ratio.device)
    found = losses(ratio, labels, z0, held_out, setup.weights, options)
    right = ((ratio > z0) == labels).float().mean().item()
    total = sum(o.weight for o in held_out) or 1.0
    return {"validation_loss": found.sum().item() / total, "accuracy": right, "validation_thumbs": len(held_out)}


def _mismatched(setup: KTOSetup) -> int:
    return tokens_of([o.mismatched for o in setup.data])


estimate = likelihood(load, _mismatched)
