"""How much of what its reward allows a policy reached, where the best policy is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hearken.algorithms.stage import Inputs
from hearken.config import Options
from hearken.domains.base import find_domain
from hearken.evaluation.answers import Conditions, _own_accuracy, assess
from hearken.evaluation.results import Allowed
from hearken.feedback.media import MediaFolder
from hearken.rollout.sampler import SamplingParameters
from hearken.testing import LENGTH, REWARD_MODEL, Words, WordWorld, make_policy, register
from hearken.training.artifact import finish, write_json

BETA, WORTH, START = 0.5, 0.4, 0.3
PROMPTS = tuple(f"Write {n}." for n in range(200))
TILTED = START * math.exp(WORTH / BETA) / (1 - START + START * math.exp(WORTH / BETA))
"""Each word by itself: the best policy writes this share of good ones."""


class Held(Options):
    """A method that holds its policy to a reference."""

    stage: ClassVar[str] = "held"

    beta: float = BETA


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    register()
    make_policy(tmp_path / "start", START)
    for name in ("reward", "other"):
        write_json(tmp_path / name / REWARD_MODEL, {"worth": WORTH})
    return tmp_path


def trained(folder: Path, name: str, skill: float, *, reward: str = "reward", ref: str = "start") -> str:
    inputs = Inputs(model=str(folder / "start"), data=(), reward=str(folder / reward), ref=str(folder / ref))
    out = make_policy(folder / name, skill)
    finish(out, "held", inputs=inputs, options=Held(), data={}, metrics={}, seconds=0.0)
    return str(out)


def allowed(folder: Path, *policies: str, pool: int = 64) -> dict[str, Allowed | None]:
    under = Conditions(
        prompts=PROMPTS, sampling=SamplingParameters(), seed=0, reward=str(folder / "reward"),
        domain=find_domain("words"), pool=pool,
    )  # fmt: skip
    found = assess([str(folder / "start"), *policies], under)
    return {name: policy.allowed for name, policy in found.policies.items()}


@pytest.mark.parametrize(("worth", "right"), [(WORTH, 1.0), (-WORTH, 0.0)])
def test_a_reward_is_right_on_a_policys_own_responses_as_far_as_it_agrees_with_gold(
    folder: Path, worth: float, right: float
) -> None:
    write_json(folder / "reward" / REWARD_MODEL, {"worth": worth})
    under = Conditions(
        prompts=PROMPTS, sampling=SamplingParameters(), seed=0, reward=str(folder / "reward"),
        domain=find_domain("words"), world=WordWorld(0), media=MediaFolder(folder),
    )  # fmt: skip
    found = assess([str(folder / "start"), trained(folder, "best", TILTED)], under)
    assert [policy.own_accuracy.estimate for policy in found.policies.values() if policy.own_accuracy] == [right] * 2


class Filed(Words):
    """The same in files."""

    viewer = "image"

    def sample(self, policy: str, prompts: Any, k: int, how: Any, seed: int, files: MediaFolder, **more: Any) -> Any:
        for part in super().sample(policy, prompts, k, how, seed, files, **more):
            yield [replace(one, content=files.keep(one.content.encode(), ".txt").path) for one in part]

    def decode(self, data: bytes) -> str:
        return data.decode()

    def scorer(self, reward: str, files: MediaFolder, facts: Any = None) -> Any:
        score = super().scorer(reward, files, facts)
        return lambda prompts, all, finished: score(prompts, [[self.read(c, files) for c in s] for s in all], finished)


def test_files_that_are_drawn_to_measure_a_reward_are_not_left_in_the_project(folder: Path) -> None:
    under = Conditions(
        prompts=PROMPTS, sampling=SamplingParameters(), seed=0, reward=str(folder / "reward"), domain=Filed(),
        media=MediaFolder(folder),
    )  # fmt: skip
    found = _own_accuracy(str(folder / "start"), str(folder / "reward"), None, WordWorld(0), under)
    assert found is not None and found.estimate == 1 and not (folder / "media").exists()


def test_the_best_policy_reached_all_of_it(folder: Path) -> None:
    """J's maximum is L·β·log(1 - s + s·exp(w/β)), of L words each good with chance s."""
    found = allowed(folder, trained(folder, "best", TILTED), trained(folder, "far", 0.999))
    assert found["start"] is None
    best, far = found["best"], found["far"]
    assert best and far
    most = LENGTH * BETA * math.log(1 - START + START * math.exp(WORTH / BETA))
    assert best.best == pytest.approx(most, rel=0.02) and best.start == pytest.approx(LENGTH * WORTH * START, rel=0.05)
    assert best.share.low < 1 < best.share.high and best.share.estimate == pytest.approx(1, abs=0.15)
    kl = LENGTH * (TILTED * math.log(TILTED / START) + (1 - TILTED) * math.log((1 - TILTED) / (1 - START)))
    assert best.best_kl == pytest.approx(kl, rel=0.05)
    assert far.objective.estimate == pytest.approx(LENGTH * (WORTH - BETA * math.log(1 / START)), abs=0.05)
    assert far.share.high < 0, "more score than the best, for more KL than it is worth"


def test_only_of_policies_that_were_trained_so(folder: Path) -> None:
    names = [
        trained(folder, "by-another-reward", TILTED, reward="other"),
        trained(folder, "held-elsewhere", TILTED, ref="other"),
        str(make_policy(folder / "nobody-knows", TILTED)),
    ]
    assert all(found is None for found in allowed(folder, *names).values())


def test_left_out_where_nothing_is_drawn(folder: Path) -> None:
    assert allowed(folder, trained(folder, "best", TILTED), pool=0)["best"] is None
