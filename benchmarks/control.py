"""Policies from comparisons of clips that are asked for while they train, beside the same algorithm on the true reward.

Simulated labelers go by the clip's true return, with log-odds of 4 per standard deviation of the returns of random
clips; a tenth of the answers is given at random. Each seed runs in a process of its own with one thread; those that
have finished are kept in --work. `--imitation` names a Python with imitation 1.0.1, which is asked to do the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, arguments, run, table
from numpy.typing import NDArray

from hearken.domains.control.clips import Clip
from hearken.domains.control.environment import Environment
from hearken.errors import UserError

TASKS = {
    "cheetah": ("HalfCheetah-v5", {}),
    "hopper": ("Hopper-v5", {"terminate_when_unhealthy": False}),
    "walker": ("Walker2d-v5", {"terminate_when_unhealthy": False}),
    "swimmer": ("Swimmer-v5", {}),
    "reacher": ("Reacher-v5", {}),
}
"""Environments that never end by themselves: when they end would tell what is wanted."""
SLOPE = 4.0
"""Log-odds of a simulated labeler per standard deviation of the true returns of random clips."""
RANDOM = 0.1
"""Share of the answers that are given at random."""
EPISODES = 20
"""Of the final policy, its likeliest actions, by whose true return it is judged."""
FRESH = 500
"""Pairs of clips of the final policy that it did not train on."""


class Labelers:
    """Simulated ones, who answer at once."""

    def __init__(self, unit: float, seed: int) -> None:
        self.unit, self.rng = unit, np.random.default_rng([seed, 2])
        self.asked = 0

    def prefer(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """True returns of the clips of (P,) pairs -> 1 where the first is chosen, else 0."""
        odds = np.clip(SLOPE * (first - second) / self.unit, -30, 30)
        chance = (1 - RANDOM) / (1 + np.exp(-odds)) + RANDOM / 2
        return (self.rng.random(len(chance)) < chance).astype(float)

    def __call__(self, pairs: Sequence[tuple[Clip, Clip]], step: int) -> list[Any]:
        """See `control_online.Ask`."""
        from hearken.algorithms.control_online import Answer

        shares = self.prefer(*(np.array([pair[side].total for pair in pairs]) for side in (0, 1)))
        self.asked += len(pairs)
        return [Answer(self.asked - len(pairs) + at, share) for at, share in enumerate(shares)]


def unit_of(environment: Environment) -> float:
    """Standard deviation of the true returns of random clips; for every seed the same."""
    from hearken.domains.control.playing import cut, horizon, play
    from hearken.domains.control.policy import Random

    rng, totals = np.random.default_rng(0), []
    with closing(environment.open()) as opened:
        length = environment.steps(opened)
        for seed in range(8):
            episode = play(environment, opened, Random(opened.action_space), seed, rng, greedy=False)
            for first in range(0, min(len(episode.rewards), horizon(opened)) - length + 1, length):
                totals.append(cut(environment, episode, seed, first, length).total)
    return float(np.std(totals))


def one(settings: argparse.Namespace, labels: str, seed: int, out: Path) -> None:
    """Train by so many labels, or by the true reward, and write figures into ``out``."""
    from hearken.algorithms.control_online import Online
    from hearken.algorithms.control_reward_options import ClipRewardConfig
    from hearken.algorithms.stage import Inputs, find_stage
    from hearken.domains.control.environment import OWN

    name, kwargs = TASKS[settings.task]
    agent = out / "start"
    agent.mkdir(parents=True, exist_ok=True)
    environment = Environment(name, kwargs)
    environment.write(agent)
    figures: dict[str, Any] = {"task": settings.task, "labels": labels, "seed": seed}
    policy = agent
    began, spent = time.monotonic(), time.process_time()
    if labels != "0":
        stage = find_stage(settings.optimiser, "control")
        options = stage.options.parse({"seed": seed} | settings.stage)
        policy = out / "policy"
        (policy / "run").mkdir(parents=True, exist_ok=True)
        if labels == "true":
            made = stage.run(Inputs(model=str(agent), reward=OWN), options, policy)
        else:
            ask = Labelers(unit_of(environment), seed)
            online = Online(ask, int(labels), reward=ClipRewardConfig(seed=seed, **settings.reward), **settings.online)
            made = stage.run(Inputs(model=str(agent)), options, policy, online)  # type: ignore[call-arg]
            figures |= {"asked": ask.asked, "ratio": made.metrics["ratio"]}
        figures["curve"] = [
            (row["step"], row["return"])
            for row in map(json.loads, (policy / "run" / "metrics.jsonl").read_text().splitlines())
        ]
    figures |= {"seconds": time.monotonic() - began, "processor": time.process_time() - spent}
    figures |= judged(environment, policy, policy / "reward" if labels not in ("0", "true") else None)
    (out / "figures.json").write_text(json.dumps(figures, indent=1))


def judged(environment: Environment, policy: Path, reward: Path | None) -> dict[str, Any]:
    """True returns of the final policy, and how far its reward model is right on fresh clips of it."""
    from hearken.domains.control.playing import cut, play
    from hearken.domains.control.policy import load_policy

    rng, returns, clips = np.random.default_rng(0), [], []
    with closing(environment.open()) as opened:
        acts, length, space = (
            load_policy(str(policy), environment, opened),
            environment.steps(opened),
            opened.action_space,
        )
        for seed in range(EPISODES):
            greedy = play(environment, opened, acts, 10_000 + seed, rng, greedy=True)
            returns.append(sum(greedy.rewards))
        if reward is not None:
            for seed in range(8):
                episode = play(environment, opened, acts, 20_000 + seed, rng, greedy=False)
                latest = max(len(episode.rewards) - length, 0)
                places = rng.integers(latest + 1, size=FRESH // 4)
                clips += [cut(environment, episode, seed, int(first), length) for first in places]
    figures = {"returns": returns, "return": float(np.mean(returns))}
    if reward is None:
        return figures
    from hearken.algorithms.control_online import disagreement
    from hearken.domains.control.rewarding import Ensemble

    order = rng.permutation(len(clips))
    sums = Ensemble.load(reward).sums([clips[at].seen(space) for at in order])
    margins = sums[:, ::2] - sums[:, 1::2]
    totals = np.array([clips[at].total for at in order])
    gaps = totals[::2] - totals[1::2]
    mean = margins.mean(0)
    return figures | {
        "agreement": float((np.sign(mean) == np.sign(gaps)).mean()),
        "correlation": float(np.corrcoef(mean, gaps)[0, 1]),
        "spread": float(margins.std(0).mean() / np.abs(mean).mean()),
        "disagreement": disagreement(margins),
    }


def imitation(settings: argparse.Namespace, labels: str, seed: int, out: Path) -> None:
    """The same in imitation, in its own Python."""
    name, kwargs = TASKS[settings.task]
    environment = Environment(name, kwargs)
    with closing(environment.open()) as opened:
        length = environment.steps(opened)
    about = {
        "environment": name.replace("-v5", "-v4"), "kwargs": kwargs, "labels": int(labels), "seed": seed,
        "clip": length, "unit": unit_of(environment), "slope": SLOPE, "random": RANDOM, "episodes": EPISODES,
        "steps": settings.stage.get("steps", 300_000),
    }  # fmt: skip
    done = subprocess.run(
        [settings.imitation, HERE / "control_peer.py", json.dumps(about)], capture_output=True, text=True, env=_quiet()
    )
    if done.returncode:
        raise UserError(
            f"imitation failed: {done.stderr[-2000:]}", "It needs imitation==1.0.1, gymnasium[mujoco]==0.29.1"
        )
    figures = json.loads(done.stdout.splitlines()[-1])
    (out / "figures.json").write_text(json.dumps({"task": settings.task, "labels": labels, "seed": seed} | figures))


def _quiet() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def figures_of(settings: argparse.Namespace, labels: str, seed: int, *, peer: bool = False) -> dict[str, Any]:
    """Of one run, which is made unless it has finished before."""
    how = "imitation" if peer else settings.optimiser
    out = settings.work / settings.task / f"{how}-{labels}-{seed}"
    if not (out / "figures.json").is_file():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        if peer:
            imitation(settings, labels, seed, out)
        else:
            more = ["--one", labels, str(seed), str(out), "--task", settings.task, "--optimiser", settings.optimiser]
            for name in ("stage", "reward", "online"):
                more += [f"--{name}", json.dumps(getattr(settings, name))]
            subprocess.run([sys.executable, __file__, *more], check=True, env=_quiet())
    found: dict[str, Any] = json.loads((out / "figures.json").read_text())
    print(f"{settings.task}, {how}, {labels} labels, seed {seed}: {found['return']:.1f}", flush=True)
    return found


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Every number of labels and seed; the table."""
    if settings.fast:
        settings.stage, settings.seeds, settings.labels = {"steps": 6000}, 1, "0,40"
    seeds = range(settings.seed, settings.seed + settings.seeds)
    wanted = settings.labels.split(",")
    found = {"true": [figures_of(settings, "true", seed) for seed in seeds]}
    for labels in wanted:
        found[labels] = [figures_of(settings, labels, seed) for seed in seeds]
    if settings.imitation:
        for labels in (one for one in wanted if one != "0"):
            found[f"imitation {labels}"] = [figures_of(settings, labels, seed, peer=True) for seed in seeds]
    true = float(np.median([one["return"] for one in found["true"]]))
    start = float(np.median([one["return"] for one in found["0"]])) if "0" in found else float("nan")
    rows = []
    for name, runs in found.items():
        returns = np.array([one["return"] for one in runs])
        gained = (returns - start) / (true - start)
        rows.append((
            name, len(runs), f"{np.median(returns):.0f}", f"{returns.min():.0f}", f"{np.median(returns) / true:.2f}",
            f"{np.median(gained):.2f}", f"{gained.min():.2f}",
            f"{np.median([one['seconds'] for one in runs]):.0f}",
        ))  # fmt: skip
    table(
        f"{TASKS[settings.task][0]}: true return by labels, median and worst seed",
        ("labels", "seeds", "median", "worst", "of true", "gained, of true", "worst gained", "seconds"), rows,
    )  # fmt: skip
    return {"task": settings.task, "runs": found}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--task", choices=TASKS, default="cheetah")
    parser.add_argument("--labels", default="0,350,700,1400", help="numbers of comparisons; 0: the policy as it starts")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from --seed on")
    parser.add_argument("--optimiser", default="ppo", help="ppo or sac")
    for name, what in (("stage", "the algorithm"), ("reward", "the reward model"), ("online", "asking")):
        parser.add_argument(f"--{name}", type=json.loads, default={}, help=f"options of {what}, as JSON")
    parser.add_argument("--imitation", default="", help="a Python that has imitation 1.0.1")
    parser.add_argument("--one", nargs=3, metavar=("LABELS", "SEED", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given, given.one[0], int(given.one[1]), Path(given.one[2]))
    else:
        run(main, parser)
