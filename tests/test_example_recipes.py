"""The recipes of examples/ run from end to end on small files of the formats that they are made for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hearken.config import read_yaml
from hearken.loop.tiny_model import TinyModelSize, make_tiny_model

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SHARED = Path(os.environ.get("HEARKEN_SHARED_DATA") or ROOT.parent / "shared" / "data")
SMALL = {"max_length": 64, "batch_size": 4, "lora": 0, "device": "cpu", "trackers": "none", "precision": "fp32"}
ONLINE = {"episodes": 8, "max_new_tokens": 4}
WORDS = ("the cat sat", "a dog ran", "it rained", "we sang", "they slept", "no one came", "she left", "he stayed")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def hh(path: Path) -> dict[str, Path]:
    turns = "\n\nHuman: Who {}?\n\nAssistant: Why?\n\nHuman: Say.\n\nAssistant:"
    asked = [turns.format(words) for words in WORDS]
    rows = [{"chosen": f"{p} {w}, gladly.", "rejected": f"{p} no {w}."} for p, w in zip(asked, WORDS, strict=True)]
    rows.append({"chosen": f"{asked[0]} fine.", "rejected": f"{asked[0]} "})  # the published data has such rows
    return {"pairs": write(path / "hh.jsonl", rows)}


def oasst(path: Path) -> dict[str, Path]:
    def reply(i: int, rank: int) -> dict[str, Any]:
        return {"message_id": f"r{i}-{rank}", "role": "assistant", "text": f"{WORDS[rank]} {i}", "rank": rank}

    rows = [
        {
            "message_tree_id": str(i),
            "prompt": {
                "message_id": f"m{i}", "role": "prompter", "text": f"Who says {words}?",
                "replies": [reply(i, rank) for rank in range(3)],
            },
        }
        for i, words in enumerate(WORDS)
    ]  # fmt: skip
    return {"trees": write(path / "trees.jsonl", rows)}


def tldr(path: Path) -> dict[str, Path]:
    """The columns of the data sets that the recipe names."""
    asked = [f"POST: {words} today.\n\nTL;DR:" for words in WORDS]
    return {
        "posts": write(
            path / "posts.jsonl", [{"prompt": p, "completion": f" {w}"} for p, w in zip(asked, WORDS, strict=True)]
        ),
        "choices": write(
            path / "choices.jsonl",
            [{"prompt": p, "chosen": f" {w}", "rejected": " nothing"} for p, w in zip(asked, WORDS, strict=True)],
        ),
    }


def openai(path: Path) -> dict[str, Path]:
    """OpenAI's own columns, which the recipe's comments offer."""
    posts = [{"id": str(i), "subreddit": "pets", "title": w, "post": f"{w} today."} for i, w in enumerate(WORDS)]
    choices = [
        {"info": post, "summaries": [{"text": post["title"]}, {"text": "nothing"}], "choice": 0, "worker": "w"}
        for post in posts
    ]
    return {
        "posts": write(path / "posts.jsonl", [post | {"summary": post["title"]} for post in posts]),
        "choices": write(path / "choices.jsonl", choices),
    }


RECIPES = (("dialogue_hh", hh), ("dialogue_oasst", oasst), ("summaries_tldr", tldr), ("summaries_tldr", openai))


def run(recipe: str, data: dict[str, Path], folder: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    size = TinyModelSize(vocabulary=320, hidden=16, layers=1, heads=2, context=64)
    model = folder / "model"
    if not model.exists():
        make_tiny_model(WORDS, model, size)
    words = [f"model={model}", *(f"data.{name}={path}" for name, path in data.items())]
    for name in read_yaml(EXAMPLES / f"{recipe}.yaml")["stages"]:
        small = SMALL | (ONLINE if name in ("ppo", "rloo") else {}) | more
        words += [f"stages.{name}.{key}={value}" for key, value in small.items()]
    command = [sys.executable, EXAMPLES / "recipe.py", EXAMPLES / f"{recipe}.yaml", "--out", folder / "out"]
    for word in words:
        command += ["-o", word]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_every_recipe_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {recipe for recipe, _ in RECIPES}


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "columns"), RECIPES)
def test_a_recipe_runs(recipe: str, columns: Callable[[Path], dict[str, Path]], tmp_path: Path) -> None:
    data = columns(tmp_path)
    done = run(recipe, data, tmp_path)
    assert done.returncode == 0, done.stderr
    stages = list(read_yaml(EXAMPLES / f"{recipe}.yaml")["stages"])
    assert all((tmp_path / "out" / name / "manifest.json").exists() for name in stages)
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if ": {" in line] == stages
    again = run(recipe, data, tmp_path)
    assert again.returncode == 0 and ": {" not in again.stdout, "finished stages are not run again"


@pytest.mark.slow
def test_a_recipe_reads_the_published_data(tmp_path: Path) -> None:
    if not (SHARED / "oasst-trees.jsonl.gz").exists():
        pytest.skip(f"the real data is not at {SHARED} (set HEARKEN_SHARED_DATA)")
    done = run("dialogue_oasst", {"trees": SHARED / "oasst-trees.jsonl.gz"}, tmp_path, long_prompts="truncate")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "reward" / "manifest.json").read_text("utf-8"))
    assert manifest["data"]["rows"] + manifest["data"]["validation_rows"] > 100


def test_the_options_of_recipes_exist() -> None:
    from hearken.algorithms.stage import find_stage

    sys.path.insert(0, str(EXAMPLES))
    try:
        from recipe import INPUTS
    finally:
        sys.path.remove(str(EXAMPLES))
    for path in EXAMPLES.glob("*.yaml"):
        for name, given in read_yaml(path)["stages"].items():
            stage = find_stage(given.get("stage", name))
            stage.options.parse({k: v for k, v in given.items() if k not in (*INPUTS, "stage")}, where=path.name)


@pytest.mark.slow
def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = run("dialogue_hh", {"pairs": tmp_path / "missing.jsonl"}, tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "missing.jsonl" in done.stderr
