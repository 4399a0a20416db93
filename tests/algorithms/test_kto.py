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

import hearken.algorithms.kto as kto
from hearken.algorithms.stage import Inputs, estimate, find_stage, train
from hearken.algorithms.thumbs import opinions, partners
from hearken.domains.text.data import Judged
from hearken.errors import UserError
from hearken.models.layout import Group

SMALL: dict[str, Any] = {
    "lr": 3e-3, "epochs": 6, "batch_size": 8, "trackers": "none", "precision": "fp32", "checkpoint_seconds": 1e9,
    "validation": 0.2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))


def thumbs(tmp_path: Path, up: int = 20, down: int = 20) -> Path:
    rows = [{"prompt": f"tell {i} the", "completion": " fox sings happily", "label": True} for i in range(up)]
    rows += [{"prompt": f"tell {i} the", "completion": " fox sings sadly", "label": False} for i in range(down)]
    return write_rows(tmp_path / "thumbs.jsonl", rows)


def fit(world, out: Path, data: Path, **more: Any):
    return train("kto", **({"model": world.sft, "data": data, "out": out} | SMALL | more))


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run/metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_it_learns_from_thumbs(world, tmp_path: Path) -> None:
    artifact = fit(world, tmp_path / "out", thumbs(tmp_path))
    rows = metrics(artifact.path)
    assert rows[0]["loss"] == pytest.approx(0.5, abs=1e-5) and rows[0]["z0"] == pytest.approx(0, abs=1e-5)
    assert rows[-1]["reward_up"] > rows[-1]["reward_down"] + 0.1 and rows[-1]["loss"] < 0.45
    assert artifact.metrics["accuracy"] > 0.8
    assert all(row["z0"] >= 0 for row in rows)
    stage = find_stage("kto")
    dry = estimate(stage, Inputs(model=str(world.sft), data=(str(thumbs(tmp_path)),)), stage.options.parse(SMALL))
    assert dry["seconds"] > 0 and dry["thumbs_up"] == artifact.manifest["data"]["thumbs_up"]


def test_microbatches_and_the_cache_change_nothing(world, tmp_path: Path) -> None:
    data = thumbs(tmp_path)
    more = {"max_length": 40, "epochs": 2, "lr": 1e-3}
    one = weights(fit(world, tmp_path / "one", data, **more).path)
    other = weights(fit(world, tmp_path / "other", data, tokens=64, cache_reference=False, **more).path)
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-5, msg=name)


def test_the_rarer_kind_weighs_more(world, tmp_path: Path) -> None:
    artifact = fit(world, tmp_path / "out", thumbs(tmp_path, up=24, down=8), validation=0, epochs=1)
    facts = artifact.manifest["data"]
    assert (facts["desirable"], facts["undesirable"]) == (1, 3)
    assert facts["desirable"] * facts["thumbs_up"] == facts["undesirable"] * facts["thumbs_down"]


def test_every_prompt_gets_anothers_response() -> None:
    rows = [
        Judged(Group([i], [[10 + i, 1]]), "thumb", target=float(i % 2), weight=1.0) for i in range(5)
    ]  # fmt: skip
    made = opinions(rows, 0, 10).rows
    assert sorted(tuple(o.mismatched.responses[0]) for o in made) == [(10 + i, 1) for i in range(5)]
    assert all(o.mismatched.prompt == o.group.prompt for o in made)
    assert all(o.mismatched.responses[0] != o.group.responses[0] for o in made)


@pytest.mark.parametrize("sizes", [[1] * 5, [2] * 4, [1, 2, 3, 3], [3, 1, 1, 1], [1, 1], [2, 1], [4, 1], [3]], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_a_mismatched_response_answers_another_prompt(sizes: list[int], seed: int) -> None:
    """Wherever that can be: where no prompt has more than half of the rows. It is never the row's own."""
    prompts = [number for number, size in enumerate(sizes) for _ in range(size)]
    after = partners(prompts, seed)
    assert sorted(after) == list(range(len(prompts))), "every response is a partner once"
    assert all(i != j for i, j in enumerate(after))
    if 2 * max(sizes) <= len(prompts):
        assert all(prompts[i] != prompts[j] for i, j in enumerate(after))


def test_an_odd_number_of_thumbs_has_no_batch_of_one(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine thumbs in batches of four: every step's z0 is of four mismatched pairs."""
    seen: list[list[Group]] = []
    sums = kto.logprob_sums
    monkeypatch.setattr(kto, "logprob_sums", lambda scorer, of, *more: (seen.append(of), sums(scorer, of, *more))[1])
    artifact = fit(world, tmp_path / "out", thumbs(tmp_path, up=5, down=4), batch_size=4, validation=0, epochs=3)
    assert len(seen) == artifact.metrics["steps"] == 7 and all(len(groups) == 4 for groups in seen)
    assert all(math.isfinite(row["z0"]) and math.isfinite(row["loss"]) for row in metrics(artifact.path))


def test_comparisons_are_converted_and_said(world, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"23 comparisons were made thumbs.*hearken train dpo"):
        artifact = fit(world, tmp_path / "out", world.pairs, epochs=1)
    assert artifact.manifest["data"]["thumbs_up"] == artifact.manifest["data"]["thumbs_down"] == 23


def test_what_says_nothing_is_counted(world, tmp_path: Path) -> None:
    """Ties, and what a ranking says of the responses between its ends."""
    responses = [" fox home", " owl sleeps", " bear sings"]
    rows = [{"prompt": f"tell {i} the", "responses": responses, "ranks": [2, 0, 1]} for i in range(4)]
    tie = {"prompt": "tell 9 the", "responses": responses[:2], "ranks": [0, 0]}
    data = write_rows(tmp_path / "a.jsonl", [*rows, tie])
    with pytest.warns(UserWarning, match=r"comparisons without a preference: 1; ranked responses beside .*: 4"):
        artifact = fit(world, tmp_path / "out", data, validation=0, epochs=1)
    facts = artifact.manifest["data"]
    assert list(facts["left_out"].values()) == [1, 4] and facts["thumbs_up"] == facts["thumbs_down"] == 4
    with pytest.raises(UserError, match=r"holds nothing good or bad.*comparisons without a preference: 1"):
        fit(world, tmp_path / "ties", write_rows(tmp_path / "b.jsonl", [tie]), validation=0)


@pytest.mark.parametrize(
    ("up", "down", "more", "message"),
    [
        (5, 0, {}, "every thumb is up.*hearken train sft"),
        (0, 5, {}, "every thumb is down"),
        (5, 5, {"batch_size": 1}, "batch_size: Input should be greater than or equal to 2"),
    ],
)
def test_mistakes(world, tmp_path: Path, up: int, down: int, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(world, tmp_path / "out", thumbs(tmp_path, up, down), **more)


def test_ratings_are_refused(world, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "r.jsonl", [{"prompt": "a", "completion": "b", "ratings": {"x": 3}}])
    with pytest.raises(UserError, match="is a rating, not a thumb"):
        fit(world, tmp_path / "out", data, validation=0)
