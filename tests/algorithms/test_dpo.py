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

import hearken.algorithms.dpo as dpo
import hearken.training.reference as reference
from hearken.algorithms import pair_losses
from hearken.algorithms.dpo_options import DPOConfig, ORPOConfig
from hearken.algorithms.online_dpo_options import OnlineDPOConfig
from hearken.algorithms.stage import Inputs, estimate, find_stage, train
from hearken.domains.text.data import Judged
from hearken.errors import UserError
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_policy
from hearken.models.scorers import TokenScorer
from hearken.objectives import direct

SMALL: dict[str, Any] = {
    "lr": 3e-3, "epochs": 4, "batch_size": 8, "trackers": "none", "precision": "fp32", "checkpoint_seconds": 1e9,
}  # fmt: skip
LOSSES = ["dpo", "cdpo", "robust", "ipo", "hinge", "simpo", "orpo"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"


def fit(world, out: Path, stage: str = "dpo", **more: Any):
    return train(stage, **({"model": world.sft, "data": world.pairs, "out": out} | SMALL | more))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_who_was_preferred(world, tmp_path: Path, loss: str) -> None:
    slow = {"lr": 1e-3, "epochs": 8} if loss == "ipo" else {}  # a squared loss overshoots
    artifact = fit(world, tmp_path / "out", loss=loss, beta=2.0 if loss == "simpo" else 0.3, **slow)
    rows = metrics(artifact.path)
    assert rows[-1]["accuracy"] == 1 and rows[-1]["loss"] < rows[0]["loss"]
    assert (loss == "ipo" or artifact.metrics["accuracy"] > 0.9) and artifact.metrics["validation_pairs"] > 0
    assert math.isfinite(artifact.metrics["validation_loss"])
    if loss in ("dpo", "ipo", "hinge"):
        start = {"dpo": math.log(2), "ipo": (1 / 0.6) ** 2, "hinge": 1.0}[loss]
        assert rows[0]["loss"] == pytest.approx(start, rel=1e-4), "policy and reference are the same at first"


@pytest.mark.parametrize("stage", ["dpo", "ipo", "simpo", "orpo"])
def test_stages(world, tmp_path: Path, stage: str) -> None:
    artifact = fit(world, tmp_path / "out", stage, epochs=1)
    assert artifact.kind == stage and artifact.manifest["options"]["loss"] == stage
    before = weights(world.sft)
    assert any(not torch.equal(w, before[n]) for n, w in weights(artifact.path).items())
    found = find_stage(stage)
    options = found.options.parse({k: v for k, v in SMALL.items() if k != "epochs"} | {"epochs": 1})
    dry = estimate(found, Inputs(model=str(world.sft), data=(str(world.pairs),)), options)
    assert dry["steps"] == artifact.metrics["steps"] and dry["seconds"] > 0


def test_rankings(world, tmp_path: Path) -> None:
    for rankings in ("plackett_luce", "pairs"):
        artifact = fit(world, tmp_path / rankings, data=world.rankings, rankings=rankings, epochs=6, beta=0.3)
        rows = metrics(artifact.path)
        assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["accuracy"] > 0.8
    assert metrics(tmp_path / "plackett_luce")[0]["loss"] > metrics(tmp_path / "pairs")[0]["loss"]


def judged(ranks: tuple[int, ...], **more: Any) -> Judged:
    responses = [[20 + k, 1] for k in range(len(ranks))]
    return Judged(Group([5, 6, 7], responses), "comparison", ranks, **more)


def test_strengths_votes_and_weights_reach_the_loss(world) -> None:
    scorer = TokenScorer(load_policy(str(world.sft)))

    def loss(one: Judged, **options: Any) -> float:
        layout = lay_out([one.group])
        fixed = direct.sequence_logprobs(scorer(layout).logprobs, layout.mask).detach()
        return pair_losses.losses(scorer, [one], fixed, DPOConfig(**options)).loss.item()

    up = math.log1p(math.exp(0.5))
    assert loss(judged((0, 1), strength=0.5), margin=1.0) == pytest.approx(up, abs=1e-5)
    assert loss(judged((0, 1), weight=3.0)) == pytest.approx(3 * math.log(2), abs=1e-5)
    assert loss(judged((0, 1), share=0.25), loss="ipo", beta=0.5) == pytest.approx(1.0, abs=1e-5)
    assert loss(judged((0, 0)), loss="hinge") == pytest.approx(1.0, abs=1e-5)


def test_orpo_is_odds_and_imitation_by_any_door(world) -> None:
    """Mean negative log-likelihood of the best responses (of several tied ones, their mean) + β x the odds' loss."""
    scorer = TokenScorer(load_policy(str(world.sft)))

    def loss(one: Judged, **options: Any) -> float:
        return pair_losses.losses(scorer, [one], None, DPOConfig(loss="orpo", **options)).loss.item()

    layout = lay_out([judged((0, 1, 2)).group])
    mean = direct.sequence_logprobs(scorer(layout).logprobs, layout.mask, average=True).detach()
    odds = [math.log(p / (1 - p)) for p in mean.double().exp().tolist()]
    apart = 0.1 * math.log1p(math.exp(odds[1] - odds[0]))
    assert loss(judged((0, 1, -1))) == pytest.approx(apart - mean[0].item(), rel=1e-4)
    assert loss(judged((0, 1, -1)), sft_coef=0) == pytest.approx(apart, rel=1e-4), "β stays where nothing is imitated"
    tied = judged((0, 1, 0))
    imitated = loss(tied) - loss(tied, sft_coef=0)
    assert imitated == pytest.approx(-(mean[0] + mean[2]).item() / 2, rel=1e-4)
    assert [o.imitation for o in (DPOConfig(), ORPOConfig(), OnlineDPOConfig(loss="orpo"))] == [0, 1, 1]


@pytest.mark.parametrize("loss", sorted(pair_losses.WITHOUT_REFERENCE))
def test_no_reference_is_opened_or_read_where_the_loss_has_none(world, loss: str) -> None:
    inputs = Inputs(model=str(world.sft), data=(str(world.pairs),), ref=str(world.base))
    with pytest.warns(UserWarning, match="has no reference policy: --ref is not read"):
        ready = dpo.load(inputs, DPOConfig(loss=loss, cache_reference=False))
    assert ready.reference is None
    options, some = DPOConfig(loss=loss), ready.data[:3]
    alone, beside = (pair_losses.losses(ready.policy.scorer, some, ref, options).loss for ref in (None, torch.zeros(6)))
    assert torch.equal(alone, beside)


def test_microbatches_change_nothing(world, tmp_path: Path) -> None:
    more = {"max_length": 40, "epochs": 2, "lr": 1e-3}
    one, many = (weights(fit(world, tmp_path / str(t), tokens=t, **more).path) for t in (8192, 64))
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-5, msg=name)


def test_the_reference_is_computed_once_and_found_again(world, tmp_path: Path, cache: Path, monkeypatch) -> None:
    first = fit(world, tmp_path / "one", epochs=2)
    kept = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(kept) == 2, "training and held-out data"
    monkeypatch.setattr(reference, "save_file", lambda *_: pytest.fail("computed again"))
    again = fit(world, tmp_path / "two", epochs=2)
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == kept
    a, b = weights(first.path), weights(again.path)
    assert all(torch.equal(a[n], b[n]) for n in a)
    inside = weights(fit(world, tmp_path / "three", epochs=2, cache_reference=False).path)
    for name, weight in a.items():
        torch.testing.assert_close(inside[name], weight, rtol=0, atol=1e-5, msg=name)
    monkeypatch.undo()
    monkeypatch.setenv("HEARKEN_CACHE", str(cache.parent))
    fit(world, tmp_path / "four", epochs=1, ref=world.base)
    assert len(list(cache.iterdir())) == 4, "another reference is another key"


def test_adapters_off_is_the_reference(world, tmp_path: Path) -> None:
    artifact = fit(world, tmp_path / "out", lora=4, lr=1e-2)
    rows = metrics(artifact.path)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5) and rows[-1]["accuracy"] == 1
    assert (artifact.path / "adapter_config.json").exists()
    inside = fit(world, tmp_path / "inside", lora=4, lr=1e-2, cache_reference=False)
    assert metrics(inside.path)[-1]["loss"] == pytest.approx(rows[-1]["loss"], rel=1e-3)


def test_what_cannot_be_compared_is_counted(world, tmp_path: Path) -> None:
    rows = [{"prompt": f"tell {i} the", "chosen": " fox runs home", "rejected": " owl sleeps"} for i in range(8)]
    rows.append({"prompt": "tell 9 the", "chosen": " fox " * 60 + "a", "rejected": " fox " * 60 + "b"})
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.warns(UserWarning, match="left out: identical responses: 1"):
        artifact = fit(world, tmp_path / "out", data=data, max_length=24, validation=0)
    assert artifact.manifest["data"]["left_out"] == {"identical responses": 1, "no preference": 0}
    assert artifact.manifest["data"]["judgments"] == 8


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([{"prompt": "a", "completion": "b", "label": True}], {}, "is a thumb, not a comparison.*hearken train kto"),
        ([{"prompt": "a", "completion": "b", "ratings": {"x": 3}}], {}, "is a rating, not a comparison"),
        ([{"prompt": "a", "responses": ["b", "c"], "ranks": [0, 0]}], {"ties": "drop"}, "holds nothing to compare"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], {"ref": "none/of/these"}, "none/of/these does not exist"),
        ([{"prompt": "a", "chosen": "b", "rejected": "c"}], {"reward": "x"}, "does not read --reward"),
    ],
)
def test_mistakes(world, tmp_path: Path, rows: list[Any], more: dict[str, Any], message: str) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=message):
        fit(world, tmp_path / "out", data=data, validation=0, **more)
    assert not (tmp_path / "out").exists()
