"""`hearken loop`: rounds that run by themselves, are made once, and go on after anything."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rounds_world import QUICK, STAGES, change

from hearken.errors import UserError
from hearken.evaluation.reward_card import RewardCard
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import read_examples
from hearken.feedback.records import ComparisonPayload, Judgment, Labeler, Prompt, QueueItem, Response
from hearken.loop import collecting
from hearken.loop.cards import project_card
from hearken.loop.collecting import SamplesOptions
from hearken.loop.project import Project
from hearken.loop.reporting import compose
from hearken.loop.rounds import Loop, plan
from hearken.loop.rounds_options import Selection
from hearken.loop.trace import trace
from hearken.report.page import render

Tales = Callable[..., Project]


def made(project: Project) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in project.artifacts.glob("*/manifest.json")}


def items_of(project: Project, number: int) -> list[QueueItem]:
    rows = (project.artifacts / f"r{number:02d}-samples" / "items.jsonl").read_text("utf-8").splitlines()
    return [QueueItem(**json.loads(row)) for row in rows]


@pytest.mark.slow
def test_two_rounds_leave_their_steps_and_are_not_made_again(tales: Tales) -> None:
    project = tales()
    done = Loop(project).run()
    assert (done["rounds"], done["policy"], done["waiting_for"]) == (2, "r02-ppo", 0)
    kinds = ["samples", "judgments", "reward", "ppo", "evaluation"]
    before = made(project)
    assert set(before) == {f"r{n:02d}-{kind}" for n in (1, 2) for kind in kinds}
    for name, artifact in project.finished(records=True).items():
        assert artifact.manifest["versions"]["hearken"] and "data" in artifact.manifest, name
    assert set(project.finished()) == {"r01-reward", "r01-ppo", "r02-reward", "r02-ppo"}
    again = Loop(Project(project.path)).run()
    assert made(project) == before and again == done
    assert set(plan(project, 3).values()) == {"done", "to do"}

    second = project.artifact("r02-reward")
    assert second is not None
    rounds = {row.metadata["item"] for row in read_examples(second.manifest["inputs"]["data"][0])}
    train = {i.id for n in (1, 2) for i in items_of(project, n)}
    assert rounds <= train and rounds & {i.id for i in items_of(project, 1)}, "fitted on all rounds"
    asked = [{i.prompt_id for i in items_of(project, n)} for n in (1, 2)]
    with project.store() as store:
        held_out = {p.id for p in store.prompts(split="validation")}
        assert {r.policy for r in store.responses(round=2)} == {"r01-ppo"}
    assert asked[0] & asked[1] == asked[0] & held_out and len(asked[0] & held_out) == 4


@pytest.mark.slow
def test_people_are_waited_for(tales: Tales) -> None:
    project = tales(rounds=1, labelers="people", enough=0.5)
    said: list[str] = []
    stopped = Loop(project, wait=False, announce=said.append).run()
    assert stopped["waiting_for"] > 0 and stopped["rounds"] == 0 and not (project.artifacts / "r01-reward").exists()

    def people() -> None:
        time.sleep(0.3)
        with project.store() as store:
            for name in ("ana", "bo"):
                store.add_labeler(Labeler(id=name, name=name))
                for claim in store.claim(name, n=5):
                    ids = claim.item.response_ids
                    payload = ComparisonPayload(response_ids=ids, ranks=tuple(range(len(ids))))
                    store.submit(
                        Judgment(prompt_id=claim.prompt.id, labeler_id=name, item_id=claim.item.id, payload=payload)
                    )

    thread = threading.Thread(target=people)
    thread.start()
    done = Loop(project, announce=said.append).run()
    thread.join()
    assert done["rounds"] == 1 and "hearken serve" in said[0]
    judgments = project.artifact("r01-judgments")
    assert judgments is not None and judgments.metrics["by"] == {"people": 10}
    with project.store() as store:
        assert all(item.done for item in store.items(round=1)), "what was not needed any more is closed"


def test_mixed_labelers_share_the_items(tales: Tales) -> None:
    project = tales(rounds=1, prompts=12, labelers={"simulated": 0.5, "people": 0.5})
    stopped = Loop(project, wait=False).run()
    asked = [item.metadata["asked"] for item in items_of(project, 1)]
    assert {"simulated", "people"} == set(asked)
    with project.store() as store:
        assert stopped["waiting_for"] == 2 * asked.count("people")
        assert len(list(store.judgments())) == 2 * asked.count("simulated")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["disagreement", "disputed", "low-score"])
def test_prompts_are_chosen_and_a_part_stays_uniform(tales: Tales, rule: str) -> None:
    project = tales(select=rule, ensemble=2, prompts=5)
    Loop(project).run()
    with project.store() as store:
        train = {p.id for p in store.prompts(split="train")}
    chosen = [item for item in items_of(project, 2) if item.prompt_id in train]
    rules = [item.selection for item in chosen]
    assert rules.count("uniform") >= 1 and set(rules) == {"uniform", rule}
    assert all(0 < (item.propensity or 0) <= 1 for item in chosen)
    assert {item.selection for item in items_of(project, 1)} == {"uniform"}
    assert (project.artifacts / "r01-reward-2").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["disputed", "low-score"])
def test_the_uniform_part_is_of_all_training_prompts(
    tales: Tales, monkeypatch: pytest.MonkeyPatch, rule: Selection
) -> None:
    """Also of those that the rule would never choose; with the chances that the items say."""

    def answers(project: Any, store: Any, prompts: list[Prompt], *_: Any) -> dict[str, list[Response]]:
        return {p.id: [Response(prompt_id=p.id, text=text) for text in "ab"] for p in prompts}

    monkeypatch.setattr(collecting, "_answers", answers)
    monkeypatch.setattr(collecting, "_weights", lambda project, rule, rewards, prompts, answers: np.ones(len(prompts)))
    project, seeds = tales(), 120
    with project.store() as store:
        train = sorted(p.id for p in store.prompts(split="train"))
        asked, fought_over = train[:9], train[:7]
        for name in ("ana", "bo"):
            store.add_labeler(Labeler(id=name, name=name))
        for prompt in asked:
            pair = [Response(prompt_id=prompt, text=text) for text in "xy"]
            store.add_responses(pair)
            ids = tuple(r.id for r in pair)
            store.enqueue([QueueItem(prompt_id=prompt, response_ids=ids, round=1)])
            for name, ranks in (("ana", (0, 1)), ("bo", (1, 0)))[: 2 if prompt in fought_over else 1]:
                payload = ComparisonPayload(response_ids=ids, ranks=ranks)
                store.submit(Judgment(prompt_id=prompt, labeler_id=name, payload=payload, round=1))
        eligible = set(fought_over) if rule == "disputed" else set(train) - set(asked)
        uniform: Counter[str] = Counter()
        chosen: Counter[str] = Counter()
        for seed in range(seeds):
            options = SamplesOptions(
                k=2, seed=seed, prompts=5, held_out=1, labelers={"simulated": 1.0}, select=rule, uniform=0.4,
                candidates=1.5,
            )  # fmt: skip
            items = collecting._train_items(project, store, 2, {"policy": 1.0}, options, ["reward"])
            at_random = {i.prompt_id for i in items if i.selection == "uniform"}
            by_rule = {i.prompt_id for i in items if i.selection == rule}
            assert (len(at_random), len(by_rule)) == (2, 3) and not at_random & by_rule and by_rule <= eligible
            left = len(eligible - at_random)
            said = {(i.selection, round(i.propensity or 0, 9)) for i in items}
            assert said == {("uniform", 2 / 16), (rule, round(3 / left, 9))}
            uniform.update(at_random)
            chosen.update(by_rule)
    assert set(uniform) == set(train) and set(chosen) == eligible
    spread = 5 * (seeds * 2 / 16 * 14 / 16) ** 0.5
    assert all(abs(count - seeds * 2 / 16) < spread for count in uniform.values())
    assert max(chosen.values()) - min(chosen.values()) < seeds * 0.25, "the weights are equal"


@pytest.mark.slow
def test_earlier_rounds_can_weigh_less_and_models_can_go_on(tales: Tales) -> None:
    project = tales(decay=0.5, reward_start="last", policy_start="last", reference="last")
    Loop(project).run()
    reward, policy = project.artifact("r02-reward"), project.artifact("r02-ppo")
    assert reward is not None and policy is not None
    rows = [r for r in read_examples(reward.manifest["inputs"]["data"][0]) if isinstance(r, Comparison)]
    first = {item.id for item in items_of(project, 1)}
    assert {(r.metadata["item"] in first, r.weight) for r in rows} == {(True, 0.5), (False, 1.0)}
    assert Path(reward.manifest["parents"]["model"]).name == "r01-reward"
    assert Path(policy.manifest["parents"]["model"]).name == "r01-ppo" == Path(policy.manifest["parents"]["ref"]).name


ROLLED = QUICK | {"episodes": 8, "batch_size": 4, "num_generations": 2, "max_new_tokens": 5, "lr": 1e-3}
TRAINED = QUICK | {"batch_size": 8, "lr": 1e-3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [("dpo", TRAINED), ("kto", TRAINED), ("grpo", ROLLED), ("rloo", ROLLED), ("rft", ROLLED), ("online_dpo", ROLLED)],
)
def test_every_method_goes_round_and_is_reported(tales: Tales, method: str, options: dict[str, Any]) -> None:
    project = tales(improve=method, stages={method: options})
    done = Loop(project).run()
    assert (done["rounds"], done["policy"]) == (2, f"r02-{method}")
    reads_reward = method not in ("dpo", "kto")
    assert (project.artifacts / "r02-reward").exists() == reads_reward
    found = compose(project)
    assert (found.policy, found.baseline) == (f"r02-{method}", "model")
    assert found.evaluation.policies.keys() == {"model", f"r01-{method}", f"r02-{method}"}
    assert [(r.number, r.policy) for r in found.rounds] == [(n, f"r{n:02d}-{method}") for n in (1, 2)]
    assert all((r.accuracy is not None) == reads_reward and r.judgments for r in found.rounds)
    assert {row.policy for row in found.evaluation.leaderboard} == {"model", f"r01-{method}", f"r02-{method}"}
    assert (found.reward_model is not None) == reads_reward
    said = f"{render(found)} {' '.join(s.done for s in found.steps)}"
    assert f"r02-{method}" in said and "PPO" not in said.replace("stages.ppo", "").replace("ppo:", "")
    assert f"hearken train {method}" in " ".join(found.recipe.by_step if found.recipe else [])


def test_what_cannot_work_is_said_first(tales: Tales) -> None:
    for more, what in (
        ({"improve": "sft"}, "improves no policy"),
        ({"improve": "dpo", "ptx": ["x.txt"]}, "does not read it"),
        ({"improve": "rloo", "online": {"labels": 5}}, "ppo"),
        ({"improve": "kto", "pessimism": 1.0}, "optimises no reward"),
        ({"improve": "grpo", "watch": {"judge": "gold"}}, "asks nobody"),
    ):
        with pytest.raises(UserError, match=what):
            Loop(tales(name=str(more["improve"]), **more)).run()
    for more, what in (
        ({"labelers": "ai"}, "loop.ai.judge"),
        ({"select": "disagreement"}, "ensemble"),
        ({"labelers": {}}, "somebody"),
        ({"early_stop": "overoptimization"}, "somebody to ask"),
        ({"pessimism": 1.0, "width": "models"}, "ensemble"),
        ({"pessimism": 1.0, "width": "models", "ensemble": 2, "online": {"labels": 5}}, "models that stay"),
    ):
        with pytest.raises(UserError, match=what):
            tales(name="x", **more)
    with pytest.raises(UserError, match="world"):
        Loop(tales(name="w", world="")).run()


@pytest.mark.slow
def test_a_failing_card_stops_the_loop_until_the_owner_decides(tales: Tales) -> None:
    project = tales(rounds=1, trust_reward=False)
    with pytest.raises(UserError, match=r"r01-reward: its card .* not good enough to improve by") as error:
        Loop(project).run()
    assert "--redo" in error.value.hint and "loop.trust_reward=true" in error.value.hint
    assert (project.artifacts / "r01-reward/card.json").exists() and not (project.artifacts / "r01-ppo").exists()
    first = project.artifact("r01-judgments")
    assert first is not None
    with pytest.raises(UserError, match="not good enough"):
        Loop(project, redo=True).run()
    assert not (project.path / "replaced").exists(), "nothing more was said"

    project.sample(2, split="train")
    project.label()
    with pytest.raises(UserError, match="not good enough"):
        Loop(project, redo=True).run()
    more, reward = project.artifact("r01-judgments"), project.artifact("r01-reward")
    assert more is not None and reward is not None
    assert more.metrics["judgments"] > first.metrics["judgments"]
    assert str(more.manifest["data"]["as_of"]) in reward.manifest["inputs"]["data"][0], "fitted again on all of it"

    done = Loop(change(project, trust_reward=True)).run()
    assert done["policy"] == "r01-ppo"
    assert Loop(change(project, trust_reward=False)).run() == done, "what was decided stays decided"


@pytest.mark.slow
def test_caution_reaches_the_policy(tales: Tales) -> None:
    project = tales(rounds=1, ensemble=2, pessimism=1.5, width="models")
    Loop(project).run()
    policy = project.artifact("r01-ppo")
    assert policy is not None
    assert (policy.manifest["options"]["pessimism"], policy.manifest["options"]["width"]) == (1.5, "models")
    assert policy.manifest["inputs"]["reward"].count("r01-reward") == 2
    behind = {parent["name"] for parent in trace("r01-ppo", project).to_json()["parents"]}
    assert {"r01-reward", "r01-reward-2"} <= behind
    first = project.artifacts / "r01-reward"
    assert project.reward() == str(first) and (first / "card.json").exists(), "not the second, which has no card"
    known = RewardCard.load(first)
    assert known is not None and known.shift is not None and known.shift.of == ["r01-ppo"], "of what it improved"
    evaluation = project.artifact("r01-evaluation")
    assert evaluation is not None and Path(evaluation.manifest["parents"]["reward"]).name == "r01-reward"
    card = project_card(project)
    assert card is not None and card.reward == "r01-reward" and card.ensemble is not None


def test_one_loop_at_a_time(tales: Tales) -> None:
    project = tales(rounds=1, labelers="people", poll_seconds=0.1)
    errors: list[Any] = []
    from hearken.loop.rounds import _alone

    with _alone(project.path):
        try:
            Loop(project).run()
        except UserError as error:
            errors.append(error)
    assert "another hearken loop" in str(errors[0])


@pytest.mark.slow
def test_labels_arrive_while_the_policy_trains(tales: Tales) -> None:
    stages = {"ppo": STAGES["ppo"] | {"num_generations": 2, "episodes": 24, "batch_size": 8}}
    project = tales(rounds=1, online={"labels": 12, "refit_every": 4}, stages=stages)
    done = Loop(project).run()
    assert done["policy"] == "r01-ppo"
    policy = project.artifact("r01-ppo")
    assert policy is not None
    refits = sorted(k for k in policy.manifest["parents"] if k.startswith("refit "))
    assert refits, "the reward model was refitted on the way"
    refit = project.artifact("r01-refit-1")
    first = project.artifact("r01-reward")
    assert refit is not None and first is not None
    assert refit.manifest["data"]["rows"] > first.manifest["data"]["rows"]
    newest = project.artifacts / f"r01-refit-{len(refits)}"
    assert project.reward() == str(newest) and (newest / "card.json").exists(), "what improved the policy in the end"
    evaluation = project.artifact("r01-evaluation")
    assert evaluation is not None and Path(evaluation.manifest["parents"]["reward"]).name == newest.name
    assert json.loads((project.path / "evaluation.json").read_text("utf-8"))["reward"] == newest.name
    assert Path(policy.manifest["parents"]["ref"]).name == "model", "the KL reference stays"
    before = made(project)
    assert Loop(Project(project.path)).run() == done and made(project) == before


def test_the_schedule_asks_for_more_at_the_beginning() -> None:
    from hearken.loop.online import due

    asked = [due(n, 10, 100) for n in range(11)]
    assert asked[0] == 0 and asked[-1] == 100 and asked[5] == 75
    assert [b - a for a, b in pairwise(asked)] == [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]
