from __future__ import annotations

from pathlib import Path

import pytest

import hearken
from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.loop.scratch import ScratchSize, make_scratch


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = ScratchSize(vocabulary=300, hidden=32, layers=2, heads=2, context=48)
    return make_scratch(["a fox and a hen"] * 4, tmp_path_factory.mktemp("model") / "m", size)


def test_responses_do_not_depend_on_the_other_prompts(model: Path) -> None:
    prompts = ["a fox", "a hen and a fox", (Message("user", "Hi"),)]
    together = hearken.respond(model, prompts, 3, seed=4, max_new_tokens=8)
    assert [len(texts) for texts in together] == [3, 3, 3]
    assert len(set(together[0])) == 3, "fresh draws for each of n"
    for prompt, texts in zip(prompts, together, strict=True):
        assert hearken.respond(model, [prompt], 3, seed=4, max_new_tokens=8) == [texts]
    assert hearken.respond(model, prompts, 3, seed=5, max_new_tokens=8) != together


def test_temperature_zero_repeats_itself(model: Path) -> None:
    (texts,) = hearken.respond(model, ["a fox"], 2, temperature=0, max_new_tokens=5)
    assert texts[0] == texts[1]


def test_mistakes(model: Path) -> None:
    with pytest.raises(UserError, match=r"unknown key 'temprature'. Did you mean 'temperature'"):
        hearken.respond(model, ["a"], temprature=1)
    with pytest.raises(UserError, match="no room for a prompt"):
        hearken.respond(model, ["a"], max_new_tokens=48)
    with pytest.raises(UserError, match=r"prompt .* has"):
        hearken.respond(model, ["a", "a fox and a hen " * 20], max_new_tokens=8)
