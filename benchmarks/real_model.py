"""The whole loop on a pretrained model, over several seeds: `hearken quickstart --model smollm2`.

Each seed has its own requests, answers, labelers' noise, reward model and policy. The independent judge
(`hearken.evaluation.reader`) is first tried on pairs whose better side is known from how they were made.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from pathlib import Path
from typing import Any

from common import arguments, run, seeds_table, table

from hearken.evaluation.reader import READINGS, Reader, prefer
from hearken.feedback.examples import Message
from hearken.loop.quickstart_notes import quickstart_notes
from hearken.training.artifact import write_json
from hearken.worlds.notes.world import NoteWorld, good_message

RAMBLE = "I hope that you are well and that we can see each other soon at the house of our good old friend, because I"


def main(settings: argparse.Namespace) -> dict[str, Any]:
    settings.work.mkdir(parents=True, exist_ok=True)
    judge = trial(settings)
    found = {seed: one_run(settings, seed) for seed in settings.seeds}
    show(found)
    return {"judge_on_known_pairs": judge, "runs": found}


def one_run(settings: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A seed's summary; finished ones are read again."""
    saved = settings.work / f"seed-{seed}.json"
    if saved.exists():
        return json.loads(saved.read_text("utf-8"))
    found = quickstart_notes(settings.work / f"seed-{seed}", settings.model, seed=seed, fast=settings.fast).to_json()
    write_json(saved, found)
    return found


def known_pairs(count: int) -> dict[str, list[tuple[str, str, str]]]:
    """(request, the better answer, the worse one), by what is wrong with the worse one."""
    requests, rng = NoteWorld(7).prompts(count), random.Random(0)
    pairs: dict[str, list[tuple[str, str, str]]] = {}
    for at, request in enumerate(requests):
        good = good_message(request, at)
        words = good.split()
        mixed = rng.sample(words, len(words))
        for name, bad in {
            "says No.": "No.",
            "repeats the request": request,
            "thanks for nothing": "Hi! Thank you so much! See you soon!",
            "is about something else": good_message(requests[(at + 7) % count], at),
            "breaks off halfway": " ".join(words[: len(words) * 2 // 3]),
            "goes on and breaks off": f"{good} {RAMBLE}",
            "words in any order": " ".join(mixed),
            "a letter with gaps": f"Dear [Name],\n\nI hope this finds you well. {good}\n\nRegards,\n[Your Name]",
        }.items():
            pairs.setdefault(name, []).append((request, good, bad))
    return pairs


def trial(settings: argparse.Namespace) -> dict[str, float]:
    """How often the independent judge, and each of its readings alone, prefers the better side of known pairs."""
    pairs = known_pairs(4 if settings.fast else 24)
    reader = Reader(str(model_folder(settings)))
    rows, found = [], {}
    for name, some in pairs.items():
        asked = [(Message("user", request),) for request, _, _ in some]
        good, bad = (reader.read(asked, [row[side] for row in some]) for side in (1, 2))
        found[name] = statistics.mean(prefer(a, b) for a, b in zip(good, bad, strict=True))
        alone = [
            statistics.mean(float(getattr(a, r) > getattr(b, r)) for a, b in zip(good, bad, strict=True))
            for r in READINGS
        ]
        rows.append((name, f"{found[name]:.0%}", *(f"{share:.0%}" for share in alone)))
    table(
        "The judge on known pairs: how often the better side is preferred", ("the worse one", "judge", *READINGS), rows
    )
    return found


def model_folder(settings: argparse.Namespace) -> Path:
    """The untuned model, as a plain folder."""
    if Path(settings.model).exists():
        return Path(settings.model)
    from hearken.models.packaged import make_model

    out = settings.work / settings.model
    return out if out.exists() else make_model(settings.model, out)


def show(found: dict[int, dict[str, Any]]) -> None:
    """The table over seeds, with mean and spread."""

    def rate(name: str, part: str = "win_rates") -> Any:
        return lambda run: 100 * run["policy"][part][name][0]

    rows: list[tuple[str, Any]] = [
        ("wins by the independent judge, %", rate("judge")),
        *((f"... {name} alone", rate(name, "win_rates_by_reading")) for name in READINGS),
        ("wins by the reward model, %", rate("reward")),
        ("wins by the labelers' own taste, %", rate("labelers")),
        ("reward model right, % of held-out pairs", lambda run: 100 * run["reward"]["accuracy"]),
        ("ceiling of that, %", lambda run: 100 * run["reward"]["ceiling"]),
        ("answers that say what was asked, before, %", lambda run: 100 * run["policy"]["says_before"]),
        ("after, %", lambda run: 100 * run["policy"]["says"]),
        ("answers that end, before, %", lambda run: 100 * run["policy"]["ended_before"]),
        ("after, %", lambda run: 100 * run["policy"]["ended"]),
        ("KL, nats a message", lambda run: run["policy"]["kl"]),
        ("perplexity of other text, before", lambda run: run["perplexity"]["before"]),
        ("after", lambda run: run["perplexity"]["after"]),
        ("minutes", lambda run: run["seconds"] / 60),
    ]
    for seed, one in found.items():
        low, high = one["policy"]["win_rates"]["judge"][1:]
        print(f"seed {seed}: the independent judge's interval is {100 * low:.1f} to {100 * high:.1f} %")
    seeds_table("The whole loop, seed by seed", rows, found)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2", help="a packaged model, or a chat model's folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    run(main, parser)
