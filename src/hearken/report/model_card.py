"""The model card that goes with a published model: a YAML header that the Hub reads, and what a reader should know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from hearken.evaluation.numbers import percent, with_interval
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.evaluation.reward_card import RewardCard
from hearken.report.contents import Figure
from hearken.statistics.intervals import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """An artifact of the lineage; no path is one of a single machine's."""

    name: str
    kind: str
    """The stage that made it."""
    reward: bool
    """Whether it is a reward model."""
    parents: Sequence[tuple[str, str]] = ()
    """What it was made from: a role and a name."""
    files: Sequence[str] = ()
    """Of its data."""
    data_hash: str = ""
    judgments: int | None = None
    """In its data."""
    seed: int | None = None
    created: str = ""
    command: str = ""
    """That makes it again; empty where no stage made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """The judgments in the database of the model's project."""

    kinds: Mapping[str, int]
    """Judgments by the kind of their labeler, the most first."""
    labelers: int
    guidelines: Mapping[int, int]
    """Judgments by the version of the guideline they were given under."""


class About(Protocol):
    """What a domain says of its models: see `domains.base.Published`."""

    @property
    def library(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def load(self) -> str: ...
    @property
    def use(self) -> str: ...
    @property
    def limits(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is known of a model that is to be published."""

    name: str
    family: Sequence[Ancestor]
    """The lineage, the oldest first and itself last."""
    about: About
    """What is true of all models of its sort."""
    repository: str = ""
    """OWNER/NAME on the Hub."""
    license: str = ""
    base_model: str | None = None
    """The Hub name of what it all began with."""
    weights: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    feedback: Feedback | None = None
    accuracy: Interval | None = None
    """Of a reward model on the comparisons that its training held out."""
    length_accuracy: float | None = None
    """There, of preferring the response with more tokens."""
    checked: RewardCard | None = None
    """A reward model's own card."""
    evaluation: EvaluationResult = field(default_factory=EvaluationResult)
    """The project's last."""
    audit: str = ""
    """What a check of its answers found, in words."""

    @property
    def kind(self) -> str:
        """The stage that made it."""
        return self.family[-1].kind

    @property
    def reward(self) -> bool:
        """Whether it is a reward model."""
        return self.family[-1].reward

    @property
    def figures(self) -> PolicyResult | None:
        """What the evaluation says of it."""
        return self.evaluation.policies.get(self.name)

    def render(self) -> str:
        """README.md: the header, then lineage, figures, use, limits and how to make it again."""
        header = {
            "license": self.license or None,
            "library_name": self.about.library,
            "pipeline_tag": self.about.task,
            "base_model": self.base_model,
            "tags": ["hearken", "rlhf", "reward-model" if self.reward else self.kind, *self.about.tags],
        }
        text = yaml.safe_dump({k: v for k, v in header.items() if v}, sort_keys=False, allow_unicode=True)
        parts = [
            f"---\n{text}---\n",
            f"# {self.repository.rpartition('/')[2] or self.name}\n",
            _about(self) + "\n",
            self.about.load,
            _section("How it was made", _lineage(self)),
            _section("Who judged", _judged(self)),
            _section("How good it is", _measured(self)),
            _section("Intended use", self.about.use),
            _section("Limits", _limits(self)),
            _section("How to make it again", _again(self.family)),
            "Made with Hearken.\n",
        ]
        return "\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}\n" if body else ""


def _about(card: ModelCard) -> str:
    size = f"{card.weights:,} weights, " if card.weights else ""
    if card.reward:
        return f"A reward model ({size}fitted to judgments): it scores a response to a prompt."
    stages = " → ".join(dict.fromkeys(one.kind for one in card.family if one.command and not one.reward))
    return f"A policy ({size}made by {stages}), trained from feedback."


def _lineage(card: ModelCard) -> str:
    rows = [
        "| artifact | stage | made from | data (SHA-256) | seed | created |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in card.family:
        parents = ", ".join(f"{role}: {name}" for role, name in one.parents)
        digest = f" `{one.data_hash[:16]}`" if one.data_hash else ""
        cells = (one.name, one.kind, parents, f"{', '.join(one.files)}{digest}", one.seed, one.created)
        rows.append("| " + " | ".join(_cell(c) for c in cells) + " |")
    versions = ", ".join(f"{package} {version}" for package, version in card.versions.items())
    return "\n".join(rows) + (f"\n\nVersions: {versions}." if versions else "")


def _cell(value: object) -> str:
    """Text that stays in its cell of a Markdown table and is no markup."""
    text = "" if value is None else str(value)
    for character in "\\|<>*[]":
        text = text.replace(character, f"\\{character}")
    return re.sub(r"[ \t\r\n]+", " ", text)


def _judged(card: ModelCard) -> str:
    """Labelers and guideline versions behind the judgments, where the project's database is at hand."""
    counts = [one.judgments for one in card.family if one.judgments]
    if not counts:
        return ""
    said = f"{sum(counts):,} judgments went into it."
    if (feedback := card.feedback) is None:
        return said
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in feedback.kinds.items())
    total = sum(feedback.kinds.values())
    said += f" The project's database holds {total:,} ({by_kind}) by {feedback.labelers} labelers."
    if not feedback.guidelines:
        return f"{said} No guideline was recorded with them."
    versions = ", ".join(f"version {v} ({count:,} judgments)" for v, count in sorted(feedback.guidelines.items()))
    return f"{said} Guideline: {versions}."


def _rows(policy: PolicyResult, baseline: str, titles: Mapping[str, str]) -> list[tuple[str, Figure, bool]]:
    """What an evaluation says of a policy: label, figure, whether it is a share."""
    return [
        (f"win rate against {baseline}", policy.win_rate, True),
        ("gold reward", policy.gold, False),
        ("proxy reward", policy.proxy, False),
        ("share of what the reward allows", policy.allowed.share if policy.allowed else None, True),
        (f"KL to {baseline}, nats a response", policy.kl, False),
        ("tokens a response", policy.length, False),
        ("distinct word pairs", policy.distinct_2, True),
        ("self-BLEU: how alike the responses are", policy.self_bleu, True),
        ("entropy, nats a token", policy.entropy, False),
        ("responses that end by themselves", policy.eos_share, True),
        ("responses that parse", policy.parse_rate, True),
        ("perplexity of held-out text", policy.perplexity, False),
        *((titles.get(name, name), figure, False) for name, figure in policy.figures.items()),
        *((f"accuracy on {task}", scores.rate, True) for task, scores in policy.tasks.items()),
    ]


def _measured(card: ModelCard) -> str:
    rows: list[tuple[str, str]] = []
    figures, evaluation = card.figures, card.evaluation
    if card.accuracy is not None:
        rows.append(("accuracy on held-out comparisons", with_interval(card.accuracy, True)))
        if card.length_accuracy is not None:
            by_tokens = with_interval(card.length_accuracy, True)
            rows.append(("accuracy of preferring the one with more tokens", by_tokens))
    if figures is not None:
        known = _rows(figures, evaluation.baseline, evaluation.titles)
        rows += [(label, with_interval(figure, share)) for label, figure, share in known if figure is not None]
    if card.checked is not None:
        verdict = "passes" if card.checked.passes else f"fails: {' '.join(card.checked.failures)}"
        rows += [("reward-model card", verdict), ("calibration error", percent(card.checked.calibration.error))]
    if figures is not None:
        groups = figures.win_rate_by_group.items()
        rows += [(f"win rate by the taste of {group}", with_interval(rate, True)) for group, rate in groups]
    if not rows:
        return "Nobody has measured it yet."
    table = "\n".join(["| figure | value |", "| --- | --- |", *(f"| {_cell(a)} | {_cell(b)} |" for a, b in rows)])
    how = ""
    if figures is not None and evaluation.prompts:
        judged = f", judged by {evaluation.judge}" if evaluation.judge else ""
        how = f"\n\nOn {len(evaluation.prompts):,} held-out prompts{judged}."
    return f"{table}\n\nIn brackets 95 % intervals.{how}"


def _limits(card: ModelCard) -> str:
    said = [
        "It knows the taste of the labelers named above, not of everyone, and was checked on no other kind of prompt."
    ]
    if not card.reward and any(one.reward for one in card.family):
        said.append("It was trained on a learned reward, which is a proxy: what scores high need not be good.")
    if card.audit:
        said.append(f"A slice of its answers was checked. {card.audit} It was not tested for safety.")
    else:
        said += card.about.limits
    figures, judge = card.figures, card.evaluation.judge
    if figures is not None and judge is not None and judge.kind == "reward":
        said.append("The figures above are by the reward model itself; people were not asked.")
    if figures is None and not card.reward:
        said.append("No comparison with another policy is known.")
    worse = [group for group, rate in figures.win_rate_by_group.items() if rate.low <= 0.5] if figures else []
    if worse:
        said.append(f"It is not shown to be better by the taste of {', '.join(worse)}.")
    return "\n".join(f"* {line}" for line in said)


def _again(family: Sequence[Ancestor]) -> str:
    lines = [one.command for one in family if one.command]
    return "```bash\n" + "\n".join(lines) + "\n```" if lines else ""
