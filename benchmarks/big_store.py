"""A feedback database as large as a year of labelling leaves it, written in bulk: for `owner_scale.py`.

Four policies answer each prompt; pairs of their responses (for every twentieth prompt all four) are judged by three of
fifty labelers, who differ in how reliable they are. Among them are gold and repeated items, revisions, ties, partial
rankings, thumbs, ratings, tags, answers whose display order nobody knows, and items that are still open.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from hearken.errors import UserError
from hearken.feedback.database import Database
from hearken.feedback.schema import Items, Judgments, Labelers, Prompts, Responses
from hearken.feedback.store import FeedbackStore

POLICIES = {"sft": 0.0, "ppo": 0.7, "dpo": 0.6, "rloo": 0.9}
"""How good each policy's responses are, in log-odds."""
LABELERS = 50
TALE = """the old boat lay on a quiet shore and nobody came to see why its lantern was still burning in the fog that
morning while gulls walked along the rail like small grey clerks who count what the sea brings back"""
WORDS = TALE.split()
BEGAN = datetime(2026, 1, 5, 8, tzinfo=UTC)
_BATCH = 10_000


class World:
    """Rows of all tables, drawn from one seed, in the order in which they are to be stored.

    Args:
        responses: how many responses; a quarter as many prompts.
        judgments: about how many judgments.
        seed: of everything.
    """

    def __init__(self, responses: int, judgments: int, seed: int = 0) -> None:
        self._draw = random.Random(seed)
        self._prompts = responses // len(POLICIES)
        self._wanted = judgments
        self._sentences = [" ".join(self._draw.choices(WORDS, k=self._draw.randint(4, 16))) for _ in range(997)]
        self._reliable = [0.6 + 0.38 * self._draw.random() for _ in range(LABELERS)]
        self._worth: dict[str, float] = {}

    def labelers(self) -> Iterator[dict[str, Any]]:
        """Fifty people."""
        for n in range(LABELERS):
            attributes = {"age": ("under 40", "40 or over")[n % 2]} if n % 5 else {}
            yield {
                "id": f"labeler-{n}", "name": f"Labeler {n}", "kind": "person", "attributes": attributes,
                "status": "active", "created": BEGAN, "erased": 0,
            }  # fmt: skip

    def prompts(self) -> Iterator[dict[str, Any]]:
        """Prompts in eight categories."""
        for n in range(self._prompts):
            yield {
                "seq": n + 1, "id": f"text-{n:032x}", "domain": "text", "content": f"Tell the tale of boat {n}.",
                "split": "train" if n % 10 else "validation", "metadata": {"category": f"topic {n % 8}"},
                "created": BEGAN, "erased": 0,
            }  # fmt: skip

    def responses(self) -> Iterator[dict[str, Any]]:
        """One of each policy to each prompt."""
        draw = self._draw
        for n in range(self._prompts):
            for k, (policy, strength) in enumerate(POLICIES.items()):
                name = f"{draw.getrandbits(128):032x}"
                self._worth[name] = strength + draw.gauss(0, 1)
                sentences = draw.choices(self._sentences, k=draw.randint(4, 12))
                yield {
                    "seq": n * len(POLICIES) + k + 1, "id": name, "prompt_id": f"text-{n:032x}",
                    "text": ". ".join(sentences), "payload": None, "messages": None, "token_ids": None,
                    "finish_reason": "eos", "policy": policy, "round": 1, "sampling": {"temperature": 1.0}, "seed": 1,
                    "sample": k, "metadata": {}, "created": BEGAN, "erased": 0,
                }  # fmt: skip

    def items(self) -> Iterator[dict[str, Any]]:
        """Two pairs a prompt or one ranking, every fiftieth gold and every fortieth asked again; the last ones open."""
        names, seq = list(self._worth), 0
        for n in range(self._prompts):
            four = names[n * len(POLICIES) : (n + 1) * len(POLICIES)]
            asked = [four] if n % 20 == 0 else [self._draw.sample(four, 2), self._draw.sample(four, 2)]
            for k, shown in enumerate(asked):
                kinds = [(False, None)]
                kinds += [(True, None)] if n % 50 == 1 and k == 0 else []
                kinds += [(False, f"item-{n}-{k}-0")] if n % 40 == 2 and k == 0 else []
                for number, (is_gold, repeat_of) in enumerate(kinds):
                    seq += 1
                    order = sorted(shown, key=lambda name: -self._worth[name])
                    expected = {
                        "kind": "comparison", "response_ids": shown, "ranks": [order.index(name) for name in shown],
                    }  # fmt: skip
                    yield {
                        "seq": seq, "id": f"item-{n}-{k}-{number}", "prompt_id": f"text-{n:032x}",
                        "response_ids": shown, "kind": "comparison", "slots": 3, "filled": 0, "done": 0,
                        "priority": 0.0, "round": 1, "selection": "uniform" if n % 4 else "disagreement",
                        "propensity": None, "is_gold": int(is_gold), "expected": expected if is_gold else None,
                        "repeat_of": repeat_of, "metadata": {}, "created": BEGAN,
                    }  # fmt: skip

    def judgments(self, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Three a pair or ranking, until there are enough; ``items`` get their filled slots."""
        draw, seq, when = self._draw, 0, BEGAN
        first: dict[str, list[int]] = {}
        for item in items:
            if seq >= self._wanted:
                return
            people = first.get(item["repeat_of"], draw.sample(range(LABELERS), 3))
            first[item["id"]] = people
            for who in people:
                revised = draw.random() < 0.01
                for turn in range(1 + revised):
                    seq, when = seq + 1, when + timedelta(seconds=draw.expovariate(1 / 20))
                    yield self._judgment(seq, item, who, when, live=turn == revised, turn=turn)
            item["filled"], item["done"] = 3, 1
            if draw.random() < 0.02:
                seq, who = seq + 1, draw.randrange(LABELERS)
                yield self._aside(seq, item, who, when)

    def _judgment(
        self, seq: int, item: dict[str, Any], who: int, when: datetime, *, live: bool, turn: int
    ) -> dict[str, Any]:
        draw, shown = self._draw, item["response_ids"]
        noise = 3 * (1 - self._reliable[who])
        felt = [self._worth[name] + draw.gauss(0, noise) for name in shown]
        ranked = sorted(felt, reverse=True)
        ranks = [ranked.index(value) for value in felt]
        if draw.random() < 0.1:
            ranks = [0] * len(shown)
        elif len(shown) > 2 and draw.random() < 0.2:
            ranks[draw.randrange(len(shown))] = None  # type: ignore[call-overload]
        name = f"{item['id']}-{who}-{turn}"
        return self._row(
            seq, item, who, when, name,
            {"kind": "comparison", "response_ids": shown, "ranks": ranks, "strength": None, "share": None},
        ) | {
            "item_id": item["id"],
            "order": None if draw.random() < 0.05 else draw.sample(range(len(shown)), len(shown)),
            "tags": ["clearer"] if draw.random() < 0.1 else [], "live": int(live),
            "supersedes": f"{item['id']}-{who}-0" if turn else None,
        }  # fmt: skip

    def _aside(self, seq: int, item: dict[str, Any], who: int, when: datetime) -> dict[str, Any]:
        name = item["response_ids"][0]
        if seq % 2:
            payload = {"kind": "thumb", "response_id": name, "label": self._worth[name] > 0.5}
        else:
            value = float(min(5, max(1, round(3 + self._worth[name]))))
            payload = {"kind": "rating", "response_id": name, "ratings": {"style": value}, "low": 1.0, "high": 5.0}
        return self._row(seq, item, who, when, f"aside-{seq}", payload)

    def _row(
        self, seq: int, item: dict[str, Any], who: int, when: datetime, name: str, payload: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "seq": seq, "id": name, "kind": payload["kind"], "prompt_id": item["prompt_id"], "item_id": None,
            "labeler_id": f"labeler-{who}", "payload": payload, "seconds": self._draw.lognormvariate(3.0, 0.6),
            "order": None, "order_seed": None, "guideline": None, "round": 1, "weight": 1.0, "tags": [], "metadata": {},
            "supersedes": None, "extra": 0, "live": 1, "created": when, "erased": 0,
        }  # fmt: skip


def fill(location: str, responses: int, judgments: int, seed: int = 0) -> None:
    """Write such a database at ``location``, an empty one or none."""
    FeedbackStore(location).close()  # makes the tables
    database, world = Database(location), World(responses, judgments, seed)
    with database.write() as connection:

        def store(table: Any, rows: Iterator[dict[str, Any]]) -> None:
            batch: list[dict[str, Any]] = []
            for row in rows:
                batch.append(row)
                if len(batch) == _BATCH:
                    connection.execute(table.insert(), batch)
                    batch = []
            if batch:
                connection.execute(table.insert(), batch)

        store(Labelers, world.labelers())
        store(Prompts, world.prompts())
        store(Responses, world.responses())
        items = list(world.items())
        said = list(world.judgments(items))
        store(Items, iter(items))
        store(Judgments, iter(said))
        for table in (Prompts, Responses, Items) if database.path is None else ():
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'seq'), (SELECT max(seq) FROM {table.name}))"
            )
    database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="path of a new SQLite file, or URL of an empty PostgreSQL database")
    parser.add_argument("--responses", type=int, default=200_000)
    parser.add_argument("--judgments", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    asked, began = parser.parse_args(), time.monotonic()
    try:
        fill(asked.database, asked.responses, asked.judgments, asked.seed)
    except UserError as error:
        sys.exit(str(error))
    print(f"{asked.database}: {time.monotonic() - began:.0f} seconds")
