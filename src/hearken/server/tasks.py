"""What a labeler is shown and may answer: queue items without a trace of who or what is behind them.

Labelers speak of *places* (0 is the first response on the screen), never of ids. Which response stands at which place
is drawn from a seed that belongs to the labeler and the item: it is the same after a reload, and stored with the
judgment. A *ticket* shows that an item was served to this labeler; whoever brings it may answer, however late.
"""

from __future__ import annotations

import hmac
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from hearken.domains.base import find_domain
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.feedback.media import Viewer
from hearken.feedback.records import (
    ComparisonPayload,
    CritiquePayload,
    DemonstrationPayload,
    EditPayload,
    FlagPayload,
    ItemKind,
    Judgment,
    Payload,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    SkipPayload,
    Span,
    SpanFlagPayload,
    ThumbPayload,
)
from hearken.server.render import as_written, readable, to_html
from hearken.server.security import ApiError
from hearken.server.settings import LabelSettings

LONGEST_TEXT = 200_000


class Model(BaseModel):
    """Base of what goes over the wire: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Turn(Model):
    """A piece of a dialogue."""

    role: Literal["prompt", "system", "user", "assistant", "tool"]
    text: str
    html: str = ""
    """Safe HTML, where it was asked for."""
    written: str = ""
    """The same, just as it is written."""


class Shown(Model):
    """A response as a labeler sees it."""

    text: str
    html: str = ""
    """Safe HTML, where it was asked for."""
    written: str = ""
    """The same, just as it is written."""
    media: str = ""
    """Address of the file that the response is, if it is one."""
    viewer: Viewer = "text"
    """What shows it."""
    turns: list[Turn] = []
    """The turns of a response that has several."""


class Task(Model):
    """A queue item as a labeler sees it."""

    item_id: str
    ticket: str
    """To be sent with the answer."""
    kind: ItemKind
    prompt: list[Turn]
    responses: list[Shown]
    """By place."""
    expires: datetime | None
    guideline: int | None
    practice: bool = False


# -- answers -----------------------------------------------------------------------------------------------------


class ComparisonAnswer(Model):
    """A ranking: ``ranks[place]`` is 0 for the best, equal numbers are ties, null was not ranked."""

    kind: Literal["comparison"]
    ranks: list[Annotated[int, Field(ge=0, lt=100)] | None] = Field(min_length=2, max_length=100)
    strength: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    share: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    """Of two responses: how likely the one at place 0 is the better, where that is known (a soft label)."""
    both_bad: bool = False


class RatingAnswer(Model):
    """Scores by attribute."""

    kind: Literal["rating"]
    ratings: dict[str, FiniteFloat]


class ThumbAnswer(Model):
    """Good or bad."""

    kind: Literal["thumb"]
    label: bool


class TextAnswer(Model):
    """An edited response, a critique or a demonstration."""

    kind: Literal["edit", "critique", "demonstration"]
    text: str = Field(max_length=LONGEST_TEXT)


class SpanAnswer(Model):
    """Marked passages, in characters (code points) of the response's text; or that there is nothing to mark."""

    kind: Literal["span_flag"]
    spans: list[Span] = Field([], max_length=1_000)
    nothing: bool = False


class SkipAnswer(Model):
    """Not this one."""

    kind: Literal["skip"]
    reason: str = Field("", max_length=1_000)


class FlagAnswer(Model):
    """Something is wrong with the prompt or with a response."""

    kind: Literal["flag"]
    reason: str = Field(min_length=1, max_length=200)
    place: int | None = Field(None, ge=0)
    note: str = Field("", max_length=LONGEST_TEXT)


Answer = Annotated[
    ComparisonAnswer | RatingAnswer | ThumbAnswer | TextAnswer | SpanAnswer | SkipAnswer | FlagAnswer,
    Field(discriminator="kind"),
]


Order = Annotated[str, Field(pattern="^[0-9]{1,2},[0-9]{1,2}$")]
"""Two places: ``0,1`` is the response at place 0 shown before the one at place 1."""


class Grounds(Model):
    """What led a labeler that is a model to its ranking; kept beside the judgment."""

    principle: str = Field("", max_length=200)
    """Id of the constitution's principle it went by."""
    log_odds: dict[Order, FiniteFloat] = Field({}, max_length=10_000)
    """That the one shown first is the better, by the order of display."""
    reasoning: dict[Order, Annotated[str, Field(max_length=LONGEST_TEXT)]] = Field({}, max_length=10_000)
    """What it wrote before it answered, by the order of display."""


class Submission(Model):
    """One answer to one task."""

    id: str = Field(pattern="^[0-9a-zA-Z_-]{16,64}$")
    """Made by the client, once per answer: sending it again changes nothing."""
    item_id: str = Field(max_length=200)
    ticket: str = Field(max_length=200)
    answer: Answer
    seconds: Annotated[FiniteFloat, Field(ge=0, le=86_400)] | None = None
    """Time of attention, pauses left out."""
    tags: list[Annotated[str, Field(max_length=100)]] = Field([], max_length=20)
    guideline: int | None = Field(None, ge=1, lt=2**31)
    """Version of the guideline that the labeler had read."""
    grounds: Grounds | None = None


# -- from items to tasks -----------------------------------------------------------------------------------------


def order_seed(salt: str, labeler_id: str, item_id: str) -> int:
    """The seed of the order in which a labeler sees an item's responses (63 bits)."""
    return int.from_bytes(_mac(salt, "order", labeler_id, item_id)[:8], "big") >> 1


def places(seed: int, count: int) -> tuple[int, ...]:
    """``places[i]`` is the index of the response shown at place i: a permutation drawn from ``seed``."""
    return tuple(random.Random(seed).sample(range(count), count))


def ticket(salt: str, labeler_id: str, item_id: str) -> str:
    """Shows that this item was served to this labeler."""
    return _mac(salt, "ticket", labeler_id, item_id).hex()[:32]


def check_ticket(salt: str, labeler_id: str, item_id: str, given: str) -> None:
    """ApiError 403 where an item was never served to this labeler."""
    if not hmac.compare_digest(ticket(salt, labeler_id, item_id).encode(), given.encode("utf-8", "replace")):
        raise ApiError(403, "this item was not given to you", "Ask for the next one")


def _mac(salt: str, *parts: str) -> bytes:
    words = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in map(readable, parts))
    return hmac.digest(salt.encode(), words, "sha256")


def turns(content: Content, html: bool) -> list[Turn]:
    """A prompt for the screen."""
    if isinstance(content, str):
        return [Turn(role="prompt", **_texts(content, html))]
    return [Turn(role=message.role, **_texts(message.content, html)) for message in content]


def _texts(text: str, html: bool) -> dict[str, Any]:
    drawn = {"html": to_html(text), "written": as_written(text)} if html else {}
    return {"text": readable(text)} | drawn


def task(
    item: QueueItem, prompt: Prompt, responses: Sequence[Response], labeler_id: str, salt: str, *,
    expires: datetime | None, guideline: int | None, html: bool,
) -> Task:  # fmt: skip
    """What ``labeler_id`` is shown of a queue item. ``responses`` are in the item's order."""
    order = places(order_seed(salt, labeler_id, item.id), len(responses))
    key = ticket(salt, labeler_id, item.id)
    shown = [
        _shown(responses[index], f"/media/{item.id}/{place}?ticket={key}", viewer_of(prompt, responses[index]), html)
        for place, index in enumerate(order)
    ]
    return Task(
        item_id=item.id, ticket=key, kind=item.kind, prompt=turns(prompt.content, html), responses=shown,
        expires=expires, guideline=guideline, practice="practice" in item.metadata,
    )  # fmt: skip


def viewer_of(prompt: Prompt, response: Response) -> Viewer:
    """What shows a response: what its domain says where that is known here, else what shows files of its type."""
    if response.payload is None:
        return "text"
    try:
        viewer = find_domain(prompt.domain).viewer
    except UserError:
        viewer = "text"
    return response.payload.viewer if viewer == "text" else viewer


def _shown(response: Response, address: str, viewer: Viewer, html: bool) -> Shown:
    if response.payload is not None:
        return Shown(text=readable(response.text), media=address, viewer=viewer)
    parts = turns(response.messages, html) if response.messages else []
    return Shown(**_texts(response.text, html), turns=parts)


# -- from answers to judgments -----------------------------------------------------------------------------------


def judgment(
    said: Submission, item: QueueItem, original: str, labeler_id: str, salt: str, settings: LabelSettings, via: str
) -> Judgment:
    """The judgment that an answer makes.

    Args:
        said: what the client sent.
        item: the queue item it answers.
        original: text of its first response, for edits.
        labeler_id: who judges.
        salt: see `order_seed`.
        settings: how people are asked.
        via: ``page`` or ``api``.

    Raises:
        ApiError: 422 where the answer is empty or does not fit the item.
    """
    seed = order_seed(salt, labeler_id, item.id)
    order = places(seed, len(item.response_ids))
    shown = [item.response_ids[index] for index in order]
    tags = [*dict.fromkeys(said.tags)]
    if unknown := [tag for tag in tags if tag not in settings.tags]:
        raise ApiError(422, f"there is no tag '{unknown[0]}'", f"Known: {', '.join(settings.tags) or 'none'}")
    if getattr(said.answer, "both_bad", False):
        tags.append("both bad")
    return Judgment(
        id=said.id, prompt_id=item.prompt_id, labeler_id=labeler_id, item_id=item.id,
        payload=_payload(said.answer, item, shown, original, settings), seconds=said.seconds,
        order=order, order_seed=seed, guideline=said.guideline, tags=tuple(tags),
        metadata={"via": via} | (_grounds(said.grounds, order) if said.grounds else {}),
    )  # fmt: skip


def _grounds(said: Grounds, order: Sequence[int]) -> dict[str, Any]:
    """The grounds by the responses' numbers in the item, as `labelers.ai.Opinion` has them, instead of places."""

    def numbered(key: str) -> str:
        places = [int(place) for place in key.split(",")]
        if max(places) >= len(order):
            raise ApiError(422, f"there is no response at place {max(places)}")
        return ",".join(str(order[place]) for place in places)

    found = said.model_dump(exclude_defaults=True)
    return {
        name: {numbered(key): one for key, one in value.items()} if isinstance(value, dict) else value
        for name, value in found.items()
    }


def _payload(answer: Any, item: QueueItem, shown: Sequence[str], original: str, settings: LabelSettings) -> Payload:
    match answer:
        case SkipAnswer():
            return SkipPayload(reason=answer.reason)
        case FlagAnswer():
            if answer.reason not in settings.flags:
                raise ApiError(422, f"'{answer.reason}' is no reason to flag", f"Known: {', '.join(settings.flags)}")
            if answer.place is not None and answer.place >= len(shown):
                raise ApiError(422, f"there is no response at place {answer.place}")
            named = None if answer.place is None else shown[answer.place]
            return FlagPayload(reason=answer.reason, response_id=named, note=answer.note)
    if answer.kind != item.kind:
        raise ApiError(422, f"this item asks for a {item.kind}, not for a {answer.kind}")
    match answer:
        case ComparisonAnswer():
            return _comparison(answer, item, shown)
        case RatingAnswer():
            wanted = {attribute.name for attribute in settings.attributes}
            if set(answer.ratings) != wanted:
                raise ApiError(422, f"the attributes are {', '.join(sorted(wanted))}", "Rate each of them")
            low, high = settings.scale
            if not all(low <= value <= high for value in answer.ratings.values()):
                raise ApiError(422, f"the scale goes from {low} to {high}")
            return RatingPayload(response_id=shown[0], ratings=answer.ratings, low=low, high=high)
        case ThumbAnswer():
            return ThumbPayload(response_id=shown[0], label=answer.label)
        case TextAnswer():
            return _text(answer, shown, original)
        case SpanAnswer():
            if not answer.spans and not answer.nothing:
                raise ApiError(422, "nothing is marked", "Mark a passage, or say that there is nothing to mark")
            if any(span.end > len(original) for span in answer.spans):
                raise ApiError(422, "a passage ends after the text")
            if unknown := [span.label for span in answer.spans if span.label not in settings.span_labels]:
                raise ApiError(422, f"passages cannot be marked '{unknown[0]}'", f"{', '.join(settings.span_labels)}")
            return SpanFlagPayload(response_id=shown[0], spans=tuple(answer.spans))
    raise AssertionError(answer)


def _comparison(answer: ComparisonAnswer, item: QueueItem, shown: Sequence[str]) -> ComparisonPayload:
    if len(answer.ranks) != len(shown):
        raise ApiError(422, f"{len(answer.ranks)} ranks for {len(shown)} responses")
    ranked = [rank for rank in answer.ranks if rank is not None]
    if len(ranked) < 2:
        raise ApiError(422, "nothing is compared", "Rank two responses or more")
    if answer.strength is not None and (len(shown) != 2 or ranked[0] == ranked[1]):
        raise ApiError(422, "a strength says how much better one of two responses is")
    share = answer.share
    if share is not None and (len(shown) != 2 or (share - 0.5) * (ranked[1] - ranked[0]) < 0):
        raise ApiError(422, "a share is the chance of the first of two responses, and ranks the likelier one higher")
    if share is not None and shown[0] != item.response_ids[0]:
        share = 1 - share
    levels = sorted(set(ranked))
    at = {response: rank for response, rank in zip(shown, answer.ranks, strict=True)}
    ranks = [at[response] for response in item.response_ids]
    dense = tuple(None if rank is None else levels.index(rank) for rank in ranks)
    return ComparisonPayload(response_ids=item.response_ids, ranks=dense, strength=answer.strength, share=share)


def _text(answer: TextAnswer, shown: Sequence[str], original: str) -> Payload:
    if not answer.text.strip():
        raise ApiError(422, "nothing is written", "Write something, or skip")
    if answer.kind == "edit":
        if answer.text.strip() == original.strip():
            raise ApiError(422, "nothing was changed", "Change something, or skip")
        return EditPayload(response_id=shown[0], text=answer.text)
    if answer.kind == "critique":
        return CritiquePayload(response_id=shown[0], text=answer.text)
    return DemonstrationPayload(text=answer.text)
