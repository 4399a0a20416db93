"""The command of one stage, its options made from the stage's own pydantic model.

The model alone knows types, ranges and defaults: the command line hands its words on as they are.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from hearken.algorithms.stage import Input, Inputs, Stage, estimate, run_stage
from hearken.cli.console import JsonOption, clean_stdout, emit, figure, flatten
from hearken.config import FORMER, FormerName, Options, assign, read_yaml
from hearken.errors import UserError
from hearken.training.artifact import read_record

_METAVARS = {"model": "MODEL", "reward": "REWARD", "name": "NAME"}
_FILES = "Inputs and output"


def example(stage: Stage) -> str:
    """A command line that runs ``stage``."""
    needed = [one for one in stage.inputs if one.required]
    words = [f"--{one.name} {f'{one.name}.jsonl' if one.many else f'my-{one.name}'}" for one in needed]
    return " ".join(["hearken train", stage.name, *words, "--out", f"my-{stage.name}"])


def make_command(stage: Stage) -> Any:
    """A function whose signature holds the stage's inputs and options, for Typer to read."""
    inputs = [one.name for one in stage.inputs]
    # An input's name is its flag; an option of the same name is reached by -o and --config, as it is not a path.
    fields = {name: field for name, field in stage.options.model_fields.items() if name not in inputs}
    former = {old: new for old, new in FORMER.items() if new in fields and old not in fields}

    def command(
        out: Path | None,
        config: Path | None,
        override: list[str] | None,
        dry_run: bool,
        resume: bool,
        overwrite: bool,
        as_json: bool,
        **given: Any,
    ) -> None:
        written = read_yaml(config) if config else {}
        for words in override or []:
            assign(written, words)
        written = stage.options.current(written)
        for name, now in [*former.items(), *((name, name) for name in fields)]:
            if given.get(name) is not None:
                written[now] = _value(fields[now], given[name])
            if given.get(name) is not None and name != now:
                warnings.warn(f"--{_flag(name)} is now --{_flag(now)}", FormerName, stacklevel=2)
        for name in inputs:
            if given[name]:
                written[name] = given[name]
        named, written = stage.split(written)
        request: dict[str, Any] = {"inputs": {}, "options": {}}
        if out is not None and resume:
            request = _saved_request(out, stage)
        elif out is None:
            out, request = _project_request(stage, named)
        request["inputs"] |= named
        request["options"] |= written
        with clean_stdout():
            result = _run(stage, request, out, dry_run=dry_run, overwrite=overwrite)
        if dry_run and not as_json:
            typer.echo(_as_yaml(result), nl=False)
        else:
            emit(result, as_json, f"{stage.name} is finished")

    parameters = [
        *map(_input_parameter, stage.inputs),
        *_COMMON,
        *sorted((_option_parameter(n, f, stage.options) for n, f in fields.items()), key=_own_first(stage.options)),
        *(_parameter(n, Annotated[str | None, typer.Option(f"--{_flag(n)}", hidden=True)]) for n in former),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _saved_request(out: Path, stage: Stage) -> dict[str, Any]:
    saved = out / "run" / "request.json"
    if not saved.is_file():
        raise UserError(f"--resume: there is no run in {out}", "Name the --out of the run to go on with")
    request = read_record(saved)
    if request["kind"] != stage.name:
        what = request["kind"]
        raise UserError(f"--resume: {out} holds a run of '{what}'", f"Run: hearken train {what} --out {out} --resume")
    return request


def _project_request(stage: Stage, named: Collection[str]) -> tuple[Path, dict[str, Any]]:
    """Inside a project, its configuration and database say where to, and what to train on beyond what is named."""
    if not Path("hearken.yaml").is_file():
        raise UserError("--out is missing", "Name the folder that the result shall go to, or run this inside a project")
    from hearken.loop.project import Project

    project = Project(Path())
    name, inputs, options = project.request(stage.name, named)
    return project.artifacts / name, {"inputs": inputs.given(), "options": options}


def _run(stage: Stage, request: dict[str, Any], out: Path, *, dry_run: bool, overwrite: bool) -> dict[str, Any]:
    options = stage.options.parse(request["options"], where=f"train {stage.name}")
    parents = request["inputs"].pop("parents", {})
    inputs = Inputs(parents=parents).joined(**stage.split(request["inputs"])[0])
    asked = _asked(inputs, options)
    if dry_run:
        return {
            "stage": stage.name,
            "inputs": inputs.given(),
            "options": options.model_dump(mode="json"),
            "estimate": estimate(stage, inputs, options) | ({"judge_requests": asked} if asked else {}),
        }
    if asked:
        typer.echo(f"labeler:ai: at most {asked:,} requests, less what was asked before", err=True)
    artifact = run_stage(stage, inputs, options, out, overwrite=overwrite)
    return {"out": str(artifact.path), "kind": artifact.kind, "metrics": artifact.metrics}


def _asked(inputs: Inputs, options: Options) -> int:
    """Requests to a model that judges in place of a reward model; 0 where none does."""
    if "labeler:" not in (inputs.reward or "") or not hasattr(options, "num_generations"):
        return 0
    from hearken.labelers.rewards import requests

    return requests(str(inputs.reward), options)


def _as_yaml(dry: dict[str, Any]) -> str:
    """A dry run's result as a file for ``--config``; the estimate stands in its comments."""
    import yaml

    figures = "".join(f"# {name}: {_said(name, value)}\n" for name, value in flatten(dry["estimate"]))
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in dry["inputs"].items()}
    return figures + yaml.safe_dump(plain | dry["options"], sort_keys=False, allow_unicode=True)


def _said(name: str, value: Any) -> str:
    """A figure of an estimate for people: bytes as MB or GB, seconds as minutes or hours."""
    if name.startswith("memory."):
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
    if name.startswith("seconds"):
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{value:.2g} s"
    return f"{value:,}" if isinstance(value, int) else figure(value)


# -- parameters --------------------------------------------------------------------------------------------------


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_OUT = typer.Option(metavar="DIR", help="Where the result goes: a new folder. (required)", rich_help_panel=_FILES)
_CONFIG = typer.Option(metavar="YAML", help="A file with any of these options, as 'key: value'.")
_OVERRIDE = typer.Option(
    "--set", "-o", metavar="KEY=VALUE", help="One option, over the file's; a dot enters a section."
)
_DRY_RUN = typer.Option("--dry-run", help="Train nothing: print the options and an estimate of memory and time.")
_RESUME = typer.Option("--resume", help="Go on with the unfinished run in --out, with its inputs and options.")
_OVERWRITE = typer.Option("--overwrite", help="Delete what an earlier run left in --out.")

_COMMON = (
    _parameter("out", Annotated[Path | None, _OUT]),
    _parameter("config", Annotated[Path | None, _CONFIG]),
    _parameter("override", Annotated[list[str] | None, _OVERRIDE]),
    _parameter("dry_run", Annotated[bool, _DRY_RUN], False),
    _parameter("resume", Annotated[bool, _RESUME], False),
    _parameter("overwrite", Annotated[bool, _OVERWRITE], False),
    _parameter("as_json", JsonOption, False),
)


def _input_parameter(one: Input) -> inspect.Parameter:
    text = one.help + (" (required)" if one.required else "")
    option = typer.Option(f"--{one.name}", metavar=_METAVARS.get(one.kind, "PATH"), help=text, rich_help_panel=_FILES)
    return _parameter(one.name, Annotated[list[str] | None if one.many else str | None, option])


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _option_parameter(name: str, field: FieldInfo, model: type[Options]) -> inspect.Parameter:
    switch = field.annotation is bool
    option = typer.Option(
        f"--{'no-' if field.default is True else ''}{_flag(name)}",
        metavar=None if switch else _metavar(field),
        help=_help(field) + (_with_lora(field, model) if name == "lr" else ""),
        rich_help_panel=_panel(name, model),
    )
    # None means "not given": a file's value or the model's own default then stands.
    return _parameter(name, Annotated[bool | None if switch else str | None, option])


def options_of(model: type[Options]) -> list[Any]:
    """The options of a command that are made from a model's fields; None is what was not given."""

    def nothing(**_: Any) -> None: ...

    nothing.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [_option_parameter(name, field, model) for name, field in model.model_fields.items()]
    )
    maker = typer.Typer(add_completion=False)
    maker.command()(nothing)
    return list(typer.main.get_command(maker).params)


def _metavar(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "|".join(map(str, get_args(field.annotation)))
    names: dict[Any, str] = {
        int: "INT",
        float: "FLOAT",
        str: "TEXT",
        float | None: "FLOAT|none",
        int | None: "INT|none",
    }
    return names.get(field.annotation, "YAML")


def _help(field: FieldInfo) -> str:
    """The option's description with its default and range."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    facts = [f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in signs.items() if hasattr(m, key)]
    default = field.get_default(call_default_factory=True)
    if default not in (None, "") and not isinstance(default, bool):
        facts.insert(0, f"default {default:g}" if isinstance(default, float) else f"default {default}")
    return f"{field.description or ''} ({', '.join(facts)})" if facts else field.description or ""


def _with_lora(field: FieldInfo, model: type[Options]) -> str:
    faster = getattr(model, "lora_faster", 1.0)
    return f"; with --lora the default is {field.default * faster:g}" if faster != 1 else ""


def _owner(name: str, model: type[Options]) -> type:
    """The class that declares an option first."""
    return next(base for base in reversed(model.__mro__) if name in inspect.get_annotations(base))


def _panel(name: str, model: type[Options]) -> str:
    """``TrainingOptions`` and ``PPOConfig`` give the panels "Training options" and "PPO options"."""
    return f"{_owner(name, model).__name__.removesuffix('Options').removesuffix('Config')} options"


def _own_first(model: type[Options]) -> Callable[[inspect.Parameter], int]:
    """A sort key: the stage's own options, then those it shares with others."""
    return lambda parameter: model.__mro__.index(_owner(parameter.name, model))


def _value(field: FieldInfo, word: Any) -> Any:
    """A word of the command line as the model takes it; only lists and sections need reading as YAML."""
    if isinstance(word, bool):
        return field.default is not True
    metavar = _metavar(field)
    if metavar.endswith("|none") and word.lower() == "none":
        return None
    if metavar != "YAML":
        return word
    import yaml

    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return word
