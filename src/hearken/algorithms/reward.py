"""Reward modelling: a score that explains people's judgments.

Rankings: -1/C(K,2) Σ over pairs log σ(r_better - r_worse), all pairs of a prompt one batch element, K forward passes
and one of the prompt (Ouyang et al. 2022), or Plackett-Luce. Ratings: squared error on the scale -1..1, of several
attributes with a head for each (Wang et al. 2023, HelpSteer); their weighted sum is the score. Thumbs: binary
cross-entropy. Afterwards a bias is set so that reference responses (a sample of them) score 0 on average.

With ``head_only`` the network stays as it is and its head alone is fitted (see `head_only`).

With ``by``, labelers of different groups have heads of their own on one network: a common head plus an offset for each
group, under a normal prior N(0, 1/(shrink (d+1))), the variance of a fresh head's weights at shrink 1. So a small group
borrows from all and differs where its judgments say so; who says nothing of themselves is explained by the mixture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hearken.algorithms import head_only
from hearken.algorithms.accuracy import pair_accuracy
from hearken.algorithms.doubts import of_recorded, say
from hearken.algorithms.estimate import recorded, tokens_of
from hearken.algorithms.reward_losses import losses
from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, Reader, by_responses, demonstrations, judgments, nothing_fits
from hearken.domains.text.loading import adapt, prepare, text_encoder
from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Example, Rating, Thumb
from hearken.feedback.splits import labeler_value, of_labelers
from hearken.feedback.weighting import multiply, reweight
from hearken.models.layout import Group
from hearken.models.loading import last_linear, merge_adapter, new_reward, save, score_head
from hearken.models.precision import restore
from hearken.models.scorers import RewardScorer, probe
from hearken.training import distributed
from hearken.training.artifact import Artifact
from hearken.training.batching import Order
from hearken.training.estimate import Dry
from hearken.training.forward import gather
from hearken.training.optimiser import Optimiser
from hearken.training.precision import device_of
from hearken.training.run import Run


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    scorer: RewardScorer
    tokenizer: PreTrainedTokenizerBase
    data: list[Judged]
    held_out: list[Judged]
    references: list[Group]
    facts: dict[str, Any]
    original: Callable[[], PreTrainedModel]
    """Loads the network once more as it was before training."""


def load(inputs: Inputs, options: RewardConfig) -> Ready:
    """A fresh head on the language model ``inputs.model``, and the judgments encoded."""
    reader = Reader(options)
    rows = reader.rows(inputs.data, inputs.validation, options.validation, options.seed)
    train, kept = rows.train, rows.validation
    if options.only:
        train, kept = of_labelers(train, options.only), of_labelers(kept, options.only) if kept else []
    weighing: dict[str, Any] = {}
    if options.labeler_weights or options.population:
        if options.population:  # its accuracy is then that among the population, too
            kept = multiply(kept, reweight(train, population=options.population).by_labeler)
        counted = reweight(train, options.labeler_weights, options.population)
        train, weighing = counted.rows, {"labeler_weights": counted.by_labeler, "effective": counted.effective}
    shown = reader.read(inputs.references, "auto")
    heads = tastes(train, options.by, options.weights) if options.by else weighted(attributes(train), options.weights)

    def network() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        device = device_of(options.device)
        return new_reward(inputs.model, options.seed, eos=options.eos, device=device, attributes=heads, by=options.by)

    model, tokenizer = network()
    model.config.hearken_pooling = options.pooling
    encoder = text_encoder(tokenizer, model, options)
    data, held_out = (judgments(some, encoder, options.by) for some in (train, kept))
    if not data:
        raise nothing_fits(inputs.data)
    references = demonstrations(shown, encoder)
    prepare(model, options)
    if options.lora:
        adapt(model, "reward", options)
    if options.head_only:
        if score_head(model) is not last_linear(score_head(model)):
            raise UserError(f"head_only: the head of {inputs.model} has several layers", "Use lora, or all weights")
        model.requires_grad_(False)
    score_head(model).requires_grad_(True)
    scorer = RewardScorer(model, adapter="reward")
    probe(scorer, encoder.max_length)
    more = {"judgments": len(data), "references": len(references), "skipped": reader.skipped}
    if scorer.attributes:
        more["attributes"] = model.config.hearken_attribute_weights
    weighing |= say(of_recorded(options, [same[0].group for same in by_responses(data)]))
    facts = rows.facts | more | weighing | {"truncation": encoder.tell()}
    return Ready(scorer, tokenizer, data, held_out, references, facts, lambda: network()[0])


def attributes(rows: Sequence[Example]) -> list[str]:
    """What the ratings among the rows rate, in alphabetical order."""
    return sorted({name for row in rows if isinstance(row, Rating) for name in row.ratings})


def weighted(found: Sequence[str], wanted: Mapping[str, float]) -> dict[str, float]:
    """The weight of each attribute in the score: as wanted, else their mean; empty where a single score will do.

    Raises:
        UserError: a weight for something that nobody rated, or no weight that is not zero.
    """
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        rated = f"Rated are: {', '.join(found)}" if found else "Leave weights out: these are no ratings"
        raise UserError(f"weights: nobody rated '{unknown[0]}'", rated)
    if wanted and not any(wanted.values()):
        raise UserError("weights: every attribute has weight 0", "Give one at least another weight")
    if len(found) < 2:
        return {}
    return {name: wanted.get(name, 0.0) if wanted else 1 / len(found) for name in found}


def tastes(rows: Sequence[Example], by: str, wanted: Mapping[str, float]) -> dict[str, float]:
    """The weight of each group of labelers in the score: as wanted, else its share of the judgments.

    Raises:
        UserError: the judgments are not of two groups or more, or have several attributes, or no such group is there.
    """
    if len(attributes(rows)) > 1:
        raise UserError(f"by={by}: ratings on several attributes have heads of their own", "Leave one of the two out")
    share: dict[str, float] = {}
    for row in rows:
        if isinstance(row, Comparison | Rating | Thumb) and (name := labeler_value(row, by)) is not None:
            share[name] = share.get(name, 0.0) + row.weight
    if len(share) < 2:
        known = f"All that say anything say {next(iter(share))}" if share else (
            "No judgment says anything of it; in a project, write it into hearken.yaml (stages: {reward: {by: ...}})"
        )  # fmt: skip
        raise UserError(f"by={by}: the judgments are not of two groups or more", known)
    unknown = sorted(set(wanted) - set(share))
    if unknown:
        raise UserError(f"weights: no labeler has {by}={unknown[0]}", f"Its values: {', '.join(sorted(share))}")
    if wanted and not sum(wanted.values()) > 0:
        raise UserError("weights: the groups' weights add up to nothing", "Give one a weight above 0")
    total = sum(share.values()) or 1.0
    return {name: float(wanted.get(name, 0.0)) if wanted else share[name] / total for name in sorted(share)}


def run(inputs: Inputs, options: RewardConfig, out: Path) -> Artifact:
    """Fit a reward model on ``inputs.data``, starting from ``inputs.model``, and write it to ``out``."""
    ready = load(inputs, options)
    scorer = ready.scorer
    with Run(inputs, options, out, {}, label="Reward model") as run:
        if options.head_only:
            began = time.monotonic()
            trained = head_only.fit_head(scorer, ready.data, options)
            run.seconds = time.monotonic() - began
        else:
            trained = fit(scorer, ready.data, options, run)
        metrics = calibrate(scorer, ready.references or [j.group for j in ready.data], options)
        metrics |= evaluate(scorer, ready.held_out, options.tokens)
        if "effective" in ready.facts:
            metrics["effective_judgments"] = ready.facts["effective"]

        def whole(folder: Path) -> None:
            if (options.lora or options.head_only) and scorer.precision == "bf16":  # what is frozen is saved as it was
                restore(scorer.model, ready.original())
            save(merge_adapter(scorer.model), ready.tokenizer, folder)

        return run.finish(whole, data=ready.facts, metrics=metrics | trained)


class Offsets(nn.Module):
    """Heads as what they have in common and an offset for each, so that the offsets can be drawn towards 0."""

    def forward(self, common: Tensor, offsets: Tensor) -> Tensor:
        """(1, d) and (A, d) to the heads' weights (A, d)."""
        return common + offsets

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The offsets from their mean."""
        common = weight.mean(0, keepdim=True)
        return common, weight - common


def prior(scorer: RewardScorer, shrink: float) -> Tensor:
    """Negative log-density of the heads' offsets, but for a constant: shrink (d+1)/2 Σ offset²; a scalar."""
    offsets = scorer.output.parametrizations.weight.original1  # type: ignore[union-attr]
    assert isinstance(offsets, Tensor)
    return 0.5 * shrink * (offsets.shape[1] + 1) * offsets.square().sum()


def fit(scorer: RewardScorer, data: Sequence[Judged], options: RewardConfig, run: Run) -> dict[str, float]:
    """The loop: an element of a batch is a set of responses with all judgments on it."""
    elements = by_responses(data)
    order = Order(len(elements), options.batch, options.seed)
    total = order.steps(options.epochs)
    judged_in_all = distributed.total(sum(j.weight for j in data)) or 1.0
    if scorer.by:
        parametrize.register_parametrization(scorer.output, "weight", Offsets())
    run.states["optimiser"] = optimiser = Optimiser([scorer], options, total)
    run.choose_precision(scorer)

    for step in run.steps(total):
        batch = [elements[i] for i in order.rows(step)]
        weight = distributed.total(sum(j.weight for judged in batch for j in judged)) or 1.0
        loss = 0.0
        for part in run.microbatches([judged[0].group for judged in batch], scorer):
            share = losses(scorer, [j for i in part for j in batch[i]], options).sum() / weight
            run.backward(share)
            loss += share.item()
        loss = distributed.total(loss)
        if scorer.by:  # the prior speaks once for all judgments, and every step's loss is the mean of some
            shrunk = prior(scorer, options.shrink) / judged_in_all
            run.backward(shrunk)
            loss += shrunk.item()
        run.log(loss=loss, **optimiser.step(step))
    if scorer.by:
        parametrize.remove_parametrizations(scorer.output, "weight")
    return {"train_loss": run.last("loss")["loss"], "steps": total}


def calibrate(scorer: RewardScorer, references: Sequence[Group], options: RewardConfig) -> dict[str, float]:
    """Set gain and bias so that ``references`` score 0 on average; returns the mean afterwards and the raw figures.

    A random sample of them serves where there are more than ``calibrate_on``.
    """
    if (most := options.calibrate_on) and len(references) > most:
        chosen = np.random.default_rng([options.seed, 7]).choice(len(references), most, replace=False)
        references = [references[i] for i in sorted(chosen)]
    scorer.calibrate(1.0, 0.0)
    heads = pooled(scorer, references, options.tokens, "Centring the scores")
    raw = scorer.combine(heads)
    if not torch.isfinite(raw).all():
        raise UserError("the reward model scores some responses as NaN or infinite", "Train again with a lower lr")
    mean, spread = raw.mean().item(), raw.std(correction=0).item()
    gain = 1 / max(spread, 1e-6) if options.normalise == "unit" else 1.0
    if options.normalise != "none":
        if scorer.attributes:  # what other weights than these will need
            means = dict(zip(scorer.attributes, heads.mean(0).tolist(), strict=True))
            scorer.model.config.hearken_attribute_means = means
        scorer.calibrate(gain, -mean * gain)
    after = raw * scorer.gain + scorer.bias
    return {
        "reference_mean": after.mean().item(), "reference_sd": after.std(correction=0).item(), "raw_mean": mean,
        "reference_rows": len(references),
    }  # fmt: skip


def pooled(scorer: RewardScorer, groups: Sequence[Group], tokens: int, label: str) -> Tensor:
    """(R, A) what each head says of every response, before weights, gain and bias."""
    return gather(lambda layout: scorer(lambda net: net.heads(layout))[:, None], groups, tokens, scorer, label)[:, 0]


def evaluate(scorer: RewardScorer, held_out: Sequence[Judged], tokens: int) -> dict[str, float]:
    """Held-out accuracy on strictly ordered pairs, with an interval by bootstrap over prompts, and of "longer wins".

    Of ratings on several attributes, the correlation of each head with its own: ``correlation_ATTRIBUTE``. Of heads by
    labelers' groups, the accuracy of each labeler's judgments by its own head: ``own_accuracy``.
    """
    if not held_out:
        return {}
    elements = by_responses(held_out)
    heads = pooled(scorer, [judged[0].group for judged in elements], tokens, "Held-out judgments").cpu()
    judged = [j for same in elements for j in same]
    rows, at = [], 0
    for same in elements:  # judgments on the same responses read the same rows
        mine = range(at, at := at + len(same[0].group.responses))
        rows += [mine] * len(same)
    scores = scorer.combine(heads.to(scorer.device)).cpu() * scorer.gain + scorer.bias
    found = pair_accuracy([scores[i].item() for mine in rows for i in mine], judged)
    if scorer.by:
        return found | own_accuracy(scorer, judged, rows, heads)
    return found | correlations(scorer, judged, rows, heads)


def own_accuracy(
    scorer: RewardScorer, judged: Sequence[Judged], rows: Sequence[range], heads: Tensor
) -> dict[str, float]:
    """`pair_accuracy` where each judgment is foretold by the head of its labeler's group; empty where none is.

    Args:
        scorer: with heads by groups.
        judged: the judgments.
        rows: of each, the rows of its responses in ``heads``.
        heads: (R, A) what each head says.
    """
    column = {name: i for i, name in enumerate(scorer.attributes)}
    mine = [(j, where) for j, where in zip(judged, rows, strict=True) if j.who in column]
    scores = [heads[i, column[j.who or ""]].item() for j, where in mine for i in where]
    found = pair_accuracy(scores, [j for j, _ in mine])
    return {f"own_{key}": found[key] for key in ("accuracy", "accuracy_low", "accuracy_high") if key in found}


def correlations(
    scorer: RewardScorer, judged: Sequence[Judged], rows: Sequence[range], heads: Tensor
) -> dict[str, float]:
    """Pearson's r of every head with the ratings of its attribute, where three responses or more were rated on it.

    Arguments as of `own_accuracy`.
    """
    found: dict[str, float] = {}
    rated = [(j, where[0]) for j, where in zip(judged, rows, strict=True) if j.kind == "rating"]
    for column, name in enumerate(scorer.attributes):
        some = [(row, j.ratings[name]) for j, row in rated if name in j.ratings]
        both = torch.stack([heads[[row for row, _ in some], column], torch.tensor([rating for _, rating in some])])
        if len(some) > 2 and (both.std(1) > 0).all():
            found[f"correlation_{name}"] = torch.corrcoef(both)[0, 1].item()
    return found


def estimate(dry: Dry, inputs: Inputs, options: RewardConfig) -> dict[str, Any]:
    """For a dry run."""
    ready = load(inputs, options)
    elements = by_responses(ready.data)
    groups = [same[0].group for same in elements]
    centred = ready.references or [j.group for j in ready.data]
    share = min(options.calibrate_on or len(centred), len(centred)) / len(centred)
    held_out = [same[0].group for same in by_responses(ready.held_out)]
    calibrated, evaluated = round(tokens_of(centred) * share), tokens_of(held_out)
    if options.head_only:
        return head_only.estimate(dry, ready, options, calibrated + evaluated)

    def loss(some: Sequence[int]) -> Tensor:
        return losses(ready.scorer, [j for i in some for j in elements[i]], options).sum()

    return recorded(
        dry, ready, {"reward": ready.scorer}, groups, loss, options,
        evaluated=evaluated, calibrated=calibrated,
    )  # fmt: skip
