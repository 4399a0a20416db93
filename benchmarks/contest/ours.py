"""Our side: the stages as `hearken train` runs them, and the sampler as PPO calls it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HEARKEN_QUIET", "1")

import torch
from clock import BETA, KL, Clock, Task, main
from torch.profiler import ProfilerActivity, profile

from hearken.algorithms.stage import train
from hearken.domains.text.sampling import open_frozen
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import SamplingParameters
from hearken.training.options import TextOptions
from hearken.training.run import Run

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn"),
    "attention": ("attention",),
    "optimiser": ("adam", "clip_grad", "foreach", "linalg_vector_norm", "::norm"),
    "softmax and logsumexp": ("softmax", "logsumexp"),
    "moving data": (
        "index", "gather", "scatter", "copy", "cat", "stack", "select", "embedding", "clone", "contiguous", "zero",
        "fill",
    ),
}  # fmt: skip
"""Where an operation's time is counted: the first kind with a part of its name."""


def watch(clock: Clock) -> list[int]:
    """Tell the clock where a run's steps begin and end; the first one warms up and is not timed.

    Returns:
        A list that gets the real tokens of each timed batch, the prompt counted once for each response.
    """
    steps, log = Run.steps, Run.log
    tokens: list[int] = []

    def timed(self: Run, total: int) -> Iterator[int]:
        for step in steps(self, total):
            if step == 1:
                clock.begin()
            yield step

    def lap(self: Run, **metrics: float) -> None:
        log(self, **metrics)
        if clock.marks:
            clock.lap()
            tokens.append(sum(len(g.prompt) * len(g.responses) + sum(map(len, g.responses)) for g in self.batch))

    Run.steps, Run.log = timed, lap  # type: ignore[method-assign]
    return tokens


def shares(profiler: Any, seconds: float) -> dict[str, float]:
    """The profiled seconds by kind of operation; what no operation accounts for is Python and the calls themselves."""
    found = dict.fromkeys([*KINDS, "elementwise and the rest"], 0.0)
    for event in profiler.key_averages():
        if event.key.startswith(("aten::", "mkldnn", "fbgemm")):
            kind = next((k for k, parts in KINDS.items() if any(p in event.key for p in parts)), None)
            found[kind or "elementwise and the rest"] += event.self_cpu_time_total / 1e6
    known = sum(found.values())
    found["Python"] = max(seconds - known, 0.0)
    return {kind: spent / max(seconds, known) for kind, spent in found.items()}


def profiled(task: Task, clock: Clock, work: Callable[[], None]) -> dict[str, Any]:
    """Do the work, its timed part under the profiler where the task asks for it."""
    if not task.profile:
        work()
        return {}
    profiler, begin = profile(activities=[ProfilerActivity.CPU]), clock.begin

    def started() -> None:
        begin()
        profiler.start()

    clock.begin = started  # type: ignore[method-assign]
    work()
    profiler.stop()
    return {"shares": shares(profiler, clock.marks[-1] - clock.marks[0])}


def options(task: Task) -> dict[str, Any]:
    return {
        "model": task.model, "data": task.data, "out": task.work, "seed": task.seed, "lr": task.lr,
        "schedule": "constant", "precision": task.precision, "device": task.device, "checkpoint_seconds": 1e9,
        "trackers": "none", "lora": task.lora, **task.setting,
    }  # fmt: skip


def stage(kind: str, task: Task, clock: Clock, **more: Any) -> None:
    tokens = watch(clock)
    artifact: Any = None

    def work() -> None:
        nonlocal artifact
        artifact = train(kind, **options(task), **more)

    extra = profiled(task, clock, work)
    history = (Path(task.work) / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in history]
    losses = [row.get("loss", row.get("policy_loss")) for row in rows]
    norms = [row.get("grad_norm") for row in rows]
    lengths = [row["length"] for row in rows[1:] if "length" in row]  # of responses, where the stage samples them
    mean_length = sum(lengths) / len(lengths) if lengths else None
    clock.result(
        losses=losses, norms=norms, tokens=sum(tokens), mean_length=mean_length, metrics=artifact.metrics, **extra
    )


def sft(task: Task, clock: Clock) -> None:
    """One epoch over prompt/completion rows, the loss on completions."""
    stage("sft", task, clock, batch_size=task.batch, validation=0.0)


def reward(task: Task, clock: Clock) -> None:
    """One epoch over rankings of K responses, each one element of the batch."""
    stage("reward", task, clock, batch_size=task.batch, validation=0.0, normalise="none")


def dpo(task: Task, clock: Clock) -> None:
    """One epoch over pairs; the reference in every step, or from the cache on disk."""
    stage("dpo", task, clock, batch_size=task.batch, validation=0.0, beta=BETA, cache_reference=task.cached)


def kto(task: Task, clock: Clock) -> None:
    """One epoch over responses with a thumb, as many up as down."""
    stage("kto", task, clock, batch_size=task.batch, validation=0.0, beta=BETA, cache_reference=task.cached)


def watch_learning(clock: Clock) -> None:
    """Phases that the methods which sample have in common."""
    from hearken.models.scorers import TokenScorer, ValueScorer
    from hearken.training.optimiser import Optimiser

    clock.wrap(NativeSampler, "sample", "sampling")
    for scorer in (TokenScorer, ValueScorer):
        clock.wrap(scorer, "forward", "forward", when=torch.is_grad_enabled)
    clock.wrap(Run, "backward", "backward")
    clock.wrap(Optimiser, "clip", "optimiser")
    clock.wrap(Optimiser, "update", "optimiser")


def critic_free(task: Task, clock: Clock) -> None:
    """RLOO and GRPO: one pass over each batch. The first iteration warms up, the others are timed, by phase."""
    from hearken.algorithms import policy_gradient as algorithm

    watch_learning(clock)
    clock.wrap(algorithm, "roll_out", "scoring")
    stage(
        task.kind, task, clock, reward=task.reward, batch_size=task.batch, num_generations=task.samples, beta=KL,
        episodes=task.batch * (task.steps + 1), max_new_tokens=task.new_tokens, missing_eos=None,
    )  # fmt: skip


def ppo(task: Task, clock: Clock) -> None:
    """The first iteration warms up, the others are timed, by phase."""
    from hearken.algorithms import critic as algorithm
    from hearken.rewards.learned import LearnedReward

    watch_learning(clock)
    clock.wrap(LearnedReward, "__call__", "scoring")
    clock.wrap(algorithm, "gather", "scoring")
    stage(
        "ppo", task, clock, reward=task.reward, batch_size=task.batch, num_generations=task.samples, epochs=task.passes,
        episodes=task.batch * (task.steps + 1), max_new_tokens=task.new_tokens, missing_eos=None, minibatches=1,
    )  # fmt: skip


def sample(task: Task, clock: Clock) -> None:
    """`NativeSampler` over batches of prompts; the first batch warms up."""
    policy = open_frozen(
        task.model, TextOptions(), device=task.device, reserve=task.new_tokens, precision=task.precision
    )
    sampler = NativeSampler(policy.scorer, policy.stop if task.stops else [], **task.setting)
    how = SamplingParameters(max_new_tokens=task.new_tokens)
    prompts = [policy.encoder.prompt(row["prompt"]) or [] for row in task.rows()]
    counts: list[int] = []

    def work() -> None:
        for step in range(task.steps + 1):
            at = range(step * task.batch, (step + 1) * task.batch)
            batch = [prompts[i % len(prompts)] for i in at]
            found = sampler.sample(batch, task.samples, how, [task.seed + i for i in at])
            if step == 0:
                clock.begin()
            else:
                clock.lap()
                counts.append(sum(len(s.tokens) for s in found))

    extra = profiled(task, clock, work)
    clock.result(tokens=sum(counts), mean_length=sum(counts) / (len(counts) * task.batch * task.samples), **extra)


def matmul(task: Task, clock: Clock) -> None:
    """Floating-point operations a second of the best of some square products, in the task's precision."""
    dtype = torch.bfloat16 if task.precision == "bf16" else torch.float32
    size = 8192 if task.device.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, device=task.device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        start = clock.now()
        a @ b
        best = min(best, clock.now() - start)
    clock.result(rate=2 * size**3 / best)


if __name__ == "__main__":
    kinds = {"sft": sft, "reward": reward, "dpo": dpo, "kto": kto, "rloo": critic_free, "grpo": critic_free}
    main({**kinds, "ppo": ppo, "sample": sample, "matmul": matmul})
