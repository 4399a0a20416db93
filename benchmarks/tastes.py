"""Whose taste? One average reward, one for each group, and one model with a head for each, on the tale world's groups.

Tales are ranked by a panel in which one taste is the minority. Reward models are measured against what the tales are
truly worth to each group, on prompts that none has seen; then the best of several tales is chosen for each group, for
the average, and so that the worst-off group is best off.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, percent, run, scratch, table, train

from hearken.domains.text.measuring import Judge
from hearken.feedback.examples import Comparison
from hearken.feedback.formats import write_examples
from hearken.labelers.simulated import SimulatedLabeler
from hearken.loop.tiny_model import TinyModelSize
from hearken.models.scorers import attributes
from hearken.statistics.intervals import cluster_bootstrap
from hearken.worlds.tales.world import TaleWorld

SIZE = TinyModelSize(hidden=96, layers=2, heads=4, context=192)
MAJORITY, MINORITY = "hearth", "quest"
HOW = {"lr": 2e-3, "epochs": 4, "batch_size": 16, "schedule": "cosine", "validation": 0.0, "trackers": "none"}


def main(settings: argparse.Namespace) -> dict[str, Any]:
    world, rng = TaleWorld(settings.seed), random.Random(settings.seed)
    count, held_out = (30, 20) if settings.fast else (settings.prompts, 300)
    base = scratch(world.corpus(30 if settings.fast else 600), settings.work, SIZE, settings.seed)
    data = settings.work / f"judged-{count}-{settings.minority:g}-seed-{settings.seed}.parquet"
    write_examples(judged(world, world.prompts(count), settings.minority, rng), data, "snapshot", overwrite=True)
    how = HOW | {"seed": settings.seed} | ({"epochs": 1} if settings.fast else {})
    models: dict[str, dict[str, Any]] = {
        "one for all": {},
        "a head for each": {"by": "group"},
        f"{MAJORITY} alone": {"only": f"group={MAJORITY}"},
        f"{MINORITY} alone": {"only": f"group={MINORITY}"},
    }
    rewards = {
        name: train("reward", settings.work / name.replace(" ", "-"), how | more, model=base, data=data).path
        for name, more in models.items()
    }
    prompts = world.prompts(held_out, "heldout")
    tales = [[world.tale(p, i) for i in range(8)] for p in prompts]
    groups = (MAJORITY, MINORITY)
    worth = np.array(
        [[[world.utility(p, t, g) for g in groups] for t in some] for p, some in zip(prompts, tales, strict=True)]
    )
    scores = score(rewards, prompts, tales)
    return {"accuracy": accuracies(scores, worth, prompts), "chosen": chosen(scores, worth)}


def judged(world: TaleWorld, prompts: list[str], minority: float, rng: random.Random) -> list[Comparison]:
    """Three tales to each prompt, ranked by one labeler."""
    rows = []
    for number, prompt in enumerate(prompts):
        group = MINORITY if rng.random() < minority else MAJORITY
        labeler = SimulatedLabeler(f"{group}-{rng.randrange(4)}", group, world.utility)
        tales = tuple(dict.fromkeys(world.tale(prompt, i) for i in range(3)))
        if len(tales) > 1:
            facts = {"labeler": labeler.name, "group": group}
            rows.append(Comparison(prompt, tales, labeler.judge(prompt, tales, number).ranks, metadata=facts))
    return rows


def score(rewards: dict[str, Path], prompts: list[str], tales: list[list[str]]) -> dict[str, np.ndarray]:
    """(N, 8) scores of the tales by every model, and by every head of the one that has several."""
    found: dict[str, np.ndarray] = {}
    for name, path in rewards.items():
        judge = Judge(str(path))
        found[name] = np.array(judge(prompts, tales))
        for head in attributes(judge.scorer.model):
            judge.scorer.weigh({head: 1.0})
            found[f"{name}: {head}"] = np.array(judge(prompts, tales))
    return found


def accuracies(scores: dict[str, np.ndarray], worth: np.ndarray, prompts: list[str]) -> dict[str, Any]:
    """How often the better of two tales, as each group truly sees it, scores higher."""
    a, b = np.triu_indices(worth.shape[1], 1)
    found: dict[str, Any] = {}
    for name, table_of in scores.items():
        found[name] = {}
        for g, group in enumerate((MAJORITY, MINORITY)):
            lead, truth = table_of[:, a] - table_of[:, b], worth[:, a, g] - worth[:, b, g]
            rows, _ = np.nonzero(truth)
            right = 0.5 + 0.5 * np.sign(lead * np.sign(truth))[truth != 0]
            found[name][group] = cluster_bootstrap(right, [prompts[i] for i in rows])
    table(
        f"Accuracy against what tales are truly worth to each group, % ({len(prompts)} held-out prompts)",
        ("reward", MAJORITY, MINORITY),
        [(name, percent(of[MAJORITY]), percent(of[MINORITY])) for name, of in found.items()],
    )
    return found


def chosen(scores: dict[str, np.ndarray], worth: np.ndarray) -> dict[str, Any]:
    """The best of eight tales by each rule, in true utility above a random tale's."""
    heads = np.stack([scores[f"a head for each: {group}"] for group in (MAJORITY, MINORITY)], 2)
    rules = {
        "one for all": scores["one for all"],
        f"for {MAJORITY}": heads[..., 0],
        f"for {MINORITY}": heads[..., 1],
        "half and half": heads.mean(2),
        "the worst off (min)": heads.min(2),
    }
    rows = np.arange(len(worth))
    gain = {name: worth[rows, by.argmax(1)].mean(0) - worth.mean((0, 1)) for name, by in rules.items()}
    table(
        "Best of eight tales: true utility gained over a random one",
        ("chosen", MAJORITY, MINORITY, "the lesser of the two"),
        [(name, f"{g[0]:.2f}", f"{g[1]:.2f}", f"{g.min():.2f}") for name, g in gain.items()],
    )
    return {name: g.tolist() for name, g in gain.items()}


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--prompts", type=int, default=1500, help="that are judged, three tales each")
    parser.add_argument("--minority", type=float, default=0.2, help="share of the judgments that the minority gives")
    run(main, parser)
