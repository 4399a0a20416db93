"""What the feedback database and the reward model's held-out data say, counted once for the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.evaluation import report as page
from hearken.evaluation.compare import calibration
from hearken.feedback.examples import Comparison, content_key
from hearken.feedback.formats import read_examples
from hearken.feedback.records import ComparisonPayload
from hearken.labelers.answering import agreement
from hearken.statistics.intervals import Interval, clustered_wilson
from hearken.training.artifact import Artifact, write_json

if TYPE_CHECKING:
    from hearken.feedback.records import Judgment, Labeler
    from hearken.loop.groups import LabelerGroup
    from hearken.loop.project import Project


@dataclass
class _Leaning:
    """One labeler's pairs: 1 or 0 each, and the judgment that each came with."""

    judgments: int = 0
    ties: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    longer: list[float] = field(default_factory=list)
    of_first: list[str] = field(default_factory=list)
    of_longer: list[str] = field(default_factory=list)

    def add(self, judgment: Judgment, texts: dict[str, str]) -> None:
        """Count the pairs of a ranking."""
        payload = judgment.payload
        assert isinstance(payload, ComparisonPayload)
        shown = judgment.order or range(len(payload.ranks))
        place = {response: at for at, response in enumerate(shown)}
        for i, a in enumerate(payload.ranks):
            for j, b in enumerate(payload.ranks[:i]):
                if a is None or b is None:
                    continue
                self.ties.append(float(a == b))
                if a == b:
                    continue
                won, lost = (i, j) if a < b else (j, i)
                self.first.append(float(place[won] < place[lost]))
                self.of_first.append(judgment.id)
                words = [len(texts.get(payload.response_ids[k], "").split()) for k in (won, lost)]
                if words[0] != words[1] and all(words):
                    self.longer.append(float(words[0] > words[1]))
                    self.of_longer.append(judgment.id)


@dataclass
class Tally:
    """The feedback database in numbers."""

    labelers: dict[str, Labeler] = field(default_factory=dict)
    leanings: dict[str, _Leaning] = field(default_factory=dict)
    responses: Counter[int] = field(default_factory=Counter)
    """Sampled responses by round."""
    judgments: Counter[int] = field(default_factory=Counter)
    """By round."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Judgments by the kind of their labeler."""
    labeling_seconds: float = 0.0
    sampled_at: dict[int, datetime] = field(default_factory=dict)
    judged_at: dict[int, datetime] = field(default_factory=dict)
    agreements: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each model among the labelers with people, by its id (`labelers.answering.agreement`)."""
    policies: dict[str, int] = field(default_factory=dict)
    """Policies whose responses were judged, with the number of the first such judgment."""


def tally(project: Project) -> Tally:
    """Go through the database once."""
    found = Tally()
    with project.store() as store:
        found.labelers = {r.id: r for r in store.labelers()}
        texts, policies, compared = {}, {}, set()
        for response in store.responses():
            texts[response.id] = response.text
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
            leaning = found.leanings.setdefault(labeler.id, _Leaning())
            leaning.judgments += 1
            if judgment.kind == "comparison":
                leaning.add(judgment, texts)
        found.agreements = {
            key: agreement(store, key) for key, labeler in found.labelers.items() if labeler.kind == "ai"
        }
    return found


def judges(found: Tally) -> list[page.Judge]:
    """One row per labeler, with the biases that show in their judgments."""

    def share(values: list[float], of: list[str]) -> page.Figure:
        return clustered_wilson(values, of) if values else None

    rows = []
    for key, row in found.leanings.items():
        labeler = found.labelers[key]
        agreed = found.agreements.get(key, {})
        kappa = [agreed[name] for name in ("kappa", "kappa_low", "kappa_high") if name in agreed]
        rows.append(
            page.Judge(
                name=labeler.name, kind=labeler.kind, judgments=row.judgments,
                group=str(labeler.attributes.get("group", "")),
                ties=sum(row.ties) / len(row.ties) if row.ties else None,
                first_shown=share(row.first, row.of_first), longer=share(row.longer, row.of_longer),
                kappa=Interval(*kappa) if kappa else None, overlap=agreed.get("overlap"),
            )
        )  # fmt: skip
    return sorted(rows, key=lambda j: (j.kind, j.group, j.name))


def tastes(
    groups: Sequence[LabelerGroup], held_out: list[dict[str, Any]], wins: dict[str, Any], judged: dict[str, Any]
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
        right: list[float] = []
        of: list[str] = []
        for row in held_out:
            if row["labeler"] in group.members:
                hits = [hit for hit, *_ in _pairs(row)]
                right += hits
                of += [row["prompt"]] * len(hits)
        behind = judged.get(group.name, {})
        same = group.key == behind.get("key", "")  # a found group may have been another when policies were compared
        rows.append(
            page.Taste(
                name=group.name, by=group.by, labelers=len(group.members), pairs=len(right),
                accuracy=clustered_wilson(right, of) if right else None,
                win_rate=wins.get(group.name) if same else None,
                judges=behind.get("labelers"), comparisons=behind.get("comparisons"),
            )
        )  # fmt: skip
    return rows


def _pairs(row: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Of each ordered pair of a ranking: was the better one scored higher (half for a tie), and both scores."""
    pairs = []
    for a, score_a in zip(row["ranks"], row["scores"], strict=True):
        for b, score_b in zip(row["ranks"], row["scores"], strict=True):
            if a is not None and b is not None and a < b:
                pairs.append(((score_a > score_b) + 0.5 * (score_a == score_b), score_a, score_b))
    return pairs


def held_out(project: Project, artifact: Artifact) -> list[dict[str, Any]]:
    """The reward model's scores of its held-out comparisons: prompt, labeler, ranks, words and scores of each."""
    paths = [path for p in artifact.manifest["inputs"].get("validation") or [] if (path := find(project, p))]
    if not paths:
        return []

    def make() -> list[dict[str, Any]]:
        from hearken.evaluation.measure import Judge

        rows = [r for path in paths for r in read_examples(path) if isinstance(r, Comparison)]
        scored = Judge(str(artifact.path))([r.prompt for r in rows], [r.responses for r in rows]) if rows else []
        return [
            {
                "prompt": content_key(row.prompt), "labeler": row.metadata.get("labeler"), "ranks": list(row.ranks),
                "words": [len(text.split()) for text in row.responses], "scores": [round(s, 5) for s in scores],
            }
            for row, scores in zip(rows, scored, strict=True)
        ]  # fmt: skip

    return remembered(project, f"held-out-{artifact.path.name}", artifact, make)


def find(project: Project, path: str) -> Path | None:
    """A file that a manifest names, also where the project was moved since."""
    name = Path(path).name
    places = [Path(path), project.path / path, project.path / "snapshots" / name, project.path / "data" / name]
    return next((p for p in places if p.is_file()), None)


def remembered(project: Project, name: str, artifact: Artifact, make: Callable[[], Any]) -> Any:
    """What ``make`` finds for an artifact, kept in ``runs/report`` until the artifact is made anew."""
    file = project.path / "runs" / "report" / f"{name}.json"
    stamp = [artifact.manifest.get("created"), artifact.manifest.get("metrics")]
    if file.exists():
        known = json.loads(file.read_text("utf-8"))
        if known["of"] == stamp:
            return known["found"]
    found = make()
    write_json(file, {"of": stamp, "found": found})
    return found


def reward_model(artifact: Artifact, rows: list[dict[str, Any]], ceiling: float | None) -> page.RewardModel | None:
    """What is known of a reward model; None where it was never measured."""
    metrics = artifact.metrics
    if "accuracy" not in metrics:
        return None
    probabilities: list[float] = []
    happened: list[float] = []
    for row in rows:
        for i, (a, score_a) in enumerate(zip(row["ranks"], row["scores"], strict=True)):
            for b, score_b in list(zip(row["ranks"], row["scores"], strict=True))[:i]:
                if a is not None and b is not None and a != b:
                    probabilities.append(1 / (1 + math.exp(min(score_b - score_a, 500.0))))
                    happened.append(float(a < b))
    known: dict[str, Any] = {
        "accuracy": Interval(
            metrics["accuracy"], metrics.get("accuracy_low", math.nan), metrics.get("accuracy_high", math.nan)
        ),
        "ceiling": ceiling,
        "longer_wins": metrics.get("length_accuracy"),
        "trained_on": artifact.manifest["data"].get("judgments"),
        "held_out": metrics.get("validation_pairs"),
        "calibration": calibration(probabilities, happened) if happened else None,
        "reference_mean": metrics.get("reference_mean"),
        "lengths": [w for row in rows for w in row["words"]],
        "scores": [s for row in rows for s in row["scores"]],
    }
    return page.RewardModel(**(known | _card(artifact.path)))


def _card(folder: Path) -> dict[str, Any]:
    """What the reward model's card (``card.json`` in its folder) knows better; nothing where there is none."""
    file = folder / "card.json"
    if not file.is_file():
        return {}
    card = json.loads(file.read_text("utf-8"))
    found: dict[str, Any] = {key: card.get(key) for key in ("passes", "failures", "remarks") if key in card}
    for key in ("accuracy", "longer_wins", "agreement", "uniform", "selected"):
        if card.get(key) is not None:
            found[key] = figure(card[key])
    if bounds := card.get("ceiling"):
        found["agreement_ceiling"] = (bounds[0], bounds[1])
    found["slices"] = [
        page.Slice(by=s["by"], name=s["name"], accuracy=figure(s["accuracy"]), count=s.get("count"))
        for s in card.get("slices") or []
    ]
    found["learning"] = [
        page.Learnt(labels=p["labels"], accuracy=figure(p["accuracy"]), parameters=p.get("parameters"))
        for p in card.get("learning") or []
    ]
    found["learning_says"] = str(card.get("learning_says") or "")
    found["probes"] = [
        page.Probe(name=p["name"], value=figure(p["value"]), says=p.get("says", "")) for p in card.get("probes") or []
    ]
    if ensemble := card.get("ensemble"):
        of = ensemble.get("of", "reward models")
        who = f"{ensemble['models']} {of if of == 'reward models' else 'bootstrapped heads'}"
        says = f"Chance that the pair {who} dispute more is the wrong one of two; 0.5 tells nothing."
        found["probes"].append(
            page.Probe(name="disagreement tells errors", value=figure(ensemble["predicts_errors"]), says=says)
        )
    if shift := card.get("shift"):
        says = "How well a linear test tells the responses it scores now from those it was trained on; 0.5 is no shift."
        found["probes"].append(page.Probe(name="shift", value=shift["told_apart"], says=says))
    return found


def figure(value: Any) -> Any:
    """A figure of a file: a number, [estimate, low, high], or a record of these three; null is a missing bound."""
    if isinstance(value, dict):
        value = [value["estimate"], value.get("low"), value.get("high")]
    if isinstance(value, list):
        return Interval(*(math.nan if v is None else v for v in value))
    return value
