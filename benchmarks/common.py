"""What the benchmarks share: arguments, the real data, stages that are not run twice, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hearken.algorithms.stage import Inputs, find_stage, run_stage
from hearken.errors import UserError
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model
from hearken.statistics.intervals import Interval
from hearken.training.artifact import MANIFEST, Artifact, hash_files, versions, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    name = Path(sys.argv[0]).stem
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the figures go as JSON")
    parser.add_argument("--work", type=Path, default=RESULTS / name, help="folder of models; finished ones are reused")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="a smoke run of under a minute; its figures mean nothing")
    return parser


def run(main: Callable[[argparse.Namespace], dict[str, Any]], parser: argparse.ArgumentParser) -> None:
    """Run a benchmark, write its figures, and turn a user's mistake into one line."""
    settings = parser.parse_args()
    if settings.fast:
        settings.work = settings.work.with_name(settings.work.name + "-fast")
    began = time.monotonic()
    try:
        figures = main(settings)
    except UserError as error:
        sys.exit(str(error))
    about = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "seed": settings.seed,
        "fast": settings.fast,
        "seconds": round(time.monotonic() - began, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": _threads()},
        "versions": versions(),
    }
    write_json(settings.out, about | figures)
    print(f"\n{about['seconds']:.0f} seconds; figures in {settings.out}")


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def shared(name: str) -> Path:
    """A file of the real data: ``../shared/data`` beside the repository, or where HEARKEN_SHARED_DATA says.

    Raises:
        UserError: it is not there.
    """
    folder = Path(os.environ.get("HEARKEN_SHARED_DATA") or HERE.parent.parent / "shared" / "data")
    if not (folder / name).exists():
        raise UserError(f"the real data {name} is not in {folder}", "Set HEARKEN_SHARED_DATA to the folder that has it")
    return folder / name


def seeds_table(title: str, rows: Sequence[tuple[str, Callable[[Any], float]]], found: dict[int, Any]) -> None:
    """Figures of the runs by seed, a row each, with their mean and spread."""
    lines = []
    for name, of in rows:
        values = [of(one) for one in found.values()]
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        lines.append((name, *(f"{v:.2f}" for v in values), f"{statistics.mean(values):.2f} ± {spread:.2f}"))
    table(title, ("", *(f"seed {seed}" for seed in found), "mean ± sd"), lines)


def scratch(texts: Sequence[str], work: Path, size: TinyModelSize, seed: int) -> Path:
    """An untrained model with a tokenizer of these texts, in a folder named after its shape."""
    shape = "-".join(str(x) for x in size.model_dump().values())
    folder = work / f"untrained-{shape}-seed-{seed}"
    return folder if folder.exists() else make_tiny_model(texts, folder, size, seed)


def train(kind: str, out: Path, options: dict[str, Any], *, model: Path, data: Path, **more: Path) -> Artifact:
    """`hearken train`, or the artifact in ``out`` where the same call on the same files has finished before."""
    stage = find_stage(kind)
    wanted = stage.options.parse(options, where=f"train {kind}")
    given: dict[str, Any] = {
        k: (str(p),) if k in ("references", "ptx", "validation") else str(p) for k, p in more.items()
    }
    inputs = Inputs(model=str(model), data=(str(data),), **given)
    if (out / MANIFEST).exists():
        done = Artifact.load(out)
        older = [p / MANIFEST for p in (model, *more.values()) if (p / MANIFEST).exists()]
        if (
            done.manifest["inputs"] == json.loads(json.dumps(asdict(inputs)))
            and done.manifest["options"] == wanted.model_dump(mode="json")
            and done.manifest["data"]["hash"] == hash_files(inputs.data)
            and all(path.stat().st_mtime < (out / MANIFEST).stat().st_mtime for path in older)
        ):
            return done
    return run_stage(stage, inputs, wanted, out, overwrite=True)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [list(columns), *([str(c) for c in row] for row in rows)]
    width = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in width) + "|")
    return "\n".join(lines)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table in Markdown, so that it can be pasted into the docs as it is."""
    print(f"\n{title}\n\n{markdown(columns, rows)}", flush=True)


def percent(interval: Interval) -> str:
    """``61.2 [58.8, 63.5]``: an interval of rates in per cent."""
    return f"{100 * interval.estimate:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
