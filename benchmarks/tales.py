"""The whole loop on generated tales, over several seeds: `hearken quickstart`.

Each seed has its own tales, labelers' noise, models and held-out prompts. Settings were chosen on seed 0 of an earlier
version and on nothing of the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import arguments, run, seeds_table

from hearken import quickstart
from hearken.training.artifact import write_json


def main(settings: argparse.Namespace) -> dict[str, Any]:
    settings.work.mkdir(parents=True, exist_ok=True)
    found = {seed: one_run(settings.work, seed, settings.fast) for seed in settings.seeds}
    show(found)
    return {"runs": found}


def one_run(work: Path, seed: int, fast: bool) -> dict[str, Any]:
    """A seed's summary and seconds; finished ones are read again."""
    saved = work / f"seed-{seed}.json"
    if saved.exists():
        return json.loads(saved.read_text("utf-8"))
    found = quickstart(work / f"seed-{seed}", seed=seed, fast=fast).to_json()
    write_json(saved, found)
    return found


def show(found: dict[int, dict[str, Any]]) -> None:
    """The table over seeds, with mean and spread."""
    rows: list[tuple[str, Any]] = [
        ("wins against SFT by gold, %", lambda run: 100 * run["ppo"]["win_rate"]),
        *((f"... for {name}", _group(name)) for name in ("hearth", "quest")),
        ("gold, SFT", lambda run: run["ppo"]["sft_gold"]),
        ("gold, PPO-ptx", lambda run: run["ppo"]["gold"]),
        ("KL, nats a tale", lambda run: run["ppo"]["kl"]),
        ("share of what the reward allows, %", lambda run: 100 * run["ppo"]["allowed"]["share"]["estimate"]),
        ("KL of what it allows", lambda run: run["ppo"]["allowed"]["best_kl"]),
        ("tales that parse, SFT, %", lambda run: 100 * run["ppo"]["sft_parse_rate"]),
        ("tales that parse, PPO-ptx, %", lambda run: 100 * run["ppo"]["parse_rate"]),
        ("reward model right, %", lambda run: 100 * run["reward"]["accuracy"]),
        ("ceiling of that, %", lambda run: 100 * run["reward"]["ceiling"]),
        ("the longer one right, %", lambda run: 100 * run["reward"]["length_accuracy"]),
        ("perplexity of other text, SFT", lambda run: run["perplexity"]["sft"]),
        ("perplexity of other text, PPO-ptx", lambda run: run["perplexity"]["ppo"]),
        ("minutes", lambda run: run["seconds"] / 60),
    ]
    seeds_table("The whole loop on tales, seed by seed", rows, found)


def _group(name: str) -> Any:
    return lambda run: 100 * run["ppo"]["win_rate_by_group"][name]


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    run(main, parser)
