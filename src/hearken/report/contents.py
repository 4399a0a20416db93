"""The report of a run: what was done, what changed, whether it is better, and what it cost, in one HTML file.

Fill a ``Report`` with what is known; sections without data are left out. ``render`` makes the page (no network, no
JavaScript, light and dark), ``Report.to_json`` the same figures for scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from hearken.evaluation.compare import Calibration
from hearken.evaluation.numbers import JsonInterval
from hearken.evaluation.results import EvaluationResult, PolicyResult
from hearken.evaluation.reward_card import Learnt, Probe, Slice
from hearken.evaluation.round_record import RoundRecord
from hearken.feedback.examples import Content
from hearken.feedback.media import Viewer

if TYPE_CHECKING:
    from pydantic import JsonValue, TypeAdapter

Figure = JsonInterval | float | None
"""A number, with its interval wherever one can be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the pipeline."""

    name: str
    done: str
    """What it did, in a few plain words."""
    count: int | None = None
    unit: str = ""
    """Of what ``count`` counts, plural: ``responses``."""
    seconds: float | None = None
    settings: dict[str, object] = field(default_factory=dict)
    round: int | None = None
    """The turn of the loop that it belongs to; 0 or None for what came before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One policy's response, with its scores."""

    text: str
    proxy: float | None = None
    gold: float | None = None
    parses: bool | None = None
    """Whether the world's parser accepts it, where the world has one."""
    viewer: Viewer = "text"
    media: str = ""
    """The file that it is, as a ``data:`` address; empty for texts, and for files that are too large or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same prompt answered before and after."""

    prompt: Content
    before: Answer
    after: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A response that takes time, and what the reward model pays along it."""

    name: str
    """Why it is shown: ``best``."""
    score: float
    spread: float | None = None
    """Standard deviation of the score between the reward model's heads, where it has some."""
    picture: str
    """Moments from left to right, as a ``data:`` address."""
    rewards: list[float]
    """Of each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """What is known of the reward model, on held-out comparisons."""

    accuracy: Figure
    ceiling: Figure = None
    """Accuracy of the exact vote probability on the same rows, known only in simulation."""
    agreement_ceiling: tuple[float, float] | None = None
    """Bounds of the accuracy that anyone can reach against single labelers, from how often two of them agree."""
    longer_wins: Figure = None
    """Share of the votes on pairs of unequal length (in words) that went to the longer response."""
    length_baseline: Figure = None
    """Accuracy of the better of two rules: the longer response is better, or the shorter; at equal length by lot."""
    trained_on: int | None = None
    held_out: int | None = None
    calibration: Calibration | None = None
    reference_mean: Figure = None
    """Mean score of reference responses, which should be 0."""
    lengths: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """Score of each response whose length stands in ``lengths``."""
    passes: bool | None = None
    """Whether its card says that a policy may be trained on it; None where there is no card."""
    failures: list[str] = field(default_factory=list)
    """Why it does not, in sentences."""
    remarks: list[str] = field(default_factory=list)
    """What else its card says, in sentences."""
    slices: list[Slice] = field(default_factory=list)
    learning: list[Learnt] = field(default_factory=list)
    learning_says: str = ""
    """Whether more labels or a larger model would help more."""
    probes: list[Probe] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    """Held-out responses with the highest and lowest scores, and those whose score is disputed most."""
    agreement: Figure = None
    """How often two labelers agree on the same pair."""
    uniform: Figure = None
    """Accuracy on comparisons that were drawn uniformly."""
    selected: Figure = None
    """Accuracy on comparisons that a rule selected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A slice of answers that somebody checked: truth beside preference."""

    policy: str
    baseline: str
    before: Figure
    """Share of the baseline's checked answers that are right."""
    after: Figure
    """Of the policy's."""
    preference: Figure
    """How often the policy is preferred to the baseline."""
    judge: str = ""
    """By whom: ``people``, ``the gold reward``."""
    alarm: bool
    """Truth has fallen, beyond noise."""
    says: str
    checked: int | None = None
    """Answers, of both policies together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taste:
    """One group of labelers: what it said, how well its taste was learnt, and what it got."""

    name: str
    by: str = "group"
    """The attribute that divides the labelers."""
    labelers: int | None = None
    pairs: int | None = None
    """Held-out ones of the group, which the accuracy rests on."""
    accuracy: Figure = None
    """Of the reward model on this group's held-out comparisons."""
    win_rate: Figure = None
    """Of the policy against the baseline, by this group's taste."""
    judges: int | None = None
    """Labelers whose comparisons the win rate rests on; None where the group's true taste is known."""
    comparisons: int | None = None
    """Theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What it took."""

    seconds: float | None = None
    """Of computing, all steps together."""
    judgments: dict[str, int] = field(default_factory=dict)
    """By who gave them: person, ai, simulated, import."""
    labeling_seconds: float | None = None
    """That people spent on theirs, where the pages measured it."""
    responses: int | None = None
    """Sampled for judgment."""
    episodes: int | None = None
    """Sampled while training."""
    parameters: int | None = None
    """Weights of the policy."""
    ai_requests: int | None = None
    """Asked of AI labelers."""
    ai_tokens: tuple[int, int] = (0, 0)
    """Read and written by them, where their server counts."""
    price: float | None = None
    """Paid for AI labels, in the currency of the prices given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training run: the rows of its ``metrics.jsonl``; the columns known are `report.sections.training.CURVES`."""

    name: str
    rows: list[Mapping[str, object]]
    kept: float | None = None
    """The step whose weights were kept, where a judge watched the run."""
    judged_on: int | None = None
    """Held-out prompts that the judge compared answers to, at each look."""
    says: str = ""
    """What the judge saw, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """One labeler, or one group of labelers."""

    name: str
    kind: str
    """person, ai, simulated or import."""
    judgments: int
    group: str = ""
    ties: float | None = None
    """Share of pairs left tied."""
    first_shown: Figure = None
    """Share of untied pairs won by the response shown first; 0.5 is no side bias."""
    longer: Figure = None
    """Share of untied pairs won by the longer response; 0.5 is no length preference."""
    kappa: Figure = None
    """Of a model: Cohen's kappa with the people who judged the same pairs; 1 is agreement, 0 is chance."""
    overlap: int | None = None
    """Of a model: those pairs; 0 where people judged none of its pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liking:
    """Something that responses have more or less of, and whether it is liked."""

    name: str
    person: JsonInterval
    """Share of the person's pairs in which the response with more of it was preferred; 0.5 is indifference."""
    pairs: int
    """Pairs that differ in it."""
    learned: JsonInterval | None = None
    """The same share for the reward model, on responses that nobody judged."""
    before: float | None = None
    """How much of it a response of the baseline has on average."""
    after: float | None = None
    """The same for the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTaste:
    """What the person at this machine likes, and how much of it was learned."""

    judgments: int
    needed: int
    """Judgments that were asked for; the rest came from simulated labelers."""
    agreement: JsonInterval | None = None
    """Share of the person's held-out pairs that the reward model orders as they did."""
    held_out: int = 0
    others: JsonInterval | None = None
    """The same for the gold reward: the average taste of the simulated labelers."""
    likings: list[Liking] = field(default_factory=list)
    """Most decided first."""

    def to_json(self) -> str:
        """All of it as standard JSON."""
        return _taste().dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str) -> OwnTaste:
        """What ``to_json`` wrote."""
        return _taste().validate_json(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What it takes to run it again."""

    commands: list[str] = field(default_factory=list)
    by_step: list[str] = field(default_factory=list)
    """A command for each artifact by itself."""
    seed: int | None = None
    data_hash: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    configuration: str = ""
    """The resolved configuration as YAML."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One artifact and what it was made from: ``parents`` maps a role (model, reward, ref) to an artifact's name."""

    name: str
    kind: str
    parents: dict[str, str] = field(default_factory=dict)
    created: str = ""
    data_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the page can show. Only ``title`` is needed; what is absent is left out of the page."""

    title: str
    created: str = ""
    subtitle: str = ""
    evaluation: EvaluationResult = field(default_factory=EvaluationResult)
    """Its policies are shown in their order."""
    policy: str = ""
    """Name of the evaluation's policy that this is about."""
    warnings: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    """In the order of the held-out prompts, not picked by result."""
    losses: list[Pair] = field(default_factory=list)
    """Where the policy lost most."""
    rounds: list[RoundRecord] = field(default_factory=list)
    audit: Audited | None = None
    alarms: list[str] = field(default_factory=list)
    """Signs, found elsewhere, that the reward is being fooled."""
    reward_model: RewardModel | None = None
    tastes: list[Taste] = field(default_factory=list)
    costs: Costs | None = None
    training: list[Training] = field(default_factory=list)
    judges: list[Judge] = field(default_factory=list)
    taste: OwnTaste | None = None
    recipe: Recipe | None = None
    lineage: list[Made] = field(default_factory=list)

    @property
    def baseline(self) -> str:
        """Name of the policy that the others are compared with."""
        return self.evaluation.baseline

    @property
    def ours(self) -> PolicyResult | None:
        """What the evaluation says of the policy that this is about."""
        return self.evaluation.policies.get(self.policy)

    @property
    def before(self) -> PolicyResult | None:
        """What it says of the baseline."""
        return self.evaluation.policies.get(self.baseline)

    def to_json(self) -> str:
        """All figures as standard JSON (a number that is not finite becomes null)."""
        return _adapter().dump_json(self, indent=1).decode()

    def to_dict(self) -> dict[str, JsonValue]:
        """What `to_json` writes, as plain dictionaries."""
        found: dict[str, JsonValue] = _adapter().dump_python(self, mode="json")
        return found

    @staticmethod
    def from_json(text: str) -> Report:
        """What ``to_json`` wrote."""
        return _adapter().validate_json(text)


@cache
def _adapter() -> TypeAdapter[Report]:
    from pydantic import TypeAdapter

    return TypeAdapter(Report)


@cache
def _taste() -> TypeAdapter[OwnTaste]:
    from pydantic import TypeAdapter

    return TypeAdapter(OwnTaste)
