from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import tokenizer, write_rows
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import hearken.algorithms.ppo as ppo
from hearken.algorithms.critic import CriticRollout
from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.rollouts import truncate
from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.errors import UserError
from hearken.objectives.policy import last_token
from hearken.rewards.learned import LearnedReward
from hearken.rollout.sampler import Sample

SMALL: dict[str, Any] = {
    "batch_size": 8, "num_generations": 2, "minibatches": 2, "epochs": 2, "episodes": 16, "max_new_tokens": 8,
    "lr": 3e-3,
    "trackers": "none", "precision": "fp32", "checkpoint_seconds": 1e9,
}  # fmt: skip


def improve(world, out: Path, **more: Any):
    inputs = {"model": str(world.sft), "data": (str(world.prompts),), "reward": str(world.reward)}
    inputs |= {k: more.pop(k) for k in ("ptx", "ref", "model", "reward", "data") if k in more}
    return run_stage(find_stage("ppo"), Inputs(**inputs), PPOConfig(**(SMALL | more)), out)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def spy(monkeypatch: pytest.MonkeyPatch) -> list[CriticRollout]:
    """Every batch that `collect` returns."""
    seen: list[CriticRollout] = []
    collect = ppo.collect
    monkeypatch.setattr(ppo, "collect", lambda *args: (seen.append(collect(*args)), seen[-1])[1])
    return seen


def test_a_run_leaves_an_ordinary_model(world, tmp_path: Path) -> None:
    artifact = improve(world, tmp_path / "out", ptx=(str(world.text),))
    rows = metrics(artifact.path)
    assert len(rows) == 2 and rows[0]["step"] == 0
    for row in rows:
        assert row["first_ratio_gap"] < 1e-5 and row["sampler_gap"] < 1e-5
        assert all(math.isfinite(v) for v in row.values())
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5) and rows[1]["kl"] != 0
    assert rows[0]["ptx_loss"] > 0
    assert not (artifact.path / "run/checkpoint.pt").exists()

    model = AutoModelForCausalLM.from_pretrained(artifact.path)
    tok = AutoTokenizer.from_pretrained(artifact.path)
    ids = tok("tell 1 the", return_tensors="pt")
    assert len(tok.decode(model.generate(**ids, max_new_tokens=5, do_sample=False)[0])) > len("tell 1 the")
    before = weights(world.sft)
    assert any(not torch.equal(w, before[n]) for n, w in weights(artifact.path).items())

    rollouts = [json.loads(line) for line in (artifact.path / "run/rollouts.jsonl").read_text().splitlines()]
    assert len(rollouts) == 16 and {r["step"] for r in rollouts} == {0, 1}
    assert rollouts[0].keys() == {"step", "prompt", "completion", "score", "kl", "tokens", "finish_reason"}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"num_generations": 1, "minibatches": 1}])
def test_the_split_into_microbatches_changes_nothing(world, tmp_path: Path, more: dict[str, Any]) -> None:
    more = more | {"ptx": (str(world.text),), "ptx_batch": 4, "max_length": 40}
    one = weights(improve(world, tmp_path / "one", tokens=8192, **more).path)
    many = weights(improve(world, tmp_path / "many", tokens=64, **more).path)
    start = weights(world.sft)
    assert max((one[n] - start[n]).abs().max() for n in one) > 1e-3
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-6, msg=name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(world, tmp_path: Path) -> None:
    a, b, c = (weights(improve(world, tmp_path / n, seed=s).path) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert all(torch.equal(a[n], b[n]) for n in a) and not all(torch.equal(a[n], c[n]) for n in a)


def test_beta_follows_the_kl(world, tmp_path: Path) -> None:
    out = improve(world, tmp_path / "out", episodes=32, kl_target=1e-3, kl_horizon=100, beta=0.1).path
    rows = metrics(out)
    for now, then in pairwise(rows):
        error = min(max(now["kl"] / 1e-3 - 1, -0.2), 0.2)
        assert then["beta"] == pytest.approx(now["beta"] * (1 + error * 8 / 100), abs=2e-6)
    assert rows[1]["beta"] < rows[0]["beta"], "the KL is 0 at first"


def test_rewards_stand_where_they_belong(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    improve(world, tmp_path / "out", beta=0.3, episodes=24, whiten_advantages=False, missing_eos=None)
    for rollout in seen:
        kl = rollout.old_logprobs - rollout.ref_logprobs
        bonus = rollout.rewards + 0.3 * kl * rollout.mask
        ends = last_token(rollout.mask)
        torch.testing.assert_close(bonus[ends], rollout.scores)
        assert bonus[~ends].abs().max() < 1e-6
        torch.testing.assert_close(rollout.returns, rollout.advantages + rollout.values * rollout.mask)


@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
def test_the_score_is_read_at_the_end_token(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: str) -> None:
    """Also where pad == EOS: by transformers' own classifier on the very tokens, the EOS among them."""
    base = shutil.copytree(world.sft, tmp_path / "base")
    tokenizer(pad_token=pad, eos_token="<eos>", bos_token="<bos>").save_pretrained(base)
    seen = spy(monkeypatch)
    improve(
        world,
        tmp_path / "out",
        model=str(base),
        missing_eos=None,
        num_generations=8,
        batch_size=32,
        minibatches=1,
        episodes=32,
    )
    model = AutoModelForSequenceClassification.from_pretrained(world.reward)
    eos = AutoTokenizer.from_pretrained(base).eos_token_id
    (rollout,) = seen
    assert any(s.tokens[-1] == eos for s in rollout.samples)
    for row, sample in enumerate(rollout.samples):
        prompt = rollout.groups[row // 8].prompt
        ids = torch.tensor([[*prompt, *sample.tokens]])
        with torch.no_grad():
            logit = model(ids).logits[0, 0]
        want = logit * model.config.hearken_reward_gain + model.config.hearken_reward_bias
        assert rollout.scores[row] == pytest.approx(want.item(), abs=1e-5)
        assert rollout.mask[row].sum() == len(sample.tokens)


def test_a_response_without_end_scores_minus_one(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    improve(world, tmp_path / "out", missing_eos=-1.0, num_generations=8, batch_size=64, minibatches=1, episodes=64)
    cut = torch.tensor([s.finish_reason == "length" for s in seen[0].samples])
    assert 0 < cut.sum() < len(cut)
    assert (seen[0].scores[cut] == -1).all() and (seen[0].scores[~cut] != -1).all()


def test_truncation_at_a_token() -> None:
    class Policy:
        class tokenizer:
            @staticmethod
            def decode(ids: list[int]) -> str:
                return "ab\n."[ids[0]]

    def cut(tokens: list[int], reason: str = "length") -> Sample:
        return truncate(Sample(0, tokens, [0.0] * len(tokens), reason), SimpleNamespace(policy=Policy()), "\n")  # type: ignore[arg-type]

    assert cut([0, 2, 1, 2, 3]) == Sample(0, [0, 2], [0.0, 0.0], "stop")
    assert cut([0, 1, 2]).finish_reason == "stop", "also where it is the very last"
    assert cut([0, 1]) == Sample(0, [0, 1], [0.0, 0.0], "length")


def test_truncated_responses_train(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    out = improve(world, tmp_path / "out", truncate_at="e", num_generations=4, batch_size=32, minibatches=1).path
    tok = AutoTokenizer.from_pretrained(out)
    for s in seen[0].samples:
        assert not any("e" in tok.decode([t]) for t in s.tokens[:-1])


def test_batch_is_honoured_with_few_prompts(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    few = write_rows(tmp_path / "few.jsonl", [{"prompt": "tell"}, {"prompt": "the fox"}, {"prompt": "tell"}])
    improve(world, tmp_path / "out", data=(str(few),), batch_size=8)
    assert all(len(rollout.samples) == 8 for rollout in seen)
    assert len({tuple(s.tokens) for s in seen[0].samples}) > 4, "a repeated prompt has draws of its own"


def test_a_reward_with_another_tokenizer_reads_text(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words under other ids score as the reward model's own encoding of the text."""
    base = shutil.copytree(world.sft, tmp_path / "base")
    spec = json.loads((base / "tokenizer.json").read_text())
    vocabulary = spec["model"]["vocab"]
    vocabulary["o"], vocabulary["e"] = vocabulary["e"], vocabulary["o"]
    (base / "tokenizer.json").write_text(json.dumps(spec))
    seen = spy(monkeypatch)
    improve(world, tmp_path / "out", model=str(base), missing_eos=None)
    mine, its = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(world.reward)
    model = AutoModelForSequenceClassification.from_pretrained(world.reward)
    for row, s in enumerate(seen[0].samples):
        prompt = mine.decode(seen[0].groups[row // 2].prompt)
        ids = its(prompt)["input_ids"] + its(mine.decode(s.tokens, skip_special_tokens=True))["input_ids"]
        ids += [its.eos_token_id] if s.finish_reason == "stop" else []
        with torch.no_grad():
            want = model(torch.tensor([ids])).logits[0, 0] * model.config.hearken_reward_gain
        assert seen[0].scores[row] == pytest.approx(want.item() + model.config.hearken_reward_bias, abs=1e-4)


def poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the reward NaN in iteration ``at``."""
    call = LearnedReward.__call__
    count = iter(range(100))

    def bad(self: Any, groups: Any) -> Tensor:
        scores = call(self, groups)
        return scores.fill_(float("nan")) if next(count) == at else scores

    monkeypatch.setattr(LearnedReward, "__call__", bad)


@pytest.mark.slow
def test_a_nan_reward_stops_before_the_weights_change(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        poison(patch, at=1)
        with pytest.raises(UserError, match=r"8 responses as NaN.*bad-batch-step-1.*same command replays") as told:
            improve(world, out, checkpoint_seconds=0)
    assert "\n" not in str(told.value)
    batch = json.loads((out / "run/bad-batch-step-1.json").read_text())
    assert batch["step"] == 1 and len(batch["groups"]) == 4 and len(batch["groups"][0]["responses"]) == 2
    saved = torch.load(out / "run/checkpoint.pt")
    assert saved["step"] == 1

    again = improve(world, out, checkpoint_seconds=0)  # the same command, the cause mended
    whole = improve(world, tmp_path / "whole")
    a, b = weights(again.path), weights(whole.path)
    assert all(torch.equal(a[n], b[n]) for n in a)
    replayed = [json.loads(x)["completion"] for x in (out / "run/rollouts.jsonl").read_text().splitlines()]
    tok = AutoTokenizer.from_pretrained(out)
    bad = [tok.decode(r, skip_special_tokens=True) for g in batch["groups"] for r in g["responses"]]
    assert replayed[8:] == bad, "the very batch that was written"


@pytest.mark.parametrize("who", ["policy", "value"])
def test_a_bad_gradient_of_either_network_stops_both(world, tmp_path: Path, monkeypatch, who: str) -> None:
    networks: list[Any] = []
    learn = ppo.learn

    def spoiled(setup: Any, *args: Any) -> Any:
        networks[:] = [setup.scorer, setup.value]
        before = [p.detach().clone() for m in networks for p in m.parameters()]
        next(networks[who == "value"].parameters()).register_hook(lambda g: g * float("inf"))
        try:
            return learn(setup, *args)
        finally:
            assert all(map(torch.equal, before, (p for m in networks for p in m.parameters())))

    monkeypatch.setattr(ppo, "learn", spoiled)
    with pytest.raises(UserError, match="gradient's norm"):
        improve(world, tmp_path / "out")


def test_top_p_warns(world, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="KL wrong"):
        improve(world, tmp_path / "out", top_p=0.9, episodes=8)
