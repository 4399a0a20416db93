"""What figures are computed from: the few columns they need, of very many rows, in batches of tuples.

Records would take many times the time and memory. JSON of judgments comes as text: to decode what is mostly empty would
take most of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ScalarSelect, Table, Text, cast, func, select

from hearken.feedback.queue import among
from hearken.feedback.schema import Items, Judgments, Prompts, Responses, Tombstones
from hearken.feedback.store import FeedbackStore

State: TypeAlias = tuple[int, int, int, int]
"""Numbers of the newest judgment, response, prompt and tombstone."""

Batch: TypeAlias = Sequence[tuple[Any, ...]]


def state_of(store: FeedbackStore) -> State:
    """What figures depend on."""
    # The judgments first: what they speak of was stored before them.
    newest = store.last_seq()
    responses, prompts, stones = store.select(_NEWEST)[0]
    return newest, responses, prompts, stones


def prompts_between(store: FeedbackStore, after: int, until: int) -> Iterator[Batch]:
    """Prompts with numbers above ``after`` and up to ``until``, without erased ones: (number, metadata)."""
    return store.batches(_PROMPTS, Prompts.c.seq, after, until)


def responses_between(store: FeedbackStore, after: int, until: int) -> Iterator[Batch]:
    """Responses, likewise: (number, id, number of the prompt, policy, text)."""
    return store.batches(_RESPONSES, Responses.c.seq, after, until)


def judgments_between(store: FeedbackStore, after: int, until: int) -> Iterator[tuple[Batch, list[int]]]:
    """Judgments, likewise, and the numbers of those that they supersede. Withdrawn and superseded ones are among them.

    Each is (number, kind, labeler, seconds, guideline, created, live, payload, order, tags) and, of its item where it
    has one, (number, selection, is_gold, expected, metadata, number of the item that it repeats). Payload, order, tags,
    expected and metadata are JSON.
    """
    for batch in store.batches(_JUDGMENTS, Judgments.c.seq, after, until):
        replaced = [row[-1] for row in batch if row[-1] is not None]
        yield [row[:-1] for row in batch], [row[0] for row in store.select(_NUMBERS, replaced)]


def _max_seq(table: Table) -> ScalarSelect[int]:
    return select(func.coalesce(func.max(table.c.seq), 0)).scalar_subquery()


_NEWEST = select(_max_seq(Responses), _max_seq(Prompts), _max_seq(Tombstones))
_NUMBERS = select(Judgments.c.seq).where(among(Judgments.c.id))
_PROMPTS = select(Prompts.c.seq, Prompts.c.metadata).where(Prompts.c.erased == 0)
_RESPONSES = (
    select(Responses.c.seq, Responses.c.id, Prompts.c.seq.label("prompt"), Responses.c.policy, Responses.c.text)
    .join(Prompts, Prompts.c.id == Responses.c.prompt_id)
    .where(Responses.c.erased == 0)
)
_First = Items.alias("first")
_JUDGMENTS = (
    select(
        *(Judgments.c[name] for name in ("seq", "kind", "labeler_id", "seconds", "guideline", "created", "live")),
        *(cast(Judgments.c[name], Text) for name in ("payload", "order", "tags")),
        Items.c.seq.label("item"),
        Items.c.selection,
        Items.c.is_gold,
        *(cast(Items.c[name], Text) for name in ("expected", "metadata")),
        _First.c.seq.label("repeats"),
        Judgments.c.supersedes,
    )
    .outerjoin(Items, Items.c.id == Judgments.c.item_id)
    .outerjoin(_First, _First.c.id == Items.c.repeat_of)
)
