"""Judgments weighted by their labelers: how reliable each is, whom they stand for, or what a file says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Example, Graded
from hearken.feedback.pairs import example_pairs, latest
from hearken.feedback.splits import labeler_value
from hearken.statistics.dawid_skene import right_verdicts
from hearken.statistics.intervals import cluster_index
from hearken.statistics.weighting import effective_size, rake, training_weights

Target = Mapping[str, Mapping[str, float]]
"""Shares of a population by attribute and value, e.g. ``{"group": {"hearth": 0.5, "quest": 0.5}}``."""


@dataclass(frozen=True)
class Weighted:
    """What `reweight` returns."""

    rows: list[Example]
    by_labeler: dict[str, float]
    """What each labeler's judgments were multiplied by."""
    effective: float
    """How many equally weighted judgments they are worth."""


def reweight(rows: Sequence[Example], by: str = "", population: Target | None = None) -> Weighted:
    """Multiply weights onto judgments; a judgment that names no labeler keeps its own.

    Args:
        rows: judgments with their labelers in the metadata.
        by: ``reliability`` (see `reliability`), a file (see `read_weights`), or nothing.
        population: shares that the labelers' judgments shall have (see `statistics.weighting.rake`); both multiply.

    Raises:
        UserError: nothing to weight by.
    """
    judged = [row for row in rows if isinstance(row, Graded)]
    counts = Counter(name for row in judged if (name := labeler_value(row, "labeler")) is not None)
    if (by or population) and not counts:
        raise UserError("weights by labeler: no judgment names its labeler", "Give rows with a labeler column")
    weights = dict.fromkeys(counts, 1.0)
    if by:
        found = training_weights(*_reliability(judged)) if by == "reliability" else read_weights(by)
        if by != "reliability" and not set(found) & set(counts):
            raise UserError(f"{by}: none of its labelers judged here", f"Here are: {', '.join(sorted(counts)[:5])}")
        weights = {name: found.get(name, 1.0) for name in counts}
    if population:
        standing = _standing(judged, counts, population)
        weights = {name: weight * standing[name] for name, weight in weights.items()}
    kept = multiply(rows, weights)
    return Weighted(kept, weights, effective_size([getattr(row, "weight", 1.0) for row in kept]))


def multiply(rows: Sequence[Example], by_labeler: Mapping[str, float]) -> list[Example]:
    """The judgments with their weights multiplied by their labelers'; by 1 where a labeler has none."""
    return [
        replace(row, weight=row.weight * by_labeler.get(labeler_value(row, "labeler") or "", 1.0))
        if isinstance(row, Graded) else row
        for row in rows
    ]  # fmt: skip


def reliability(rows: Sequence[Example]) -> dict[str, float]:
    """How often each labeler of shared pairs says what is true of them, by Dawid and Skene's model.

    Raises:
        UserError: nobody judged the same two responses as somebody else.
    """
    return _reliability(rows)[0]


def _reliability(rows: Sequence[Example]) -> tuple[dict[str, float], Counter[str], float]:
    """Reliability and number of pairs by labeler, and the reliability of guessing."""
    compared = [row for row in rows if isinstance(row, Comparison)]
    pairs = [pair for pair in latest(example_pairs(compared)) if pair.labeler is not None]
    judged = Counter((pair.prompt, pair.a, pair.b) for pair in pairs)
    shared = [pair for pair in pairs if judged[pair.prompt, pair.a, pair.b] > 1]
    if not shared:
        raise UserError("reliability needs pairs that several labelers judged", "Sample with an overlap of 2 or more")
    unit = cluster_index([(pair.prompt, pair.a, pair.b) for pair in shared], len(shared))
    labelers = [str(pair.labeler) for pair in shared]
    labeler = cluster_index(labelers, len(shared))
    right, chance = right_verdicts(unit, labeler, [pair.verdict for pair in shared])
    share = (np.bincount(labeler, right) / np.bincount(labeler)).tolist()
    return dict(zip(dict.fromkeys(labelers), share, strict=True)), Counter(str(pair.labeler) for pair in pairs), chance


def _standing(judged: Sequence[Example], counts: Mapping[str, int], population: Target) -> dict[str, float]:
    """Weights under which the labelers' judgments have the population's shares."""
    told: dict[str, Example] = {}
    for row in judged:
        if (who := labeler_value(row, "labeler")) is not None:
            told.setdefault(who, row)
    attributes = {name: [labeler_value(told[who], name) for who in counts] for name in population}
    for name, values in attributes.items():
        if not any(value in population[name] for value in values):
            heard = ", ".join(sorted({value for value in values if value is not None})[:5]) or "nothing"
            raise UserError(f"population: no labeler has any of its values of {name}", f"They say: {heard}")
    raked = rake(attributes, population, [counts[who] for who in counts])
    if raked.missing:
        name, values_missing = next(iter(raked.missing.items()))
        raise UserError(
            f"population: nobody who judged has {name}={values_missing[0]}",
            "No weight can stand for them: ask such people, or leave the value out",
        )
    return dict(zip(counts, map(float, raked.weights), strict=True))


def read_weights(path: str | Path) -> dict[str, float]:
    """Weights by labeler from a file: columns ``labeler`` and ``weight`` (the owner's page exports it), or an object.

    Args:
        path: .csv, .jsonl or .json.

    Raises:
        UserError: no such file, other columns, or a weight below zero.
    """
    import csv
    import json

    try:
        text = Path(path).read_text("utf-8")
        if str(path).endswith(".csv"):
            rows: list[Any] = list(csv.DictReader(text.splitlines()))
        elif str(path).endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            whole = json.loads(text)
            rows = [{"labeler": k, "weight": v} for k, v in whole.items()] if isinstance(whole, dict) else whole
        found = {str(row["labeler"]): float(row["weight"]) for row in rows}
    except OSError as error:
        raise UserError(
            f"labeler_weights: cannot read {path} ({error.strerror})", "Name a file, or write: reliability"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"labeler_weights: {path} has no columns labeler and weight", "As CSV, JSON or JSON lines"
        ) from None
    if not found or not all(0 <= weight < float("inf") for weight in found.values()):
        raise UserError(f"labeler_weights: {path} must give weights of 0 or more", "1 is an ordinary labeler's")
    return found
