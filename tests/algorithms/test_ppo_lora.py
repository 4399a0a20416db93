from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_ppo import SMALL, improve, metrics, spy, weights
from transformers import AutoModelForCausalLM

import hearken.algorithms.policy_gradient as pg
import hearken.algorithms.ppo as ppo
from hearken.algorithms.policy_gradient_options import ReinforceConfig
from hearken.algorithms.ppo_options import PPOConfig
from hearken.algorithms.stage import Inputs, find_stage, train
from hearken.algorithms.value_model import CriticSetup
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_policy
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters
from hearken.training.estimate import weight_bytes
from hearken.training.optimiser import Optimiser


def ready_for(world, **more) -> CriticSetup:
    inputs = Inputs(model=str(more.pop("model", world.sft)), data=(str(world.prompts),), reward=str(world.reward))
    return ppo.load(inputs, PPOConfig(**(SMALL | more)))


@pytest.mark.slow
def test_reference_is_the_policy_without_its_adapter(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    kept: list[CriticSetup] = []
    load = ppo.load
    monkeypatch.setattr(ppo, "load", lambda *args: (kept.append(load(*args)), kept[-1])[1])
    out = improve(world, tmp_path / "out", lora=4, episodes=32, lr=1e-2).path
    rows = metrics(out)
    assert rows[0]["kl"] == 0 and rows[-1]["kl"] > 1e-3, "B is zero at first; then the policy moves"

    models = kept[0]
    frozen = load_policy(str(world.sft)).state_dict()
    for name, weight in models.scorer.model.state_dict().items():
        if "lora" not in name:
            assert torch.equal(weight, frozen[name.replace(".base_layer", "")]), "not one bit of the base has changed"
    base = AutoModelForCausalLM.from_pretrained(world.sft)
    for rollout in (seen[0], seen[-1]):
        ids = torch.tensor([[*rollout.groups[0].prompt, *rollout.groups[0].responses[0]]])
        n = len(rollout.groups[0].responses[0])
        with torch.no_grad():
            want = torch.log_softmax(base(ids).logits[0, -n - 1 : -1], -1).gather(1, ids[0, -n:, None])[:, 0]
            again = models.reference(lay_out(rollout.groups)).logprobs
        torch.testing.assert_close(rollout.ref_logprobs[0, :n], want, rtol=0, atol=1e-5)
        torch.testing.assert_close(again, rollout.ref_logprobs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_reference_that_is_the_start_costs_nothing(world) -> None:
    """A project always names it."""
    options = {"lora": 2, "batch_size": 8, "max_new_tokens": 8}
    for ref, shared in ((None, True), (world.sft, True), (world.base, False)):
        inputs = Inputs(
            model=str(world.sft), data=(str(world.prompts),), reward=str(world.reward), ref=ref and str(ref)
        )  # fmt: skip
        models = ppo.load(inputs, PPOConfig(**options))
        ready = pg.load(inputs, ReinforceConfig(**options))
        assert (models.reference.model is models.scorer.model) == shared
        assert (ready.reference.model is ready.policy.scorer.model) == shared
        assert models.reference.adapter != models.scorer.adapter


def test_the_value_model_learns_and_the_reward_model_does_not(world, tmp_path: Path, monkeypatch) -> None:
    """They are one network; the reward model's pass (adapters off) must not freeze the value model's adapter."""
    ready = ready_for(world, lora=4)
    trained = {n for n, p in ready.value.named_parameters() if p.requires_grad}
    assert any("lora_A.value" in n for n in trained) and any("own_head" in n for n in trained)
    assert all("lora" in n or "own_head" in n for n in trained)
    scores = ready.reward
    groups = [Group([5, 6, 7], [[8, 9], [10]])]
    before = scores(groups)
    value = ready.value
    optimiser = Optimiser([value], PPOConfig(lora=4, lr=1e-2), 10)
    first = value(lay_out(groups)).detach()
    for step in range(3):
        (value(lay_out(groups)) ** 2).sum().backward()
        scores(groups)  # in between, as in a run
        optimiser.step(step)
    assert torch.equal(scores(groups), before)
    assert (value(lay_out(groups)) - first).abs().max() > 1e-3
    moved = [n for n, p in value.named_parameters() if "lora_B" in n and p.abs().max() > 0]
    assert moved, "the adapter itself was trained, not only the head"


def test_what_is_sampled_is_the_policys_whoever_computed_last(world) -> None:
    """The reference's pass switches the adapter off; the sampler must not go on like that."""
    models = ready_for(world, lora=4)
    with torch.no_grad():
        for name, weight in models.scorer.named_parameters():
            if "lora_B.policy" in name:
                weight.normal_(0, 0.5)
        sampler = NativeSampler(models.scorer, [])
        models.reference(lay_out([Group([5, 6, 7], [[8, 9]])]))
        (found,) = sampler.sample([[5, 6, 7]], 1, SamplingParameters(max_new_tokens=6), [0])
        layout = lay_out([Group([5, 6, 7], [found.tokens])])
        mine, theirs = (scorer(layout).logprobs[0] for scorer in (models.scorer, models.reference))
    assert torch.tensor(found.logprobs) == pytest.approx(mine, abs=1e-4)
    assert (mine - theirs).abs().max() > 1e-2


@pytest.mark.slow
def test_the_folder_loads_and_can_be_continued(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = improve(world, tmp_path / "first", lora=4, lr=1e-2).path
    assert {p.name for p in first.glob("adapter*")} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not (first / "model.safetensors").exists()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(world.sft)(ids).logits
        adapted = AutoModelForCausalLM.from_pretrained(first)(ids).logits
    assert (adapted - base).abs().max() > 1e-3

    seen = spy(monkeypatch)
    second = improve(world, tmp_path / "second", model=str(first), lora=4, lr=1e-2).path
    assert metrics(second)[0]["kl"] == 0, "the reference is the first adapter, not the bare model"
    n = len(seen[0].groups[0].responses[0])
    whole = torch.tensor([[*seen[0].groups[0].prompt, *seen[0].groups[0].responses[0]]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(first)(whole).logits[0, -n - 1 : -1]
    want = torch.log_softmax(logits, -1).gather(1, whole[0, -n:, None])[:, 0]
    torch.testing.assert_close(seen[0].ref_logprobs[0, :n], want, rtol=0, atol=1e-5)
    a, b = (weights(p) for p in (first, second))
    assert any(not torch.equal(a[k], b[k]) for k in a if "lora" in k)


def test_memory_is_that_of_two_networks_not_four(world) -> None:
    """Bytes of parameter storage, each storage counted once."""

    def measured(lora: int) -> tuple[int, int]:
        models = ready_for(world, lora=lora)
        modules = {"policy": models.scorer, "reference": models.reference, "value": models.value,
                   "reward": models.reward.scorer}  # fmt: skip
        every = {p.untyped_storage().data_ptr(): p for m in modules.values() for p in m.parameters()}
        assert sum(weight_bytes(modules).values()) == sum(p.untyped_storage().nbytes() for p in every.values())
        trained = sum(p.numel() for p in every.values() if p.requires_grad)
        return sum(weight_bytes(modules).values()), trained

    (full, all_trained), (shared, few) = measured(0), measured(2)
    adapters = 4 * few
    assert abs(shared - adapters - full / 2) < 0.01 * full
    assert few < all_trained / 4


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_other_stages_with_lora(world, tmp_path: Path, stage: str) -> None:
    data = world.demonstrations if stage == "sft" else world.pairs
    out = tmp_path / "out"
    options = {"lr": 1e-2, "batch_size": 8, "epochs": 3, "trackers": "none", "precision": "fp32", "lora": 4}
    train(stage, model=world.base, data=data, out=out, **options)
    losses = [row["loss"] for row in metrics(out)]
    assert losses[-1] < losses[0]
    if stage == "sft":
        assert (out / "adapter_config.json").exists()
        second = train("reward", model=out, data=world.pairs, out=tmp_path / "rm", **options)  # merged first
        assert not (second.path / "adapter_config.json").exists()
    assert find_stage(stage).name == json.loads((out / "manifest.json").read_text())["kind"]


PEAK = """
import sys
from pathlib import Path
from hearken.algorithms.stage import train
from hearken.progress import quiet
base, reward, data, out, lora = sys.argv[1:]
with quiet():
    train("ppo", model=base, data=data, reward=reward, out=out, lora=int(lora), batch_size=4, episodes=4, epochs=1,
          max_new_tokens=4, trackers="none", precision="fp32", tokens=256)
# Not ru_maxrss, which a child inherits from whoever started it.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_peak_memory(world, tmp_path: Path) -> None:
    """12 million weights: full training holds two networks' gradients and moments more, six copies; LoRA hardly any.

    (Weights that are only read stay mapped from their file, so the two frozen copies hardly count on a CPU.)
    """
    from tiny_models import write_base

    base = write_base(tmp_path / "base", hidden_size=512, intermediate_size=1024, num_hidden_layers=5)
    size = (base / "model.safetensors").stat().st_size
    reward = train("reward", model=base, data=world.pairs, out=tmp_path / "rm", epochs=0.1, trackers="none").path
    peaks = {}
    for lora in (0, 4):
        command = [
            sys.executable,
            "-c",
            PEAK,
            str(base),
            str(reward),
            str(world.prompts),
            str(tmp_path / f"o{lora}"),
            str(lora),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[lora] = 1024 * int(done.stdout.split()[-1])
    assert peaks[0] - peaks[4] > 5 * size
