from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_rows
from transformers import AutoModelForCausalLM

from hearken import sample
from hearken.algorithms.ilql import losses, scored
from hearken.algorithms.ilql_options import ILQLConfig
from hearken.algorithms.recorded import weighted_tokens
from hearken.algorithms.stage import train
from hearken.domains.text.data import Judged
from hearken.domains.text.talk import Talker
from hearken.errors import UserError
from hearken.models.guided import HEADS, GuidedScorer, with_guidance
from hearken.models.layout import Group, lay_out
from hearken.models.loading import load_policy, load_tokenizer
from hearken.models.scorers import TokenScorer
from hearken.rollout.sampler import SamplingParameters

SMALL: dict[str, Any] = {"trackers": "none", "precision": "fp32", "batch_size": 16, "checkpoint_seconds": 1e9}


def data(tmp_path: Path, good: int = 20, bad: int = 20) -> Path:
    rows = [{"prompt": f"tell {i} the", "completion": " fox home", "ratings": {"overall": 5}} for i in range(good)]
    rows += [{"prompt": f"tell {i} the", "completion": " fox river", "ratings": {"overall": 1}} for i in range(bad)]
    return write_rows(tmp_path / "rated.jsonl", rows)


def share(folder: Path, word: str) -> float:
    texts = sample(folder, [f"tell {i} the" for i in range(20)], 8, max_new_tokens=4)
    said = [text for group in texts for text in group]
    return sum(word in text for text in said) / len(said)


@pytest.mark.slow
def test_guidance_prefers_what_scored_well(world, tmp_path: Path) -> None:
    """The data hold good and bad ends alike; imitation alone would say either."""
    more = {"epochs": 60, "lr": 3e-3, "polyak": 0.05, "gamma": 1.0}
    artifact = train("ilql", model=world.sft, data=data(tmp_path), out=tmp_path / "out", beta=4.0, **SMALL, **more)
    rows = [json.loads(line) for line in (artifact.path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    guided = share(artifact.path, "home")
    settings = artifact.path / "ilql_heads.json"
    settings.write_text(json.dumps({"beta": 0.0}))
    plain = share(artifact.path, "home")
    assert 0.25 < plain < 0.75 and guided > plain + 0.2, (plain, guided)


def test_the_folder_is_an_ordinary_policy_with_heads_beside(world, tmp_path: Path) -> None:
    artifact = train("ilql", model=world.sft, data=data(tmp_path), out=tmp_path / "out", epochs=1, **SMALL)
    assert (artifact.path / HEADS).exists() and AutoModelForCausalLM.from_pretrained(artifact.path)
    scorer = with_guidance(TokenScorer(load_policy(str(artifact.path))), str(artifact.path))
    assert isinstance(scorer, GuidedScorer) and scorer.beta == 1.0
    plain = TokenScorer(load_policy(str(world.sft)))
    assert with_guidance(plain, str(world.sft)) is plain


def test_talking_is_guided_like_sampling(world, tmp_path: Path) -> None:
    folder = tmp_path / "guided"
    shutil.copytree(world.sft, folder)
    scorer = GuidedScorer(load_policy(str(folder)), beta=1e3)
    with torch.no_grad():
        for head in scorer.target:
            head[-1].bias[8] += 1.0
    scorer.save_heads(folder)
    how, said = SamplingParameters(max_new_tokens=4, temperature=0), []
    for policy in (world.sft, folder):
        parts = Talker(lambda policy=policy: str(policy), how, device="cpu").stream("tell 1 the", 1, seed=0)
        said.append("".join(text for _, text in parts))
        assert [[said[-1]]] == sample(policy, ["tell 1 the"], max_new_tokens=4, temperature=0, device="cpu")
    assert said[1] == load_tokenizer(str(folder)).decode([8] * 4) != said[0]


def test_without_guidance_it_is_the_policy(world) -> None:
    layout = lay_out([Group([5, 6, 7], [[8, 9], [10]])])
    plain = TokenScorer(load_policy(str(world.sft)))(layout).logprobs
    scorer = GuidedScorer(load_policy(str(world.sft)), beta=3.0)
    torch.testing.assert_close(scorer(layout).logprobs, plain, msg="the heads start at zero")
    with torch.no_grad():
        scorer.target[0][-1].bias[8] += 5.0
        scorer.target[1][-1].bias[8] += 1.0
    assert scorer(layout).logprobs[0, 0] > plain[0, 0] + 0.5, "the smaller Q counts"


def test_microbatches_change_nothing(world, tmp_path: Path) -> None:
    def weights(tokens: int) -> dict[str, torch.Tensor]:
        out = tmp_path / str(tokens)
        more = {"epochs": 2, "max_length": 40, "tokens": tokens, "lr": 1e-3}
        train("ilql", model=world.sft, data=data(tmp_path), out=out, **SMALL, **more)
        return AutoModelForCausalLM.from_pretrained(out).state_dict()

    one, many = weights(8192), weights(64)
    for name, weight in one.items():
        torch.testing.assert_close(many[name], weight, rtol=0, atol=1e-5, msg=name)


def test_every_judgment_has_a_score() -> None:
    group = Group([1], [[5], [6], [7]])
    found = scored(
        [
            Judged(group, "comparison", (2, 0, 1)), Judged(group, "comparison", (0, -1, 0)),
            Judged(Group([1], [[5]]), "rating", target=0.5), Judged(Group([1], [[5]]), "thumb", target=0.0, weight=2.0),
            Judged(group, "comparison", (0, 1, -1), weight=0.5), Judged(group, "comparison", (0, 1, 2), weight=0.0),
        ]
    ).rows  # fmt: skip
    assert [score for _, score in found] == [-1, 1, 0, 0, 0, 0.5, -1, 1, -1]
    assert [group.weight for group, _ in found] == [1, 1, 1, 1, 1, 1, 2, 0.5, 0.5]


def test_a_judgment_counts_by_its_weight(world) -> None:
    """Fresh heads say 0: each of the two errs by the score, on the last token alone."""
    scorer = GuidedScorer(load_policy(str(world.sft)), beta=1.0)
    good, bad = Group([5, 6], [[8, 9]]), Group([5, 7], [[10]])

    def found(*batch: tuple[Group, float]) -> list[float]:
        tokens = weighted_tokens([group for group, _ in batch])
        return [x.item() for x in losses(scorer, batch, tokens, ILQLConfig())]

    weighted = found((Group([5, 6], [[8, 9]], weight=3.0), 1.0), (bad, -0.5))
    assert weighted == pytest.approx(found((good, 1.0), (good, 1.0), (good, 1.0), (bad, -0.5)), rel=1e-5)
    assert weighted[1] == pytest.approx(2 * (3 * 1 + 0.25) / (3 * 2 + 1), rel=1e-5)


def test_equal_scores_are_refused(world, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every response has the same score"):
        train("ilql", model=world.sft, data=data(tmp_path, bad=0), out=tmp_path / "out", **SMALL)


def test_models_whose_logits_are_not_a_heads_are_refused(world, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("hearken.domains.text.loading.probe", lambda scorer, _: scorer.use("full"))
    with pytest.raises(UserError, match="ILQL cannot guide a LlamaForCausalLM"):
        train("ilql", model=world.sft, data=data(tmp_path), out=tmp_path / "out", **SMALL)
