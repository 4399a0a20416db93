from __future__ import annotations

from pathlib import Path

import pytest

import hearken
from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = TinyModelSize(vocabulary=300, hidden=32, layers=2, heads=2, context=48)
    return make_tiny_model(["a fox and a hen"] * 4, tmp_path_factory.mktemp("model") / "m", size)


def test_responses_do_not_depend_on_the_other_prompts(model: Path) -> None:
    prompts = ["a fox", "a hen and a fox", (Message("user", "Hi"),)]
    together = hearken.sample(model, prompts, 3, seed=4, max_new_tokens=8)
    assert [len(texts) for texts in together] == [3, 3, 3]
    assert len(set(together[0])) == 3, "fresh draws for each of n"
    for prompt, texts in zip(prompts, together, strict=True):
        assert hearken.sample(model, [prompt], 3, seed=4, max_new_tokens=8) == [texts]
    assert hearken.sample(model, prompts, 3, seed=5, max_new_tokens=8) != together


def test_temperature_zero_repeats_itself(model: Path) -> None:
    (texts,) = hearken.sample(model, ["a fox"], 2, temperature=0, max_new_tokens=5)
    assert texts[0] == texts[1]


def test_mistakes(model: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'temprature'. Did you mean 'temperature'"):
        hearken.sample(model, ["a"], temprature=1)
    with pytest.raises(UserError, match="no room for a prompt"):
        hearken.sample(model, ["a"], max_new_tokens=48)
    with pytest.raises(UserError, match=r"prompt .* has"):
        hearken.sample(model, ["a", "a fox and a hen " * 20], max_new_tokens=8)


def test_the_best_of_several(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 draws each the one that the reward likes best; the draws are those that 8 samples would be."""
    (tmp_path / "longest_reward.py").write_text("def score(p, responses, m):\n    return [len(r) for r in responses]\n")
    monkeypatch.chdir(tmp_path)
    prompts = ["a fox", "a hen"]
    every = hearken.sample(model, prompts, 8, seed=4, max_new_tokens=8)
    best = hearken.sample(model, prompts, 2, seed=4, max_new_tokens=8, best_of=4, reward="longest_reward:score")
    for all_of, chosen in zip(every, best, strict=True):
        assert list(map(len, chosen)) == [max(map(len, all_of[:4])), max(map(len, all_of[4:]))]
        assert chosen[0] in all_of[:4] and chosen[1] in all_of[4:]
    with pytest.raises(UserError, match="the best of 4 needs a reward"):
        hearken.sample(model, prompts, best_of=4)
