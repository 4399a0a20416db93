"""A store full of judgments whose truth is known, for the tests of the owner's pages."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

from hearken.feedback.records import (
    ComparisonPayload,
    Judgment,
    Labeler,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    SkipPayload,
    ThumbPayload,
)
from hearken.feedback.store import FeedbackStore

NOW = datetime(2026, 5, 4, 15, 30, tzinfo=UTC)
STRENGTH = {"sft": 0.0, "ppo": 1.6, "dpo": 1.4}
"""What each policy's responses are worth, in log-odds."""
LABELERS = {
    "ana": (0.97, 0.0),
    "bo": (0.95, 0.0),
    "cleo": (0.9, 0.0),
    "dan": (0.92, 6.0),
    "eve": (0.5, 0.0),
}
"""Reliability, and log-odds for the response shown first."""
TALE = """the old boat lay on the quiet shore and nobody came to see why its lantern was still burning in the fog that
morning while gulls walked along the rail like small grey clerks who count what the sea brings back"""
WORDS = TALE.split()


def fill(store: FeedbackStore, prompts: int = 80, slots: int = 3, seed: int = 0, open_items: int = 12) -> None:
    """Three policies answer each prompt; pairs of them are judged by three of five labelers, some items not yet."""
    draw = random.Random(seed)
    asked = [
        Prompt(content=f"Tell the tale of the boat, number {n}.", metadata={"category": ("sad", "merry")[n % 2]})
        for n in range(prompts)
    ]
    store.add_prompts(asked)
    answers, worth = {}, {}
    for prompt in asked:
        for policy, strength in STRENGTH.items():
            length = draw.randint(15, 30) + (12 if policy == "ppo" else 0)
            text = " ".join(draw.choice(WORDS) for _ in range(length)).capitalize() + "."
            response = Response(prompt_id=prompt.id, text=text, policy=policy, round=1)
            answers[prompt.id, policy] = response
            worth[response.id] = strength + draw.gauss(0, 0.7)
    store.add_responses(answers.values())
    for name in LABELERS:
        age = {"ana": "under 40", "bo": "under 40", "cleo": "40 or over"}.get(name)
        store.add_labeler(Labeler(id=name, name=name.title(), attributes={"age": age} if age else {}))
    items = []
    for n, prompt in enumerate(asked):
        one, other = draw.sample(sorted(STRENGTH), 2)
        ids = (answers[prompt.id, one].id, answers[prompt.id, other].id)
        items.append(QueueItem(prompt_id=prompt.id, response_ids=ids, slots=slots, round=1))
        if n % 10 == 0:
            right = (0, 1) if worth[ids[0]] > worth[ids[1]] else (1, 0)
            items.append(
                QueueItem(
                    prompt_id=prompt.id, response_ids=ids, slots=slots, round=1, is_gold=True,
                    expected={"kind": "comparison", "response_ids": list(ids), "ranks": list(right)},
                )
            )  # fmt: skip
    store.enqueue(items)
    repeats = [
        QueueItem(prompt_id=i.prompt_id, response_ids=i.response_ids, slots=5, round=1, repeat_of=i.id)
        for i in items[::6]
        if not i.is_gold
    ]
    store.enqueue(repeats)
    when = NOW - timedelta(hours=7)
    answered: dict[str, list[str]] = {}
    for item in [*items[: len(items) - open_items], *repeats]:
        who = answered.get(item.repeat_of or "", draw.sample(sorted(LABELERS), slots))
        answered[item.id] = who
        for name in who:
            when += timedelta(seconds=draw.uniform(20, 90))
            store.submit(_judge(draw, item, name, worth, when))
    labelers = sorted(LABELERS)
    for n, response in enumerate(list(answers.values())[:40]):
        for name in labelers[:2]:
            said = draw.random() < 1 / (1 + math.exp(-2 * worth[response.id]))
            store.submit(_said(response, name, ThumbPayload(response_id=response.id, label=said), when))
        value = float(min(5, max(1, round(3 + worth[response.id]))))
        rating = RatingPayload(response_id=response.id, ratings={"style": value})
        store.submit(_said(response, labelers[n % 2], rating, when))
    skipped = items[-1]
    store.submit(
        Judgment(prompt_id=skipped.prompt_id, labeler_id="ana", item_id=skipped.id, payload=SkipPayload(), created=when)
    )


def _said(response: Response, labeler: str, payload: ThumbPayload | RatingPayload, when: datetime) -> Judgment:
    return Judgment(prompt_id=response.prompt_id, labeler_id=labeler, payload=payload, created=when, seconds=6.0)


def _judge(draw: random.Random, item: QueueItem, name: str, worth: dict[str, float], when: datetime) -> Judgment:
    reliable, side = LABELERS[name]
    order = tuple(draw.sample(range(2), 2))
    lead = 3 * (worth[item.response_ids[0]] - worth[item.response_ids[1]]) + (side if order[0] == 0 else -side)
    first = draw.random() < 1 / (1 + math.exp(-lead))
    if draw.random() > 2 * reliable - 1:
        first = draw.random() < 0.5
    ranks = (0, 0) if abs(lead) < 0.5 and draw.random() < 0.5 else (0, 1) if first else (1, 0)
    return Judgment(
        prompt_id=item.prompt_id,
        labeler_id=name,
        item_id=item.id,
        payload=ComparisonPayload(response_ids=item.response_ids, ranks=ranks),
        order=order,
        seconds=draw.lognormvariate(3.2, 0.6),
        tags=("clearer",) if draw.random() < 0.2 else (),
        created=when,
    )
