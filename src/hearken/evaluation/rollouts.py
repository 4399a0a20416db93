"""The responses that a policy was trained on, browsed by reward, KL and length."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message

ROLLOUTS = "rollouts.jsonl"
MEASURES = ("reward", "kl", "length")

Measure = Literal["reward", "kl", "length"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One response of a training run."""

    line: int
    """Where it stands in the file, from 1."""
    step: int
    prompt: Content
    completion: str
    reward: float
    """Score of the reward, before the KL penalty."""
    kl: float | None
    """Nats to the reference policy, of this one sample; it may be negative. None where the run had no reference."""
    length: int
    """Tokens; words in files that hold no tokens."""
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class Spread:
    """How one measure is distributed."""

    mean: float
    low: float
    median: float
    high: float
    counts: tuple[int, ...]
    """Of equal bins from ``low`` to ``high``."""


@dataclass(frozen=True, slots=True)
class Browsed:
    """What was asked for, and what it was chosen from."""

    source: str
    sort: Measure
    total: int
    """Rollouts in the file."""
    matching: int
    """Of which are of the steps and texts asked for."""
    spreads: dict[str, Spread]
    """Of the matching ones, by measure; without the KL where it is not known."""
    reward_length: float | None
    """Correlation of reward and length; None where one does not vary."""
    reward_kl: float | None
    unfinished: float
    """Share that did not end by themselves."""
    top: tuple[Rollout, ...]
    bottom: tuple[Rollout, ...]

    def to_json(self) -> dict[str, object]:
        """As plain lists and dictionaries."""
        return asdict(self)


def find(run: str | Path) -> Path | None:
    """The rollouts of a run: of an artifact's folder, of its ``run`` folder, or the file itself; None where none."""
    path = Path(run)
    if path.is_file():
        return path if path.name.startswith("rollouts") and path.suffix == ".jsonl" else None
    return next((p for p in (path / "run" / ROLLOUTS, path / ROLLOUTS) if p.is_file()), None)


def read(path: Path) -> list[Rollout]:
    """All rollouts of a file.

    Raises:
        UserError: a line is no rollout (the last one may be half written).
    """
    lines = path.read_text("utf-8").removesuffix("\n").split("\n")  # a text may hold what splitlines takes for an end
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            prompt: Content = (
                row["prompt"] if isinstance(row["prompt"], str) else tuple(Message(**turn) for turn in row["prompt"])
            )
            text, kl = str(row["completion"]), row.get("kl")
            found.append(
                Rollout(
                    number, int(row["step"]), prompt, text, float(row["score"]), None if kl is None else float(kl),
                    int(row.get("tokens", len(text.split()))), str(row.get("finish_reason", "")),
                )
            )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise UserError(
                f"{path}, line {number}: not a rollout", "A rollout has step, prompt, completion and score"
            ) from None
    if not found:
        raise UserError(f"{path} holds no rollouts", "They come with the first step of the run")
    return found


def browse(
    path: Path, *, sort: Measure = "reward", top: int = 3, bottom: int = 3, steps: str = "", grep: str = "",
    unfinished: bool = False, bins: int = 24,
) -> Browsed:  # fmt: skip
    """The extremes of one measure, and how all measures are distributed.

    Args:
        path: the rollouts' file.
        sort: by what.
        top: how many of the largest.
        bottom: how many of the smallest.
        steps: ``7``, ``0-9``, ``10-`` (to the end), ``last``; empty for all.
        grep: only responses or prompts with these words, whatever their case.
        unfinished: only those that did not end by themselves.
        bins: of the distributions.

    Raises:
        UserError: the file is malformed, ``steps`` cannot be read, or nothing matches; the measure is not known.
    """
    rows = read(path)
    first, last = _steps(steps, max(r.step for r in rows))
    words = grep.lower()
    kept = [
        r
        for r in rows
        if first <= r.step <= last
        and (not words or words in r.completion.lower() or words in _plain(r.prompt).lower())
        and not (unfinished and r.finish_reason == "stop")
    ]
    if not kept:
        raise UserError(f"none of the {len(rows):,} rollouts in {path} is as asked for", "Widen --steps, or the words")
    measured = {m: values(kept, m) for m in MEASURES if known(kept, m)}
    if sort not in measured:
        raise UserError(f"{path} does not say the {sort} of its rollouts", "Sort by reward or by length")
    order = sorted(kept, key=lambda r: getattr(r, sort))
    low = order[:bottom]
    high = [r for r in reversed(order) if r not in low][:top] if top else []
    return Browsed(
        source=str(path),
        sort=sort,
        total=len(rows),
        matching=len(kept),
        spreads={m: spread(v, bins) for m, v in measured.items()},
        reward_length=_correlation(measured["reward"], measured["length"]),
        reward_kl=_correlation(measured["reward"], measured["kl"]) if "kl" in measured else None,
        unfinished=sum(r.finish_reason != "stop" for r in kept) / len(kept),
        top=tuple(high),
        bottom=tuple(low),
    )


def known(rows: Sequence[Rollout], measure: str) -> bool:
    """Whether every rollout has a measure."""
    return all(getattr(r, measure) is not None for r in rows)


def values(rows: Sequence[Rollout], measure: str) -> list[float]:
    """A measure of each rollout."""
    return [float(getattr(r, measure)) for r in rows]


def _plain(prompt: Content) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(m.content for m in prompt)


def _steps(text: str, newest: int) -> tuple[int, int]:
    if not text:
        return 0, newest
    if text == "last":
        return newest, newest
    first, dash, last = text.partition("-")
    if first.isdigit() and (last.isdigit() or not last):
        return int(first), int(last) if last else newest if dash else int(first)
    raise UserError(f"--steps {text} names no steps", "Write 7, 0-9, 10- or last")


def spread(values: Sequence[float], bins: int = 24) -> Spread:
    """Mean, range, median and a histogram."""
    found = np.asarray([v for v in values if math.isfinite(v)] or [0.0], dtype=float)
    counts, _ = np.histogram(found, bins=bins, range=(found.min(), found.max() or 1.0) if np.ptp(found) else None)
    return Spread(
        float(found.mean()), float(found.min()), float(np.median(found)), float(found.max()),
        tuple(int(c) for c in counts),
    )  # fmt: skip


def _correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    if len(a) < 3 or not np.ptp(a) or not np.ptp(b):
        return None
    return float(np.corrcoef(a, b)[0, 1])
