"""Live conversation: two answers of the current policy stream side by side, one is chosen, and the talk goes on.

Each turn is a prompt (the dialogue so far), two responses and a queue item that only this labeler answers, so a choice
is a comparison like any other.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from hearken.feedback.examples import Message
from hearken.feedback.records import ComparisonPayload, Prompt, QueueItem, Response, new_id
from hearken.server.api import desk_of
from hearken.server.api import router as api
from hearken.server.desk import Desk
from hearken.server.security import ApiError, Judge
from hearken.server.tasks import Model, check_ticket, order_seed, places

LONGEST_TALK = 100
"""Messages."""


@runtime_checkable
class Policy(Protocol):
    """Whom one can talk to."""

    @property
    def name(self) -> str:
        """The artifact that answers; never shown to labelers."""
        ...

    def stream(self, messages: Sequence[Message], n: int, seed: int) -> Iterator[tuple[int, str]]:
        """``n`` answers at once, piece by piece: which answer, and the text that is added to it.

        A generator may return the whole answers (`Domain.talker`): then they are kept token by token.
        """
        ...


class Previous(Model):
    """The turn before, whose chosen answer the conversation goes on from."""

    item_id: str = Field(max_length=200)
    ticket: str = Field(max_length=200)


class Said(Model):
    """What the labeler says."""

    text: str = Field(min_length=1, max_length=20_000)
    previous: Previous | None = None


router = APIRouter(prefix=api.prefix, dependencies=api.dependencies, responses=api.responses)


@router.post(
    "/chat",
    tags=["judging"],
    operation_id="chat",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
def chat(request: Request, who: Judge, said: Said) -> StreamingResponse:
    """Two answers, one JSON object a line: ``{place, text}`` for every piece, at the end ``{task}``, to be judged."""
    policy: Policy | None = request.app.state.policy
    desk = desk_of(request)
    if policy is None or not desk.settings.chat:
        raise ApiError(404, "there is nobody to talk to here", "The owner can switch conversations on")
    if not said.text.strip():
        raise ApiError(422, "nothing is said")
    labeler = who.labeler
    if desk.store.labeler(labeler).status != "active":
        raise ApiError(403, "you are paused", "The owner of this project will talk to you")
    messages = (*_so_far(desk, labeler, said.previous), Message("user", said.text))
    if len(messages) > LONGEST_TALK:
        raise ApiError(409, "this conversation is long enough", "Begin a new one")
    return StreamingResponse(_answers(desk, policy, labeler, messages), media_type="application/x-ndjson")


def _so_far(desk: Desk, labeler: str, previous: Previous | None) -> tuple[Message, ...]:
    """The dialogue up to and with the answer that was chosen last."""
    if previous is None:
        return ()
    check_ticket(desk.salt, labeler, previous.item_id, previous.ticket)
    item = desk.store.item(previous.item_id)
    chosen = next(desk.store.judgments(labeler_id=labeler, item_id=item.id, checks=None), None)
    if chosen is None:
        raise ApiError(409, "no answer was chosen yet", "Choose one first")
    first = places(order_seed(desk.salt, labeler, item.id), len(item.response_ids))[0]
    winner = item.response_ids[first]  # of a tie, or where nothing was said: the one that stood first
    if isinstance(chosen.payload, ComparisonPayload):
        ranks = dict(zip(chosen.payload.response_ids, chosen.payload.ranks, strict=True))
        winner = min(ranks, key=lambda one: (ranks[one], one != winner))
    content = desk.store.prompt(item.prompt_id).content
    assert not isinstance(content, str)
    return (*content, Message("assistant", desk.store.response(winner).text))


def _answers(desk: Desk, policy: Policy, labeler: str, messages: tuple[Message, ...]) -> Iterator[str]:
    item_id, seed = new_id(), secrets.randbits(32)
    order = places(order_seed(desk.salt, labeler, item_id), 2)
    texts = ["", ""]
    drawn: list[Any] = []

    stream: Any = policy.stream(messages, 2, seed)

    def heard() -> Iterator[tuple[int, str]]:
        drawn.extend((yield from stream) or ())

    for index, piece in heard():
        texts[index] += piece
        yield _line({"place": order.index(index), "text": piece})
    prompt = Prompt(content=messages, metadata={"source": "chat"})
    responses = [
        Response(
            prompt_id=prompt.id, text=text, policy=policy.name, seed=seed, sample=number,
            **(_tokens(drawn[number]) if drawn and drawn[number].text == text else {}),
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    ids = (responses[0].id, responses[1].id)
    desk.store.add_prompts([prompt])
    desk.store.add_responses(responses)
    desk.store.enqueue(
        [QueueItem(id=item_id, prompt_id=prompt.id, response_ids=ids, selection="chat", propensity=1.0)], closed=True
    )
    yield _line({"task": desk.reopen(item_id, labeler, None, html=True).model_dump(mode="json")})


def _tokens(one: Any) -> dict[str, Any]:
    """What is kept of an answer besides its text."""
    told = {"tokenizer": one.tokenizer} if one.tokenizer else {}
    return {"token_ids": tuple(one.tokens), "finish_reason": one.finish_reason, "metadata": told}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
