"""What a reward model is fitted to: which judgments, how much each of them counts, and the heads that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hearken.algorithms.reward_options import RewardConfig
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader
from hearken.errors import UserError
from hearken.feedback.examples import Example, Graded, Rating
from hearken.feedback.splits import labeler_value, of_labelers
from hearken.feedback.weighting import multiply, reweight


@dataclass(frozen=True)
class RewardRows:
    """The rows, before they are encoded."""

    train: list[Example]
    held_out: list[Example]
    references: list[Example]
    heads: dict[str, float]
    """The weight of each head in the score; empty where there is one."""
    facts: dict[str, Any]


def read(inputs: Inputs, options: RewardConfig) -> RewardRows:
    """Read the judgments and references, and weigh them by their labelers as the options say."""
    reader = Reader(options)
    rows = reader.rows(inputs.data, inputs.validation, options.validation, options.seed)
    train, held_out = rows.train, rows.validation
    if options.only:
        train, held_out = of_labelers(train, options.only), of_labelers(held_out, options.only) if held_out else []
    facts = rows.facts
    if options.labeler_weights or options.population:
        if options.population:  # its accuracy is then that among the population, too
            held_out = multiply(held_out, reweight(train, population=options.population).by_labeler)
        counted = reweight(train, options.labeler_weights, options.population)
        train = counted.rows
        facts = facts | {"labeler_weights": counted.by_labeler, "effective": counted.effective}
    references = reader.read(inputs.references, "references_format")
    heads = tastes(train, options.by, options.weights) if options.by else weighted(attributes(train), options.weights)
    return RewardRows(train, held_out, references, heads, facts | {"skipped": reader.skipped})


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
        if isinstance(row, Graded) and (name := labeler_value(row, by)) is not None:
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
