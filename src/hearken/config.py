"""Typed options: what every stage's options share, and how they are read; and where the cache is."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, to_jsonable_python

from hearken.errors import UserError

FORMER = {"batch": "batch_size", "samples": "num_generations", "stop_when": "early_stop"}
"""Names that options had: they go on working, and say so."""
_FORMER_VALUES = {("early_stop", "fooled"): "overoptimization"}


class FormerName(FutureWarning):
    """An option is called by a name that it had before."""


class Options(BaseModel):
    """Base of all options. Unknown keys are refused, and the nearest right key is named.

    What checks them is built when they are first read (``defer_build``): a list of all stages needs their names alone.
    """

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True, defer_build=True
    )  # fmt: skip

    def __init__(self, **values: Any) -> None:
        """As `parse`, whose errors these are."""
        with _in_a_sentence(type(self).__name__):
            super().__init__(**values)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested options are checked with their parent

    def __setattr__(self, name: str, value: Any) -> None:
        with _in_a_sentence(type(self).__name__):
            super().__setattr__(name, value)

    @classmethod
    def reports(cls) -> tuple[str, ...]:
        """The options that a report names: the ``reported`` of all the classes that this one is made of."""
        named = [name for base in reversed(cls.__mro__) for name in base.__dict__.get("reported", ())]
        return tuple(dict.fromkeys(named))

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        """Refuse unknown keys; read the word none as the command line and YAML files have it, where it may stand."""
        if not isinstance(values, dict):
            return values
        for key in values.keys() & FORMER.keys() - cls.model_fields.keys():
            if FORMER[key] in cls.model_fields:
                warnings.warn(f"the option {key} is now {FORMER[key]}", FormerName, stacklevel=2)
        values = cls.current(values)
        for key in values:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.4)
                hint = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(sorted(cls.model_fields))}"
                raise PydanticCustomError("unknown_key", "unknown key '{key}'. {hint}", {"key": key, "hint": hint})
        return {
            name: None if str(value).lower() == "none" and _may_be_none(cls.model_fields.get(name)) else value
            for name, value in values.items()
        }

    @classmethod
    def current(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options under the names they have now; where one is given under both, the later counts."""
        found: dict[str, Any] = {}
        for key, value in values.items():
            new = FORMER.get(key, key)
            name = new if key not in cls.model_fields and new in cls.model_fields else key
            found[name] = _FORMER_VALUES.get((name, value), value) if isinstance(value, str) else value
        return found

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options that a file holds, under the names of today; one that is younger than the file has its default.

        A new option's default therefore has to do what was done before.
        """
        optional = {name: field for name, field in cls.model_fields.items() if not field.is_required()}
        defaults = {name: field.get_default(call_default_factory=True) for name, field in optional.items()}
        return {**to_jsonable_python(defaults), **cls.current(values)}

    @classmethod
    def parse(cls, values: Mapping[str, object], where: str = "options") -> Self:
        """Validate ``values`` (e.g. a YAML section merged with command-line options).

        Raises:
            UserError: an unknown key (naming the nearest one) or a value of the wrong type or range.
        """
        with _in_a_sentence(where):
            return cls.model_validate(dict(values))


@contextmanager
def _in_a_sentence(where: str) -> Iterator[None]:
    """The first thing that is wrong with some options, as a `UserError`."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "unknown_key":
            unknown = ".".join(filter(None, (key, str(first["ctx"]["key"]))))
            raise UserError(f"{where}: unknown key '{unknown}'", first["ctx"]["hint"]) from None
        value = f" (got {first['input']!r})" if first["loc"] else ""
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {key or 'value'}: {said}{value}") from None


def _may_be_none(field: FieldInfo | None) -> bool:
    return field is not None and type(None) in get_args(field.annotation) and str not in get_args(field.annotation)


def read_yaml(path: Path | str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The mapping that a YAML file holds, with ``overrides`` such as ``"ppo.kl.target=6"``.

    Raises:
        UserError: there is no such file, it is not YAML (the line is named), it is not a mapping, or see `assign`.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})", "Name a YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8", "Name a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "not YAML"
        raise UserError(f"{path}{where}: {what}", "Mend the YAML there") from None
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path} does not hold a mapping", "Write lines of the form 'key: value'")
    for words in overrides:
        assign(content, words)
    return content


def assign(values: dict[str, Any], override: str) -> None:
    """Put a dotted override such as ``"ppo.kl.target=6"`` into nested ``values``; the value is read as YAML.

    Raises:
        UserError: it is not of the form ``key=value``, or the path leads through something that is not a mapping.
    """
    import yaml

    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UserError(f"the override '{override}' is not of the form key=value", "For example: -o lr=1e-5")
    *sections, key = path.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"the override '{override}' goes through '{section}', which is not a section")
    try:
        values[key] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[key] = text


def located(name: str) -> str:
    """A local path in full, so that it holds wherever it is read; names of the Hub stay."""
    return os.path.abspath(name) if name and os.path.exists(name) else name


def cache_folder(what: str) -> Path:
    """Where something is kept that can be made again: in ``$HEARKEN_CACHE``, else ``~/.cache/hearken``."""
    return Path(os.environ.get("HEARKEN_CACHE") or Path.home() / ".cache" / "hearken") / what
