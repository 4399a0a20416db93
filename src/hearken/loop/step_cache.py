"""Artifacts that are made once: those that are there and whose settings are the same are taken as they are."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hearken.algorithms.stage import Inputs, run_stage
from hearken.config import Options
from hearken.errors import UserError
from hearken.loop.project import Project
from hearken.training.artifact import MANIFEST, Artifact, finish, read_record, request_of

DataAndMetrics = tuple[Mapping[str, object], Mapping[str, object]]
"""What an artifact was made of, and its figures, as the manifest holds them."""


@dataclass(frozen=True)
class Once:
    """The artifacts of a project's rounds.

    Attributes:
        project: where they stand.
        redo: make those again whose settings have changed since.
        follows: of a round, what is made after its reward models, in order.
    """

    project: Project
    redo: bool
    follows: Callable[[int], list[Path]]

    def record(
        self, name: str, kind: str, inputs: Inputs, options: Options,
        make: Callable[[Path], DataAndMetrics], number: int,
    ) -> Artifact:  # fmt: skip
        """An artifact that is no model, or the one that is there: ``make(folder)`` gives its data and metrics."""
        inputs = replace(inputs, round=number, role=kind)
        out = self.project.artifacts / name
        if (done := self.unchanged(out, kind, inputs, options, number)) is not None:
            return done
        out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        data, metrics = make(out)
        seconds = time.monotonic() - began
        finish(out, kind, inputs=inputs, options=options, data=data, metrics=metrics, seconds=seconds)
        return Artifact.load(out)  # as it will be read another time

    def train(
        self, stage: str, out: Path, inputs: Inputs, number: int, ready: Callable[[], None], *,
        by: Callable[[Inputs, Options], Artifact] | None = None, **overrides: object,
    ) -> Artifact:  # fmt: skip
        """A stage's artifact, or the one that is there; ``ready`` makes what it reads, ``by`` may stand in for it."""
        found = self.project.stage(stage)
        given, values = self.project.section(found)
        inputs = replace(inputs.joined(**given), round=number)
        options = found.options.parse(values | overrides, where=f"hearken.yaml: stages.{stage}")
        if (done := self.unchanged(out, stage, inputs, options, number)) is not None:
            return done
        ready()
        return by(inputs, options) if by else run_stage(found, inputs, options, out)

    def unchanged(self, out: Path, kind: str, inputs: Inputs, options: Options, number: int) -> Artifact | None:
        """The finished artifact in ``out``; None where there is none (any more).

        Raises:
            UserError: it was made, or begun, with other settings, and ``redo`` does not say to make it again, or
                judgments depend on it.
        """
        finished = (out / MANIFEST).is_file()
        saved = out / MANIFEST if finished else out / "run" / "request.json"
        if not saved.is_file():
            return None
        old, new = read_record(saved), request_of(kind, inputs, options)
        old["options"] = options.recorded(old["options"])
        changed = [
            f"{part}.{key}"
            for part in ("inputs", "options")
            for key in new[part]
            if key != "trust_reward"  # it changes nothing in what is made
            and _known_at_first(old[part].get(key)) != _known_at_first(new[part][key])
        ]
        if not changed:
            return Artifact.load(out) if finished else None
        what = f"{out.name} was {'made' if finished else 'begun'} with other settings ({', '.join(changed)})"
        built_on = kind != "evaluation" and (self.project.artifacts / f"r{number + 1:02d}-samples").exists()
        if kind in ("samples", "judgments") or built_on:
            raise UserError(
                f"{what}, and judgments depend on it",
                "They are not thrown away: put the settings back, or begin a new project",
            )
        if not self.redo:
            raise UserError(what, "Put the settings back, or make it and what follows again: hearken loop --redo")
        self.set_aside(number, out)
        return None

    def set_aside(self, number: int, first: Path) -> None:
        """Move ``first`` and what was made of it in this round to ``replaced/``, the last first."""
        order = self.follows(number)
        if first not in order:  # a reward model
            order = [first, *order]
        aside = self.project.path / "replaced"
        aside.mkdir(exist_ok=True)
        for path in reversed(order[order.index(first) :]):
            if path.exists():
                shutil.move(path, aside / f"{path.name}-{datetime.now(UTC):%Y%m%d-%H%M%S%f}")


def _known_at_first(value: object) -> object:
    """Without reward models refitted while the policy trained: they were not known when it began."""
    return {k: v for k, v in value.items() if not k.startswith("refit ")} if isinstance(value, dict) else value


def write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """JSON lines, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    partial.replace(path)
