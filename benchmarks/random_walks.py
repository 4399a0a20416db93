"""Random walks on a graph (the task of trlX): online and offline RL from the same poor behaviour, without any labels.

A graph of 21 nodes; a walk starts anywhere, follows edges at random, and ends at the goal or after 10 nodes. Its score
is its optimality: 1 for a shortest way to the goal, 0 for none. A small model imitates 1,000 such walks; PPO and RLOO
then improve it by sampling, ILQL from the recorded walks and their scores alone.
"""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, run, scratch, table, train

from hearken import sample
from hearken.feedback.examples import Demonstration, PromptOnly, Rating
from hearken.feedback.formats import write_examples
from hearken.loop.tiny_model import TinyModelSize
from hearken.statistics.intervals import cluster_bootstrap

NODES, LONGEST, WALKS, EDGE = 21, 10, 1000, 0.1
SIZE = TinyModelSize(vocabulary=320, hidden=64, layers=3, heads=4, context=32)
COMMON = {"trackers": "none", "precision": "fp32"}
SFT = COMMON | {"epochs": 20.0, "lr": 2e-3, "batch_size": 50, "validation": 0.0}
ONLINE = COMMON | {
    "episodes": 12_000, "batch_size": 200, "lr": 5e-4, "num_generations": 10, "max_new_tokens": 2 * LONGEST,
    "missing_eos": 0.0,
    "save_rollouts": False, "beta": 0.02,
}  # fmt: skip
PPO = ONLINE | {"value_lr": 2e-3, "epochs": 2, "minibatches": 2, "vf_coef": 0.5}
RLOO = ONLINE
ILQL = COMMON | {"epochs": 60.0, "lr": 1e-3, "batch_size": 50, "gamma": 0.99, "tau": 0.8, "polyak": 0.01, "beta": 30.0}


@dataclass(frozen=True)
class Graph:
    """Out-edges of each node, and the fewest nodes of a walk from it to the goal (node 0), itself included."""

    edges: tuple[tuple[int, ...], ...]
    shortest: tuple[int, ...]

    def optimality(self, path: list[int]) -> float:
        """(longest - length) / (longest - shortest) of a walk that reaches the goal by edges; 0 of any other."""
        ends = path.index(0) + 1 if 0 in path else 0
        steps = pairwise(path)
        if not ends or ends != len(path) or ends > LONGEST or any(b not in self.edges[a] for a, b in steps):
            return 0.0
        return (LONGEST - ends) / (LONGEST - self.shortest[path[0]])


@lru_cache
def draw(seed: int) -> tuple[Graph, list[list[int]]]:
    """A graph, where every pair of nodes has an edge with chance .1, and `WALKS` random walks on it.

    Drawn in the order of trlX's example, so that its seed gives its graph and its walks.
    """
    rng = np.random.RandomState(seed)
    while True:
        chances = rng.rand(NODES, NODES) > 1 - EDGE
        np.fill_diagonal(chances, False)
        if chances.any(1).all():
            break
    chances[0] = False
    edges = tuple(tuple(np.nonzero(row)[0].tolist()) for row in chances)
    far = {0: 1}
    queue = deque([0])
    while queue:
        b = queue.popleft()
        for a in range(1, NODES):
            if b in edges[a] and a not in far:
                far[a] = far[b] + 1
                queue.append(a)
    walks = []
    while len(walks) < WALKS:
        path = [int(rng.randint(NODES))]
        while path[0] == 0:
            path = [int(rng.randint(NODES))]
        while path[-1] != 0 and len(path) < LONGEST:
            path.append(int(rng.choice(edges[path[-1]])))
        walks.append(path)
    return Graph(edges, tuple(far.get(a, LONGEST - 1) for a in range(NODES))), walks


def said(path: list[int]) -> str:
    """A walk as text: the nodes' letters."""
    return " ".join(chr(97 + node) for node in path)


def heard(text: str) -> list[int]:
    """A text as a walk; a word that is no node is -1."""
    return [ord(w) - 97 if len(w) == 1 and 0 <= ord(w) - 97 < NODES else -1 for w in text.split()]


def optimality(prompts: list[Any], responses: list[str], metadata: list[dict[str, Any]]) -> list[float]:
    """The reward function: ``--reward random_walks:optimality``, with the graph's seed in the metadata."""
    return [
        draw(int(facts["graph"]))[0].optimality(heard(f"{prompt} {response}"))
        for prompt, response, facts in zip(prompts, responses, metadata, strict=True)
    ]


def main(settings: argparse.Namespace) -> dict[str, Any]:
    """Data, behaviour, policies, table."""
    work, seed = settings.work, settings.seed
    work.mkdir(parents=True, exist_ok=True)
    world, walks = draw(seed)
    walks = walks[:100] if settings.fast else walks
    scores = [world.optimality(path) for path in walks]
    best: dict[int, float] = {}
    for path, score in zip(walks, scores, strict=True):
        best[path[0]] = max(best.get(path[0], 0.0), score)

    texts = [(said(path[:1]), " " + said(path[1:])) for path in walks]
    demonstrations, rated, prompts = (work / f"{name}.jsonl" for name in ("walks", "rated", "prompts"))
    examples = {
        demonstrations: [Demonstration(p, c) for p, c in texts],
        rated: [Rating(p, c, {"optimality": s}, low=0.0, high=1.0) for (p, c), s in zip(texts, scores, strict=True)],
        prompts: [PromptOnly(said([a]), {"graph": seed}) for a in range(1, NODES)],
    }
    for path, rows in examples.items():
        path.unlink(missing_ok=True)
        write_examples(rows, path)

    quick = {"epochs": 1.0, "episodes": 200} if settings.fast else {}

    def options(given: dict[str, Any]) -> dict[str, Any]:
        return given | {k: v for k, v in quick.items() if k in given and (k != "epochs" or "episodes" not in given)}

    base = scratch([p + c for p, c in texts], work, SIZE, seed)
    sft = train("sft", work / "sft", options(SFT) | {"seed": seed}, model=base, data=demonstrations).path
    policies = {"imitation": sft}
    for name, given in (("ppo", PPO), ("rloo", RLOO)):
        more: dict[str, Any] = {"reward": Path("random_walks:optimality")}
        policies[name] = train(name, work / name, options(given) | {"seed": seed}, model=sft, data=prompts, **more).path
    policies["ilql"] = train("ilql", work / "ilql", options(ILQL) | {"seed": seed}, model=sft, data=rated).path

    found: dict[str, dict[str, float]] = {}
    starts = [said([a]) for a in range(1, NODES)]
    for name, path in policies.items():
        answers = sample(path, starts, 16 if settings.fast else 100, seed=seed, max_new_tokens=2 * LONGEST)
        values = [
            [world.optimality(heard(f"{s} {text}")) for text in group] for s, group in zip(starts, answers, strict=True)
        ]
        mean = cluster_bootstrap(np.ravel(values), np.repeat(np.arange(len(starts)), len(values[0])))
        found[name] = {"optimality": mean.estimate, "low": mean.low, "high": mean.high}
    figures = {
        "behaviour": float(np.mean(scores)),
        "best_of_data": float(np.mean(list(best.values()))),
        "policies": found,
    }
    rows = [("the recorded walks", f"{figures['behaviour']:.3f}")]
    rows += [(name, f"{f['optimality']:.3f} [{f['low']:.3f}, {f['high']:.3f}]") for name, f in found.items()]
    rows.append(("the best recorded walk from each start", f"{figures['best_of_data']:.3f}"))
    table("Random walks: mean optimality (intervals over starts)", ("policy", "optimality"), rows)
    return figures


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.set_defaults(seed=1000)  # trlX's
    run(main, parser)
