"""KTO: Ethayarajh et al. 2024. A policy from thumbs, by how people weigh gains and losses.

r = log π(y|x) - log π_ref(y|x)
repeat, over minibatches of responses with a thumb:
    z0 = max(0, mean of r over mismatched pairs (x_i, y_{i+1}) of the batch), without gradient
    loss = λ_D (1 - σ(β(r - z0))) where the thumb is up, λ_U (1 - σ(β(z0 - r))) where it is down

Each prompt has one mismatched response for the whole run: that of a row with another prompt (`partners`).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.dpo import fixed_reference
from hearken.algorithms.estimate import likelihood, tokens_of
from hearken.algorithms.kto_options import KTOConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, Reader, judgments, nothing_fits
from hearken.domains.text.loading import TextPolicy, open_policy
from hearken.errors import UserError
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives.direct import kto, kto_reference_point, sequence_logprobs
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import Order
from hearken.training.estimate import Dry
from hearken.training.optimiser import Optimiser
from hearken.training.reference import logprob_sums, reference_sums
from hearken.training.run import Run

UNDECIDED, BETWEEN = "comparisons without a preference", "ranked responses beside the best and the worst"
"""What opinions are not made of."""


@dataclass(frozen=True)
class Opinion:
    """One response with a thumb, and the same prompt with another row's response."""

    group: Group
    mismatched: Group
    label: bool
    weight: float

    @property
    def both(self) -> Group:
        """The prompt, to be computed once, with its own response and the other."""
        return Group(self.group.prompt, [*self.group.responses, *self.mismatched.responses])


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    reference: TokenScorer
    data: list[Opinion]
    held_out: list[Opinion]
    weights: tuple[float, float]
    """λ_D and λ_U."""
    facts: dict[str, Any]


def load(inputs: Inputs, options: KTOConfig) -> Ready:
    """Open the policy and its reference, and encode the thumbs."""
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows = reader.rows(inputs.data, inputs.validation, options.validation, options.seed)
    policy = open_policy(inputs.model, options, options)
    length = policy.encoder.max_length
    (data, left_out), (held_out, _) = (
        opinions(judgments(part, policy.encoder), options.seed, length, quiet=part is rows.validation)
        for part in (rows.train, rows.validation)
    )
    if not data:
        if any(left_out.values()):
            raise UserError(f"{', '.join(inputs.data)} holds nothing good or bad", said(left_out))
        raise nothing_fits(inputs.data)
    if any(left_out.values()):
        warnings.warn(f"left out: {said(left_out)}", stacklevel=2)
    good = sum(o.label for o in data)
    bad = len(data) - good
    if not good or not bad:
        side = "down" if good == 0 else "up"
        raise UserError(
            f"{', '.join(inputs.data)}: every thumb is {side}",
            "KTO needs both kinds: add the other, or train on the good responses alone with: hearken train sft",
        )
    weights = (options.desirable or max(bad / good, 1.0), options.undesirable or max(good / bad, 1.0))
    more: dict[str, Any] = {"thumbs_up": good, "thumbs_down": bad, "left_out": left_out}
    more |= {"desirable": weights[0], "undesirable": weights[1]}
    more |= say(of_recorded(options, [one.group for one in data]))
    facts = rows.facts | more | {"skipped": reader.skipped, "truncation": policy.encoder.tell()}
    reference = fixed_reference(inputs, policy, in_step=not options.cache_reference)
    return Ready(policy, reference, data, held_out, weights, facts)


def opinions(
    found: Sequence[Judged], seed: int, max_length: int, *, quiet: bool = False
) -> tuple[list[Opinion], dict[str, int]]:
    """Thumbs with their mismatched pairs, and how much was left out, by what it is.

    A comparison becomes a thumb up for its best response, down for its worst.

    Raises:
        UserError: a rating, which is neither good nor bad.
    """
    thumbs: list[tuple[Group, bool, float]] = []
    converted = 0
    left_out = dict.fromkeys((UNDECIDED, BETWEEN), 0)
    for number, judged in enumerate(found, 1):
        if judged.kind == "thumb":
            thumbs.append((judged.group, bool(judged.target), judged.weight))
        elif judged.kind == "comparison":
            ranked = sorted((rank, i) for i, rank in enumerate(judged.ranks) if rank >= 0)
            if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
                left_out[UNDECIDED] += 1
                continue
            converted += 1
            left_out[BETWEEN] += len(ranked) - 2
            for (_, i), label in ((ranked[0], True), (ranked[-1], False)):
                thumbs.append((Group(judged.group.prompt, [judged.group.responses[i]]), label, judged.weight))
        else:
            raise UserError(f"judgment {number} is a {judged.kind}, not a thumb", "Ratings train: hearken train reward")
    if converted and not quiet:
        warnings.warn(
            f"{converted} comparisons were made thumbs: up for the best response, down for the worst; "
            "hearken train dpo uses more of what they say",
            stacklevel=2,
        )
    after = partners([tuple(group.prompt) for group, _, _ in thumbs], seed)
    made = []
    for i, (group, label, weight) in enumerate(thumbs):
        room = max(max_length - len(group.prompt), 1)
        made.append(Opinion(group, Group(group.prompt, [thumbs[after[i]][0].responses[0][:room]]), label, weight))
    return made, left_out


def said(left_out: dict[str, int]) -> str:
    """Counts of what was left out, in words."""
    return "; ".join(f"{what}: {count}" for what, count in left_out.items() if count)


def partners(prompts: Sequence[Hashable], seed: int) -> list[int]:
    """Whose response each row is paired with: that of another prompt (of another row, where one prompt has most).

    Every response is somebody's partner once: in a shuffle with the rows of each prompt side by side, it is the row
    that stands as far ahead as a prompt has rows at most.
    """
    shuffled = np.random.default_rng(seed).permutation(len(prompts)).tolist()
    first: dict[Hashable, int] = {}
    for place, row in enumerate(shuffled):
        first.setdefault(prompts[row], place)
    order = sorted(shuffled, key=lambda row: first[prompts[row]])
    step = min(max(Counter(prompts).values(), default=1), max(len(order) // 2, 1))
    after = dict(zip(order, order[step:] + order[:step], strict=True))
    return [after[row] for row in range(len(order))]


def run(inputs: Inputs, options: KTOConfig, out: Path) -> Artifact:
    """Fit ``inputs.model`` to the thumbs of ``inputs.data`` and write the policy to ``out``."""
    ready = load(inputs, options)
    policy, data = ready.policy, ready.data
    scorer = policy.scorer
    order = Order(len(data), min(options.batch, len(data)), options.seed)
    total = max(round(options.epochs * len(data) / order.batch), 1)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        fixed = Sums(ready.reference, data, options)
        held_out = Sums(ready.reference, ready.held_out, options)
        for step in run.steps(total):
            chosen = order.endless(step)  # batches of one size: a last one of one row would have no mismatched pair
            batch = [data[i] for i in chosen]
            groups = [o.group for o in batch]
            weight = distributed.total(sum(o.weight for o in batch)) or 1.0
            ref, ref_mismatched = fixed.of(chosen)
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
                found = losses(ratio, labels, z0, some, ready.weights, options)
                run.backward(found.sum() / weight)
                sums["loss"] += found.sum().item() / weight
                sums["reward_up"] += options.beta * ratio.detach()[labels].sum().item() / up
                sums["reward_down"] += options.beta * ratio.detach()[~labels].sum().item() / down
            run.log(**distributed.totals(sums), z0=z0.item(), **optimiser.step(step))

        metrics = {"train_loss": run.last("loss")["loss"], "steps": total}
        metrics |= evaluate(scorer, ready.held_out, held_out, ready.weights, options)
        return run.finish(policy.save, data=ready.facts, metrics=metrics)


def losses(
    ratio: Tensor, labels: Tensor, z0: Tensor, batch: Sequence[Opinion], weights: tuple[float, float],
    options: KTOConfig,
) -> Tensor:  # fmt: skip
    """(B,) weighted losses of log-ratios (B,)."""
    found = kto(ratio, labels, z0, options.beta, desirable=weights[0], undesirable=weights[1])
    return found * found.new_tensor([o.weight for o in batch])


class Sums:
    """Log π_ref of responses and of their mismatched pairs: known beforehand, or computed when asked for."""

    def __init__(self, scorer: TokenScorer, data: Sequence[Opinion], options: KTOConfig) -> None:
        self.scorer, self.data, self.options = scorer, data, options
        self.known: Tensor | None = None
        if options.cache_reference and data:
            both = [o.both for o in data]
            self.known = reference_sums(scorer, both, options.tokens).view(-1, 2)

    def of(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B,) of the rows ``chosen``, matched and mismatched."""
        if self.known is not None:
            found = self.known[torch.tensor(chosen, device=self.scorer.device)]
        else:
            both = [self.data[i].both for i in chosen]
            found = logprob_sums(self.scorer, both, self.options.tokens).view(-1, 2)
        return found[:, 0], found[:, 1]


def evaluate(
    scorer: TokenScorer, held_out: Sequence[Opinion], fixed: Sums, weights: tuple[float, float],
    options: KTOConfig,
) -> dict[str, float]:  # fmt: skip
    """Loss on held-out thumbs, and how often the reward lies on the right side of z0; empty for fewer than two."""
    if len(held_out) < 2:
        return {}
    ref, ref_mismatched = fixed.of(range(len(held_out)))
    z0 = kto_reference_point(
        logprob_sums(scorer, [o.mismatched for o in held_out], options.tokens, "Held-out thumbs, mismatched")
        - ref_mismatched
    )  # fmt: skip
    ratio = logprob_sums(scorer, [o.group for o in held_out], options.tokens, "Held-out thumbs") - ref
    labels = torch.tensor([o.label for o in held_out], device=ratio.device)
    found = losses(ratio, labels, z0, held_out, weights, options)
    right = ((ratio > z0) == labels).float().mean().item()
    total = sum(o.weight for o in held_out) or 1.0
    return {"validation_loss": found.sum().item() / total, "accuracy": right, "validation_thumbs": len(held_out)}


def estimate(dry: Dry, inputs: Inputs, options: KTOConfig) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    mismatched = tokens_of([o.mismatched for o in ready.data])
    groups, held_out = ([o.group for o in some] for some in (ready.data, ready.held_out))
    return likelihood(dry, ready, groups, held_out, options, mismatched)
