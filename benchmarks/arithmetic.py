"""Sums whose truth can be checked: critic-free RL by a rule reward, from a model that is right one time in three.

A small model imitates sums: each with its answer and with two wrong ones. Each method then sees the prompts and, for
its own answers, only whether they are right (``--reward rule:answer``); no right answer is ever shown.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, scratch, table, train

from hearken import sample
from hearken.feedback.examples import Demonstration, PromptOnly
from hearken.feedback.formats import write_examples
from hearken.loop.tiny_model import TinyModelSize
from hearken.rewards.rules import answer
from hearken.statistics.intervals import cluster_bootstrap

LARGEST = 9
SIZE = TinyModelSize(vocabulary=320, hidden=64, layers=2, heads=4, context=32)
COMMON = {"trackers": "none", "precision": "fp32"}
SFT = COMMON | {"epochs": 150.0, "lr": 3e-3, "batch_size": 60, "validation": 0.0}
ONLINE = COMMON | {
    "episodes": 32_000, "batch_size": 400, "num_generations": 8, "lr": 5e-4, "max_new_tokens": 6,
    "missing_eos": 0.0, "beta": 0.0,
    "save_rollouts": False,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "rloo": {}, "grpo": {}, "dr_grpo": {"estimator": "dr_grpo", "lr": 2e-3}, "rft": {"lr": 1e-3},
}  # fmt: skip


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Data, policies, table."""
    work, seed = settings.work, settings.seed
    work.mkdir(parents=True, exist_ok=True)
    r = random.Random(f"sums:{seed}")
    sums = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    shown = []
    for a, b in sums:
        wrong = r.sample([c for c in range(2 * LARGEST + 1) if c != a + b], 2)
        shown += [(a, b, c) for c in (a + b, *wrong)]
    demonstrations, prompts = work / "sums.jsonl", work / "prompts.jsonl"
    rows: dict[Path, list[Any]] = {
        demonstrations: [Demonstration(f"{a} + {b} =", f" {c}") for a, b, c in shown],
        prompts: [PromptOnly(f"{a} + {b} =", {"answer": a + b}) for a, b in sums],
    }
    for path, examples in rows.items():
        path.unlink(missing_ok=True)
        write_examples(examples, path)
    base = scratch([f"{a} + {b} = {c}" for a, b, c in shown], work, SIZE, seed)
    sft = SFT | ({"epochs": 1.0} if settings.fast else {}) | {"seed": seed}
    policies = {"imitation": train("sft", work / "sft", sft, model=base, data=demonstrations).path}
    for name, given in METHODS.items():
        options = ONLINE | given | ({"episodes": 400} if settings.fast else {}) | {"seed": seed}
        stage = "grpo" if name == "dr_grpo" else name
        more: dict[str, Any] = {"reward": Path("rule:answer")}
        policies[name] = train(stage, work / name, options, model=policies["imitation"], data=prompts, **more).path

    found: dict[str, dict[str, float]] = {}
    facts = [{"answer": a + b} for a, b in sums]
    for name, path in policies.items():
        said = sample(path, [f"{a} + {b} =" for a, b in sums], 20, seed=seed, max_new_tokens=6)
        right = [answer([""] * len(group), group, [fact] * len(group)) for group, fact in zip(said, facts, strict=True)]
        mean = cluster_bootstrap(np.ravel(right), np.repeat(np.arange(len(sums)), 20))
        found[name] = {"right": mean.estimate, "low": mean.low, "high": mean.high}
    table(
        "Sums: share of sampled answers that are right (intervals over prompts)",
        ("policy", "right"),
        [(name, f"{f['right']:.3f} [{f['low']:.3f}, {f['high']:.3f}]") for name, f in found.items()],
    )
    return {"policies": found}


if __name__ == "__main__":
    run(main, arguments(__doc__ or ""))
