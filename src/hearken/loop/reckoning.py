"""What the feedback database and the reward model's held-out data say, counted once for the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from hearken.evaluation.card import accuracy, calibrated, correctness, length_baseline, longer_wins
from hearken.evaluation.results import GroupOfJudges
from hearken.evaluation.reward_card import Probe, RewardCard
from hearken.feedback.analysis import Book, agreement_with_people
from hearken.feedback.analysis.agreement import PeopleAgreement
from hearken.feedback.analysis.labelers import diagnostics
from hearken.feedback.examples import MEDIA, Comparison, answers
from hearken.feedback.formats import read_examples
from hearken.feedback.pairs import Pair, decided, margins_of, words
from hearken.loop.cards import judged_rows
from hearken.report import contents as page
from hearken.statistics.diagnostics import NOTHING, LabelerDiagnostics
from hearken.statistics.intervals import Interval, clustered_wilson
from hearken.training.artifact import Artifact, write_json

if TYPE_CHECKING:
    from hearken.evaluation.groups import LabelerGroup
    from hearken.feedback.records import Labeler
    from hearken.loop.project import Project

T = TypeVar("T")


@dataclass
class Tally:
    """The feedback database in numbers."""

    labelers: dict[str, Labeler] = field(default_factory=dict)
    judged: Counter[str] = field(default_factory=Counter)
    """Judgments by labeler."""
    biases: dict[str, LabelerDiagnostics] = field(default_factory=dict)
    """Of the labelers who compared anything."""
    responses: Counter[int] = field(default_factory=Counter)
    """Sampled responses by round."""
    judgments: Counter[int] = field(default_factory=Counter)
    """By round."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Judgments by the kind of their labeler."""
    labeling_seconds: float = 0.0
    sampled_at: dict[int, datetime] = field(default_factory=dict)
    judged_at: dict[int, datetime] = field(default_factory=dict)
    agreements: dict[str, PeopleAgreement] = field(default_factory=dict)
    """Of each model among the labelers with people, by its id."""
    policies: dict[str, int] = field(default_factory=dict)
    """Policies whose responses were judged, with the number of the first such judgment."""


def tally(project: Project) -> Tally:
    """Go through the database once."""
    found = Tally()
    with project.store() as store:
        found.labelers = {r.id: r for r in store.labelers()}
        policies, compared = {}, set()
        for response in store.responses():
            if response.metadata.get("evaluation"):
                compared.add(response.id)
            elif response.policy is not None:
                policies[response.id] = response.policy
                round = response.round or 0
                found.responses[round] += 1
                found.sampled_at[round] = min(response.created, found.sampled_at.get(round, response.created))
        for judgment in store.judgments():
            if judgment.kind in ("skip", "flag"):
                continue
            round, labeler = judgment.round or 0, found.labelers[judgment.labeler_id]
            if not compared.issuperset(judgment.response_ids) or not judgment.response_ids:
                found.judgments[round] += 1
                found.judged_at[round] = min(judgment.created, found.judged_at.get(round, judgment.created))
            found.kinds[labeler.kind] += 1
            if labeler.kind == "person":
                found.labeling_seconds += judgment.seconds or 0.0
            for response_id in judgment.response_ids:
                if response_id in policies:
                    found.policies.setdefault(policies[response_id], judgment.seq or 0)
            found.judged[labeler.id] += 1
        book = Book.load(store)
    found.biases = diagnostics(book)
    found.agreements = {
        key: agreement_with_people(book, key) for key, labeler in found.labelers.items() if labeler.kind == "ai"
    }
    return found


def judges(found: Tally) -> list[page.Judge]:
    """One row per labeler, with the biases that show in their judgments."""
    rows = []
    for key, count in found.judged.items():
        labeler, biases = found.labelers[key], found.biases.get(key, NOTHING)
        tie, agreed = measured(biases.tie), found.agreements.get(key)
        rows.append(
            page.Judge(
                name=labeler.name, kind=labeler.kind, judgments=count, group=str(labeler.attributes.get("group", "")),
                ties=tie.estimate if tie else None, first_shown=measured(biases.first_side),
                longer=measured(biases.longer), kappa=measured(agreed.kappa) if agreed else None,
                overlap=agreed.overlap if agreed else None,
            )
        )  # fmt: skip
    return sorted(rows, key=lambda j: (j.kind, j.group, j.name))


def measured(figure: Interval) -> Interval | None:
    """A figure, or None where there was nothing to measure it on."""
    return figure if math.isfinite(figure.estimate) else None


def tastes(
    groups: Sequence[LabelerGroup], held_out: HeldOut, wins: Mapping[str, Interval], judged: Mapping[str, GroupOfJudges]
) -> list[page.Taste]:
    """What is known of each group of labelers.

    Args:
        groups: of labelers.
        held_out: the reward model's scores of its held-out comparisons.
        wins: win rates by group, where they are known.
        judged: of the last evaluation's groups, how many labelers and comparisons stand behind these.
    """
    rows = []
    for group in groups:
        places = [at for at, pair in enumerate(held_out.pairs) if pair.labeler in group.members]
        mine = [held_out.pairs[at] for at in places]
        behind = judged.get(group.name)
        # A found group may have been another when policies were compared.
        same = group.key == (behind.key if behind else "")
        rows.append(
            page.Taste(
                name=group.name, by=group.by, labelers=len(group.members), pairs=len(mine),
                accuracy=accuracy(mine, held_out.margins[places]) if mine else None,
                win_rate=wins.get(group.name) if same else None,
                judges=behind.labelers if behind else None, comparisons=behind.comparisons if behind else None,
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class HeldOut:
    """A reward model's held-out comparisons and its scores of their responses."""

    rows: list[Comparison] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Those that are decided."""
        return decided(self.rows)

    @cached_property
    def margins(self) -> NDArray[np.float64]:
        """(N,) by how much it scores the first response of each pair above the second."""
        return margins_of(self.pairs, self.scores)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """(N,) of the pairs."""
        return np.array([self.rows[pair.judgment].weight for pair in self.pairs])


def held_out(project: Project, artifact: Artifact) -> HeldOut:
    """The comparisons that a reward model's training held out, as far as they are here, with its scores."""
    rows = [row for row in held_out_rows(artifact) if row.weight > 0]
    if not rows:
        return HeldOut()

    def make() -> list[list[float]]:
        return project.domain.scorer(str(artifact.path), project.media)(
            [r.prompt for r in rows], [answers(r) for r in rows]
        )

    return HeldOut(rows, remembered(project, f"held-out-scores-{artifact.path.name}", artifact, make))


def held_out_rows(artifact: Artifact) -> list[Comparison]:
    """The comparisons that a training held out, as far as their files are here."""
    files = [path for role, path in artifact.files if role == "validation" and Path(path).is_file()]
    return [row for path in files for row in read_examples(path) if isinstance(row, Comparison)]


def remembered(project: Project, name: str, artifact: Artifact, make: Callable[[], T]) -> T:
    """What ``make`` finds for an artifact, kept in ``runs/report`` until the artifact is made anew."""
    file = project.path / "runs" / "report" / f"{name}.json"
    stamp = [artifact.created, artifact.metrics]
    if file.exists():
        known = json.loads(file.read_text("utf-8"))
        if known["of"] == stamp:
            found: T = known["found"]
            return found
    made = make()
    write_json(file, {"of": stamp, "found": made})
    return made


def held_out_accuracy(reward: Artifact) -> Interval | None:
    """What a reward model's training measured on held-out comparisons; None where it held out none."""
    found = reward.metrics
    if "accuracy" not in found:
        return None
    low, high = (math.nan if (v := found.get(f"accuracy_{end}")) is None else v for end in ("low", "high"))
    return Interval(found["accuracy"], low, high)


def own_accuracy(project: Project, artifact: Artifact) -> Interval | None:
    """A round's reward model on the responses of the policy that it made: the next round's held-out comparisons.

    None where nobody has judged any yet.
    """
    with project.store() as store:
        rows = [r for r in judged_rows(store, "validation") if r.metadata["round"] == (artifact.round or 0) + 1]
    if not decided(rows):
        return None
    right, prompts = correctness(rows, project.domain.scorer(str(artifact.path), project.media))
    return clustered_wilson(right, prompts)


def reward_model(artifact: Artifact, held_out: HeldOut, ceiling: float | None) -> page.RewardModel | None:
    """What is known of a reward model; None where it was never measured."""
    metrics, measured_then = artifact.metrics, held_out_accuracy(artifact)
    if measured_then is None:
        return None
    model = page.RewardModel(
        accuracy=measured_then, ceiling=ceiling, trained_on=artifact.judgments,
        held_out=metrics.get("validation_pairs"), reference_mean=metrics.get("reference_mean"),
    )  # fmt: skip
    if not any(MEDIA in row.metadata for row in held_out.rows):  # a file has no words
        model = replace(
            model,
            lengths=[words(text) for row in held_out.rows for text in row.responses],
            scores=[score for scores in held_out.scores for score in scores],
        )
    if pairs := held_out.pairs:
        model = replace(
            model, accuracy=accuracy(pairs, held_out.margins, held_out.weights), held_out=len(pairs),
            longer_wins=measured(longer_wins(pairs, held_out.weights)),
            length_baseline=length_baseline(pairs, held_out.weights),
            calibration=calibrated(pairs, held_out.margins),
        )  # fmt: skip
    card = RewardCard.load(artifact.path)
    return model if card is None else _with_card(model, card)


def _with_card(model: page.RewardModel, card: RewardCard) -> page.RewardModel:
    """With what the reward model's card knows better."""
    probes = list(card.probes)
    if card.ensemble is not None:
        who = f"{card.ensemble.models} {'bootstrapped heads' if card.ensemble.of == 'heads' else 'reward models'}"
        says = f"Chance that the pair {who} dispute more is the wrong one of two; 0.5 tells nothing."
        probes.append(Probe(name="disagreement tells errors", value=card.ensemble.predicts_errors, says=says))
    if card.shift is not None:
        says = "How well a linear test tells the responses it scores now from those it was trained on; 0.5 is no shift."
        probes.append(Probe(name="shift", value=Interval(card.shift.told_apart, math.nan, math.nan), says=says))
    return replace(
        model, passes=card.passes, failures=list(card.failures), remarks=list(card.remarks), accuracy=card.accuracy,
        longer_wins=card.longer_wins, length_baseline=card.length_baseline, agreement=card.agreement,
        uniform=card.uniform, selected=card.selected, agreement_ceiling=card.ceiling, slices=list(card.slices),
        learning=list(card.learning), learning_says=card.learning_says, probes=probes,
    )  # fmt: skip
