"""What an evaluation found: one typed, versioned result, which ``evaluation.json`` holds and is read and written here.

Nothing here needs torch, so that a notebook or the owner's page may read a result anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from hearken.config import located
from hearken.domains.base import find_domain
from hearken.errors import UserError
from hearken.evaluation.allowed import Allowed
from hearken.evaluation.numbers import JsonFloat, JsonInterval
from hearken.evaluation.record import Record
from hearken.evaluation.summary import Summary
from hearken.feedback.examples import Content, Message
from hearken.feedback.media import MediaFolder
from hearken.training.artifact import found_from, project_of, seen_from, write_json

FILE = "evaluation.json"
"""In a project's folder, and in the folder of each round's evaluation."""
VERSION: Final = 1

JudgeKind = Literal["gold", "reward", "people", "ai", "simulated", "reader"]


def content_of(prompt: Any) -> Content:
    """A prompt of a JSON file as everything else knows it."""
    return tuple(Message(**turn) for turn in prompt) if isinstance(prompt, list) else prompt


def plain(prompt: Content) -> str | list[dict[str, str]]:
    """A prompt as JSON files hold it: its text, or a list of ``role`` and ``content``."""
    return prompt if isinstance(prompt, str) else [turn.to_row() for turn in prompt]


def _finite(value: float | None) -> float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


JsonContent = Annotated[Content, BeforeValidator(content_of), PlainSerializer(plain)]


class JudgedBy(Record):
    """Who decided which of two answers is better."""

    kind: JudgeKind
    """The gold reward of a built-in world, a reward model, people, an AI labeler, simulated labelers, or an untuned
    model that reads both answers (`evaluation.reader`)."""
    words: str
    """In a sentence: ``the reward model``."""
    name: str = ""
    """Which one, where there may be several: the reward model's, the AI's or the reading model's name."""
    remark: str = ""
    """What to bear in mind: ``a proxy``."""

    def __str__(self) -> str:
        """The words, with the remark in brackets."""
        return f"{self.words} ({self.remark})" if self.remark else self.words

    def same(self, other: JudgedBy | None) -> bool:
        """Whether both are the same judge, whatever the words."""
        return other is not None and (self.kind, self.name) == (other.kind, other.name)


class Phrase(Record):
    """Words that far more responses of a policy hold than of the baseline."""

    text: str
    share: float
    """Of the policy's responses, 0..1."""
    before: float
    """Of the baseline's, 0..1."""


class Likelihood(Record):
    """How a policy changed the likelihood of held-out responses: mean log π(y|x) - log π_ref(y|x), in nats."""

    preferred: JsonInterval
    """Over those that labelers preferred."""
    other: JsonInterval
    """Over those that they did not."""


class Perplexity(Record):
    """Of a held-out text."""

    token: JsonFloat
    byte: JsonFloat
    """Per byte of the text, which models of other tokenizers share."""


class TaskScores(Record):
    """Figures of a policy on one task; those that the task does not measure are None. Intervals are over its rows."""

    perplexity: float | None = None
    """Of the right answers' tokens."""
    rows: int
    acc: JsonInterval | None = None
    """Share of rows whose likeliest choice is right, 0..1."""
    acc_norm: JsonInterval | None = None
    """The same, likeliest for each character."""
    exact_match: JsonInterval | None = None
    """Share of rows whose generated answer is the right one, 0..1."""
    chance: float | None = None
    """The accuracy of guessing, 0..1."""

    @property
    def rate(self) -> JsonInterval | None:
        """The accuracy that stands for the task; None where only a perplexity was measured."""
        return next((rate for rate in (self.acc, self.acc_norm, self.exact_match) if rate is not None), None)


class PolicyResult(Record):
    """How one policy answered the held-out prompts. What nobody measured is None or empty.

    Intervals are 95 % ones over prompts. Win rates are against the baseline, 0..1, a tie counting half.
    """

    win_rate: JsonInterval | None = None
    """By the judge; None of the baseline itself."""
    comparisons: int | None = None
    """Prompts that the win rate rests on."""
    win_rate_by_group: Mapping[str, JsonInterval] = {}
    """By the taste of each group of labelers."""
    win_rate_by_other: Mapping[str, JsonInterval] = {}
    """By groups that another attribute than ``group`` divides, or that were found."""
    win_rate_by_judge: Mapping[str, JsonInterval] = {}
    """By several judges, where more than one was asked."""
    win_rate_by_reading: Mapping[str, JsonInterval] = {}
    """By each thing that a reading judge looks at."""
    proxy: JsonInterval | None = None
    """Mean score by the reward model."""
    allowed: Allowed | None = None
    """Of policies that were trained on this reward model and held to the baseline."""
    own_accuracy: JsonInterval | None = None
    """How often the reward model orders two of the policy's own responses as the gold reward does, 0..1."""
    gold: JsonInterval | None = None
    """Mean gold reward, which built-in worlds know."""
    kl: JsonInterval | None = None
    """Nats a response to the baseline."""
    length: JsonInterval | None = None
    """Tokens a response."""
    eos_share: JsonInterval | None = None
    """Share of responses that ended by themselves, 0..1."""
    entropy: JsonInterval | None = None
    """Nats a token, of the distributions it drew from; None of the best of n."""
    parse_rate: JsonInterval | None = None
    """Share of responses that the world's parser accepts, 0..1."""
    distinct_1: float | None = None
    """Share of distinct words, 0..1; ``distinct_2`` and ``distinct_3`` of word pairs and triples."""
    distinct_2: float | None = None
    distinct_3: float | None = None
    self_bleu: float | None = None
    """How much of each response is found in the others, 0..1."""
    repetition: float | None = None
    """Share of a response's phrases of four words that it has said before, 0..1."""
    length_drift: JsonInterval | None = None
    """Words of its response minus words of the baseline's."""
    phrases: tuple[Phrase, ...] = ()
    """What it has taken to saying, the most grown first."""
    likelihood: Likelihood | None = None
    """Of policies that direct methods made."""
    perplexity: float | None = None
    """Per token, of the first held-out text."""
    perplexities: Mapping[str, Perplexity] = {}
    """Of each held-out text, by the file's name."""
    tasks: Mapping[str, TaskScores] = {}
    """By the task's name."""
    figures: Mapping[str, JsonInterval] = {}
    """What else the domain of its responses measures, by name."""
    responses: tuple[str, ...] = ()
    """One for each prompt, in their order: texts, or paths of files in the project."""
    scores: tuple[JsonFloat, ...] = ()
    """The reward model's, of each response."""
    golds: tuple[JsonFloat, ...] = ()
    """The gold reward of each response."""
    parses: tuple[bool, ...] = ()
    """Whether the world's parser accepts each response."""
    says: tuple[bool, ...] = ()
    """Whether each response says what was asked, by a reading judge."""

    def measured(self, figures: Mapping[str, object]) -> Self:
        """With what its domain measured: in the fields of these names, the rest in ``figures``."""
        own = {name: value for name, value in figures.items() if name in type(self).model_fields}
        rest = {name: value for name, value in figures.items() if name not in own}
        return self.but(**own, figures={**self.figures, **rest})


class Standing(Record):
    """One row of the leaderboard. Strengths are in log-odds against the average of all."""

    policy: str
    strength: JsonInterval
    strength_at_equal_length: JsonInterval | None = None
    """Where every response had the same length."""
    beats_baseline: JsonInterval | None = None
    """Chance that it beats the baseline, half of that of a tie included; None of the baseline."""
    place: int | None = None
    """1 is the best."""
    wins: float = 0.0
    """Comparisons, weighted so that a prompt counts once."""
    ties: float = 0.0
    losses: float = 0.0
    level_with: tuple[str, ...] = ()
    """Those that it cannot be told apart from."""

    @property
    def comparisons(self) -> int | None:
        """How many it took part in; None where nobody counted."""
        return round(self.wins + self.ties + self.losses) or None


class GroupOfJudges(Record):
    """A group among the labelers who judged."""

    by: str
    """The attribute that divides the labelers."""
    key: str = ""
    """Digest of who is in it, where it was found and not declared."""
    labelers: int
    comparisons: int


class Spread(Record):
    """A figure of the same training with several seeds."""

    name: str
    """win_rate, gold, proxy, kl or length."""
    mean: JsonInterval
    deviation: Annotated[float | None, BeforeValidator(_finite)] = None
    """Standard deviation between seeds; None of one seed."""
    lowest: float
    highest: float
    seeds: int


class EvaluationResult(Record):
    """Policies on the same held-out prompts."""

    version: Literal[1] = VERSION
    """Of this form."""
    created: str = ""
    """When, in UTC: ``2026-01-31T12:00:00+00:00``."""
    baseline: str = ""
    """The policy that the others are compared with; empty where no prompts were answered."""
    judge: JudgedBy | None = None
    """Who decided; None where nobody could."""
    reward: str | None = None
    """The reward model behind ``proxy``."""
    artifacts: Mapping[str, str] = {}
    """Path or Hub name of each policy; the file holds paths within the project as seen from there."""
    domain: str = "text"
    """What the responses are (`domains.base`)."""
    titles: Mapping[str, str] = {}
    """Of the policies' ``figures``, by name."""
    prompts: tuple[JsonContent, ...] = ()
    policies: Mapping[str, PolicyResult] = {}
    """By name; best of n is ``best-of-8@NAME``."""
    leaderboard: tuple[Standing, ...] = ()
    """The best first."""
    length_effect: JsonInterval | None = None
    """Log-odds of winning for being longer, by `statistics.bradley_terry.length_lead` (-1..1)."""
    groups: Mapping[str, GroupOfJudges] = {}
    """Of the labelers who judged, by name."""
    seeds: tuple[Spread, ...] = ()
    ceiling: float | None = None
    """Accuracy of the exact vote probability on held-out comparisons, known in simulation."""
    summary: Annotated[Summary | None, BeforeValidator(lambda value: value or None)] = None
    """What `hearken quickstart` printed at its end."""

    def answers(self, name: str) -> tuple[str, ...]:
        """A policy's responses; empty where it, or they, are unknown."""
        return self.policies[name].responses if name in self.policies else ()


def write_evaluation(file: Path, result: EvaluationResult) -> None:
    """Write a result so that a reader sees the old file or the new one; what is not a finite number becomes null."""
    root = _root(file)
    stored = _with_paths(result, lambda path: seen_from(root, located(path)))
    write_json(file, json.loads(stored.model_dump_json()))


def read_evaluation(path: str | Path) -> EvaluationResult:
    """Read what `hearken evaluate`, `hearken loop` or `hearken quickstart` found.

    A file of the form before versions is brought into today's.

    Args:
        path: a project's folder, or an ``evaluation.json``.

    Raises:
        UserError: there is no such file, it is damaged, or a newer Hearken wrote it.
    """
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror})", "Make one: hearken evaluate") from None
    except ValueError:
        raise UserError(f"{file} is not JSON", "Make it anew: hearken evaluate") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no evaluation", "Make it anew: hearken evaluate")
    if content.setdefault("version", 0) not in (0, VERSION):
        raise UserError(f"{file} was written by a newer Hearken", "Install that, or make it anew: hearken evaluate")
    try:
        found = EvaluationResult(**content) if content["version"] else _upgraded(file, content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {where}: {first['msg']}", "Make it anew: hearken evaluate") from None
    root = _root(file)
    return _with_paths(found, lambda path: found_from(root, path))


def _root(file: Path) -> Path:
    """The project that the file stands in: in its folder, or in that of a round's evaluation."""
    return project_of(file.parent) or file.parent.absolute()


def _with_paths(result: EvaluationResult, place: Callable[[str], str]) -> EvaluationResult:
    """A result whose ``artifacts``, PATH or ``best-of-8@PATH``, have the paths that ``place`` makes of them."""

    def placed(policy: str) -> str:
        head, at, path = policy.partition("@")
        return head + at + place(path) if policy.startswith("best-of-") else place(policy)

    return result.but(artifacts={name: placed(policy) for name, policy in result.artifacts.items()})


# -- the form before versions -----------------------------------------------------------------------------------------

_SENTENCES: dict[str, JudgedBy] = {
    str(judge): judge
    for judge in (
        JudgedBy(kind="gold", words="the gold reward"),
        JudgedBy(kind="reward", words="the reward model"),
        JudgedBy(kind="reward", words="the reward model", remark="a proxy"),
        JudgedBy(kind="reward", words="the reward model", remark="a proxy: ask people before you believe it"),
        JudgedBy(kind="people", words="people"),
        JudgedBy(kind="ai", words="an AI labeler"),
        JudgedBy(kind="simulated", words="simulated labelers"),
        JudgedBy(kind="reader", words="an untuned model that reads both answers", remark="no labeler, no reward model"),
    )
}
"""Judges as that form named them."""


_RENAMED = {"win_rates": "win_rate_by_judge", "win_rates_by_reading": "win_rate_by_reading"}


def _upgraded(file: Path, content: Mapping[str, Any]) -> EvaluationResult:
    sentence, baseline = content.get("judge") or "", content.get("baseline") or ""
    judge = _SENTENCES.get(sentence)
    if sentence and judge is None:
        raise UserError(f"{file} was judged by '{sentence}', which is unknown", "Make it anew: hearken evaluate")
    if judge is not None and judge.kind in ("reward", "reader"):
        judge = judge.but(name=(content.get("reward") if judge.kind == "reward" else baseline) or "")
    known = {
        "version": VERSION, "judge": judge,
        "policies": {
            name: {_RENAMED.get(key, key): figure for key, figure in figures.items() if figure is not None}
            for name, figures in (content.get("policies") or {}).items()
        },
        "seeds": [{"name": name, **figures} for name, figures in (content.get("seeds") or {}).items()],
    }  # fmt: skip
    found = EvaluationResult(**{**content, **known})
    before = found.answers(found.baseline)
    told = {
        name: policy.measured(
            find_domain("text").compare(found.prompts, policy.responses, before, MediaFolder(file.parent))
        )
        for name, policy in found.policies.items()
        if before and policy.responses and policy.length_drift is None  # the form before that one
    }
    return found.but(policies={**found.policies, **told})
