"""Somebody watches a policy while a round trains it: gold, people by the queue, an AI."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from judge_server import reply, serve
from rounds_world import STAGES

from hearken.algorithms import watch
from hearken.algorithms.watch import Answered
from hearken.errors import UserError
from hearken.evaluation.request import EvaluationRequest
from hearken.evaluation.results import JudgedBy
from hearken.feedback.examples import Message
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response
from hearken.loop.asking import Waiting, wait_for
from hearken.loop.evaluating import evaluate
from hearken.loop.project import Project
from hearken.loop.rounds import Loop
from hearken.loop.trace import trace
from hearken.loop.watching import asked, by_gold
from hearken.models.layout import Group
from hearken.worlds.tales.world import TaleWorld

Tales = Callable[..., Project]
WATCHED: dict[str, Any] = {"rounds": 1, "evaluate": 2}


def says(project: Project, name: str = "r01-ppo") -> dict[str, Any]:
    artifact = project.artifact(name)
    assert artifact is not None
    return artifact.metrics


def prefer(project: Project, policy: str) -> int:
    """Somebody judges every open item, for the answer of one policy."""
    with project.store() as store:
        store.add_labeler(Labeler(id="ana", name="ana"))
        count = 0
        while claims := store.claim("ana", n=20):
            for claim in claims:
                ranks = tuple(int(r.policy != policy) for r in claim.responses)
                payload = ComparisonPayload(response_ids=claim.item.response_ids, ranks=ranks)
                store.submit(
                    Judgment(prompt_id=claim.prompt.id, labeler_id="ana", item_id=claim.item.id, payload=payload)
                )
                count += 1
        return count


@pytest.mark.slow
def test_gold_watches_and_the_next_round_starts_from_the_best(tales: Tales, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parted:
        fooled, peak, proxy_rise, gold_fall = True, 0.0, 0.5, 0.25

    monkeypatch.setattr(watch, "find_divergence", lambda steps, proxy, wins: Parted() if len(steps) > 1 else None)
    lines: list[str] = []
    gold = {"judge": "gold", "every": 1, "prompts": 4}
    project = tales(**WATCHED | {"rounds": 2}, watch=gold, early_stop="overoptimization", policy_start="last")
    done = Loop(project, announce=lines.append).run()
    found = says(project)
    assert found["fooled"] and found["steps"] == 1 and found["judge_prompts"] == 4
    assert any(line.startswith("r01-ppo: The reward was fooled after 0 iterations") for line in lines)
    assert [row["fooled"] for row in done["figures"]] == [True, True]
    with project.store() as store:
        assert {r.policy for r in store.responses(round=2)} == {"r01-ppo"}
        apart = [p.content for p in store.prompts(split="validation")][2:]
    policy = project.artifact("r01-ppo")
    assert policy is not None
    with open(policy.manifest["inputs"]["validation"][0], encoding="utf-8") as file:
        assert len(file.readlines()) == len(apart) == 4, "policies are compared on the other two"


@pytest.mark.slow
def test_labels_keep_coming_while_somebody_watches(tales: Tales) -> None:
    """The reward model is replaced on the way; the judge and the choice of the best checkpoint stay."""
    stages = {"ppo": STAGES["ppo"] | {"episodes": 24, "batch_size": 8, "num_generations": 4}}
    gold = {"judge": "gold", "every": 1, "prompts": 4}
    project = tales(**WATCHED, online={"labels": 12, "refit_every": 4}, stages=stages, watch=gold)
    done = Loop(project).run()
    found = says(project)
    policy = project.artifact("r01-ppo")
    assert policy is not None
    refits = [name for name in policy.manifest["parents"] if name.startswith("refit ")]
    assert refits and found["judge_prompts"] == 4 and found["says"]
    rows = [json.loads(line) for line in (policy.path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    looks = [row for row in rows if "judge" in row]
    assert [look["step"] for look in looks] == [0, 1, 2, 3] and found["best_step"] in [look["step"] for look in looks]
    assert looks[0]["judge_proxy"] == 0, "as it begins the policy is the reference, whatever the reward's zero"
    with project.store() as store:
        apart = {item.selection for item in store.items(round=1)}
        assert "evaluation" not in apart, "what gold looked at is no label"
        assert sum(item.filled for item in store.items(round=1) if item.metadata.get("step", -1) >= 0) == 12
    assert Loop(project).run() == done


@pytest.mark.slow
def test_people_compare_checkpoints_and_training_waits_for_them(tales: Tales) -> None:
    lines: list[str] = []
    fast = {"ppo": STAGES["ppo"] | {"lr": 0.03, "warmup": 0.0}}
    project = tales(**WATCHED, stages=fast, watch={"judge": "people", "every": 1, "prompts": 4})
    project.config.sample.overlap = 1
    stops = 0
    while (done := Loop(project, wait=False, announce=lines.append).run())["waiting_for"]:
        stops += 1
        assert done["waiting_for"] == prefer(project, "r01-ppo") <= 4
    assert stops in (1, 2), "before it has learned, every answer is the reference's: a tie that nobody is asked about"
    assert "people will compare answers of r01-ppo to 4 held-out prompts 3 times: 12 judgments" in lines[0]
    found = says(project)
    assert found["best_step"] > 0 and found["judge"] > 0.5
    with project.store() as store:
        shown = [item for item in store.items() if item.selection == "evaluation"]
        assert shown and {store.prompt(item.prompt_id).split for item in shown} == {"validation"}
        watched = {j.id for j in store.judgments() if j.item_id in {item.id for item in shown}}
    policy = project.artifact("r01-ppo")
    assert policy is not None and set(policy.manifest["data"]["watched"]) == watched, "of every look, on whatever day"
    (chose,) = [node for role, node in trace("r01-ppo", project).parents if role == "watched by"]
    assert chose.facts["judgments"] == len(watched) and [node.name for _, node in chose.parents] == ["ana"]
    assert Loop(project, wait=False).run() == done


def test_no_pair_is_asked_about_twice(tales: Tales) -> None:
    project = tales(rounds=1)
    project.config.sample.overlap = 1
    loop = Loop(project, wait=False)
    prompts = project.held_out(2)

    def shown(*mine: str) -> list[Answered]:
        pairs = zip(prompts, mine, strict=True)
        return [Answered(p, text, "theirs", Group([1], [[2], [3]])) for p, text in pairs]

    with pytest.raises(Waiting) as waiting:
        asked(loop, "people", "p", "ref", 1, shown("mine", "mine"))
    assert waiting.value.missing == prefer(project, "p") == 2
    told = asked(loop, "people", "p", "ref", 5, shown("mine", "theirs"))
    assert told.outcomes == [1.0, 0.5] and len(told.judgments) == 1, "equal answers are a tie that nobody was asked"
    with pytest.raises(Waiting) as waiting:
        asked(loop, "people", "p", "ref", 6, shown("mine", "another"))
    assert len(asked(loop, "simulated", "p", "ref", 6, shown("one", "two")).outcomes) == 2
    assert waiting.value.missing == 1 == prefer(project, "ref"), "machines leave alone what waits for people"
    assert asked(loop, "people", "q", "ref", 0, shown("mine", "another")).outcomes == [1.0, 0.0]
    alone = asked(loop, "simulated", "p", "ref", 7, shown("mine", "mine"))
    assert alone.outcomes[0] in (0.0, 0.5, 1.0), "each for itself"


def longer(body: dict[str, Any]) -> tuple[int, Any]:
    """A judge that likes the longer response."""
    text = body["messages"][-1]["content"]
    a, b = text.index("Response A:"), text.index("Response B:")
    lead = (b - a) - (len(text) - b)
    return 200, reply("A" if lead > 0 else "B", {"A": -0.1, "B": -3.0} if lead > 0 else {"A": -3.0, "B": -0.1})


@pytest.mark.slow
def test_an_ai_judges_rounds_checkpoints_and_policies(tales: Tales) -> None:
    with serve(longer) as (url, seen):
        ai = {"judge": "tiny-judge", "url": url}
        project = tales(**WATCHED, labelers="ai", judge="ai", ai=ai, watch={"judge": "ai", "every": 2, "prompts": 2})
        said: list[str] = []
        done = Loop(project, announce=said.append).run()
        assert any(line.startswith("No pair was judged by people too") for line in said)
        assert done["policy"] == "r01-ppo" and 0 <= done["figures"][0]["win_rate"]["estimate"] <= 1
        asked_for = len(seen)
        assert asked_for and {request["model"] for request in seen} == {"tiny-judge"}
        judgments = project.artifact("r01-judgments")
        assert judgments is not None and set(judgments.metrics["by"]) == {"ai"}
        assert list(judgments.metrics["ai"].values()) == [{"overlap": 0}]
        assert says(project)["says"]
        found = evaluate(project, EvaluationRequest(policies=["r01-ppo"], judge="ai", prompts=2))
        assert found.judge == JudgedBy(kind="ai", words="an AI labeler", name="tiny-judge")
        assert len(seen) == asked_for, "what it was asked before it is not again"
        comparisons = found.policies["r01-ppo"].comparisons
        assert comparisons is not None and comparisons >= 2


def test_ctrl_c_while_a_training_run_waits_for_people(tales: Tales) -> None:
    project = tales(rounds=1)
    with project.store() as store:
        prompt = next(iter(store.prompts()))
        pair = [Response(prompt_id=prompt.id, text=text, policy="p") for text in ("a", "b")]
        store.add_responses(pair)
        item = QueueItem(prompt_id=prompt.id, response_ids=tuple(r.id for r in pair))
        store.enqueue([item])
        heard: list[int] = []
        handler = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))  # as a run's own
        try:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            with pytest.raises(Waiting):
                wait_for(store, [item], project.config.loop, label="x", wait=True)
            assert not heard and time.monotonic() - began < 10
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [signal.SIGINT], "the run's handler is back"
        finally:
            signal.signal(signal.SIGINT, handler)


def test_dialogues_of_two_turns_are_judged_by_gold(tales: Tales) -> None:
    world = TaleWorld(1)
    task = world.task("talk")
    first = next(p for p in task.prompts(9, "heldout") if "\n\n" not in p)
    whole = task.follow_up(first, task.response(first))
    content = tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(whole.split("\n\n")))
    assert len(content) == 3
    good = task.response(whole)
    answered = [Answered(content, good, "no", Group([1], [[2], [3]])), Answered(content, "no", good, Group([1], [[2]]))]
    project = tales(rounds=1)
    assert by_gold(project)(0, answered).outcomes == [1.0, 0.0]
    with project.store() as store:
        store.add_prompts([Prompt(content=content, split="validation")])
    found = evaluate(
        project, EvaluationRequest(policies=["best-of-1@" + project.config.model], prompts=7, judge="gold")
    )
    at = found.prompts.index(content)
    base = found.policies[found.baseline]
    assert base.golds[at] == world.gold(whole, base.responses[at])


def test_who_cannot_watch_is_said(tales: Tales) -> None:
    for judge in ("gold", "simulated"):
        with pytest.raises(UserError, match="world"):
            Loop(tales(name=judge, world="", labelers="people", watch={"judge": judge})).run()
    with pytest.raises(UserError, match=r"loop\.ai\.judge"):
        tales(name="ai", watch={"judge": "ai"})
