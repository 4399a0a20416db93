"""Rollouts: what belongs to a response goes with it into minibatches, and any sampler may give them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hearken.algorithms import online_dpo, policy_gradient, ppo, rft, trpo
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.rollouts import TokenRollout
from hearken.algorithms.stage import Inputs, find_stage
from hearken.models.layout import Group
from hearken.models.scorers import TokenScorer
from hearken.rollout.sampler import Sample, SamplingParameters


class Alone:
    """In a run's place: two prompts to a microbatch, the longest first."""

    def microbatches(self, groups: Sequence[Group], scorer: Any) -> list[list[int]]:
        order = sorted(range(len(groups)), key=lambda i: -groups[i].tokens)
        return [order[i : i + 2] for i in range(0, len(order), 2)]


def rollout(prompts: int = 5, n: int = 2) -> TokenRollout:
    """Responses of different lengths, every number of which says whose it is: 100 x row + token."""
    groups = [Group([7] * (i + 1), [[100 * (i * n + k) + t for t in range(i + k + 1)] for k in range(n)])
              for i in range(prompts)]  # fmt: skip
    responses = [r for g in groups for r in g.responses]
    grid = torch.zeros(len(responses), max(map(len, responses)))
    for row, response in enumerate(responses):
        grid[row, : len(response)] = torch.tensor(response, dtype=torch.float)
    mask = torch.tensor([[t < len(r) for t in range(grid.shape[1])] for r in responses])
    samples = [Sample(row // n, list(r), [0.0] * len(r), "stop") for row, r in enumerate(responses)]
    scores = torch.arange(len(responses), dtype=torch.float)
    return TokenRollout(
        groups, [f"prompt {i}" for i in range(prompts)], samples, scores, 3, mask=mask, old_logprobs=grid,
        ref_logprobs=-grid, entropy=grid + 1, advantages=2 * grid, gap=None,
    )  # fmt: skip


def test_minibatches_hold_what_belongs_to_their_prompts() -> None:
    whole, options = rollout(), RolloutOptions(epochs=2, minibatches=2, batch_size=10, num_generations=2, seed=5)
    parts = list(whole.minibatches(4, options))
    assert len(parts) == 4 and [len(p.groups) for p in parts] == [3, 2, 3, 2]
    for epoch in (parts[:2], parts[2:]):
        assert sorted(c for part in epoch for c in part.contents) == whole.contents, "each prompt once a pass"
    assert [p.contents for p in parts[:2]] != [p.contents for p in parts[2:]]
    for part in parts:
        assert part.version == 3 and part.tokens == sum(len(r) for g in part.groups for r in g.responses)
        for layout, micro in aligned(part):
            assert torch.equal(layout.mask, micro.mask) and micro.mask.shape == micro.advantages.shape
            want = torch.where(layout.mask, layout.targets, 0).float()
            for name, sign in {"old_logprobs": 1, "ref_logprobs": -1, "advantages": 2}.items():
                assert torch.equal(getattr(micro, name) * micro.mask, sign * want), name
            assert [list(s.tokens) for s in micro.samples] == [list(r) for g in micro.groups for r in g.responses]
            assert (micro.scores == micro.old_logprobs[:, 0] // 100).all(), "a score is its response's"


def aligned(part: TokenRollout) -> list[Any]:
    class Scorer:
        device = torch.device("cpu")

    return list(part.microbatches(Alone(), Scorer()))  # type: ignore[arg-type]


def test_nothing_is_learnt_from_no_prompt() -> None:
    empty = rollout().take([])
    assert list(empty.minibatches(0, RolloutOptions(minibatches=2))) == [] and empty.scores.shape == (0,)


class Given:
    """A sampler without a model: the same few responses again and again."""

    version = 0

    def __init__(self) -> None:
        self.told: list[tuple[TokenScorer, int]] = []

    def update_weights(self, scorer: TokenScorer, version: int) -> None:
        self.told.append((scorer, version))
        self.version = version

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, parameters: SamplingParameters, seeds: Sequence[int],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Sample]:  # fmt: skip
        assert len(seeds) == len(prompts)
        rows = [(p, k) for p in range(len(prompts)) for k in range(n)]
        return [Sample(p, [20 + k] * (k + 1), [-1.0] * (k + 1), "length" if k else "stop") for p, k in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "module"),
    [("ppo", ppo), ("rloo", policy_gradient), ("online_dpo", online_dpo), ("rft", rft), ("trpo", trpo)],
)
def test_any_sampler_may_be_put_in(world, tmp_path: Path, stage: str, module: Any) -> None:
    found = find_stage(stage)
    inputs = Inputs(str(world.sft), (str(world.prompts),), reward=str(world.reward))
    more = {"missing_eos": None, "trackers": "none", "precision": "fp32", "lr": 1e-3}
    options = found.options.parse({"batch_size": 8, "episodes": 24, "num_generations": 2, "max_new_tokens": 4, **more})
    setup = module.load(inputs, options)
    setup.sampler = given = Given()
    made = module.improve(setup, inputs, options, tmp_path / "out")
    assert [version for _, version in given.told] == [0, 1, 2] and {one for one, _ in given.told} == {setup.scorer}
    rows = [json.loads(line) for line in (made.path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["policy_version"] for row in rows] == [0, 1, 2], "the iterations that it had learnt from"
    assert all(row["eos_share"] == 0.5 for row in rows)
    sampled = [json.loads(line) for line in (made.path / "run/rollouts.jsonl").read_text().splitlines()]
    assert {row["tokens"] for row in sampled} == {1, 2}
