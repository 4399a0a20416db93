"""What `hearken quickstart` found, in the few figures that it prints: typed and versioned, in ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, JsonValue

from hearken.evaluation.allowed import Allowed
from hearken.evaluation.numbers import JsonFloat, interval_of
from hearken.evaluation.record import Record
from hearken.statistics.intervals import Interval

VERSION: Final = 1

Bounds = Annotated[Interval, BeforeValidator(interval_of)]
"""An interval that stands in JSON as ``[estimate, low, high]``."""


class RewardFigures(Record):
    """Of the reward model, on held-out comparisons; shares 0..1."""

    accuracy: float
    accuracy_low: JsonFloat
    accuracy_high: JsonFloat
    ceiling: float | None = None
    """Accuracy of the exact vote probability on the same comparisons."""
    length_accuracy: float
    """Accuracy of preferring the response with more tokens."""


class ReferencedRewardFigures(RewardFigures):
    """Of one whose zero is set by reference responses."""

    reference_mean: float
    """Their mean score, 0 by construction."""


class PPOFigures(Record):
    """Of PPO-ptx against the fine-tuned policy that it began with, on held-out prompts."""

    win_rate: float
    """By the gold reward, 0..1."""
    win_rate_low: JsonFloat
    win_rate_high: JsonFloat
    win_rate_by_group: Mapping[str, JsonFloat]
    """By the taste of each group of labelers."""
    kl: float
    """Nats a response."""
    parse_rate: float
    """Share of responses that the world's parser accepts, 0..1."""
    gold: float
    """Mean gold reward."""
    allowed: Allowed | None = None
    """How much of what its reward allows it reached."""
    sft_gold: float
    sft_parse_rate: float


class TalesPerplexity(Record):
    """Per token, of held-out plain text."""

    base: float
    sft: float
    ppo: float
    ppo_without_ptx: float | None
    """None with ``--fast``."""


class TalesSummary(Record):
    """Of the run on generated tales."""

    version: Literal[1] = VERSION
    """Of this form."""
    seed: int
    reward: ReferencedRewardFigures
    ppo: PPOFigures
    perplexity: TalesPerplexity


class NotesFigures(Record):
    """Of the trained model against the pretrained one, on held-out requests; ``…_before`` of the pretrained one."""

    win_rates: Mapping[str, Bounds]
    """By an untuned judge, by the labelers' own taste and by the reward model, 0..1."""
    win_rates_by_reading: Mapping[str, Bounds]
    """By each thing that the judge looks at."""
    win_rate_by_group: Mapping[str, JsonFloat]
    """By the taste of each group of labelers."""
    kl: float
    """Nats a response."""
    ended: float
    """Share of responses that ended by themselves, 0..1."""
    ended_before: float
    gold: float
    """Mean worth to the simulated labelers."""
    gold_before: float
    length: float
    """Tokens a response."""
    length_before: float
    says: float
    """Share of responses that say what was asked, 0..1."""
    says_before: float
    distinct_2: float | None
    """Share of distinct word pairs, 0..1."""
    distinct_2_before: float | None


class NotesPerplexity(Record):
    """Per token, of held-out plain text."""

    before: float
    after: float


class NotesSummary(Record):
    """Of the run on a pretrained chat model."""

    version: Literal[1] = VERSION
    """Of this form."""
    seed: int
    model: str
    """The pretrained model's name."""
    reward: RewardFigures
    policy: NotesFigures
    perplexity: NotesPerplexity


class BehaviourFigures(Record):
    """Of the trained policy and of the one that it began with, on fresh starts, in the world's own unit."""

    before: Bounds
    after: Bounds
    unit: str
    target: float
    """What a policy shows that has learned it."""
    win_rate: Bounds
    """Share of the starts from which the trained one shows more of it, 0..1."""


class BehaviourSummary(Record):
    """Of the run on a behaviour of a robot."""

    version: Literal[1] = VERSION
    """Of this form."""
    seed: int
    world: str
    labels: int
    """Comparisons of clips in all."""
    behaviour: BehaviourFigures
    accuracy: float | None = None
    """Share of the held-out comparisons that the reward model orders as they were judged, 0..1."""
    steps: int
    """Of the environment, in training."""


Summary = TalesSummary | NotesSummary | BehaviourSummary


class HumanFigures(Record):
    """Of the person at this machine, where they judged."""

    judgments: int
    needed: int
    """Judgments that were asked for."""
    held_out_pairs: int
    agreement: float | None
    """Share of their held-out pairs that the reward model orders as they did, 0..1."""
    agreement_low: JsonFloat | None
    agreement_high: JsonFloat | None
    likes: Mapping[str, float]
    """By trait, the share of their pairs in which the response with more of it was preferred."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A quickstart that ran to its end."""

    summary: Summary
    human: HumanFigures | None
    seconds: float
    report: Path

    def to_json(self) -> dict[str, JsonValue]:
        """What ``--json`` prints."""
        human = {} if self.human is None else {"human": self.human.model_dump(mode="json")}
        return {**self.summary.model_dump(mode="json"), **human, "seconds": self.seconds, "report": str(self.report)}
