"""Run a recipe: stages of training in order, each with its inputs and options, from one YAML file.

    python examples/recipe.py examples/dialogue_hh.yaml --out my-dialogue
    python examples/recipe.py examples/summaries_tldr.yaml --out my-summaries -o stages.ppo.episodes=5000

In the file, `model` names the model to start from and `data` names files, folders or Hub names. Under `stages` stands
what `hearken train STAGE` takes; an input may name a key of `data`, or an earlier stage. Finished stages are not run
again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import hearken

INPUTS = ("model", "data", "validation", "reward", "ref", "ptx", "references")


def run(recipe: dict[str, Any], out: Path) -> dict[str, Path]:
    """Train every stage of a recipe that is not there yet.

    Args:
        recipe: ``model``, ``data`` and ``stages`` as in the YAML file.
        out: the folder that gets one folder per stage.

    Returns:
        Where each stage's result is.
    """
    data = recipe.get("data", {})
    done: dict[str, Path] = {}

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return str(done.get(value, data.get(value, value))) if isinstance(value, str) else value

    for name, given in recipe["stages"].items():
        folder = out / name
        if not (folder / "manifest.json").exists():
            given = {"model": recipe["model"]} | given
            stage = given.pop("stage", name)
            values = {key: named(value) if key in INPUTS else value for key, value in given.items()}
            artifact = hearken.train(stage, out=folder, **values)
            print(f"{name}: {artifact.metrics}")
        done[name] = folder
    return done


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder for the results")
    parser.add_argument("--set", "-o", action="append", default=[], metavar="KEY=VALUE", help="over the file's")
    settings = parser.parse_args()
    try:
        run(hearken.read_yaml(settings.recipe, settings.set), settings.out)
    except hearken.UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
