from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_rows
from torch import Tensor
from transformers import AutoModelForCausalLM

import hearken.algorithms.policy_gradient as pg
from hearken.algorithms import online_dpo, pair_losses, rft
from hearken.algorithms.dpo_options import DPOConfig
from hearken.algorithms.online_dpo import ranks
from hearken.algorithms.stage import train
from hearken.errors import UserError
from hearken.evaluation import rollouts
from hearken.models.layout import Group
from hearken.models.loading import load_policy
from hearken.models.scorers import TokenScorer

SMALL: dict[str, Any] = {
    "batch_size": 16, "num_generations": 4, "episodes": 32, "max_new_tokens": 8, "lr": 3e-3, "trackers": "none",
    "precision": "fp32", "checkpoint_seconds": 1e9,
}  # fmt: skip
WITH_ONE = {"reinforce", "a2c"}


def improve(world, out: Path, stage: str, **more: Any):
    given = {"model": world.sft, "data": world.prompts, "reward": world.reward, "out": out}
    return train(stage, **(given | SMALL | more))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a module of reward functions where `--reward` finds it."""

    def write(body: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(body)
        monkeypatch.syspath_prepend(str(tmp_path))
        return name

    return write


@pytest.mark.parametrize("stage", ["rloo", "grpo", "reinforce", "a2c", "online_dpo", "rft"])
def test_every_stage_runs(world, tmp_path: Path, stage: str) -> None:
    more = {} if stage in ("a2c", "reinforce", "rloo", "grpo") else {"num_generations": 4}
    artifact = improve(world, tmp_path / "out", stage, **more)
    rows = metrics(artifact.path)
    assert artifact.kind == stage and len(rows) == 2
    assert all(math.isfinite(v) for row in rows for v in row.values())
    before = weights(world.sft)
    assert any(not torch.equal(w, before[n]) for n, w in weights(artifact.path).items())
    kept = rollouts.read(artifact.path / "run" / "rollouts.jsonl")
    assert [r.step for r in kept] == [0] * 16 + [1] * 16
    last = kept[16:]
    assert sum(r.reward for r in last) / 16 == pytest.approx(rows[1]["score"], abs=1e-4)
    if stage != "rft":
        assert rows[0]["kl"] == pytest.approx(0, abs=1e-5) and rows[1]["kl"] != 0
        assert sum(r.kl for r in last) / 16 == pytest.approx(rows[1]["kl"], abs=1e-4)
    assert rollouts.browse(rollouts.find(artifact.path), top=2).total == 32


@pytest.mark.parametrize("loss", sorted(pair_losses.WITHOUT_REFERENCE))
def test_losses_without_a_reference_are_the_same_online(
    world, tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update's value is that of the recorded responses, as `train dpo` computes it."""
    seen: list[tuple[Any, Tensor]] = []

    def spy(scorer: Any, batch: Any, reference: Any, options: Any) -> Any:
        found = pair_losses.losses(scorer, batch, reference, options)
        seen.append((batch, found.loss.detach()))
        return found

    monkeypatch.setattr(online_dpo, "losses", spy)
    improve(world, tmp_path / "out", "online_dpo", loss=loss, episodes=16)
    start = TokenScorer(load_policy(str(world.sft)))
    assert seen
    for batch, found in seen:
        torch.testing.assert_close(found, pair_losses.losses(start, batch, None, DPOConfig(loss=loss)).loss)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rloo", "grpo", "reinforce", "a2c", "online_dpo", "rft"])
def test_a_simple_reward_is_learnt(world, tmp_path: Path, stage: str, module) -> None:
    """The share of responses with one word; every method must raise it by far."""
    name = module(
        "def fox(prompts, responses, metadata):\n    return [float('fox' in r) for r in responses]\n", f"fox_{stage}"
    )
    more = {"batch_size": 64, "episodes": 64 * 16, "beta": 0.0, "lr": 1e-2, "missing_eos": None, "schedule": "constant"}
    if stage == "online_dpo":
        more |= {"beta": 0.1, "lr": 3e-3}
    rows = metrics(improve(world, tmp_path / "out", stage, reward=f"{name}:fox", **more).path)
    first, last = (sum(r["score"] for r in part) / len(part) for part in (rows[:2], rows[-2:]))
    assert first < 0.4 and last > first + 0.3, (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["rloo", "grpo", "dr_grpo", "reinforce++"])
def test_microbatches_change_nothing(world, tmp_path: Path, estimator: str) -> None:
    stage = {"rloo": "rloo", "reinforce++": "reinforce"}.get(estimator, "grpo")
    more = {"max_length": 40, "estimator": estimator, "minibatches": 2, "epochs": 2}
    one, many = (weights(improve(world, tmp_path / str(t), stage, tokens=t, **more).path) for t in (8192, 64))
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-5, msg=name)


def test_groups_that_agree_are_skipped_and_counted(world, tmp_path: Path, module) -> None:
    name = module("def same(prompts, responses, metadata):\n    return [1.0] * len(responses)\n", "same_reward")
    for stage in ("rloo", "grpo", "online_dpo", "rft"):
        artifact = improve(world, tmp_path / stage, stage, reward=f"{name}:same", missing_eos=None, episodes=16,
                           **({} if stage == "online_dpo" else {"beta": 0.0}))  # fmt: skip
        assert artifact.metrics["equal_groups"] == 1
        before = weights(world.sft)
        assert all(torch.equal(w, before[n]) for n, w in weights(artifact.path).items()), "nothing to learn from"


def test_held_out_data_is_refused_where_nobody_reads_it(world, tmp_path: Path) -> None:
    for stage in ("rloo", "online_dpo", "rft", "trpo"):
        with pytest.raises(UserError, match=f"train {stage} does not read --validation"):
            improve(world, tmp_path / stage, stage, validation=world.prompts)


def test_one_response_a_prompt(world, tmp_path: Path) -> None:
    for stage in ("rloo", "grpo"):
        with pytest.raises(UserError, match=r"num_generations=1: every advantage would be 0.*hearken train reinforce"):
            improve(world, tmp_path / stage, stage, num_generations=1)
    improve(world, tmp_path / "reinforce", "reinforce", num_generations=1, episodes=16)
    with pytest.raises(UserError, match="num_generations: Input should be greater than or equal to 2"):
        improve(world, tmp_path / "rft", "rft", num_generations=1)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rloo", "grpo"])
def test_the_samplers_log_probabilities_serve(
    world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """In single precision a second pass over what was sampled would find the same."""
    short = improve(world, tmp_path / "short", stage, episodes=48)
    roll_out = pg.roll_out
    with monkeypatch.context() as patch:
        patch.setattr(pg, "roll_out", lambda *args, **how: roll_out(*args, **how | {"trust_sampler": False}))
        long = improve(world, tmp_path / "long", stage, episodes=48)
    for name, weight in weights(long.path).items():
        torch.testing.assert_close(weights(short.path)[name], weight, rtol=0, atol=1e-5, msg=name)
    ours, theirs = metrics(short.path), metrics(long.path)
    assert ["sampler_gap" in row for row in ours] == [True, False, False]
    assert all(row["sampler_gap"] < 1e-5 for row in theirs)
    assert ours[2]["entropy"] == pytest.approx(theirs[2]["entropy"], rel=0.3), "an estimate from the tokens drawn"


def test_in_bf16_it_serves_where_one_update_follows(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first update's ratio is 1 by definition; a second one's must not hang on the rounding."""
    one = metrics(improve(world, tmp_path / "one", "rloo", episodes=48, precision="bf16").path)
    assert ["sampler_gap" in row for row in one] == [True, False, False]
    assert all(row["clip_fraction"] == row["approx_kl"] == 0 for row in one)
    two = metrics(improve(world, tmp_path / "two", "rloo", episodes=48, precision="bf16", minibatches=2).path)
    assert all(1e-6 < row["sampler_gap"] < pg.TRUSTED["bf16"] for row in two)
    monkeypatch.setattr(pg, "TRUSTED", {"bf16": 0.0})
    again = metrics(improve(world, tmp_path / "again", "rloo", episodes=48, precision="bf16").path)
    assert all("sampler_gap" in row for row in again), "another network's probabilities do not serve"
    assert one[1]["kl"] == pytest.approx(again[1]["kl"], abs=0.05)


def test_a_run_resumes_to_the_bit(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(improve(world, tmp_path / "whole", "grpo", episodes=48).path)
    roll_out = pg.roll_out

    def stop(*args: Any, **more: Any) -> Any:
        if args[1] == 2:
            raise KeyboardInterrupt
        return roll_out(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(pg, "roll_out", stop)
        with pytest.raises(KeyboardInterrupt):
            improve(world, tmp_path / "half", "grpo", episodes=48, checkpoint_seconds=0)
    half = weights(improve(world, tmp_path / "half", "grpo", episodes=48, checkpoint_seconds=0).path)
    assert all(torch.equal(half[n], whole[n]) for n in whole)


def test_lora(world, tmp_path: Path) -> None:
    artifact = improve(world, tmp_path / "out", "grpo", lora=4, lr=1e-2)
    assert (artifact.path / "adapter_config.json").exists() and metrics(artifact.path)[0]["kl"] == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no luck')", "raised ValueError: no luck"),
        ("return [1.0]", r"returned 1 numbers for 16 responses"),
        ("return [float('nan')] * len(responses)", "returned nan for the response"),
        ("return ['good'] * len(responses)", "could not convert string to float"),
    ],
)
def test_bad_reward_functions(world, tmp_path: Path, module, body: str, message: str) -> None:
    key = f"bad_{abs(hash(body))}"
    name = module(f"def score(prompts, responses, metadata):\n    {body}\n", key)
    with pytest.raises(UserError, match=message):
        improve(world, tmp_path / "out", "rloo", reward=f"{name}:score")


def test_a_reward_function_that_fails_on_the_way_loses_nothing(world, tmp_path: Path, module) -> None:
    """It fails in the third of three steps; mended, the same command makes that step alone, and the same policy."""
    name = module(
        "import pathlib\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "def score(prompts, responses, metadata):\n"
        "    calls = here / 'calls'\n"
        "    calls.write_text(calls.read_text() + '.' if calls.exists() else '.')\n"
        "    if len(calls.read_text()) == 3:\n"
        "        raise ConnectionError('the service is down')\n"
        "    return [float(len(r)) for r in responses]\n",
        "failing_reward",
    )
    words = {"reward": f"{name}:score", "episodes": 48}
    with pytest.raises(
        UserError, match=r"raised ConnectionError: the service is down\. Mend the function and run the same"
    ):
        improve(world, tmp_path / "out", "rloo", **words)
    artifact = improve(world, tmp_path / "out", "rloo", **words)
    assert [row["step"] for row in metrics(artifact.path)] == [0, 1, 2]
    assert (tmp_path / "calls").read_text() == "....", "the steps before it were not made again"
    whole = weights(improve(world, tmp_path / "whole", "rloo", **words).path)
    assert all(torch.equal(weight, whole[n]) for n, weight in weights(artifact.path).items())


def test_unknown_reward_functions(world, tmp_path: Path, module) -> None:
    name = module("x = 1\n", "empty_reward")
    for reward, message in (
        (f"{name}:score", "has no function 'score'"), ("nonesuch:score", "No module named 'nonesuch'"),
        ("rule:nonesuch", "has no function"), ("rule:length*x", "'x' is not a number"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            improve(world, tmp_path / "out", "rloo", reward=reward)


def test_rewards_add_up_and_see_the_metadata(world, tmp_path: Path, module) -> None:
    name = module(
        "def seen(prompts, responses, metadata):\n"
        "    assert all(p == f\"tell {m['number']} the\" for p, m in zip(prompts, metadata))\n"
        "    return [float(m['number']) for m in metadata]\n",
        "seen_reward",
    )
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": f"tell {i} the", "number": i} for i in range(8)])
    reward = f"{name}:seen*0.5,{name}:seen*-0.25,{world.reward}*0"
    improve(world, tmp_path / "out", "rloo", data=data, reward=reward, missing_eos=None, episodes=16)
    rows = [json.loads(x) for x in (tmp_path / "out/run/rollouts.jsonl").read_text().splitlines()]
    assert all(r["score"] == pytest.approx(0.25 * int(r["prompt"].split()[1])) for r in rows)


def test_ppo_without_a_reward_model(world, tmp_path: Path) -> None:
    for lora in (0, 2):
        artifact = improve(
            world, tmp_path / str(lora), "ppo", reward="rule:distinct", lora=lora, epochs=1, value_warmup=0
        )
        rows = metrics(artifact.path)
        assert rows[0]["explained_variance"] == pytest.approx(0, abs=1e-3), "the value model knows nothing at first"


def test_selection() -> None:
    groups = [Group([1], [[5], [6], [6], [7]]), Group([2], [[5], [6], [7], [8]])]
    scores = torch.tensor([[0.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    (best,) = rft.select(groups, scores, 1.0)
    assert best == Group([1], [[6]])
    (half,) = rft.select(groups, scores, 0.5)
    assert half == Group([1], [[6]])
    (all_but_worst,) = rft.select(groups, scores, 0.2)
    assert all_but_worst == Group([1], [[6], [7]])
    options = rft.RFTConfig(select="percentile")
    assert [rft.percentile(i, 3, options) for i in range(3)] == pytest.approx([0.7, 0.825, 0.95])
    assert ranks(torch.tensor([0.5, 2.0, 0.5, -1.0])) == (1, 0, 1, 2)


def test_a2c_is_the_policy_gradient(world, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="epochs: Input should be 1"):
        improve(world, tmp_path / "out", "a2c", epochs=2)
