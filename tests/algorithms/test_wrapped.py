"""While a stage trains, its networks are computed through their modules' calls alone: what wraps them is in force.

FSDP gathers weights, and DDP prepares its reductions, in the hooks of the wrapped module: whoever calls its children
past it reads weights that are not there. Here hooks stand in for them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_policy_gradient import module  # noqa: F401
from tiny_models import WORDS, write_rows, write_seq2seq

from hearken.algorithms.stage import builtin, find_stage, train
from hearken.models.scorers import Scorer, TokenScorer
from hearken.training.run import Run

FAST: dict[str, Any] = {"trackers": "none", "precision": "fp32", "lr": 1e-3, "batch_size": 8}
SAMPLED: dict[str, Any] = {"episodes": 16, "max_new_tokens": 5, "missing_eos": None}


class Wrap:
    """Counts a network's calls, and forbids those of its parts that come from outside of one.

    In a backward pass the parts may be computed again: the wrapper's own hooks stand there, too.
    """

    def __init__(self) -> None:
        self.scorers: list[Scorer] = []
        self.inside: Counter[int] = Counter()
        self.calls: Counter[str] = Counter()
        self.owners: dict[int, set[int]] = {}
        self.closed = False

    def close(self) -> None:
        """From now on the networks are wrapped."""
        for scorer in self.scorers if not self.closed else ():
            scorer.register_forward_pre_hook(self.enter)
            scorer.register_forward_hook(self.leave, always_call=True)
            for part in scorer.modules():
                if part is not scorer:
                    if id(part) not in self.owners:
                        part.register_forward_pre_hook(self.guard)
                    self.owners.setdefault(id(part), set()).add(id(scorer))
        self.closed = True

    def enter(self, scorer: Any, *_: Any) -> None:
        self.inside[id(scorer)] += 1
        self.calls[type(scorer).__name__] += 1

    def leave(self, scorer: Any, *_: Any) -> None:
        self.inside[id(scorer)] -= 1

    def guard(self, part: Any, *_: Any) -> None:
        if not any(self.inside[owner] for owner in self.owners[id(part)]) and torch._C._current_graph_task_id() == -1:
            raise AssertionError(f"{type(part).__name__} was called past the module that wraps it")


@pytest.fixture
def wrap(monkeypatch: pytest.MonkeyPatch) -> Wrap:
    wrapped = Wrap()
    made, entered = Scorer.__init__, Run.__enter__

    def init(self: Scorer, *args: Any, **how: Any) -> None:
        made(self, *args, **how)
        wrapped.scorers.append(self)

    def enter(self: Run) -> Run:
        wrapped.close()
        return entered(self)

    monkeypatch.setattr(Scorer, "__init__", init)
    monkeypatch.setattr(Run, "__enter__", enter)
    return wrapped


def request(world, tmp_path: Path, stage: str) -> dict[str, Any]:
    found = find_stage(stage)
    data: dict[str, Any] = {"data": world.prompts if found.reads == ("prompt",) else world.pairs}
    if stage == "sft":
        data = {"data": world.demonstrations}
    if stage == "ilql":
        rows = [{"prompt": f"tell {w}", "completion": f" the {w}", "label": i % 2 == 0} for i, w in enumerate(WORDS)]
        data = {"data": write_rows(tmp_path / "thumbs.jsonl", rows)}
    if found.needs("reward"):
        data |= SAMPLED | {"reward": world.reward}
    if found.options.model_fields["batch_size"].default and "num_generations" in found.options.model_fields:
        data["num_generations"] = 2
    return data


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage.name for stage in builtin() if stage.domain == "text"])
def test_training_goes_through_the_modules_call(world, tmp_path: Path, wrap: Wrap, stage: str, monkeypatch) -> None:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    train(stage, model=world.sft, out=tmp_path / "out", **FAST | request(world, tmp_path, stage))
    assert wrap.closed and wrap.calls.total() > 2
    trained = {"reward": "RewardScorer", "ilql": "GuidedScorer", "nlpo": "MaskedScorer"}.get(stage, "TokenScorer")
    assert wrap.calls[trained], wrap.calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("ppo", {"lora": 2, "pessimism": 1.0}),
        ("ppo", {"judge": "rule:distinct", "judge_every": 1, "judge_prompts": 4}),
        ("rloo", {"pessimism": 1.0, "width": "heads"}),
        ("reward", {"pooling": "mean"}),
        ("dpo", {"cache_reference": False}),
        ("sft", {"precision": "auto"}),
    ],
    ids=str,
)
def test_so_do_its_variants(world, tmp_path: Path, wrap: Wrap, stage: str, more: dict[str, Any], monkeypatch) -> None:
    monkeypatch.setenv("HEARKEN_CACHE", str(tmp_path / "cache"))
    train(stage, model=world.sft, out=tmp_path / "out", **FAST | request(world, tmp_path, stage) | more)
    assert wrap.calls.total() > 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["rloo", "trpo", "ilql", "reward"])
def test_so_do_encoder_decoders(world, tmp_path: Path, wrap: Wrap, stage: str) -> None:
    base = write_seq2seq(tmp_path / "t5", "t5")
    more = request(world, tmp_path, stage)
    if "reward" in more:
        more["reward"] = "rule:distinct"
    train(stage, model=base, out=tmp_path / "out", **FAST | more)
    assert wrap.calls.total() > 2


def test_a_call_past_the_wrapper_is_seen(world, wrap: Wrap) -> None:
    from hearken.models.layout import Group, lay_out
    from hearken.models.loading import load_policy

    scorer = TokenScorer(load_policy(str(world.sft)))
    wrap.close()
    layout = lay_out([Group([5, 6], [[7, 8]])])
    scorer(layout)
    scorer(lambda net: net.hidden(layout))
    with pytest.raises(AssertionError, match="past the module"):
        scorer.hidden(layout)
