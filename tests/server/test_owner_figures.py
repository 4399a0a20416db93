"""The owner's figures from arrays are those computed from records one by one, whatever has happened to the database."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import owner_oracle as oracle
import pytest
from owner_world import NOW
from postgres import empty_database

from hearken.errors import UserError
from hearken.feedback.analysis import (
    ADJUDICATION,
    Book,
    agreement_page,
    coverage_page,
    labelers_page,
    progress_page,
    response_scores,
)
from hearken.feedback.pairs import UNNAMED, Pair
from hearken.feedback.records import (
    ComparisonPayload,
    DemonstrationPayload,
    FlagPayload,
    Judgment,
    Labeler,
    Payload,
    Prompt,
    QueueItem,
    RatingPayload,
    Response,
    SkipPayload,
    ThumbPayload,
)
from hearken.feedback.store import FeedbackStore
from hearken.statistics.diagnostics import UNKNOWN


class Life:
    """A project to which all kinds of things happen, drawn from one seed."""

    def __init__(self, store: FeedbackStore, seed: int) -> None:
        self.store, self.draw = store, random.Random(seed)
        self.prompts: list[Prompt] = []
        self.answers: dict[str, list[Response]] = {}
        self.items: list[QueueItem] = []
        self.judgments: list[Judgment] = []
        self.when = NOW - timedelta(days=9)
        for name in ("ana", "bo", "cleo", "dan", "eve", "owner", "file", UNNAMED):
            attributes = {"age": self.draw.choice(["under 40", "40 or over", 7, ""])} if name < "e" else {}
            kind = "import" if name in ("file", UNNAMED) else "person"
            store.add_labeler(Labeler(id=name, name=name.title(), kind=kind, attributes=attributes))
        for _ in range(12):
            self.ask()

    def ask(self) -> None:
        """A new prompt with its responses and items."""
        draw, number = self.draw, len(self.prompts)
        metadata = draw.choice([{}, {"category": "sad"}, {"tags": ["sad", "merry", 3]}, {"category": None}])
        prompt = Prompt(content=f"tale {number}", metadata=metadata)
        shown = [
            Response(
                prompt_id=prompt.id, sample=k, text=" ".join(["word"] * draw.choice([0, 3, 5, 5, 8, 30])),
                policy=draw.choice(["sft", "ppo", "dpo", None]),
            )
            for k in range(draw.choice([2, 3, 4, 10]))
        ]  # fmt: skip
        self.store.add_prompts([prompt])
        self.store.add_responses(shown)
        self.prompts.append(prompt)
        self.answers[prompt.id] = shown
        for k in range(draw.randint(1, 3)):
            ids = tuple(one.id for one in draw.sample(shown, draw.randint(2, len(shown))))
            choice: dict[str, Any] = {"selection": draw.choice(["uniform", "uniform", "disagreement", "evaluation"])}
            if draw.random() < 0.3:
                ranks = [draw.randint(0, 1) for _ in ids]
                choice = {
                    "is_gold": True, "expected": {"kind": "comparison", "response_ids": list(ids), "ranks": ranks},
                    "metadata": draw.choice([{}, {"gold": "exact"}, {"practice": 1}]),
                }  # fmt: skip
            item = QueueItem(
                prompt_id=prompt.id, response_ids=ids, slots=draw.randint(1, 4), round=k, id=f"i{number}-{k}", **choice
            )
            again = QueueItem(prompt_id=prompt.id, response_ids=ids, slots=4, id=f"r{number}-{k}", repeat_of=item.id)
            made = [item] if draw.random() < 0.6 or item.is_gold else [item, again]
            self.store.enqueue(made)
            self.items += made

    def step(self) -> None:
        """Something happens."""
        draw = self.draw
        happening: list[tuple[float, Callable[[], object]]] = [
            (60, self.judge), (8, self.judge_in_passing), (5, self.import_), (3, self.ask), (4, self.withdraw),
            (2, self.adjudicate), (1, self.erase), (1, lambda: self.store.close_items([draw.choice(self.items).id])),
            (1, lambda: self.store.claim(draw.choice(["ana", "bo"]), lease_seconds=1e6)),
        ]  # fmt: skip
        weights, what = zip(*happening, strict=True)
        with suppress(UserError):  # of what was erased
            draw.choices(what, weights)[0]()

    def judge(self) -> None:
        """An answer to an item: a first one, or a revision."""
        draw, item = self.draw, self.draw.choice(self.items)
        payload: Payload = self._compare(item.response_ids)
        if draw.random() < 0.1:
            payload = draw.choice([SkipPayload(), FlagPayload(reason="odd")])
        order = tuple(draw.sample(range(len(item.response_ids)), len(item.response_ids)))
        self._say(
            item.prompt_id, draw.choice(["ana", "bo", "cleo", "dan", "eve"]), payload, item_id=item.id,
            order=order if draw.random() < 0.8 else None, guideline=draw.choice([None, 1, 2]),
            tags=tuple(draw.sample(["clearer", "kinder"], draw.randint(0, 2))),
        )  # fmt: skip

    def judge_in_passing(self) -> None:
        """A thumb, a rating or a demonstration without an item."""
        draw, prompt = self.draw, self.draw.choice(self.prompts)
        shown = draw.choice(self.answers[prompt.id]).id
        low, high = draw.choice([(1.0, 5.0), (0.0, 10.0), (2.0, 2.0)])
        ratings = {name: draw.choice([low, high, (low + high) / 2]) for name in draw.sample(["style", "truth"], 2)}
        payload: Payload = draw.choice(
            [
                ThumbPayload(response_id=shown, label=draw.random() < 0.6),
                RatingPayload(response_id=shown, ratings=ratings, low=low, high=high),
                DemonstrationPayload(text="once"),
            ]
        )
        self._say(prompt.id, draw.choice(["ana", "bo", "eve"]), payload)

    def import_(self) -> None:
        """A comparison from a file: no item, no order, perhaps a share of votes, and one labeler says much."""
        prompt = self.draw.choice(self.prompts)
        one, other = self.draw.sample(self.answers[prompt.id], 2)
        payload = self._compare((one.id, other.id))
        if self.draw.random() < 0.5:
            payload = payload.model_copy(update={"share": self.draw.choice([0.2, 0.5, 0.55, 1.0])})
        self._say(prompt.id, self.draw.choice(["file", UNNAMED]), payload)

    def withdraw(self) -> None:
        """A judgment is taken back."""
        if self.judgments:
            self.store.withdraw(self.draw.choice(self.judgments).id)

    def adjudicate(self) -> None:
        """The owner decides."""
        item = self.draw.choice(self.items)
        self._say(item.prompt_id, "owner", self._compare(item.response_ids), item_id=item.id, tags=(ADJUDICATION,))

    def erase(self) -> None:
        """Something is erased."""
        draw = self.draw
        what = draw.choice(["judgment", "judgment", "response", "prompt", "labeler"])
        prompt = draw.choice(self.prompts).id
        judgment = draw.choice(self.judgments).id if self.judgments else "nothing"
        target = {
            "judgment": judgment, "response": draw.choice(self.answers[prompt]).id,
            "prompt": prompt, "labeler": draw.choice(["dan", "eve"]) if draw.random() < 0.3 else "nobody",
        }[what]  # fmt: skip
        self.store.erase(what, target, "asked for")  # type: ignore[arg-type]

    def _compare(self, ids: tuple[str, ...]) -> ComparisonPayload:
        ranks = [self.draw.randint(0, 2) for _ in ids]
        partial = tuple(None if self.draw.random() < 0.1 else rank for rank in ranks)
        return ComparisonPayload(response_ids=ids, ranks=partial)

    def _say(self, prompt: str, labeler: str, payload: Payload, **more: Any) -> None:
        self.when += timedelta(seconds=self.draw.expovariate(1 / 900))
        seconds = self.draw.choice([None, 3.0, 12.5, 2_000.0])
        judgment = Judgment(
            prompt_id=prompt, labeler_id=labeler, payload=payload, seconds=seconds, created=self.when,
            id=f"judgment-{len(self.judgments)}", **more,
        )  # fmt: skip
        self.judgments.append(self.store.submit(judgment))


def same(found: Any, wanted: Any, where: str = "page") -> None:
    """Equal to the last digits; NaN is equal to NaN, and the order of what ranks the same is free in mappings only."""
    if isinstance(wanted, float) and isinstance(found, float | int):
        assert found == pytest.approx(wanted, rel=1e-7, abs=1e-7, nan_ok=True), where
    elif dataclasses.is_dataclass(wanted):
        assert type(found) is type(wanted), where
        for field in dataclasses.fields(wanted):
            same(getattr(found, field.name), getattr(wanted, field.name), f"{where}.{field.name}")
    elif isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            same(found[key], wanted[key], f"{where}[{key}]")
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted), (where, found, wanted)
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            same(one, other, f"{where}[{number}]")
    else:
        assert found == wanted, where


def told(book: Book, rows: Any) -> list[Pair]:
    """Pairs of the arrays as records; names of prompts and places in rankings are not kept there."""
    at = {place: name for name, place in book._place.items()}
    order = {-1: None, 0: False, 1: True}
    return [
        Pair(
            "", at[row["a"]], at[row["b"]], row["outcome"], row["verdict"],
            book.people[book.judgments["labeler"][row["judgment"]]], row["judgment"], order[row["shown_first"]], (0, 0),
        )
        for row in rows
    ]  # fmt: skip


def check(book: Book, store: FeedbackStore) -> None:
    """What the book holds is what the records say, and its pages what the oracle does."""
    true = oracle.Book.load(store, now=NOW)
    number = {judgment.id: at for at, judgment in enumerate(true.judgments)}
    live = np.flatnonzero(book.judgments["live"]).tolist()
    assert book.judgments["drawn"][live].tolist() == [true.drawn(judgment) for judgment in true.judgments]
    for rows, wanted in (
        (book.work_pairs, oracle.pairs(true.work)), (book.opinions, oracle.pairs(true.opinions)),
        (book.fair(book.opinions), oracle.fair(true)),
    ):  # fmt: skip
        assert [replace(pair, judgment=live.index(pair.judgment)) for pair in told(book, rows)] == [
            replace(pair, prompt="", judgment=number[pair.judgment], labeler=pair.labeler or UNNAMED, places=(0, 0))
            for pair in wanted
        ]
    progress, state = progress_page(store, book, 20.0), store.progress()
    by_id = lambda load: load.labeler_id  # noqa: E731  # the order of equally busy labelers is free
    same(sorted(progress.load, key=by_id), sorted(oracle.loads(true), key=by_id))
    same(progress.hourly, oracle.by_hour(true))
    assert (progress.judgments, progress.slots_filled) == (state.judgments, state.slots_filled)
    page = agreement_page(book, store)
    same(page.disagreements, oracle.disagreements(true))
    assert {one.name: (one.units, one.judgments) for one in page.by_tag} == oracle.by_tag(true)
    assert {one.name: (one.units, one.judgments) for one in page.by_length_gap} == oracle.by_length_gap(true)
    labelers = {row.labeler_id: row for row in labelers_page(book).rows}
    again, gold, judged = oracle.same_again(true), oracle.gold_shares(true), Counter(j.labeler_id for j in true.work)
    for who, row in labelers.items():
        same([row.consistency, row.gold], [again.get(who, UNKNOWN), gold.get(who, UNKNOWN)], who)
        assert row.judgments == judged[who] and row.name == true.labeler_name(who)
    judged = Counter({who: count for who, count in judged.items() if who in true.labelers})
    coverage = coverage_page(book, {"age": {"under 40": 0.5, "40 or over": 0.5}})
    ages = {who: str(true.labelers[who].attributes.get("age", "")) for who in judged}
    for cell in coverage.attributes["age"]:
        assert cell.judgments == sum(count for who, count in judged.items() if ages[who] == cell.value)
    assert coverage.judgments == judged.total()
    scores = response_scores(book)
    rows = scores.rows(store, scores.chosen().tolist())
    by_response = lambda row: row.response.id  # noqa: E731
    same(sorted(rows, key=by_response), sorted(oracle.response_rows(true), key=by_response))
    values = [row.score if row.score is not None else -math.inf for row in rows]
    assert values == sorted(values, reverse=True)
    mine = scores.rows(store, scores.chosen("ppo").tolist())
    assert mine == [row for row in rows if row.response.policy == "ppo"]
    assert not len(scores.chosen("nobody"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_read_at_once_and_bit_by_bit(tmp_path: Path, seed: int) -> None:
    with FeedbackStore(tmp_path / "feedback.db", clock=lambda: NOW) as store:
        life, book = Life(store, seed), Book(NOW)
        for number in range(240):
            life.step()
            if number % 17 == 0:
                book = book.updated(store, NOW)
            if number in (60, 239):
                book = book.updated(store, NOW)
                check(book, store)
        check(Book.load(store, NOW), store)
        assert len(book.judgments) > 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 18))
def test_many_more_lives(tmp_path: Path, seed: int) -> None:
    with FeedbackStore(tmp_path / "feedback.db", clock=lambda: NOW) as store:
        life, book = Life(store, seed), Book(NOW)
        for number in range(400):
            life.step()
            if number % 50 == 0:
                book = book.updated(store, NOW)
        check(book.updated(store, NOW), store)
        check(Book.load(store, NOW), store)


@pytest.mark.slow
def test_on_postgresql(postgres_server: str) -> None:
    with empty_database(postgres_server) as location, FeedbackStore(location, clock=lambda: NOW) as store:
        life, book = Life(store, 5), Book(NOW)
        for number in range(150):
            life.step()
            if number % 40 == 0:
                book = book.updated(store, NOW)
        check(book.updated(store, NOW), store)
        check(Book.load(store, NOW), store)
