from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from owner_world import LABELERS, NOW, fill
from postgres import empty_database

from hearken.errors import UserError
from hearken.feedback.analysis import (
    ADJUDICATION,
    Book,
    agreement_page,
    compare_policies,
    coverage_page,
    judgment_weights,
    labelers_page,
    letters,
    progress_page,
    response_scores,
    verdict,
)
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response
from hearken.feedback.store import FeedbackStore
from hearken.statistics.weighting import training_weights


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedbackStore]:
    where: Any = nullcontext(str(tmp_path_factory.mktemp("owner") / "feedback.db"))
    if request.param == "postgresql":
        where = empty_database(request.getfixturevalue("postgres_server"))
    with where as location, FeedbackStore(location) as store:
        fill(store)
        yield store


@pytest.fixture(scope="module")
def book(full: FeedbackStore) -> Book:
    return Book.load(full, now=NOW)


@pytest.mark.slow
def test_progress_counts_and_forecasts(full: FeedbackStore, book: Book) -> None:
    page = progress_page(full, book, hourly_cost=20.0)
    assert page.items == 80 and page.items_done < 80 and page.slots_filled < page.slots and 0 < page.share < 1
    assert page.skips == 1 and page.flags == 0 and page.leased == 0
    assert sum(count for _, count in page.hourly) == sum(load.judgments for load in page.load)
    hours = [hour for hour, _ in page.hourly]
    assert all(b - a == timedelta(hours=1) for a, b in itertools.pairwise(hours))
    assert {load.labeler_id for load in page.load} == set(LABELERS)
    forecast = page.forecast
    assert forecast.remaining == page.slots - page.slots_filled
    assert forecast.hours is not None and forecast.pace is not None and forecast.work_hours is not None
    assert forecast.hours.estimate == pytest.approx(forecast.remaining / forecast.pace)
    assert forecast.hours.low < forecast.hours.estimate < forecast.hours.high
    assert forecast.cost == pytest.approx(20 * forecast.work_hours)
    assert 15 < (page.median_seconds or 0) < 35


def test_agreement_and_what_is_disputed(full: FeedbackStore, book: Book) -> None:
    page = agreement_page(book, full)
    assert page.main is not None and page.main.name == "comparisons"
    assert 0.1 < page.main.alpha.low < page.main.alpha.estimate < page.main.alpha.high < 0.8
    assert {kind.name for kind in page.kinds} == {"comparisons", "thumbs", "rating: style"}
    assert {one.name for one in page.by_tag} == {"sad", "merry", "clearer"}
    assert sum(one.units for one in page.by_length_gap) == page.main.units
    kappas = {(one.first, one.second): one.kappa for one in page.kappas}
    reliable = kappas["Ana", "Bo"]
    assert all(value < reliable for pair, value in kappas.items() if "Eve" in pair)
    assert page.disagreements[0].split >= page.disagreements[-1].split > 0
    disputed = page.disagreements[0]
    assert len({voice.verdict for voice in disputed.voices}) > 1 and len(disputed.responses) == 2
    assert all(len(disputed.voices) == 3 for disputed in page.disagreements)


def test_an_adjudication_settles_a_dispute_and_is_no_vote(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        fill(store, prompts=30)
        before = agreement_page(Book.load(store), store)
        disputed = before.disagreements[0]
        store.add_labeler(Labeler(id="owner", name="Owner"))
        ids = tuple(response.id for response in disputed.responses)
        store.submit(
            Judgment(
                prompt_id=disputed.prompt.id, labeler_id="owner", item_id=disputed.item_id, tags=(ADJUDICATION,),
                payload=ComparisonPayload(response_ids=ids, ranks=(0, 1)),
            )
        )  # fmt: skip
        after = agreement_page(Book.load(store), store)
        assert after.main == before.main
        assert [one.item_id for one in after.disagreements if one.adjudicated] == [disputed.item_id]
        assert after.disagreements[-1].item_id == disputed.item_id  # what is settled goes last


def test_labelers_reliability_and_bias(book: Book) -> None:
    page = labelers_page(book)
    rows = {row.labeler_id: row for row in page.rows}
    assert rows["eve"].reliability.high < rows["ana"].reliability.estimate
    assert rows["eve"].crowd_bt is None  # three comparisons a response are too few for it
    assert rows["dan"].diagnostics.first_side.low > 0.5
    assert "prefers what is shown first" in rows["dan"].warnings and not rows["ana"].warnings
    assert rows["ana"].gold.estimate > rows["eve"].gold.estimate
    assert rows["ana"].consistency.estimate > rows["eve"].consistency.estimate
    assert rows["eve"].weight < rows["ana"].weight
    assert page.overlap > 50


def test_training_weights() -> None:
    counts = {"sure": 10, "coin": 10, "wrong": 10, "half": 10, "new": 4}
    weights = training_weights({"sure": 1.0, "coin": 0.5, "wrong": 0.1, "half": 0.75}, counts)
    assert weights == pytest.approx({"sure": 40 / 15, "coin": 0, "wrong": 0, "half": 20 / 15, "new": 1})
    assert training_weights({"coin": 0.5}, {"coin": 3, "new": 1}) == {"coin": 0.0, "new": 1.0}


def test_coverage_against_a_target(book: Book) -> None:
    plain = coverage_page(book)
    assert plain.weights == {} and plain.effective is None
    cells = {cell.value: cell for cell in plain.attributes["age"]}
    assert cells["under 40"].labelers == 2 and cells["40 or over"].labelers == 1
    assert plain.silent["age"] == plain.judgments - sum(cell.judgments for cell in cells.values())
    page = coverage_page(book, {"age": {"under 40": 0.3, "40 or over": 0.6, "over 100": 0.1}, "place": {"north": 1}})
    assert page.missing == {"age": ("over 100",), "place": ("north",)}
    assert page.weights["ana"] < 1 < page.weights["cleo"] and page.weights["dan"] == pytest.approx(1)
    assert page.effective is not None and page.effective < page.judgments


def test_leaderboard_says_what_it_cannot_tell(book: Book) -> None:
    found = compare_policies(book, resamples=300)
    assert found is not None
    page = found.page()
    assert page.baseline == "sft" and found.page("ppo").baseline == "ppo"
    rows = {row.name: row for row in page.rows}
    assert rows["sft"].place == 3 and rows["sft"].win_rate is None
    assert rows["ppo"].win_rate is not None and rows["ppo"].win_rate.low > 0.5
    assert "dpo" in rows["ppo"].level_with and "sft" not in rows["ppo"].level_with
    assert any("not yet distinguishable" in line for line in page.plain_words)
    assert rows["ppo"].elo > rows["sft"].elo and rows["ppo"].elo_history[-1] == rows["ppo"].elo
    assert rows["ppo"].mean_words > rows["dpo"].mean_words + 8
    assert page.length_effect is not None


def test_weights_of_labelers_weigh_their_comparisons(book: Book) -> None:
    def counted(**weights: float) -> float:
        found = compare_policies(book, {**dict.fromkeys(LABELERS, 1.0), **weights}, resamples=20)
        assert found is not None
        return sum(standing.wins + standing.ties / 2 for standing in found.board.standings)

    every, without = counted(), counted(eve=0.0)
    assert 0 < without < every and counted(eve=3.0) == pytest.approx(every + 2 * (every - without))


def test_only_uniformly_chosen_items_count_for_quality(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        prompts = [Prompt(content=f"p{n}") for n in range(6)]
        store.add_prompts(prompts)
        store.add_labeler(Labeler(id="ana", name="Ana"))
        for n, prompt in enumerate(prompts):
            pair = [Response(prompt_id=prompt.id, text=name, policy=name) for name in ("old", "new")]
            store.add_responses(pair)
            ids = tuple(response.id for response in pair)
            chosen = "uniform" if n < 3 else "disagreement"
            item = QueueItem(prompt_id=prompt.id, response_ids=ids, selection=chosen)
            store.enqueue([item])
            ranks = (1, 0) if n < 3 else (0, 1)
            payload = ComparisonPayload(response_ids=ids, ranks=ranks)
            store.submit(Judgment(prompt_id=prompt.id, labeler_id="ana", item_id=item.id, payload=payload))
        found = compare_policies(Book.load(store), resamples=20)
        assert found is not None and found.pairs == 3 and found.page().rows[0].name == "new"


def test_single_responses(full: FeedbackStore, book: Book) -> None:
    found = response_scores(book)
    rows = found.rows(full, found.chosen().tolist())
    scores = [row.score for row in rows if row.score is not None]
    assert scores == sorted(scores, reverse=True) and all(math.isfinite(score) for score in scores)
    assert {row.response.policy for row in found.rows(full, found.chosen("ppo").tolist())} == {"ppo"}
    thumbed = [row for row in rows if row.thumbs_up + row.thumbs_down]
    assert all(row.thumbs_up + row.thumbs_down == 2 for row in thumbed) and len(thumbed) == 40
    assert all(row.rating is None or 0 <= row.rating <= 1 for row in rows)


def test_an_empty_store_has_pages_too(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        book = Book.load(store)
        progress = progress_page(store, book)
        assert progress.share == 0 and progress.forecast.hours is None and progress.hourly == []
        page = agreement_page(book, store)
        assert page.kinds == [] and page.disagreements == [] and labelers_page(book).rows == []
        assert compare_policies(book) is None and len(response_scores(book).seq) == 0
        assert coverage_page(book, {"age": {"old": 1}}).weights == {}


def test_words_for_verdicts() -> None:
    payload = ComparisonPayload(response_ids=("x", "y", "z"), ranks=(1, 0, 1))
    assert verdict(Judgment(prompt_id="p", labeler_id="l", payload=payload), ("z", "x", "y")) == "C > A = B"
    assert [letters(n) for n in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


def test_weights_for_an_export(full: FeedbackStore, book: Book) -> None:
    weights = judgment_weights(full, "reliability")
    assert weights == labelers_page(book).weights and weights["eve"] < weights["ana"]
    with pytest.raises(UserError, match="no target population"):
        judgment_weights(full, "population")


def test_without_overlap_there_is_no_reliability(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path / "feedback.db") as store, pytest.raises(UserError, match="several labelers"):
        judgment_weights(store, "reliability")
