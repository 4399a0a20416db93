"""Hearken beside TRL and transformers' generate: speed, memory and equal losses, in one run on one machine.

Both sides get the same model, data, batch and epochs, each in a process of its own with the same threads and precision.
They take turns; a ratio is the median over the turns. A peer uses whichever of its own settings a trial run finds
fastest. Times leave out imports, loading, saving and the first step, which warms up. Peers are found by --trl and
--trl-ppo (a Python each, or the environment variables HEARKEN_TRL and HEARKEN_TRL_PPO): TRL 1.12 for PPO, TRL 1.16 for
everything else that trains.

With --model DIR (a Llama-like folder) the rows are those of that model, all its weights trained or LoRA adapters, on
texts of words that its tokenizer knows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from common import HERE, arguments, run

sys.path.insert(0, str(HERE / "contest"))

import world
from clock import Task
from page import tables, write_docs
from world import Size

from hearken.algorithms.thumbs import partners
from hearken.errors import UserError
from hearken.training.artifact import write_json
from hearken.training.batching import Order

PROMPT, NEW = 32, 64
PEERS = {"trl": ("HEARKEN_TRL", "1.16"), "trl-ppo": ("HEARKEN_TRL_PPO", "1.12")}
DOCS = HERE.parent / "docs"

GROUPED = {"train_sampling_strategy": "group_by_length"}
REBALANCED = {"train_sampling_strategy": "batch_rebalance"}  # microbatches of alike lengths within a batch
CUT = [{"accumulate": 2}, {"accumulate": 4}]
TRAINING = [{}, GROUPED, *(GROUPED | cut for cut in CUT), *(REBALANCED | cut for cut in CUT)]
LOW = {"dtype": "bfloat16"}  # the peer's frozen weights in bf16
STATIC = {"cache_implementation": "static"}
CONTINUOUS = {"use_transformers_continuous_batching": True}  # made for GPUs: 20 times slower on two cores, so left out
SAMPLING = [{}, *CUT, STATIC, CONTINUOUS]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "sft": [*TRAINING, {"padding_free": True, "accumulate": 4}],
    "reward": TRAINING,
    "dpo": TRAINING,
    "kto": [{}, *CUT, {"accumulate": 8}],  # it takes rows in their order only
    "ppo": [{}, *CUT],
    "rloo": SAMPLING,
    "grpo": SAMPLING,
    "sample": [{}, STATIC],
}
"""What a peer may choose from."""

UNITS = {
    "sample": "new tokens/s", "ppo": "sampled tokens/s", "rloo": "sampled tokens/s", "grpo": "sampled tokens/s",
    "dpo": "pairs/s", "kto": "examples/s",
}  # fmt: skip
"""What is counted. Where a method samples, how long its responses get is chance, which may favour either side: so many
episodes a second would say as much of the draw as of the program. Their tokens do not."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a task with the ratio to the peer that is asked for."""

    name: str
    kind: str
    hidden: int
    goal: float
    samples: int = 1
    stops: bool = False
    cached: bool = False
    lora: int = 0

    @property
    def peer(self) -> str | None:
        """The peer that is needed, or None for transformers, which is always there."""
        return {"sample": None, "ppo": "trl-ppo"}.get(self.kind, "trl")

    @property
    def unit(self) -> str:
        """What is counted."""
        return UNITS.get(self.kind, "real tokens/s")

    @property
    def samples_first(self) -> bool:
        """Whether the method learns from what it samples."""
        return self.kind in ("ppo", "rloo", "grpo")


ROWS = (
    Row("sampling, 1 a prompt, fixed length", "sample", 256, 1.7),
    Row("sampling, 4 a prompt, own EOS", "sample", 256, 2.0, samples=4, stops=True),
    Row("sampling, 1 a prompt, fixed length", "sample", 64, 2.5),
    Row("sampling, 4 a prompt, own EOS", "sample", 64, 2.5, samples=4, stops=True),
    Row("SFT", "sft", 256, 1.5),
    Row("SFT", "sft", 64, 1.5),
    Row("reward model, pairs", "reward", 256, 1.5, samples=2),
    Row("reward model, pairs", "reward", 64, 1.5, samples=2),
    Row("reward model, K = 4", "reward", 256, 4.0, samples=4),
    Row("reward model, K = 4", "reward", 64, 4.0, samples=4),
    Row("PPO, fixed length", "ppo", 256, 1.6),
    Row("PPO, own EOS", "ppo", 256, 2.5, stops=True),
    Row("PPO, fixed length", "ppo", 64, 1.6),
    Row("PPO, own EOS", "ppo", 64, 2.5, stops=True),
    *(
        Row(f"{kind.upper()}, reference {where}", kind, hidden, 1.8, samples, cached=where == "cached")
        for kind, samples in (("dpo", 2), ("kto", 1)) for hidden in (256, 64) for where in ("in the step", "cached")
    ),
    *(
        Row(f"{kind.upper()}, 4 a prompt, own EOS", kind, hidden, 2.0, samples=4, stops=True)
        for kind in ("rloo", "grpo") for hidden in (256, 64)
    ),
)  # fmt: skip


def rows_of(hidden: int) -> tuple[Row, ...]:
    """The rows of a real model of this width."""
    lora = 16
    return (
        Row("sampling, 4 a prompt", "sample", hidden, 2.0, samples=4),
        Row("sampling, 1 a prompt, LoRA", "sample", hidden, 2.0, lora=lora),
        Row("SFT", "sft", hidden, 1.5),
        Row("RLOO, 4 a prompt, LoRA", "rloo", hidden, 2.0, samples=4, lora=lora),
        Row("DPO, reference in the step", "dpo", hidden, 1.5, samples=2),
        Row("reward model, pairs", "reward", hidden, 1.5, samples=2),
        Row("reward model, K = 4", "reward", hidden, 1.5, samples=4),
        Row("PPO", "ppo", hidden, 2.0),
        Row("sampling, 1 a prompt", "sample", hidden, 2.0),
        Row("SFT, LoRA", "sft", hidden, 1.5, lora=lora),
        Row("DPO, LoRA", "dpo", hidden, 1.5, samples=2, lora=lora),
    )


def rows_on(device: str) -> tuple[Row, ...]:
    """The rows, on a GPU with a model that is worth one."""
    if device == "cpu":
        return ROWS
    return tuple(replace(row, hidden=world.GPU_HIDDEN) for row in ROWS if row.hidden == 256)


@dataclass(frozen=True)
class Contest:
    """Settings of the whole run."""

    work: Path
    repeats: int
    seed: int
    threads: int
    device: str
    precision: str
    fast: bool
    peers: dict[str, str]
    model: Path | None = None
    """A real model's folder; None: models of our own making."""
    processor: bool = False
    """Whether time is the processor's."""
    defaults: bool = False
    """Whether peers take their defaults, with frozen weights in bf16 where that is the precision, without trials."""

    @cached_property
    def shape(self) -> Size | None:
        """Of the real model."""
        return Size.read(self.model) if self.model else None

    @cached_property
    def known_words(self) -> world.Vocabulary:
        """Of the real model."""
        assert self.model
        return world.of_tokenizer(self.model)

    def size(self, row: Row) -> Size:
        """The shape of a row's model."""
        return self.shape or Size.of(row.hidden)

    def side(self, task: Task, python: str | None = None) -> dict[str, Any]:
        """Carry a task out in a process of its own: ours, or a peer's in its Python."""
        script = "ours.py" if python is None else "peer.py"
        task = replace(
            task, work=str(world.fresh(self.work / "out")), device=self.device, precision=self.precision,
            processor=self.processor,
        )  # fmt: skip
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore", "HEARKEN_CACHE": str(self.work / "cache"),
        }  # fmt: skip
        if python not in (None, sys.executable):
            environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            [python or sys.executable, str(HERE / "contest" / script), json.dumps(asdict(task))],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise UserError(
                f"{script} failed on {task.kind}: {done.stderr.strip()[-2000:]}", f"The task: {asdict(task)}"
            )
        return json.loads(done.stdout.strip().splitlines()[-1])

    def task(self, row: Row, count: int | None = None) -> Task:
        """The work of a row; ``count`` rows of data instead of the usual number."""
        size = self.size(row)
        trains = row.kind in ("sft", "reward", "dpo", "kto")
        rate = world.end_rate(NEW) if row.stops or trains else 0.0
        if self.model:
            folder, model, words = self.work / f"of-{row.hidden}", self.model, self.known_words
        else:
            folder = self.work / f"hidden-{row.hidden}-{'stops' if rate else 'never-stops'}"
            model, words = world.make_model(folder, size, self.seed, rate), world.made_up(size)
        task = Task(
            row.kind, model=str(model), samples=row.samples, stops=row.stops, cached=row.cached, new_tokens=NEW,
            seed=self.seed, lora=row.lora,
        )  # fmt: skip
        if row.kind in ("reward", "ppo"):
            task = replace(task, reward=str(world.make_reward(Path(f"{folder}-reward"), model, self.seed)))
        elif row.kind in ("rloo", "grpo"):
            task = replace(task, reward=f"scoring:mean_{'letters' if self.model else 'number'}")
        elif row.kind == "sample" and row.lora:
            task = replace(task, model=str(world.make_adapter(Path(f"{folder}-lora"), model, row.lora, self.seed)))
        full = 12 if self.model else 128 if row.hidden > 64 else 256
        data = self.work / "data" / f"{row.kind}-{row.hidden}-{row.samples}-{count or 'all'}.jsonl"
        if row.kind == "sft":
            rows = world.demonstrations(words, count or self.few(full, 48), self.seed)
            task = replace(task, batch=4 if self.model else 16)
        elif row.kind == "kto":
            rows = world.thumbs(words, count or self.few(full, 48), self.seed)
            task = replace(task, batch=16)
        elif trains:
            rows = world.rankings(words, count or self.few(max(2 * full // row.samples, 6), 48), row.samples, self.seed)
            task = replace(task, batch=(8 if self.model else 32) // row.samples)
        else:
            steps = 1 if self.model else self.few(2 if row.kind in ("ppo", "rloo", "grpo") else 4, 1)
            many, usual = (32, 16 if row.kind == "ppo" or row.samples > 1 else 32) if self.model else (64, 32)
            batch = many if row.kind in ("rloo", "grpo") else usual
            task = replace(task, batch=self.few(batch, 8), steps=steps, lr=3e-6)
            rows = world.prompts(words, task.batch * (task.steps + 1), PROMPT, self.seed)
        return replace(task, data=str(world.write_rows(data, rows)))

    def rollouts(self) -> list[dict[str, Any]]:
        """The responses that our side has just sampled."""
        lines = (self.work / "out" / "run" / "rollouts.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def few(self, full: int, smoke: int) -> int:
        """A number, or the smaller one of a smoke run."""
        return smoke if self.fast else full

    @cached_property
    def one_rate(self) -> float:
        """The machine's rate, once."""
        return self.rate()

    def rate(self) -> float:
        """The machine's matrix-multiply rate now, operations a second."""
        return float(self.side(Task("matmul"))["rate"])


def units(row: Row, task: Task, found: dict[str, Any]) -> float:
    """What a side has done in its timed laps: new, sampled or real tokens, or whole batches of pairs or examples."""
    if row.samples_first:
        return float(task.batch * len(found["laps"]) * found["mean_length"])
    return float(found["tokens"] if "tokens/s" in row.unit else task.batch * len(found["laps"]))


def needed(size: Size, row: Row, task: Task, found: dict[str, Any]) -> float:
    """Floating-point operations that the timed laps need, by formula; padding and repetitions not counted.

    A model whose adapter is trained is counted as if all of it were: the gradients of its weights are a third.
    """
    laps = len(found["laps"])
    if row.kind == "sample":
        length = round(found["mean_length"])
        rows = task.batch * task.samples * laps
        return size.forward([(0, PROMPT)] * (task.batch * laps) + [(PROMPT, length)] * rows, head=rows * length)
    if row.kind == "ppo":
        length = round(found["mean_length"])
        each = [(0, PROMPT + length)] * task.batch
        body, policy = size.forward(each), size.forward(each, head=task.batch * length)
        scoring = 2 * policy + 2 * body  # old and reference log-probabilities, values, rewards
        return laps * (policy + scoring + task.passes * 3 * (policy + body))
    if row.samples_first:  # sampling tells the policy's log-probabilities: reference, forward and backward come besides
        length = round(found["mean_length"])
        each = [(0, PROMPT)] * (task.batch // task.samples) + [(PROMPT, length)] * task.batch
        return laps * 5 * size.forward(each, head=task.batch * length)
    rows = task.rows()
    head = sum(sum(world.lengths(r)[1]) for r in rows) if row.kind != "reward" else 0
    once = size.forward(world.spans(rows), head=head)
    whole = 3 * once
    if row.kind == "kto":  # and once more, without gradient, with as many mismatched responses to the same prompts
        whole += once
    if row.kind in ("dpo", "kto") and not row.cached:
        whole += once
        if row.kind == "kto":  # the same prompts
            whole += size.forward(((p, n) for p, (n,) in map(world.lengths, rows)), head=head)
    return whole * found["tokens"] / world.real_tokens(rows)  # without the step that warmed up


def choose(contest: Contest, row: Row, python: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The peer's fastest setting on a small part of the work, and what each took."""
    trials: list[dict[str, Any]] = []
    candidates = [s for s in SETTINGS[row.kind] if s != CONTINUOUS or contest.device != "cpu"]
    if contest.model:  # a trial takes long: the defaults and the usual winner, frozen weights in bf16
        candidates = candidates[:1] + [s for s in candidates if s in (STATIC, CUT[0], GROUPED | CUT[0])][:1]
    if contest.precision == "bf16" and (row.kind == "sample" or row.lora):
        candidates = [s | LOW for s in candidates]
    if contest.defaults:
        return candidates[0], []
    candidates = candidates[:2] if contest.fast else candidates
    kept = contest.work / "trials" / f"{row.kind}-{row.hidden}-{row.samples}-{row.stops}-{row.lora}.json"
    if contest.model and kept.exists():
        done = json.loads(kept.read_text("utf-8"))
        return done["setting"], done["trials"]
    samples = row.kind == "sample" or row.samples_first
    part = 24 if row.samples > 2 else 64  # a peer reads a ranking as its K(K-1)/2 pairs
    task = contest.task(row, None if samples or contest.fast else part)
    for setting in candidates:
        try:
            found = contest.side(replace(task, setting=setting, steps=1), python)
            trials.append({"setting": setting, "seconds": sum(found["laps"])})
        except UserError as error:  # a setting that does not work here is not the peer's best
            trials.append({"setting": setting, "error": error.what[-300:]})
    timed = [t for t in trials if "seconds" in t]
    if not timed:
        raise UserError(f"{row.name}: no setting of the peer works: {trials[0]['error']}", f"Look at {python}")
    best = min(timed, key=lambda t: t["seconds"])["setting"]
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"setting": best, "trials": trials}), "utf-8")
    return best, trials


def measure(
    contest: Contest, row: Row, python: str, setting: dict[str, Any], trials: list[dict[str, Any]]
) -> dict[str, Any]:
    """A row: both sides in turns, the peer with ``setting``, which won the ``trials``."""
    whole = contest.task(row)
    turns = []
    for turn in range(contest.repeats):
        task = replace(whole, seed=whole.seed + turn)  # other draws: how long responses get is chance
        rate = contest.one_rate if contest.model else contest.rate()
        both: dict[str, Any] = {}
        for side in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
            ours = side == "ours"
            found = contest.side(task if ours else replace(task, setting=setting), None if ours else python)
            seconds = sum(found["laps"])
            both[side] = {
                "per_second": units(row, task, found) / seconds,
                "matmul_share": needed(contest.size(row), row, task, found) / seconds / rate,
                "peak_mb": found["peak_bytes"] / 1e6,
                "grown_mb": (found["peak_bytes"] - found["start_bytes"]) / 1e6,
                "mean_length": found.get("mean_length"),
                "phases": {name: spent / seconds for name, spent in found["phases"].items()},
                "phase_seconds": {name: spent / len(found["laps"]) for name, spent in found["phases"].items()},
            }
        turns.append(both | {"ratio": both["ours"]["per_second"] / both["peer"]["per_second"], "rate": rate})
    shares = None if contest.model else contest.side(replace(whole, profile=True)).get("shares")
    ratio = statistics.median(t["ratio"] for t in turns)
    return {
        "row": asdict(row) | {"unit": row.unit}, "setting": setting, "trials": trials, "turns": turns, "ratio": ratio,
        "met": ratio >= row.goal, "shares": shares,
    }  # fmt: skip


def equal_losses(contest: Contest, kind: str, python: str) -> dict[str, Any]:
    """The same seed and order: losses of both sides over 50 steps and their greatest difference.

    KTO: the peer is given our mismatched pairs. RLOO and GRPO: the peer is given the responses that we sampled, step by
    step; as the loss of a first pass over a batch says little about the policy, the gradient's norm is compared.
    """
    steps, batch, seed = contest.few(50, 8), 4, contest.seed
    row = Row(kind, kind, 64, 1.0, samples={"reward": 2, "dpo": 2, "rloo": 4, "grpo": 4}.get(kind, 1))
    ordered = contest.work / "data" / f"{kind}-ordered.jsonl"
    if row.samples_first:
        row, batch = replace(row, stops=True), 16
        task = replace(contest.task(row, steps * batch), batch=batch, steps=steps - 1, lr=1e-4)
        ours = contest.side(task)["norms"]
        world.write_rows(ordered, contest.rollouts())
    else:
        task = replace(contest.task(row, steps * batch), batch=batch)
        ours = contest.side(task)["losses"]
        rows, order = task.rows(), Order(steps * batch, batch, seed)
        if kind == "kto":
            after = partners(len(rows), seed)
            rows = [r | {"mismatched": rows[after[i]]["completion"]} for i, r in enumerate(rows)]
        world.write_rows(ordered, (rows[i] for s in range(steps) for i in order.rows(s)))
    found = contest.side(replace(task, data=str(ordered), in_order=True), python)
    theirs = found["norms" if row.samples_first else "losses"]
    worst = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return {
        "kind": kind,
        "of": "gradient norm" if row.samples_first else "loss",
        "steps": len(ours),
        "first": ours[0],
        "last": ours[-1],
        "worst": worst,
        "equal": worst <= 1e-3,
    }


def scaling(contest: Contest) -> dict[str, Any]:
    """How our cost grows, one thing changed at a time: points (x, tokens a second, share of the matmul rate)."""

    def points(row: Row, tasks: Iterable[tuple[float, Row, Task]]) -> list[dict[str, float]]:
        found = []
        for x, one, task in tasks:
            rate, result = contest.rate(), contest.side(task)
            seconds = sum(result["laps"])
            found.append({"x": x, "per_second": units(one, task, result) / seconds,
                          "share": needed(Size.of(one.hidden), one, task, result) / seconds / rate})  # fmt: skip
        return found

    sft, sampling = Row("", "sft", 256, 0), Row("", "sample", 256, 0)
    tuned = replace(contest.task(sft, contest.few(128, 16)), batch=64)
    sizes = (128, 512, 2048) if contest.fast else (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    widths = (32, 64) if contest.fast else (32, 64, 128, 256, 512)
    limits = (16, 32) if contest.fast else (16, 32, 64, 128, 256, 512)
    fans = (2, 4) if contest.fast else (2, 3, 4, 6, 8)
    count = contest.few(96, 8)
    return {
        "tokens": points(sft, ((n, sft, replace(tuned, setting={"tokens": n})) for n in sizes)),
        "length": points(
            sampling, ((n, sampling, replace(contest.task(sampling), new_tokens=n, steps=1)) for n in limits)
        ),
        "k": points(
            sft, ((k, r, contest.task(r, count)) for k in fans for r in [Row("", "reward", 256, 0, samples=k)])
        ),
        "hidden": points(sft, ((h, r, contest.task(r, count)) for h in widths for r in [Row("", "sft", h, 0)])),
    }


def startup(contest: Contest, times: int) -> dict[str, float]:
    """Medians in seconds: help texts, and the first step of a stage once torch and transformers are there."""
    import time

    def seconds(*words: str) -> float:
        code = f"import sys; sys.argv = {['hearken', *words, '--help']!r}; from hearken.cli.main import main; main()"
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - start

    task = contest.task(Row("", "sft", 64, 0), 64)

    def first_step() -> float:
        out = str(world.fresh(contest.work / "out"))
        command = [sys.executable, str(HERE / "contest" / "startup.py"), task.model, task.data, out]
        environment = os.environ | {"OMP_NUM_THREADS": str(contest.threads)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return float(done.stdout.strip().splitlines()[-1])

    return {
        "hearken --help": statistics.median(seconds() for _ in range(times)),
        "hearken train ppo --help": statistics.median(seconds("train", "ppo") for _ in range(times)),
        "first step of train sft": statistics.median(first_step() for _ in range(times)),
    }


def find_peers(settings: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """The Python of each peer that is there, and what is missing, in words."""
    found, missing = {}, []
    for name, (variable, wanted) in PEERS.items():
        python = getattr(settings, name.replace("-", "_")) or os.environ.get(variable) or sys.executable
        code = "from importlib.metadata import version; print(version('trl'))"
        try:
            done = subprocess.run([python, "-c", code], capture_output=True, text=True)
            version = done.stdout.strip() if done.returncode == 0 else ""
        except OSError:
            version = ""
        if version.startswith(wanted + "."):
            found[name] = python
        else:
            what = f"has TRL {version}" if version else "has no TRL"
            missing.append(
                f"TRL {wanted}: {python} {what}. Make an environment (python -m venv DIR; DIR/bin/pip install "
                f"'trl=={wanted}.*') and name its Python with --{name} or {variable}"
            )
    return found, missing


def main(settings: argparse.Namespace) -> dict[str, Any]:
    peers, missing = find_peers(settings)
    for line in missing:
        print(f"Missing: {line}", flush=True)
    contest = Contest(
        settings.work, settings.repeats or (1 if settings.fast else 3), settings.seed,
        settings.threads or os.cpu_count() or 1, settings.device, settings.precision, settings.fast, peers,
        settings.model, settings.processor, settings.defaults,
    )  # fmt: skip
    parts = ["rows"] if contest.model else settings.parts.split(",")
    figures: dict[str, Any] = {"repeats": contest.repeats, "contest_threads": contest.threads, "missing": missing}
    figures |= {"device": contest.device, "precision": contest.precision}
    if contest.shape:
        figures["model"] = contest.shape.parameters
    if "rows" in parts:
        figures["rows"] = []
        chosen: dict[Row, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for row in rows_of(contest.shape.hidden) if contest.shape else rows_on(contest.device):
            name = f"{row.name}, hidden {row.hidden}"
            if settings.only and not re.search(settings.only, name):
                continue
            if row.peer and row.peer not in peers:
                continue
            python = peers[row.peer] if row.peer else sys.executable
            work = replace(row, name="", cached=False)  # where the reference is computed, one setting is best for both
            if work not in chosen:
                chosen[work] = choose(contest, row, python)
            if settings.trials:
                continue
            one = measure(contest, row, python, *chosen[work])
            figures["rows"].append(one)
            write_json(settings.out, figures)  # what is measured stays, should the rest not come to its end
            print(f"{name}: {one['ratio']:.2f} (goal {row.goal:g})", flush=True)
    if "losses" in parts and "trl" in peers:
        kinds = ("sft", "reward", "dpo", "kto", "rloo", "grpo")
        figures["losses"] = [equal_losses(contest, kind, peers["trl"]) for kind in kinds]
    if "startup" in parts:
        figures["startup"] = startup(contest, contest.few(5, 1))
    if "scaling" in parts:
        figures["scaling"] = scaling(contest)
    for name, table in tables(figures).items():
        print(f"\n{name}\n\n{table}", flush=True)
    return figures


if __name__ == "__main__":
    parser = arguments(re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--trl", metavar="PYTHON", help="Python of an environment with TRL 1.16")
    parser.add_argument("--trl-ppo", metavar="PYTHON", help="Python of an environment with TRL 1.12")
    parser.add_argument("--repeats", type=int, default=0, help="turns of each row; 0: three (one in a smoke run)")
    parser.add_argument("--threads", type=int, default=0, help="of both sides; 0: all cores")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of both sides")
    parser.add_argument("--parts", default="rows,losses,startup,scaling", help="what to measure")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a real model's folder, e.g. of hearken model")
    parser.add_argument("--processor", action="store_true", help="time by the processor: with --threads 1, when busy")
    parser.add_argument("--defaults", action="store_true", help="peers with their defaults, without trials")
    parser.add_argument("--trials", action="store_true", help="find the peers' settings of a model, measure nothing")
    parser.add_argument("--only", metavar="REGEX", help="rows whose name matches")
    parser.add_argument(
        "--markdown", type=Path, metavar="JSON", help="measure nothing: put figures into docs/performance.md"
    )
    given = parser.parse_args()
    if given.markdown:
        write_docs(json.loads(given.markdown.read_text("utf-8")), DOCS / "performance.md")
    else:
        run(main, parser)
