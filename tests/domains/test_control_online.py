"""Labels that arrive while a policy trains, and what is remembered of its training to make clips of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs pip install "hearken[control]"')
pytest.importorskip("stable_baselines3", reason='needs pip install "hearken[control]"')

from hearken.algorithms import control_ppo, control_sac
from hearken.algorithms.control_online import Answer, Online, disagreement, relabel
from hearken.algorithms.control_ppo_options import ControlPPOConfig
from hearken.algorithms.control_reward_options import ClipRewardConfig
from hearken.algorithms.control_sac_options import ControlSACConfig
from hearken.algorithms.control_training import Paid
from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import Environment
from hearken.domains.control.policy import load_policy
from hearken.domains.control.recording import Recorded, draw
from hearken.domains.control.rewarding import Ensemble
from hearken.errors import UserError

LINE = "line_world:Line-v0"


@pytest.fixture(autouse=True)
def _line_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def out_folder(path: Path) -> Path:
    (path / "run").mkdir(parents=True)
    return path


class Labelers:
    """They know which clip is better, and answer what they were asked the last time but so many."""

    def __init__(self, late: int = 0, silent: bool = False) -> None:
        self.late, self.silent, self.asked = late, silent, []  # type: ignore[var-annotated]
        self.answered, self.calls = 0, []  # type: ignore[var-annotated]

    def __call__(self, pairs: Sequence[tuple[Clip, Clip]], step: int) -> list[Answer]:
        self.asked += pairs
        self.calls.append((step, len(pairs)))
        if self.silent:
            return []
        ready = range(self.answered, max(len(self.asked) - self.late, 0))
        self.answered = max(len(self.asked) - self.late, 0)
        return [Answer(at, float(self.asked[at][0].total > self.asked[at][1].total)) for at in ready]


def train(path: Path, ask: Any, steps: int = 16_000, **more: Any) -> Any:
    online = Online(ask, 100, refit_every=10, reward=ClipRewardConfig(steps=60, refit_steps=20), **more)
    return control_ppo.run(Inputs(model=LINE), ControlPPOConfig(steps=steps), out_folder(path), online)


def test_a_policy_learns_from_labels_that_arrive(tmp_path: Path) -> None:
    labelers = Labelers(late=7)
    made = train(tmp_path / "out", labelers)
    rows = [json.loads(row) for row in (tmp_path / "out" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["return"] > rows[0]["return"] + 20, "though the environment's reward is not learnt from"
    assert labelers.calls[0] == (0, 25), "a quarter of what is done at random"
    assert all(n >= 10 for _, n in labelers.calls if n) and 80 < len(labelers.asked) <= 100
    assert made.metrics["labels"] == len(labelers.asked) - 7
    refits = [json.loads(row) for row in (tmp_path / "out" / "run" / "refits.jsonl").read_text().splitlines()]
    assert refits[-1]["labels"] - refits[-2]["labels"] >= 10 and {"ratio", "step"} <= refits[-1].keys()
    clip = labelers.asked[-1][0]
    with closing(Environment(LINE).open()) as opened:  # the clip can be played again from its start
        seen, _ = opened.reset(seed=clip.seed)
        for action in clip.before:
            seen, *_ = opened.step(action)
        np.testing.assert_array_equal(seen, clip.observations[0])
    reward = Ensemble.load(tmp_path / "out" / "reward")
    assert reward.score([clip.seen(opened.action_space)]).shape == (1,)


def test_sac_learns_from_labels_that_arrive(tmp_path: Path) -> None:
    labelers, out = Labelers(), out_folder(tmp_path / "out")
    online = Online(labelers, 60, refit_every=10, reward=ClipRewardConfig(steps=60, refit_steps=20))
    options = ControlSACConfig(steps=6000, width=32, start=200)
    control_sac.run(Inputs(model=LINE), options, out, online)
    rows = [json.loads(row) for row in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["return"] > rows[0]["return"] + 10
    from stable_baselines3 import SAC

    theirs = SAC.load(out / "policy.zip", device="cpu")
    with closing(Environment(LINE).open()) as opened:
        ours = load_policy(str(out), Environment(LINE), opened)
    for seen in np.random.default_rng(0).uniform(-2, 2, (20, 2)).astype(np.float32):
        greedy = ours(seen, np.random.default_rng(0), True)
        np.testing.assert_allclose(greedy, theirs.predict(seen, deterministic=True)[0], atol=1e-5)
    stage = find_stage("sac", "control")
    few = ControlSACConfig(steps=512, updates=4, width=32)
    more = run_stage(stage, Inputs(model=str(out), reward=str(out / "reward")), few, tmp_path / "more")
    assert more.metrics["steps"] >= 512, "it goes on from a policy, on a reward that stays"
    with pytest.raises(UserError, match="not a choice"):
        (tmp_path / "choice").mkdir()
        Environment(LINE, {"kind": "choice"}).write(tmp_path / "choice")
        run_stage(stage, Inputs(model=str(tmp_path / "choice"), reward="environment"), options, tmp_path / "no")


def test_members_disagree() -> None:
    margins = np.array([[1.0, 2.0, -3.0], [1.0, -1.0, -1.0], [2.0, 1.0, 1.0]])
    assert disagreement(margins) == pytest.approx(2 / 9)


def test_replay_is_paid_anew(tmp_path: Path) -> None:
    paid = Paid(Environment(LINE), ControlSACConfig(steps=400))
    paid.pay = lambda steps: np.zeros(len(steps))
    algorithm = control_sac.sac(ControlSACConfig(steps=400, start=1000), paid, tmp_path)
    algorithm.learn(400)
    ensemble, buffer = Ensemble(3), algorithm.replay_buffer
    assert not buffer.rewards[:100].any()
    relabel(algorithm, buffer, ensemble)
    at = paid.recorded[1].episodes[0][1]
    steps = np.concatenate([at.observations, at.actions], 1).astype(np.float32)
    np.testing.assert_allclose(buffer.rewards[: len(steps), 1], ensemble.pay(steps), rtol=1e-4, atol=1e-5)


def test_the_own_reward_of_the_environment(tmp_path: Path) -> None:
    stage = find_stage("ppo", "control")
    inputs = Inputs(model=LINE, reward="environment")
    made = run_stage(stage, inputs, ControlPPOConfig(steps=4096), tmp_path / "out")
    assert made.metrics["return"] == made.metrics["predicted"]


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    first, second = Labelers(), Labelers()
    for name, one in (("a", first), ("b", second)):
        train(tmp_path / name, one, steps=4096, uniform=0.2)
    assert [clip.to_bytes() for pair in first.asked for clip in pair] == [
        clip.to_bytes() for pair in second.asked for clip in pair
    ]


def test_without_an_answer_nothing_is_learnt(tmp_path: Path) -> None:
    made = train(tmp_path / "out", Labelers(silent=True), steps=2048)
    assert "labels" not in made.metrics


def test_clips_of_what_was_recorded(tmp_path: Path) -> None:
    one = Recorded(Environment(LINE), keep=100)
    one.reset(seed=5)
    for number in range(400):
        _, _, ended, cut_off, _ = one.step(np.array([np.sin(number)], np.float32))
        if ended or cut_off:
            one.reset()
    assert sum(len(episode.rewards) for _, episode in one.episodes) <= 100 + 2 * 60
    clips = draw([one], 300, 30, np.random.default_rng(0))
    starts = {clip.seed for clip in clips}
    assert 1 < len(starts) <= 3 and 5 not in starts and all(len(clip) == 30 for clip in clips)
    latest = one.episodes[-1][1]
    assert len(latest.rewards) < 30 or any(clip.seed == one.episodes[-1][0] for clip in clips)
