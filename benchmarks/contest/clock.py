"""What both sides of a contest share: the task they are given, a clock, the memory they took.

A side is a script that reads one task (JSON, its only argument), carries it out and prints one line of JSON. It may run
in another Python than Hearken's, so nothing here imports more than torch.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

BETA, KL = 0.1, 0.05
"""Of DPO and KTO; of RLOO (in the reward) and GRPO (in the loss)."""


@dataclass(frozen=True)
class Task:
    """One piece of work, the same for both sides.

    Attributes:
        kind: sft, reward, ppo, sample, dpo, kto, rloo, grpo (and, for us alone, matmul).
        model: folder of a causal language model (or of an adapter, to sample from).
        reward: folder of a reward model; of RLOO and GRPO a function as module:function.
        lora: rank of the adapter that is trained instead of all weights; 0 for none.
        data: JSONL of the layout that the kind reads.
        work: a new folder for whatever a side must write.
        batch: sequences, judgments, episodes or prompts a step.
        samples: responses to each prompt.
        new_tokens: longest response.
        passes: of PPO over each batch.
        steps: of sampling and of methods that sample; the others take one epoch.
        stops: whether responses end at their own end token.
        cached: the reference's log-probabilities of DPO and KTO are computed before the clock starts.
        in_order: take the rows as they stand in the file.
        setting: what one side may choose for itself.
        processor: time in seconds of the processor, not of the wall: for one thread on a machine that is busy.
        profile: also say which operations the time went into.
    """

    kind: str
    model: str = ""
    reward: str = ""
    lora: int = 0
    data: str = ""
    work: str = ""
    batch: int = 16
    samples: int = 1
    new_tokens: int = 64
    passes: int = 4
    steps: int = 3
    stops: bool = False
    cached: bool = False
    in_order: bool = False
    lr: float = 1e-4
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    setting: dict[str, Any] = field(default_factory=dict)
    processor: bool = False
    profile: bool = False

    def rows(self) -> list[dict[str, Any]]:
        """The data."""
        return [json.loads(line) for line in Path(self.data).read_text("utf-8").splitlines()]


class Clock:
    """Times laps (steps, iterations) from `begin` on, and phases within them.

    Memory: on Linux the high-water mark is set back at `begin`, so ``start_bytes`` is what imports, weights and data
    take, and ``peak_bytes`` the most that stood at once from then on; elsewhere both are the process's own peak.
    """

    def __init__(self, device: str, processor: bool = False) -> None:
        self.cuda, self.processor = device.startswith("cuda"), processor
        self.marks: list[float] = []
        self.phases: dict[str, float] = defaultdict(float)
        self.start_bytes = 0
        self._inner: list[float] = []  # seconds of the phases inside each phase that is open

    def now(self) -> float:
        """Seconds; a GPU has finished what it was given."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.process_time() if self.processor else time.perf_counter()

    def begin(self) -> None:
        """The timed part begins."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.start_bytes = _memory("VmRSS")
        self.marks = [self.now()]

    def lap(self) -> None:
        """A step is done."""
        self.marks.append(self.now())

    def wrap(self, owner: Any, name: str, phase: str, when: Callable[[], bool] = lambda: True) -> None:
        """Add the time inside ``owner.name`` to ``phase`` where ``when()``, less that of the phases within."""
        inside = getattr(owner, name)

        @functools.wraps(inside)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.marks or not when():
                return inside(*args, **kwargs)
            self._inner.append(0.0)
            start = self.now()
            try:
                return inside(*args, **kwargs)
            finally:
                spent = self.now() - start
                self.phases[phase] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        setattr(owner, name, timed)

    def result(self, **figures: Any) -> None:
        """Print what was measured."""
        laps = [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]
        peak = torch.cuda.max_memory_allocated() if self.cuda else _memory("VmHWM")
        found = {"laps": laps, "phases": dict(self.phases), "start_bytes": self.start_bytes, "peak_bytes": peak}
        print(json.dumps(found | figures), flush=True)


def _memory(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def main(kinds: dict[str, Callable[[Task, Clock], None]]) -> None:
    """Read the task and carry it out; what libraries print goes to stderr."""
    task = Task(**json.loads(sys.argv[1]))
    clock = Clock(task.device, task.processor)
    kinds[task.kind](task, clock)
