"""What the feedback database holds: prompts, responses, labelers, queue items and judgments, each with its id.

Ids of prompts, responses and queue items are hashes of their content unless given, so that adding the same
thing twice (a resumed step, a file imported again) adds nothing. Judgments carry an id made by the client that
sends them, so that sending one again is harmless. All times are UTC.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from hearken.feedback.examples import Content, Message, content_key
from hearken.feedback.media import Media

ItemKind = Literal["comparison", "rating", "thumb", "edit", "critique", "demonstration", "span_flag"]
"""The kinds of judgment a queue item can ask for."""

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""An integer that both databases can hold."""

Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
"""A smaller one."""

LabelerKind = Literal["person", "ai", "simulated", "import"]
LabelerStatus = Literal["active", "paused"]


def new_id() -> str:
    """A fresh random id (32 hexadecimal digits)."""
    return uuid.uuid4().hex


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def prompt_id(content: Content, domain: str = "text") -> str:
    """The id of a prompt: its domain and content key, so equal prompts are one prompt."""
    return f"{domain}-{content_key(content)}"


def hash_id(*parts: Any) -> str:
    """An id made of ``parts`` (anything JSON can hold): equal parts, equal id."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Record(BaseModel):
    """Base of all records: immutable, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def _name(self, make: Callable[[], str]) -> None:
        """Make the ``id`` where none was given; only for validators of a record being made."""
        if not getattr(self, "id", ""):
            object.__setattr__(self, "id", make())
            self.__pydantic_fields_set__.add("id")


class Prompt(Record):
    """What the policy is given."""

    content: Content
    domain: str = "text"
    id: str = ""
    """Made from domain and content where not given."""
    split: str = "train"
    """Which part of the data it belongs to: "train", "validation", ...; a prompt is in one split only."""
    metadata: dict[str, Any] = {}
    created: AwareDatetime = Field(default_factory=utc_now)

    @model_validator(mode="after")
    def _fill(self) -> Self:
        self._name(lambda: prompt_id(self.content, self.domain))
        return self

    @field_serializer("content")
    def _rows(self, content: Content) -> str | list[dict[str, str]]:
        return content if isinstance(content, str) else [message.to_row() for message in content]


class Response(Record):
    """What a policy (or a person, or an imported file) answered to a prompt."""

    prompt_id: str
    text: str = ""
    payload: Media | None = None
    """The file that it is (a clip, a sound, a picture); its path alone in rows and files."""
    messages: tuple[Message, ...] | None = None
    """The turns of a response that has several (tools); ``text`` is then the last one's."""
    token_ids: tuple[int, ...] | None = None
    finish_reason: str | None = None
    """Why sampling ended: "eos", "length", "stop"; None where unknown."""
    policy: str | None = None
    """Name of the artifact that produced it; None for imported text."""
    round: Int32 | None = None
    sampling: dict[str, Any] = {}
    """Sampling parameters, e.g. ``{"temperature": 1.0, "top_p": 1.0}``."""
    seed: Int64 | None = None
    sample: Int32 = 0
    """Which of the responses sampled for this prompt with this seed (0, 1, ...)."""
    metadata: dict[str, Any] = {}
    created: AwareDatetime = Field(default_factory=utc_now)
    id: str = ""
    """Made from prompt, content, policy, round, seed and sample where not given."""

    @model_validator(mode="after")
    def _fill(self) -> Self:
        self._name(self._hash)
        return self

    @field_serializer("messages")
    def _rows(self, messages: tuple[Message, ...] | None) -> list[dict[str, str]] | None:
        return None if messages is None else [message.to_row() for message in messages]

    @field_validator("payload", mode="before")
    @classmethod
    def _media(cls, payload: Any) -> Any:
        return Media(payload) if isinstance(payload, str) else payload

    @field_serializer("payload")
    def _path(self, payload: Media | None) -> str | None:
        return payload.path if payload is not None else None

    @property
    def content(self) -> str:
        """What it says, or the path of the file that it is (see `domains.base`)."""
        return self.text if self.payload is None else self.payload.path

    def _hash(self) -> str:
        turns = [list(m.to_row().values()) for m in self.messages] if self.messages else None
        own = (self.text, self._path(self.payload), turns, self.policy, self.round, self.seed, self.sample)
        return hash_id(self.prompt_id, *own)


class Labeler(Record):
    """Whoever judges: a person, an AI, a simulation, or the file judgments were imported from."""

    name: str
    kind: LabelerKind = "person"
    id: str = Field(default_factory=new_id)
    attributes: dict[str, Any] = {}
    """What the labeler chose to say about themselves; may be empty."""
    status: LabelerStatus = "active"
    created: AwareDatetime = Field(default_factory=utc_now)


class Guideline(Record):
    """One version of the instructions that labelers read."""

    version: int
    text: str
    created: AwareDatetime = Field(default_factory=utc_now)


class QueueItem(Record):
    """A judgment that is asked for: of what kind, on which responses, by how many labelers."""

    prompt_id: str
    response_ids: tuple[str, ...] = ()
    kind: ItemKind = "comparison"
    slots: int = Field(default=1, ge=1, lt=2**31)
    """How many labelers shall judge it (the overlap)."""
    priority: FiniteFloat = 0.0
    """Higher is served first; equal priorities are served in the order of their ids, which is as good as random."""
    round: Int32 | None = None
    selection: str = "uniform"
    """The rule that chose this item."""
    propensity: FiniteFloat | None = Field(default=None, gt=0, le=1)
    """The probability with which that rule chose it, for inverse-propensity weights."""
    is_gold: bool = False
    expected: dict[str, Any] | None = None
    """A gold item's right answer, as a judgment's payload."""
    repeat_of: str | None = None
    """Item asked a second time: served only to labelers who judged that one, to measure their consistency."""
    metadata: dict[str, Any] = {}
    created: AwareDatetime = Field(default_factory=utc_now)
    id: str = ""
    """Made from kind, prompt, responses, round, gold and repeat where not given."""
    filled: int = 0
    """Slots filled so far (kept by the store)."""
    done: bool = False
    """Nothing left to ask (kept by the store)."""

    @model_validator(mode="after")
    def _fill(self) -> Self:
        if len(set(self.response_ids)) != len(self.response_ids):
            raise ValueError("a queue item names the same response twice")
        least = ASKED[self.kind].least
        if len(self.response_ids) < least:
            raise ValueError(f"a queue item of kind '{self.kind}' needs {least} response(s) or more")
        parts = (self.kind, self.prompt_id, self.response_ids, self.round, self.is_gold, self.repeat_of)
        self._name(lambda: hash_id(*parts))
        return self


class Claim(Record):
    """A queue item lent to one labeler until ``expires``, with all that is needed to show it."""

    item: QueueItem
    prompt: Prompt
    responses: tuple[Response, ...]
    """In the order of ``item.response_ids``."""
    labeler_id: str
    expires: AwareDatetime


# -- what a judgment says: one payload per kind ------------------------------------------------------------------


class AskedPayload(Record):
    """Base of the payloads that a queue item can ask for."""

    least: ClassVar[int] = 1
    """Responses that an item of this kind needs."""
    repeatable: ClassVar[bool] = False
    """A labeler may be asked a second time, to see whether the answers agree."""


class ComparisonPayload(AskedPayload):
    """A ranking over 2..K responses, with ties, perhaps partial."""

    least = 2
    repeatable = True
    kind: Literal["comparison"] = "comparison"
    response_ids: tuple[str, ...] = Field(min_length=2)
    ranks: tuple[Annotated[int, Field(ge=0)] | None, ...]
    """Rank of each response: 0 is best, equal numbers are ties, None was not ranked."""
    strength: FiniteFloat | None = Field(default=None, ge=0, le=1)
    """Pairs only: how much better the better one is."""
    share: FiniteFloat | None = Field(default=None, ge=0, le=1)
    """Pairs only: the share of several people's votes for the first response."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.ranks) != len(self.response_ids):
            raise ValueError(f"{len(self.ranks)} ranks for {len(self.response_ids)} responses")
        if len(set(self.response_ids)) != len(self.response_ids):
            raise ValueError("a comparison names the same response twice")
        if len(self.ranks) != 2 and (self.strength is not None or self.share is not None):
            raise ValueError("strength and share are for comparisons of two responses")
        return self


class RatingPayload(AskedPayload):
    """One response scored on one or several attributes, on the scale ``low``..``high``."""

    repeatable = True
    kind: Literal["rating"] = "rating"
    response_id: str
    ratings: dict[str, FiniteFloat] = Field(min_length=1)
    low: FiniteFloat = 1.0
    high: FiniteFloat = 5.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, value in self.ratings.items():
            if not self.low <= value <= self.high:
                raise ValueError(f"rating {name} = {value:g} is outside the scale {self.low:g}..{self.high:g}")
        return self


class ThumbPayload(AskedPayload):
    """One response marked good (True) or bad (False)."""

    repeatable = True
    kind: Literal["thumb"] = "thumb"
    response_id: str
    label: bool


class EditPayload(AskedPayload):
    """A response rewritten by the labeler."""

    kind: Literal["edit"] = "edit"
    response_id: str
    text: str


class CritiquePayload(AskedPayload):
    """What is good or bad about a response, in the labeler's words."""

    kind: Literal["critique"] = "critique"
    response_id: str
    text: str


class DemonstrationPayload(AskedPayload):
    """A response written by the labeler."""

    least = 0
    kind: Literal["demonstration"] = "demonstration"
    text: str


class Span(Record):
    """Characters ``start``..``end`` (end excluded) of a response's text."""

    start: int = Field(ge=0)
    end: int
    label: str
    note: str = ""

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: int, info: ValidationInfo) -> int:
        if end <= info.data.get("start", -1):
            raise ValueError("a span ends after it starts")
        return end


class SpanFlagPayload(AskedPayload):
    """Passages of a response that are marked, e.g. as untrue."""

    kind: Literal["span_flag"] = "span_flag"
    response_id: str
    spans: tuple[Span, ...]


class SkipPayload(Record):
    """The labeler cannot judge this item; it goes to another one."""

    kind: Literal["skip"] = "skip"
    reason: str = ""


class FlagPayload(Record):
    """Something is wrong with the prompt, or with one response: harmful, broken, private, ..."""

    kind: Literal["flag"] = "flag"
    reason: str
    response_id: str | None = None
    note: str = ""


class WithdrawalPayload(Record):
    """Takes back the judgment it supersedes and puts nothing in its place (undo)."""

    kind: Literal["withdrawal"] = "withdrawal"


class ErasedPayload(Record):
    """Stands where a payload was erased; the tombstone says when and why."""

    kind: Literal["erased"] = "erased"


Payload: TypeAlias = (
    ComparisonPayload
    | RatingPayload
    | ThumbPayload
    | EditPayload
    | CritiquePayload
    | DemonstrationPayload
    | SpanFlagPayload
    | SkipPayload
    | FlagPayload
    | WithdrawalPayload
    | ErasedPayload
)

KINDS: tuple[str, ...] = tuple(payload.model_fields["kind"].default for payload in get_args(Payload))
"""All kinds of judgment."""
ASKED: dict[str, type[AskedPayload]] = {
    kind: payload for kind, payload in zip(KINDS, get_args(Payload), strict=True) if issubclass(payload, AskedPayload)
}
"""Those that a queue item can ask for."""


class Judgment(Record):
    """What one labeler said once. Never changed afterwards: a revision is a new judgment that supersedes it."""

    prompt_id: str
    labeler_id: str
    payload: Payload = Field(discriminator="kind")
    item_id: str | None = None
    """The queue item it answers; None for imported judgments and those given in passing."""
    id: str = Field(default_factory=new_id, min_length=1, max_length=64)
    """Made by the client, once per answer, so that sending it again changes nothing."""
    seconds: FiniteFloat | None = Field(default=None, ge=0)
    """Time the labeler spent on it."""
    order: tuple[int, ...] | None = None
    """Order of display: ``order[i]`` is the index of the response shown at place i."""
    order_seed: Int64 | None = None
    guideline: Int32 | None = None
    """Version of the guideline in force."""
    round: Int32 | None = None
    """Taken from the queue item where there is one."""
    weight: FiniteFloat = Field(default=1.0, ge=0)
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    supersedes: str | None = None
    """Id of the judgment that this one replaces."""
    created: AwareDatetime = Field(default_factory=utc_now)
    seq: int | None = None
    """Number in the order of commit (1, 2, ...), given by the store; pins a data set "as of judgment N"."""
    extra: bool = False
    """It came when its item's slots were already filled: kept and usable, but not counted (set by the store)."""

    @property
    def kind(self) -> str:
        """The kind of its payload."""
        return self.payload.kind

    @property
    def response_ids(self) -> tuple[str, ...]:
        """The responses it speaks about; for an edit or demonstration, not the text it adds."""
        if isinstance(self.payload, ComparisonPayload):
            return self.payload.response_ids
        one = getattr(self.payload, "response_id", None)
        return (one,) if one else ()


class Tombstone(Record):
    """What was erased, when and why. The erased row keeps its id and place, and nothing else."""

    target: Literal["prompt", "response", "judgment", "labeler"]
    target_id: str
    reason: str
    created: AwareDatetime


class Progress(Record):
    """How far the queue has come."""

    items: int
    items_done: int
    slots: int
    slots_filled: int
    leased: int
    """Leases in force now."""
    judgments: dict[str, int]
    """Live judgments by kind (revised and withdrawn ones are not counted)."""
