"""Direct preference optimisation: Rafailov et al. 2023, and the losses that share its data.

score of a response = log π - log π_ref (DPO, cDPO, robust DPO, IPO, hinge), mean log π (SimPO), log-odds (ORPO)
repeat, over minibatches of judgments:
    leads = differences of the scores of responses to one prompt, in pairs (or a whole ranking: Plackett-Luce)
    loss = objective(lead), weighted by votes and ties (+ sft_coef x negative log-likelihood of the best)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.accuracy import pair_accuracy
from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.dpo_options import DPOConfig, PairOptions
from hearken.algorithms.estimate import likelihood
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, Reader, judgments, nothing_fits
from hearken.domains.text.loading import TextPolicy, open_policy, open_reference
from hearken.errors import UserError
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.scorers import TokenScorer
from hearken.objectives import direct
from hearken.objectives.preference import ordered_pairs, plackett_luce
from hearken.progress import progress
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import Order, microbatches
from hearken.training.estimate import Dry
from hearken.training.forward import rows_of
from hearken.training.optimiser import Optimiser
from hearken.training.reference import reference_sums
from hearken.training.run import Run

WITHOUT_REFERENCE = ("simpo", "orpo")


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    reference: TokenScorer | None
    """The policy itself where it is not another model and not an adapter: its weights before the first step. None where
    the loss has no reference."""
    data: list[Judged]
    held_out: list[Judged]
    facts: dict[str, Any]


def load(inputs: Inputs, options: DPOConfig) -> Ready:
    """Open the policy and its reference, and encode the comparisons."""
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows = reader.rows(inputs.data, inputs.validation, options.validation, options.seed)
    policy = open_policy(inputs.model, options, options)
    (data, left_out), (held_out, _) = (
        comparisons(judgments(part, policy.encoder), options) for part in (rows.train, rows.validation)
    )
    if not data:
        if any(left_out.values()):
            raise UserError(f"{', '.join(inputs.data)} holds nothing to compare", said(left_out))
        raise nothing_fits(inputs.data)
    if any(left_out.values()):
        warnings.warn(f"left out: {said(left_out)}", stacklevel=2)
    strengths = any(judged.strength for judged in data)
    more = {"judgments": len(data), "left_out": left_out, "skipped": reader.skipped}
    more |= say(of_recorded(options, [judged.group for judged in data], strengths))
    facts = rows.facts | more | {"truncation": policy.encoder.tell()}
    without = options.loss in WITHOUT_REFERENCE
    if without and inputs.ref not in (None, inputs.model):
        warnings.warn(f"loss={options.loss} has no reference policy: --ref is not read", stacklevel=2)
    reference = None if without else fixed_reference(inputs, policy, in_step=not options.cache_reference)
    return Ready(policy, reference, data, held_out, facts)


def fixed_reference(inputs: Inputs, policy: TextPolicy, *, in_step: bool) -> TokenScorer:
    """The model named, the policy without its adapter, or the policy as it stands before its first step.

    Only a reference that is asked during training (``in_step``) needs weights of its own beside a full policy.
    """
    if not in_step and inputs.ref in (None, inputs.model) and policy.reference() is None:
        return policy.scorer
    return open_reference(inputs.model, inputs.ref, policy)


def comparisons(found: Sequence[Judged], options: DPOConfig) -> tuple[list[Judged], dict[str, int]]:
    """The judgments that compare something, and how many of the others there are, by reason.

    Raises:
        UserError: a judgment is not a comparison.
    """
    kept: list[Judged] = []
    left_out = {"identical responses": 0, "no preference": 0}
    for number, judged in enumerate(found, 1):
        if judged.kind != "comparison":
            raise UserError(
                f"judgment {number} is a {judged.kind}, not a comparison",
                "Thumbs train: hearken train kto; ratings: hearken train reward, then ppo",
            )
        ranked = [r for r in judged.ranks if r >= 0]
        if len({tuple(r) for r in judged.group.responses}) == 1:
            left_out["identical responses"] += 1
        elif len(ranked) < 2 or (len(set(ranked)) == 1 and options.ties == "drop" and judged.share is None):
            left_out["no preference"] += 1
        else:
            kept.append(judged)
    return kept, left_out


def said(left_out: dict[str, int]) -> str:
    """Counts by reason, in words."""
    return "; ".join(f"{count} with {reason}" for reason, count in left_out.items() if count)


def run(inputs: Inputs, options: DPOConfig, out: Path) -> Artifact:
    """Fit ``inputs.model`` to the comparisons of ``inputs.data`` and write the policy to ``out``."""
    ready = load(inputs, options)
    policy, data = ready.policy, ready.data
    scorer, groups = policy.scorer, [j.group for j in ready.data]
    order = Order(len(data), options.batch, options.seed)
    total = order.steps(options.epochs)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        reference = Reference(ready.reference, groups, options)
        held_out = Reference(ready.reference, [j.group for j in ready.held_out], options)
        for step in run.steps(total):
            chosen = order.rows(step)
            batch = [data[i] for i in chosen]
            weight = distributed.total(sum(j.weight for j in batch)) or 1.0
            figures = Figures()
            for part in run.microbatches([j.group for j in batch], scorer):
                some = [batch[i] for i in part]
                found = losses(scorer, some, reference.of([chosen[i] for i in part]), options)
                run.backward(found.loss.sum() / weight)
                figures.add(found, some, weight)
            run.log(**figures.means(), **optimiser.step(step))

        metrics = {"train_loss": run.last("loss")["loss"], "steps": total}
        metrics |= evaluate(scorer, ready.held_out, held_out, options)
        return run.finish(policy.save, data=ready.facts, metrics=metrics)


class Reference:
    """Log π_ref(y|x) of the responses of some groups: known beforehand, computed when asked for, or not needed."""

    def __init__(self, scorer: TokenScorer | None, groups: Sequence[Group], options: DPOConfig) -> None:
        self.scorer, self.groups = scorer, groups
        self.sums: Tensor | None = None
        if scorer is not None and options.cache_reference and groups:
            self.sums = reference_sums(scorer, groups, options.tokens)

    def of(self, chosen: Sequence[int]) -> Tensor | None:
        """(r,) of the responses of the groups ``chosen``, or None."""
        if self.scorer is None:
            return None
        if self.sums is not None:
            return self.sums[torch.tensor(rows_of(self.groups, chosen), device=self.sums.device)]
        layout = lay_out([self.groups[i] for i in chosen], self.scorer.device)
        with torch.no_grad():
            return direct.sequence_logprobs(self.scorer(layout).logprobs, layout.mask)


@dataclass(frozen=True)
class Losses:
    """A microbatch of B judgments over at most K responses: weighted losses (B,), scores and ranks (B, K)."""

    loss: Tensor
    scores: Tensor
    ranks: Tensor


def losses(scorer: TokenScorer, batch: Sequence[Judged], reference: Tensor | None, options: PairOptions) -> Losses:
    """One forward pass and the objective on it.

    ``reference`` (r,) holds the responses' reference log-probabilities; the losses `WITHOUT_REFERENCE` do not read it.
    """
    layout = lay_out([j.group for j in batch], scorer.device)
    logprobs = scorer(layout).logprobs
    scores, ranks = in_grid(score(logprobs, layout, reference, options), batch)
    found = objective(scores, ranks, batch, options)
    if options.imitation:
        likelihood, _ = in_grid(direct.sequence_logprobs(logprobs, layout.mask, average=True), batch)
        best = ranks == torch.where(ranks >= 0, ranks, torch.iinfo(ranks.dtype).max).amin(-1, keepdim=True)
        found = found - options.imitation * (likelihood * best).sum(-1) / best.sum(-1)
    return Losses(found * found.new_tensor([j.weight for j in batch]), scores, ranks)


def score(logprobs: Tensor, layout: Layout, reference: Tensor | None, options: PairOptions) -> Tensor:
    """(R,) what the leads are differences of."""
    if options.loss in WITHOUT_REFERENCE:
        mean = direct.sequence_logprobs(logprobs, layout.mask, average=True)
        return direct.log_odds(mean) if options.loss == "orpo" else mean
    assert reference is not None
    ratio = direct.sequence_logprobs(logprobs, layout.mask) - reference
    return ratio / layout.lengths if options.log_ratio == "mean" else ratio


def in_grid(values: Tensor, batch: Sequence[Judged]) -> tuple[Tensor, Tensor]:
    """Values (R,) of the responses and the ranks of the judgments, both (B, K); rank -1 in the padding."""
    width = max(len(j.group.responses) for j in batch)
    filled = torch.tensor([[k < len(j.group.responses) for k in range(width)] for j in batch], device=values.device)
    ranks = [[*j.ranks, *[-1] * (width - len(j.ranks))] for j in batch]
    return values.new_zeros(filled.shape).masked_scatter(filled, values), torch.tensor(ranks, device=values.device)


def objective(scores: Tensor, ranks: Tensor, batch: Sequence[Judged], options: PairOptions) -> Tensor:
    """(B,) losses of (B, K) scores."""
    beta, epsilon = options.beta, options.epsilon
    offset = scores.new_tensor([options.margin * (j.strength or 0.0) for j in batch])[:, None, None]
    share = scores.new_tensor([float("nan") if j.share is None else j.share for j in batch])

    def loss(lead: Tensor) -> Tensor:
        match options.loss:
            case "cdpo":
                return direct.cdpo(lead, beta, epsilon)
            case "robust":
                return direct.robust_dpo(lead, beta, epsilon)
            case "ipo":
                return direct.ipo(lead, beta)
            case "hinge":
                return direct.hinge(lead, beta)
            case "simpo":
                return direct.simpo(lead, beta, options.gamma)
            case "orpo":
                return beta * direct.orpo(lead)
            case _:
                return direct.dpo(lead, beta, offset=offset)

    found = direct.over_pairs(loss, scores, direct.pair_weights(ranks, ties=options.ties, share=share))
    if options.loss == "dpo" and options.rankings == "plackett_luce":
        several = (ranks >= 0).sum(-1) > 2
        found = torch.where(several, plackett_luce(beta * scores, ranks), found)
    return found


class Figures:
    """Sums over the microbatches of a step."""

    def __init__(self) -> None:
        self.loss = self.right = self.lead = self.pairs = 0.0

    def add(self, found: Losses, batch: Sequence[Judged], weight: float) -> None:
        """Count a microbatch."""
        scores, better = found.scores.detach(), ordered_pairs(found.ranks)
        lead = (scores[:, :, None] - scores[:, None])[better]
        self.loss += found.loss.sum().item() / weight
        self.right += ((lead > 0).float() + 0.5 * (lead == 0)).sum().item()
        self.lead += lead.sum().item()
        self.pairs += lead.numel()

    def means(self) -> dict[str, float]:
        """Loss, share of strictly ordered pairs whose scores lie the right way round, and their mean lead."""
        found = distributed.totals(vars(self))
        pairs = max(found["pairs"], 1)
        return {"loss": found["loss"], "accuracy": found["right"] / pairs, "lead": found["lead"] / pairs}


@torch.no_grad()
def evaluate(
    scorer: TokenScorer, held_out: Sequence[Judged], reference: Reference, options: DPOConfig
) -> dict[str, float]:
    """Loss and accuracy on held-out judgments; empty where there are none."""
    if not held_out:
        return {}
    groups = [j.group for j in held_out]
    scores = torch.zeros(sum(len(g.responses) for g in groups))
    total = 0.0
    with progress("Held-out comparisons", len(groups), "comparison", patient=True) as bar:
        for part in microbatches(groups, options.tokens, scorer):
            batch = [held_out[i] for i in part]
            found = losses(scorer, batch, reference.of(part), options)
            total += found.loss.sum().item()
            filled = torch.tensor([[k < len(j.group.responses) for k in range(found.scores.shape[1])] for j in batch])
            scores[torch.tensor(rows_of(groups, part))] = found.scores.float().cpu()[filled]
            bar.advance(len(part))
    weight = sum(j.weight for j in held_out) or 1.0
    return {"validation_loss": total / weight} | pair_accuracy(scores.tolist(), held_out)


def estimate(dry: Dry, inputs: Inputs, options: DPOConfig) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    return likelihood(dry, ready, [j.group for j in ready.data], [j.group for j in ready.held_out], options)
