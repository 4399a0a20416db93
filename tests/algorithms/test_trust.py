"""Training on a reward that fails its card is refused; pessimism reaches every stage that optimises a reward."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hearken import sample
from hearken.algorithms.stage import train
from hearken.domains.best_of import BestOf, best_of_name
from hearken.domains.text.measuring import measure
from hearken.domains.text.rewarding import confidence_of
from hearken.domains.text.sampling import Sampled, best_of, open_frozen
from hearken.errors import UserError
from hearken.models.layout import Group
from hearken.models.loading import load_reward
from hearken.models.scorers import RewardScorer
from hearken.rewards.confidence import last_layer
from hearken.rewards.learned import LearnedReward
from hearken.rollout.sampler import SamplingParameters

SMALL = {
    "episodes": 8, "batch_size": 8, "max_new_tokens": 4, "trackers": "none", "precision": "fp32", "epochs": 1,
    "lr": 1e-3,
}  # fmt: skip


@pytest.fixture
def reward(world, tmp_path):
    folder = tmp_path / "reward"
    shutil.copytree(world.reward, folder)
    return folder


def test_a_failed_card_refuses_and_can_be_overridden(world, reward, tmp_path) -> None:
    card = {"passes": False, "failures": ["It cannot be told from a coin."], "remarks": ["There are two groups."]}
    (reward / "card.json").write_text(json.dumps(card))
    given = {"model": world.sft, "data": world.prompts, "reward": reward, "out": tmp_path / "out"}
    for stage in ("ppo", "rloo"):
        with pytest.raises(UserError, match="cannot be told from a coin") as caught:
            train(stage, **given, **SMALL)
        assert "--trust-reward" in caught.value.hint and not (tmp_path / "out").exists()
        assert "two groups" not in str(caught.value), "what the card remarks is no reason against it"
    made = train("ppo", **given, **SMALL, trust_reward=True)
    assert made.metrics["steps"] == 1


def test_pessimism_computes_its_confidence_once(world, reward, tmp_path) -> None:
    given = {"model": world.sft, "data": world.prompts, "reward": reward}
    plain = train("ppo", **given, out=tmp_path / "plain", **SMALL)
    careful = train("ppo", **given, out=tmp_path / "careful", pessimism=2.0, **SMALL)
    assert (reward / "confidence.safetensors").is_file()
    assert careful.metrics["score"] < plain.metrics["score"]
    heads = train("rloo", **given, out=tmp_path / "heads", pessimism=2.0, width="heads", num_generations=2, **SMALL)
    assert heads.metrics["steps"] == 1


@pytest.mark.slow
def test_the_best_of_several_by_a_cautious_score(world, reward) -> None:
    """Whoever doubts the reward chooses what it has seen more of: in Python and where policies are compared."""
    policy, how = open_frozen(str(world.sft), reserve=4), SamplingParameters(max_new_tokens=4)
    prompts = [f"tell {i} the" for i in range(8)]

    def chosen(pessimism: float, width: str = "linear") -> list[Sampled]:
        parts = best_of(policy, prompts, 1, BestOf(8, str(reward), pessimism, width), how, 0)
        return [one for part in parts for one in part]

    learned = LearnedReward(RewardScorer(load_reward(str(reward))), 200)
    sure = confidence_of(str(reward), learned)

    def seen(some: list[Sampled]) -> torch.Tensor:
        return last_layer(learned, [Group(policy.encoder.prompt(s.prompt), [s.tokens]) for s in some])

    plain = chosen(0.0)
    for width, measured in (("linear", sure.linear), ("heads", sure.spread)):
        careful = chosen(1e4, width)
        assert [s.text for s in careful] != [s.text for s in plain]
        assert measured(seen(careful)).mean() < measured(seen(plain)).mean()
        texts = [s.text for s in careful]
        doubt = {"best_of": 8, "reward": reward, "pessimism": 1e4, "width": width}
        assert [one for (one,) in sample(world.sft, prompts, **doubt, max_new_tokens=4)] == texts
        name = f"{best_of_name(8, 1e4, width)}@{world.sft}"
        assert measure(name, None, prompts, how, 0, by=str(reward)).texts == texts
    with pytest.raises(UserError, match="no reward chooses"):
        sample(world.sft, prompts, pessimism=1.0)


def test_pessimism_over_models(world, reward, tmp_path) -> None:
    given = {"model": world.sft, "data": world.prompts, "out": tmp_path / "out", "pessimism": 1.0, "width": "models"}
    with pytest.raises(UserError, match="two or more"):
        train("ppo", **given, reward=reward, **SMALL)
    assert train("ppo", **given, reward=f"{reward},{world.reward}", **SMALL).metrics["steps"] == 1
    (reward / "manifest.json").unlink()
    with pytest.raises(UserError, match="comparisons it was trained on"):
        train("ppo", **(given | {"width": "linear", "out": tmp_path / "other"}), reward=reward, **SMALL)


def shorter(prompts, responses, metadata):
    return [-float(len(r)) for r in responses]


@pytest.mark.slow
def test_a_judge_compares_with_the_reference_keeps_the_best_policy_and_can_stop_the_run(
    world, tmp_path, monkeypatch
) -> None:
    from hearken.algorithms import watch

    given = {"model": world.sft, "data": world.prompts, "reward": world.reward}
    with pytest.raises(UserError, match="someone to ask"):
        train("ppo", **given, out=tmp_path / "none", early_stop="overoptimization", **SMALL)
    with pytest.raises(UserError, match=r"hearken loop|project's rounds"):
        train("ppo", **given, out=tmp_path / "none", judge="people", **SMALL)
    options = SMALL | {"episodes": 48, "judge": "test_trust:shorter", "judge_every": 2}
    made = train("ppo", **given, out=tmp_path / "watched", **options)
    rows = [json.loads(line) for line in (made.path / "run" / "metrics.jsonl").read_text().splitlines()]
    judged = {row["step"]: row["judge"] for row in rows if "judge" in row}
    assert list(judged) == [0, 2, 4, 6], "the last weights are judged too"
    assert judged[0] == 0.5, "before it learns, the policy is the reference"
    assert judged[made.metrics["best_step"]] == pytest.approx(max(judged.values()), abs=1e-5)
    assert made.metrics["judge"] == pytest.approx(max(judged.values()), abs=1e-5)
    assert made.manifest["data"]["prompts"] == 20 and made.metrics["judge_prompts"] == 4, "a fifth is set aside"
    assert "few to tell" in made.metrics["says"]

    class Parted:
        fooled, peak, proxy_rise, gold_fall = True, 2.0, 0.5, 0.25

    monkeypatch.setattr(watch, "find_divergence", lambda steps, proxy, judged: Parted() if len(steps) > 2 else None)
    validation = tmp_path / "validation.jsonl"
    validation.write_text("".join(json.dumps({"prompt": f"tell {i} the"}) + "\n" for i in range(30, 36)), "utf-8")
    more = options | {"early_stop": "overoptimization", "validation": validation}
    stopped = train("ppo", **given, out=tmp_path / "stopped", **more)
    assert stopped.metrics["steps"] == 4 and stopped.metrics["fooled"] is True
    assert "fooled after 2 iterations: from there on it rose by 0.5" in stopped.metrics["says"]
    assert stopped.metrics["judge_prompts"] == 6 and stopped.manifest["data"]["prompts"] == 24


def test_watch_brings_back_the_weights_that_won_most_and_survives_a_checkpoint() -> None:
    from hearken.algorithms import watch
    from hearken.algorithms.ppo_options import PPOConfig

    scorer = torch.nn.Module()
    scorer.register_parameter("weight", torch.nn.Parameter(torch.zeros(3)))
    setup: Any = SimpleNamespace(scorer=scorer)
    wins = iter([0.5, 0.9, 0.6])

    def new() -> watch.Watch:
        options = PPOConfig(judge_every=1)
        return watch.Watch(lambda step, answered: watch.Verdicts([]), setup, watch.Prompts([], []), options)

    watched = new()
    for step, value in enumerate(wins):
        watched.record(step, float(step), value)
        scorer.weight.data += 1
    watched.heard = {"two", "one"}
    again = new()
    again.load_state_dict(watched.state_dict())
    assert again.heard == {"one", "two"}
    assert again.before(1) == {"judge": 0.9, "judge_proxy": 1.0}, "a look that was made is not made again"
    found = again.restore()
    assert found["best_step"] == 1 and found["judge_last"] == 0.6 and not found["fooled"]
    assert torch.equal(scorer.weight.data, torch.ones(3))


def test_who_scores_higher_wins() -> None:
    from hearken.algorithms.watch import Answered, ByScore

    group = Group([1], [[2], [3]])
    answered = [Answered("p", "a", "b", group)] * 3
    scores = iter([torch.tensor([1.0, 2.0, 3.0, 3.0, 2.0, 1.0])])
    assert ByScore(lambda groups: next(scores))(0, answered).outcomes == [0.0, 0.5, 1.0]


@pytest.mark.slow
def test_a_reward_for_each_group_and_a_policy_for_the_worst_off(world, tmp_path) -> None:
    rows = []
    for i in range(16):
        group = "ab"[i % 2]
        good, bad = (" fox home", " sadly") if group == "a" else (" sadly", " fox home")
        facts = {"labeler": f"l{i % 4}", "attributes": {"group": group}}
        rows.append({"prompt": f"tell {i} the", "chosen": good, "rejected": bad, **facts})
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    options = {"lr": 3e-3, "epochs": 2, "batch_size": 8, "validation": 0.0, "trackers": "none", "precision": "fp32"}
    made = {
        g: train("reward", model=world.base, data=data, out=tmp_path / g, only=f"group={g}", **options) for g in "ab"
    }
    assert all(m.manifest["data"]["judgments"] == 8 for m in made.values())
    with pytest.raises(UserError, match="no judgment has group=c"):
        train("reward", model=world.base, data=data, out=tmp_path / "c", only="group=c", **options)
    both = f"{made['a'].path},{made['b'].path}"
    given = {"model": world.sft, "data": world.prompts, "reward": both}
    mixed = train("ppo", **given, out=tmp_path / "sum", **SMALL)
    least = train("ppo", **given, out=tmp_path / "min", combine="min", **SMALL)
    assert least.metrics["score"] != mixed.metrics["score"]
