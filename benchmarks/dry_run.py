"""What --dry-run says beside what a run took: the most memory and the seconds of the same command.

Each stage is run twice in processes of their own, dry and in earnest, by turns, on a model of our own making or on that
of --model. Memory is the largest resident set, seconds those of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import HERE, arguments, markdown, run

sys.path.insert(0, str(HERE / "contest"))

import world
from world import Size

from hearken.errors import UserError

START = "from hearken.cli.main import main; main()"
WITHIN = 0.3
STAGES: dict[str, list[str]] = {
    "sft": ["batch_size=8"],
    "dpo": ["batch_size=4"],
    "reward": ["batch_size=4"],
    "rloo": ["batch_size=16", "episodes=64", "max_new_tokens=32", "missing_eos=null"],
    "grpo": ["batch_size=16", "episodes=64", "max_new_tokens=32", "missing_eos=null"],
    "ppo": ["batch_size=16", "episodes=32", "max_new_tokens=32", "missing_eos=null"],
}


def command(stage: str, lora: int, files: dict[str, str], out: Path) -> list[str]:
    """``hearken train STAGE`` with these files, without ``--dry-run``."""
    words = [sys.executable, "-c", START, "train", stage, "--model", files["model"], "--data", files[stage]]
    if stage in ("rloo", "grpo", "ppo"):
        words += ["--reward", files["reward"]]
    settings = [*STAGES[stage], f"lora={lora}", "trackers=none", f"precision={files['precision']}"]
    return [*words, "--out", str(out), "--overwrite", *(w for s in settings for w in ("-o", s))]


def measured(words: list[str], threads: int) -> tuple[float, int, str]:
    """Seconds, largest resident set in bytes, and what a command printed.

    Raises:
        UserError: it failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HEARKEN_QUIET": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    said = process.stdout.read()
    wrong = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"{' '.join(words)} failed: {wrong.strip()[-1500:]}", "Run it by hand")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), said


def write_files(settings: argparse.Namespace) -> dict[str, str]:
    """The model, a reward model on it, and the data of every stage."""
    work = settings.work
    if settings.model:
        model, words = settings.model, world.of_tokenizer(settings.model)
    else:
        size = Size(64)
        model, words = world.make_model(work / "model", size, settings.seed, world.end_rate(32)), world.made_up(size)
    files = {"model": str(model), "precision": settings.precision}
    files["reward"] = str(world.make_reward(work / "reward", model, settings.seed))
    count = 16 if settings.fast else settings.rows
    files["sft"] = str(world.write_rows(work / "sft.jsonl", world.demonstrations(words, count, settings.seed)))
    pairs = str(world.write_rows(work / "pairs.jsonl", world.rankings(words, count, 2, settings.seed)))
    files |= dict.fromkeys(("dpo", "reward_data"), pairs)
    prompts = str(world.write_rows(work / "prompts.jsonl", world.prompts(words, 32, 32, settings.seed)))
    return files | dict.fromkeys(("rloo", "grpo", "ppo"), prompts)


def main(settings: argparse.Namespace) -> dict[str, Any]:
    files = write_files(settings)
    rows = []
    for stage in STAGES:
        for lora in (0, 16):
            name = f"{stage}, {'LoRA' if lora else 'all weights'}"
            if settings.only and not re.search(settings.only, name):
                continue
            given = files | ({"reward": files["reward_data"]} if stage == "reward" else {})
            words = command(stage, lora, given, settings.work / "out")
            _, _, said = measured([*words, "--dry-run", "--json"], settings.threads)
            estimate = json.loads(said)["estimate"]
            seconds, peak, _ = measured(words, settings.threads)
            one = {
                "name": name, "memory": estimate["memory"]["total"] / peak, "seconds": estimate["seconds"] / seconds,
                "peak_mb": peak / 1e6, "took": seconds, "estimate": estimate,
            }  # fmt: skip
            rows.append(one)
            print(f"{name}: memory {one['memory']:.2f}, seconds {one['seconds']:.2f} of what it took", flush=True)
    cells = [
        (r["name"], f"{r['memory'] * r['peak_mb']:.0f} / {r['peak_mb']:.0f}", f"{r['memory']:.2f}",
         f"{r['seconds'] * r['took']:.0f} / {r['took']:.0f}", f"{r['seconds']:.2f}")
        for r in rows
    ]  # fmt: skip
    print("\n" + markdown(("stage", "MB said / taken", "ratio", "seconds said / taken", "ratio"), cells))
    return {"rows": rows, "within": all(abs(r[k] - 1) <= WITHIN for r in rows for k in ("memory", "seconds"))}


if __name__ == "__main__":
    parser = arguments(re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--model", type=Path, metavar="DIR", help="a real model's folder, e.g. of hearken model")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rows", type=int, default=48, help="of the data")
    parser.add_argument("--only", metavar="REGEX", help="stages whose name matches")
    run(main, parser)
