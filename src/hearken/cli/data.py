"""``hearken import`` and ``hearken export``: files in and out of a project's feedback database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hearken.cli.console import JsonOption, ProjectOption, clean_stdout, emit
from hearken.cli.reading import ReadingCommand, reading


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import", cls=ReadingCommand, epilog="Example:  hearken import pairs.jsonl --validation 0.1")(import_)
    app.command("export", epilog="Example:  hearken export pairs.jsonl --as pairs --split train")(export)


def import_(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder or a Hub name.")],
    labeler: Annotated[
        str, typer.Option(metavar="NAME", help="Who is said to have judged where a row names nobody.")
    ] = "import",
    validation: Annotated[float, typer.Option(min=0, max=1, help="Share of new prompts to hold out.")] = 0.0,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Judgments from a file into the feedback database.

    The layout is told from the columns: prompt/chosen/rejected, rankings, thumbs, ratings, demonstrations, a raw dump,
    and those of many published sets and programs (docs/formats.md). Importing a file twice adds nothing.
    A column labeler, annotator, annotator_id, worker ... says who judged.
    """
    with clean_stdout():
        from hearken.feedback.transfer import import_file
        from hearken.loop.project import Project

        opened = Project(project)
        with opened.store() as store:
            done = import_file(
                store, path, labeler=labeler, validation=validation, domain=opened.domain.name, files=opened.media,
                admit=opened.admit, **reading(ctx).reading(),
            )  # fmt: skip
    result: dict[str, Any] = {
        "layouts": sorted(done.read.layouts),
        "rows": done.read.rows,
        "examples": done.read.examples,
        "skipped": dict(done.read.skipped),
        "without_judgment": done.read.unjudged,
        "new": {"prompts": done.prompts, "responses": done.responses, "judgments": done.judgments},
        "judgments_there_already": done.known,
        "same_judgment_twice": done.twice,
    }
    if done.labelers:
        columns = [column for column in done.labelers if column]
        names = {name for column in columns for name in done.labelers[column]}
        result["labelers"] = {
            "column": columns or None, "named": len(names),
            "rows_without": done.labelers.get("", {}).get(labeler, 0), "these_are_said_to_be_by": labeler,
        }  # fmt: skip
    emit(result, as_json, f"Imported {path}")


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A file: .jsonl, .json, .csv or .parquet; .gz.")],
    layout: Annotated[
        str, typer.Option("--as", metavar="LAYOUT", help="pairs, binary, rankings, sft, ratings, prompts, raw ...")
    ] = "pairs",
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only train, or only validation.")] = None,
    as_of: Annotated[int | None, typer.Option(metavar="N", help="As it was when judgment N was the newest.")] = None,
    weights: Annotated[
        Literal["none", "reliability", "population"],
        typer.Option(help="Weight each judgment by its labeler: how reliable, or whom they stand for."),
    ] = "none",
    labelers: Annotated[bool, typer.Option("--labelers", help="With a column labeler: who judged, by name.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    project: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Judgments out of the feedback database, in columns that trainers read.

    ``raw`` is everything with its ids, as JSONL; ``hearken import`` restores it.
    """
    with clean_stdout():
        from hearken.feedback.transfer import export as write
        from hearken.loop.project import Project

        opened = Project(project)
        with opened.store() as store:
            by_labeler = None
            if weights != "none":
                from hearken.feedback.analysis.weights import judgment_weights
                from hearken.server.settings import load

                by_labeler = judgment_weights(store, weights, load(store)[1].population)
            done = write(
                store, out, layout, split, as_of, overwrite=overwrite, weights=by_labeler, labelers=labelers,
                files=opened.media,
            )  # fmt: skip
    result = {"path": str(done.path), "layout": done.layout, "rows": done.rows, "left_out": dict(done.left_out)}
    emit(result, as_json, f"Exported {layout}")
