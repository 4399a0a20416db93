"""Direct preference optimisation: Rafailov et al. 2023, and the losses that share its data.

score of a response = log π - log π_ref (DPO, cDPO, robust DPO, IPO, hinge), mean log π (SimPO), log-odds (ORPO)
repeat, over minibatches of judgments:
    leads = differences of the scores of responses to one prompt, in pairs (or a whole ranking: Plackett-Luce)
    loss = objective(lead), weighted by votes and ties (+ sft_coef x negative log-likelihood of the best)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hearken.algorithms.dpo_options import DPOConfig
from hearken.algorithms.estimate import likelihood
from hearken.algorithms.pair_losses import WITHOUT_REFERENCE, Figures, evaluate, losses
from hearken.algorithms.recorded import Encoded, Setup, set_up, unfit
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Judged, judgments
from hearken.training import distributed
from hearken.training.optimiser import Optimiser
from hearken.training.reference import Reference
from hearken.training.run import Run

if TYPE_CHECKING:
    from hearken.training.artifact import Artifact


def load(inputs: Inputs, options: DPOConfig) -> Setup[Judged]:
    """Open the policy and its reference, and encode the comparisons."""
    without = options.loss in WITHOUT_REFERENCE
    if without and inputs.ref not in (None, inputs.model):
        warnings.warn(f"loss={options.loss} has no reference policy: --ref is not read", stacklevel=2)
    return set_up(
        inputs, options, lambda rows, encoder: comparisons(judgments(rows, encoder), options), counted="judgments",
        nothing="nothing to compare", with_reference=not without,
    )  # fmt: skip


def comparisons(found: Sequence[Judged], options: DPOConfig) -> Encoded[Judged]:
    """The judgments that compare something.

    Raises:
        UserError: a judgment is not a comparison.
    """
    kept: list[Judged] = []
    left_out = {"identical responses": 0, "no preference": 0}
    for number, judged in enumerate(found, 1):
        if judged.kind != "comparison":
            hint = "Thumbs train: hearken train kto; ratings: hearken train reward, then ppo"
            raise unfit(number, judged, "comparison", hint)
        ranked = [r for r in judged.ranks if r >= 0]
        if len({tuple(r) for r in judged.group.responses}) == 1:
            left_out["identical responses"] += 1
        elif len(ranked) < 2 or (len(set(ranked)) == 1 and options.ties == "drop" and judged.share is None):
            left_out["no preference"] += 1
        else:
            kept.append(judged)
    return Encoded(kept, [j.group for j in kept], left_out, strengths=any(j.strength for j in kept))


def run(inputs: Inputs, options: DPOConfig, out: Path) -> Artifact:
    """Fit ``inputs.model`` to the comparisons of ``inputs.data`` and write the policy to ``out``."""
    setup = load(inputs, options)
    scorer, data, order = setup.scorer, setup.data, setup.order(options)
    total = order.steps(options.epochs)
    optimiser = Optimiser([scorer], options, total)

    with Run(inputs, options, out, {"optimiser": optimiser}) as run:
        run.choose_precision(scorer)
        reference = Reference(setup.reference, setup.train.groups, options)
        held_out = Reference(setup.reference, setup.validation.groups, options)
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
        metrics |= evaluate(scorer, setup.held_out, held_out, options)
        return run.finish(setup.policy.save, data=setup.facts, metrics=metrics)


estimate = likelihood(load)
