"""A training run in a folder: it opens, steps and finishes, with metrics, progress, checkpoints, interruption.

with Run(inputs, options, out, {"optimiser": optimiser}) as run:
for step in run.steps(total):
for part in run.microbatches(groups, scorer):
run.backward(loss)
run.log(loss=..., **optimiser.step(step))
return run.finish(save, data=facts, metrics=...)
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from hearken.errors import Pause, UserError
from hearken.models.layout import Group
from hearken.models.scorers import RewardScorer, Scorer, TokenScorer
from hearken.progress import progress
from hearken.training import precision
from hearken.training.artifact import NOTICES, Artifact, finish, write_json
from hearken.training.batching import microbatches
from hearken.training.optimiser import NonFiniteGradient


class Stateful(Protocol):
    """What a checkpoint saves and brings back to the bit."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Callback:
    """Called by `Run.steps`; its state is a part of the checkpoint, under its ``name``.

    ``before`` and ``after`` may take their time. An `errors.Pause` from ``before`` saves the run as it is; one from
    ``after`` leaves the last checkpoint, from which the step is made again.
    """

    name = "callback"

    @property
    def stop(self) -> bool:
        """Whether no further step is to be begun; asked after a look that found figures."""
        return False

    def before(self, step: int, *, last: bool = False) -> dict[str, float]:
        """Look at the run before a step, and (``last``) once all are done; figures for the log."""
        return {}

    def after(self, step: int) -> None:
        """Do what follows from a step, once its figures are logged."""

    def finish(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Before the model is saved: metrics, and facts of the data, for the manifest."""
        return {}, {}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""


class Interruption(UserError):
    """Something that the step needed failed before it changed a weight; what was learnt so far is saved."""


class Run:
    """The bookkeeping of one training run in ``out/run``.

    The order of the data and every draw are functions of the seed and the step, so a checkpoint is the step's number,
    the registered states (weights, moments, controllers) and torch's generator; a resumed run is the same to the bit.

    Entered, it turns numbers that are not finite into an error that names the batch, before any weight has changed; and
    saves what was learnt where a step cannot go on (`Interruption`, `Pause`).

    Args:
        inputs: of the stage.
        options: of the stage: see `TrainingOptions`.
        out: the artifact's folder.
        states: what a checkpoint holds besides, by name.
        label: shown beside the progress bar; by default the stage's name.
        callbacks: what looks at the run between its steps.
    """

    def __init__(
        self, inputs: Any, options: Any, out: Path, states: dict[str, Stateful], *, label: str = "",
        callbacks: Sequence[Callback] = (),
    ) -> None:  # fmt: skip
        self.inputs, self.out, self.folder = inputs, out, out / "run"
        self.options, self.callbacks = options, callbacks
        self.states: dict[str, Stateful] = states | {one.name: one for one in callbacks}
        self.label = label or options.stage.upper()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.metrics_file = self.folder / "metrics.jsonl"
        self.device = precision.device_of(options.device)
        self.precision: str = options.precision
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.batch: Sequence[Group] = ()
        """What is learnt from at present: what `microbatches` was given last."""
        self._looked: dict[str, float] = {}
        self._changed = False
        self._note = ""
        self._stop = False
        self._trackers: list[Any] = []

    # Precision

    def choose_precision(self, scorer: TokenScorer | RewardScorer) -> None:
        """Fix the precision of ``scorer`` and of all that follow it: `precision.settle`, recorded in this folder."""
        self.precision = precision.settle(scorer, self.options.precision, self.folder)

    # The loop

    def steps(self, total: int) -> Iterator[int]:
        """Steps 0..total-1, from where the last checkpoint stands; saves on the way, on Ctrl-C, and at the end.

        Raises:
            KeyboardInterrupt: after the step in progress was finished and saved.
            UserError: the disk is full, or a number is not finite (the checkpoint before it stands).
        """
        self._restore()
        self._start_trackers()
        handler = signal.signal(signal.SIGINT, self._interrupt) if _main_thread() else None
        saved_at = time.monotonic()
        try:
            with progress(self.label, total) as bar:
                if self.step:
                    bar.advance(self.step, "resumed")
                while self.step < total:
                    began = time.monotonic()
                    self._look()
                    if self._looked and any(one.stop for one in self.callbacks):
                        self.log()
                        return
                    yield self.step
                    for one in self.callbacks:
                        one.after(self.step)
                    self.seconds += time.monotonic() - began
                    self.step += 1
                    self._changed = False
                    bar.advance(1, self._note)
                    now = time.monotonic()
                    if self._stop or self.step == total or now - saved_at >= self.options.checkpoint_seconds:
                        self.save()
                        saved_at = now
                    if self._stop and self.step < total:
                        raise KeyboardInterrupt
                self._look(last=True)
                if self._looked:
                    self.log()
        finally:
            if handler is not None:
                signal.signal(signal.SIGINT, handler)
            for tracker in self._trackers:
                tracker.finish()

    def log(self, **metrics: float) -> None:
        """Figures of the current step: to metrics.jsonl, the trackers and the progress bar (the first one or two)."""
        metrics |= self._looked
        self._looked, self._changed = {}, True
        row = {"step": self.step, **{k: round(float(v), 6) for k, v in metrics.items()}}
        self.history.append(row)
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for tracker in self._trackers:
            tracker.log(metrics, step=self.step)
        self._note = "  ".join(f"{k} {v:.3g}" for k, v in list(metrics.items())[:2])

    def last(self, *names: str) -> dict[str, Any]:
        """Figures of the last step that had them, as they were logged."""
        row = next(row for row in reversed(self.history) if row.keys() >= set(names))
        return {name: row[name] for name in names}

    def record(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows of the current step to ``run/NAME``, a ``.jsonl``, which is rewound on resuming."""
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"step": self.step, **row}, ensure_ascii=False) + "\n" for row in rows)

    def notice(self, text: str) -> None:
        """Something that whoever reads the result must know: said once, and kept for the manifest."""
        file = self.folder / NOTICES
        known = json.loads(file.read_text("utf-8")) if file.exists() else []
        if text not in known:
            write_json(file, [*known, text])
            warnings.warn(f"{self.label}: {text}", stacklevel=2)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradient of a microbatch's share of the loss.

        Raises:
            NonFiniteGradient: the loss is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise NonFiniteGradient(f"the loss is {loss.item()} at step {self.step}")
        loss.backward()

    def microbatches(self, groups: Sequence[Group], scorer: Scorer) -> Iterator[list[int]]:
        """Indices of ``groups``, which are learnt from next, in microbatches of the options' ``tokens``."""
        self.batch = groups
        return microbatches(groups, self.options.tokens, scorer)

    def _look(self, *, last: bool = False) -> None:
        for one in self.callbacks:
            self._looked |= one.before(self.step, last=last)

    # Opening and finishing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Interruption | Pause) and self.step and not self._changed:
            self.save()
        if isinstance(error, NonFiniteGradient):
            path = self.folder / f"bad-batch-step-{self.step}.json"
            batch = error.groups or self.batch
            groups = [{"prompt": list(g.prompt), "responses": [list(r) for r in g.responses]} for g in batch]
            write_json(path, {"step": self.step, "error": str(error), "groups": groups})
            raise UserError(
                f"{self.label} stopped before an update: {error}; the batch's token ids are in {path}",
                "The checkpoint before it stands: the same command replays that very batch. "
                "Look at the rewards and the data, or start anew with a lower lr or precision=fp32",
            ) from error

    def finish(self, save: Callable[[Path], None], *, data: dict[str, Any], metrics: dict[str, Any]) -> Artifact:
        """Save the model and write the manifest; what only resuming needs goes.

        Args:
            save: writes the model into a folder.
            data: facts of the data.
            metrics: the final figures.
        """
        for one in self.callbacks:
            figures, facts = one.finish()
            metrics, data = metrics | figures, data | facts
        save(self.out)
        made = finish(
            self.out, self.options.stage, inputs=self.inputs, options=self.options, data=data, metrics=metrics,
            seconds=self.seconds,
        )  # fmt: skip
        self.discard_checkpoint()
        return made

    def discard_checkpoint(self) -> None:
        """The artifact is complete: what only resuming needs may go."""
        self.checkpoint.unlink(missing_ok=True)

    # State

    def save(self) -> None:
        """Write the checkpoint so that the old one stands until the new one is whole."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "states": {name: s.state_dict() for name, s in self.states.items()},
        }
        partial = self.checkpoint.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.checkpoint)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            # torch's own writer says only that writing failed.
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full and "failed writing" not in str(error):
                raise
            raise UserError(
                f"the disk is full: step {self.step} of {self.label} could not be saved in {self.folder}",
                "The last checkpoint is whole. Free some space and run the same command again to go on from it",
            ) from None

    def _restore(self) -> None:
        if self.checkpoint.exists():
            try:
                state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            except (RuntimeError, EOFError, OSError, UnpicklingError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise UserError(f"{self.checkpoint} is damaged", "Begin anew: add --overwrite") from error
            self.step, self.seconds = state["step"], state["seconds"]
            torch.set_rng_state(state["rng"].cpu())
            if state["states"].keys() != self.states.keys():
                raise UserError(
                    f"the run in {self.out} was begun by another version of hearken", "Begin anew: add --overwrite"
                )
            for name, owner in self.states.items():
                owner.load_state_dict(state["states"][name])
        else:
            torch.manual_seed(self.options.seed)
        self.history = self._rewind(self.metrics_file)
        for path in self.folder.glob("*.jsonl"):
            if path != self.metrics_file:
                self._rewind(path)

    def _rewind(self, path: Path) -> list[dict[str, Any]]:
        """Cut off the lines written after the checkpoint, which will be written again; returns those that stay."""
        if not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines(keepends=True)
        stay = [(line, row) for line in lines if (row := _json_or_none(line)) is not None and row["step"] < self.step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(line for line, _ in stay), "utf-8")
        os.replace(partial, path)
        return [row for _, row in stay]

    def _start_trackers(self) -> None:
        names = [n for n in self.options.trackers.split(",") if n and n != "none"]
        if not names:
            return
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers

        PartialState()
        wanted = filter_trackers(names, self.folder)
        for name in wanted:
            tracker = LOGGER_TYPE_TO_CLASS[str(name)]
            extra = {"logging_dir": self.folder / str(name)} if tracker.requires_logging_directory else {}
            started = tracker("metrics", **extra)
            started.start()
            self._trackers.append(started)

    def _interrupt(self, *_: Any) -> None:
        if self._stop:  # a second Ctrl-C does not wait
            raise KeyboardInterrupt
        self._stop = True


def mean(stats: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the updates of a step, for `Run.log`; empty where there was none."""
    return {key: sum(s[key] for s in stats) / len(stats) for key in stats[0]} if stats else {}


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the last line of a killed process
        return None
