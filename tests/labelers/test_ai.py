from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from judge_server import over, reply, serve, written
from tiny_models import write_base
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from hearken.cli.main import app
from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.feedback.records import (
    ComparisonPayload,
    CritiquePayload,
    Judgment,
    Labeler,
    Prompt,
    QueueItem,
    Response,
)
from hearken.feedback.snapshot import inline_examples
from hearken.feedback.store import FeedbackStore
from hearken.labelers.ai import AILabeler, Nonsense, question, spoken
from hearken.labelers.answering import agreement, answer_queue, estimate, estimate_revisions, revise
from hearken.labelers.constitution import Constitution, Principle, load_constitution
from hearken.labelers.judges import LocalJudge, Reply, ServerJudge
from hearken.labelers.protocol import Labeler as LabelerProtocol
from hearken.loop.project import Project, ProjectConfig
from hearken.loop.reporting import compose
from hearken.progress import quiet

ONE = Constitution(name="one", principles=[Principle(id="count", text="Prefer more foxes.")])
SHOWN = re.compile(r"Response A:\n(.*?)\n\nResponse B:\n(.*?)\n\nPrinciple", re.DOTALL)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def foxes(body: str) -> tuple[int, int]:
    found = SHOWN.search(body)
    assert found
    return found[1].count("fox"), found[2].count("fox")


class Scripted:
    """Counts foxes; leans to the first response by ``side``; tells log-probabilities, or words alone."""

    name = identity = "scripted"

    def __init__(self, side: float = 0.0, words: bool = False) -> None:
        self.side, self.words = side, words

    def choose(self, dialogue: Sequence[Message], options: Sequence[str]) -> Reply:
        a, b = foxes(dialogue[-1].content)
        odds = a - b + self.side
        text = "A" if odds > 0 else "B"
        return Reply(f"I say {text}.") if self.words else Reply(text, {"A": odds - 1, "B": -1.0})

    def ask(self, dialogue: Sequence[Message], max_tokens: int) -> Reply:
        if "Now write the response anew" in dialogue[-1].content:
            return Reply("a better fox")
        if "Readers say of it" in dialogue[-1].content:
            return Reply("as readers asked" if "- too few foxes" in dialogue[-1].content else "")
        if "falls short" not in dialogue[-1].content:
            a, b = foxes(dialogue[-1].content)
            return Reply(f"A has {a}, B has {b}.\nAnswer: {'A' if a + self.side > b else 'B'}")
        return Reply("It names too few foxes.")


RESPONSES = ("fox", "fox fox fox", "nothing")


def test_the_order_of_display_cancels() -> None:
    assert isinstance(AILabeler(Scripted(), ONE), LabelerProtocol)
    fair, biased = (AILabeler(Scripted(side), ONE).judge("p", RESPONSES, 0) for side in (0.0, 2.5))
    assert biased.ranks == fair.ranks == (1, 0, 2)
    two = AILabeler(Scripted(2.5), ONE).judge("p", RESPONSES[:2], 0)
    assert two.share == pytest.approx(1 / (1 + math.exp(2))), "log-odds -2 whatever the side"
    assert two.odds == {"0,1": pytest.approx(0.5), "1,0": pytest.approx(4.5)} and two.principle == "count"
    equal = AILabeler(Scripted(2.5), ONE).judge("p", ("fox a", "fox b"), 0)
    assert equal.ranks == (0, 0) and equal.share == pytest.approx(0.5)


def test_words_alone() -> None:
    clear = AILabeler(Scripted(words=True), ONE).judge("p", RESPONSES[:2], 0)
    assert clear.ranks == (1, 0) and clear.share == pytest.approx(0.05)
    torn = AILabeler(Scripted(side=9, words=True), ONE).judge("p", RESPONSES[:2], 0)
    assert torn.ranks == (0, 0), "a judge that always says A has no opinion"
    thought = AILabeler(Scripted(), ONE, reasoning=True).judge("p", RESPONSES[:2], 0)
    assert thought.ranks == (1, 0) and "A has 1, B has 3." in thought.reasoning["0,1"]


def test_what_is_an_answer() -> None:
    assert spoken("Answer: A") > 0 > spoken("B") and spoken("A is long; still, (B)") < 0
    for text in ("both", "", "Apples"):
        with pytest.raises(Nonsense):
            spoken(text)


def test_a_local_model_is_a_judge_like_any_other(tmp_path: Path) -> None:
    labeler = AILabeler(LocalJudge(str(write_base(tmp_path / "base", context=512))), load_constitution("stories"))
    there, back = (labeler.judge("tell the", pair, 0) for pair in (("a fox", "the bear"), ("the bear", "a fox")))
    assert there.share is not None and back.share == pytest.approx(1 - there.share, abs=1e-5)


# -- the queue --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore(tmp_path / "feedback.db") as store:
        for n in range(12):
            prompt = Prompt(content=f"tell {n}")
            store.add_prompts([prompt])
            texts = ["fox " * (1 + n % 3), "fox " * (3 - n % 3) + "home"]
            responses = [Response(prompt_id=prompt.id, text=t, policy="sft", round=1) for t in texts]
            store.add_responses(responses)
            item = QueueItem(prompt_id=prompt.id, response_ids=tuple(r.id for r in responses), slots=2, round=1)
            store.enqueue([item])
        yield store


def people(store: FeedbackStore, verdict: Callable[[str, str], int]) -> None:
    store.add_labeler(Labeler(name="ann", id="ann"))
    for claim in store.claim("ann", n=12):
        a, b = claim.responses
        ranks = {1: (0, 1), 0: (0, 0), -1: (1, 0)}[verdict(a.text, b.text)]
        store.submit(
            Judgment(prompt_id=claim.prompt.id, labeler_id="ann", item_id=claim.item.id,
                     payload=ComparisonPayload(response_ids=(a.id, b.id), ranks=ranks))
        )  # fmt: skip


def more_foxes(a: str, b: str) -> int:
    return (a.count("fox") > b.count("fox")) - (a.count("fox") < b.count("fox"))


def test_it_answers_the_queue_and_agrees_with_people(store: FeedbackStore) -> None:
    people(store, more_foxes)
    labeler = AILabeler(Scripted(side=1.0), ONE)
    cost = estimate(store, price_in=2.0)
    assert (cost.items, cost.requests) == (12, 24) and 24 * 80 < cost.prompt_tokens < 24 * 120
    assert cost.price == pytest.approx(2e-6 * cost.prompt_tokens) and "24 requests" in cost.say()
    done = answer_queue(store, labeler)
    assert (done["judgments"], done["skipped"], done["overlap"]) == (12, 0, 12)
    assert done["kappa"] == done["agreement"] == 1
    (record,) = store.labelers(kind="ai")
    assert record.name == "scripted/one" and record.attributes["judge"] == "scripted"
    (one, *_) = store.judgments(labeler_id=record.id)
    assert one.metadata["principle"] == "count" and set(one.metadata["log_odds"]) == {"0,1", "1,0"}
    assert isinstance(one.payload, ComparisonPayload) and one.payload.share is not None
    assert answer_queue(store, labeler)["judgments"] == 0, "nothing is judged twice"
    rows = [e for e in inline_examples(store, ("comparison",)) if e.metadata["labeler"] == record.id]
    assert len(rows) == 12 and all(e.share is not None for e in rows)


def test_a_judge_that_goes_by_place_is_told(store: FeedbackStore) -> None:
    fair = answer_queue(store, AILabeler(Scripted(), ONE))
    assert fair["shown_first"] == pytest.approx(0.5, abs=0.2)
    swayed = Scripted(side=50.0)
    swayed.identity = "swayed"
    with pytest.warns(UserWarning, match="names the response shown first in 100% of its 24 answers"):
        done = answer_queue(store, AILabeler(swayed, ONE))
    assert (done["judgments"], done["shown_first"]) == (12, 1.0)


def test_disagreement_shows(store: FeedbackStore) -> None:
    people(store, lambda a, b: -more_foxes(a, b) or 1)
    done = answer_queue(store, AILabeler(Scripted(), ONE))
    assert done["kappa"] < 0 and done["kappa_low"] <= done["kappa"] <= done["kappa_high"] < 0.5
    assert agreement(store, "nobody") == {"overlap": 0}


def test_a_server_answers_the_queue(store: FeedbackStore) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        a, b = foxes(body["messages"][-1]["content"])
        return 200, reply("A", {"A": float(a - b), "B": 0.0})

    with serve(answer) as (url, seen):
        done = answer_queue(store, AILabeler(ServerJudge(url, "tiny"), load_constitution("general")), workers=3)
    assert done["judgments"] == 12 and len(seen) == 24
    principles = {j.metadata["principle"] for j in store.judgments(kinds=("comparison",))}
    assert len(principles) > 2, "drawn anew for each item"


def test_a_model_behind_a_server_answers_the_queue(store: FeedbackStore, tmp_path: Path) -> None:
    """Nothing is scripted: a language model of 28,000 weights, whose head says A or B by what it has read."""
    folder = write_base(tmp_path / "judge", context=1024, tie_word_embeddings=False)
    model, tok = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def read(*texts: str) -> torch.Tensor:
        asked = [question(f"tell {n}", *texts, ONE.principles[0], reasoning=False) for n in range(12)]
        prompts = [written([{"role": m.role, "content": m.content} for m in dialogue]) for dialogue in asked]
        with torch.no_grad():
            return torch.cat(
                [model.model(tok(p, return_tensors="pt")["input_ids"]).last_hidden_state[:, -1] for p in prompts]
            )

    for letter, seen_by_it in (("A", read("fox fox fox", "fox home")), ("B", read("fox", "fox fox fox home"))):
        model.lm_head.weight.data[tok.convert_tokens_to_ids(letter)] = seen_by_it.mean(0)
    model.save_pretrained(folder)
    with serve(over(folder)) as (url, seen):
        done = answer_queue(store, AILabeler(ServerJudge(url, "tiny"), ONE), workers=2)
        text = ServerJudge(url, "tiny").ask((Message("user", "A or B?"),), 3).text
    assert (done["judgments"], done["skipped"], len(seen)) == (12, 0, 25) and text
    head = model.lm_head.weight.detach()
    a, b = (head[tok.convert_tokens_to_ids(letter)] for letter in "AB")
    first = next(store.judgments())
    texts = [store.response(one).text for one in first.payload.response_ids]  # type: ignore[union-attr]
    which = int(str(store.prompt(first.prompt_id).content).split()[1])
    for order, (i, j) in {"0,1": (0, 1), "1,0": (1, 0)}.items():
        hidden = read(texts[i], texts[j])[which]
        assert first.metadata["log_odds"][order] == pytest.approx(float(hidden @ (a - b)), abs=1e-3)


def test_nonsense_is_refused_and_what_was_judged_stays(store: FeedbackStore) -> None:
    count = iter(range(1000))
    told = pytest.raises(UserError, match=r"answered \d+ of \d+ questions with neither A nor B.*turtles")
    with serve(lambda _: (200, reply("A" if next(count) < 6 else "I like turtles"))) as (url, _), told:
        answer_queue(store, AILabeler(ServerJudge(url, "tiny"), ONE), workers=1)
    kinds = [j.kind for j in store.judgments()]
    assert kinds.count("comparison") == 3 and kinds.count("skip") > 3


def test_critiques_become_revisions(store: FeedbackStore) -> None:
    done = revise(store, AILabeler(Scripted(), ONE))
    assert done == {
        "labeler": "scripted/one", "revisions": 12, "heeded": 0, "no_answer": 0, "unchanged": 0, "overlap": 0,
    }  # fmt: skip
    kinds = [j.kind for j in store.judgments()]
    assert kinds.count("critique") == kinds.count("edit") == 12
    demonstrations = list(inline_examples(store, ("demonstration",)))
    assert {e.response for e in demonstrations} == {"a better fox"}
    (pair, *_) = inline_examples(store, ("comparison",))
    assert pair.responses[0] == "a better fox" and pair.ranks == (0, 1)
    assert revise(store, AILabeler(Scripted(), ONE))["revisions"] == 0


def test_people_s_critiques_are_heeded(store: FeedbackStore) -> None:
    """Every criticised response is rewritten by what people said of it; the judge's own critique is not asked for."""
    people(store, more_foxes)
    (person,) = store.labelers(kind="person")
    responses = list(store.responses())
    blamed = [r for r in responses if r.prompt_id == responses[0].prompt_id]
    for response in blamed:
        payload = CritiquePayload(response_id=response.id, text="too few foxes")
        store.submit(Judgment(prompt_id=response.prompt_id, labeler_id=person.id, payload=payload))
    cost = estimate_revisions(store, tokens_out=10, price_out=1e6)
    requests = len(blamed) + 2 * 11
    assert (cost.items, cost.requests, cost.price) == (len(blamed) + 11, requests, requests * 10)
    done = revise(store, AILabeler(Scripted(), ONE))
    assert done["heeded"] == len(blamed) and done["revisions"] == len(blamed) + 11
    mine = [e for e in inline_examples(store, ("demonstration",)) if e.response == "as readers asked"]
    assert len(mine) == len(blamed) and all(e.metadata["heeds"] == "people" for e in mine)
    assert estimate_revisions(store, tokens_out=10).items == 0 == revise(store, AILabeler(Scripted(), ONE))["revisions"]


def test_the_command(tmp_path: Path, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    people(store, more_foxes)
    config = ProjectConfig(model="none").model_dump(mode="json")
    (tmp_path / "hearken.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    words = ["label", "--with", "ai", "--judge", "tiny", "--price-in", "1"]

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        a, b = foxes(body["messages"][-1]["content"])
        return 200, reply("A", {"A": float(a - b), "B": 0.0})

    with serve(answer) as (url, seen):
        monkeypatch.setenv("HEARKEN_JUDGE_URL", url)
        dry = CliRunner().invoke(app, [*words, "--dry-run", "--json"])
        assert dry.exit_code == 0 and json.loads(dry.stdout)["items"] == 12 and not seen
        assert "12 comparisons, 24 requests" in dry.stderr
        done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["kappa"] == 1
    assert "Agreement with people on 12 pairs: kappa 1.00" in done.stderr
    assert len(list((tmp_path / "runs/judge").glob("*.json"))) == 24
    costs = compose(Project(tmp_path)).costs
    assert costs is not None and (costs.ai_requests, costs.ai_tokens) == (24, (24 * 50, 24))
    assert costs.price == pytest.approx(24 * 50 / 1e6), "as the server counted, at the price that was given"
    missing = CliRunner().invoke(app, ["label", "--with", "ai"])
    assert missing.exit_code == 2 and "no judge is named" in missing.stderr
    assert Project(tmp_path).config.model == "none"
