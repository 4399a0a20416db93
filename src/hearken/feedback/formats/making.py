"""Examples made of rows and written back: optional columns, further columns as metadata, and what means nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import CALLS, Comparison, Example, Rating, content_key
from hearken.feedback.formats.values import (
    SKIP,
    SYSTEM,
    Calling,
    Cell,
    Row,
    number,
    structured,
    tools_of,
    with_system,
    with_tools,
)

_MEDIA = ("image", "images", "video", "videos", "audio", "audios")


def _defaults(kind: type[Example], names: Sequence[str]) -> dict[str, Any]:
    return {f.name: f.default for f in fields(kind) if f.name in names and f.default is not MISSING}


OPTIONAL: dict[type[Example], dict[str, Any]] = {
    kind: _defaults(kind, ("strength", "share", "weight", "low", "high")) for kind in Example.__args__
}
"""The optional columns of each kind of example, with their defaults; all are numbers."""


def make(kind: type[Example], row: Row, columns: Sequence[str], **values: Any) -> list[Example]:
    """An example of ``values``, the row's optional columns, and its further columns as metadata.

    In every layout, a column of `SYSTEM` is the first message of a prompt of messages, and a column ``tools`` describes
    the tools that it may call.

    Raises:
        UserError: the example means nothing, or a column says what would be lost.
    """
    refuse_unread(row, columns)
    metadata = {}
    if "prompt" in values:
        values["prompt"] = with_tools(with_system(values["prompt"], row, columns), row)
    beside = () if isinstance(values.get("prompt", ""), str) else ("tools", *SYSTEM)
    for key, value in row.items():
        if key in columns or key in beside:
            continue
        if key in OPTIONAL[kind] and value is not None and value != "":
            stated = number(value, key)
            if stated != OPTIONAL[kind][key]:
                values[key] = stated
                continue
        metadata[key] = str(value) if isinstance(value, Cell) else value
    if calls := _calls(values, metadata.get(CALLS)):
        metadata[CALLS] = calls
    example = kind(**values, metadata=metadata)
    check(example)
    return [example]


def refuse_unread(row: Mapping[str, Any], columns: Sequence[str] = ()) -> None:
    """Refuse a row with pictures, sound or video, or with settings of the chat template: a model would miss them."""
    for name in _MEDIA:
        if name not in columns and row.get(name) not in (None, "", []):
            raise UserError(f"the row has a column '{name}'", "Pictures, sound and video are not read beside text")
    name = "chat_template_kwargs"
    if structured(row.get(name)) not in (None, "", {}):
        raise UserError(f"'{name}' changes what the chat template writes, and is not read", "Set it in the template")


def _calls(values: dict[str, Any], known: Any) -> dict[str, str]:
    """The calls of tools by responses among ``values``, and those of a column; see `examples.CALLS`."""
    written = structured(known)
    found = {key: more for key, more in written.items() if more is not None} if isinstance(written, dict) else {}
    for name in ("response", "responses"):
        said = values.get(name, ())
        for one in (said,) if isinstance(said, str) else said:
            if isinstance(one, Calling):
                found[content_key(str(one))] = one.more
    return found


def row_of(example: Example, **columns: Any) -> Row:
    """``columns``, the optional columns that differ from their defaults, and the metadata."""
    options = {key: getattr(example, key) for key, default in OPTIONAL[type(example)].items()}
    changed = {key: value for key, value in options.items() if value != OPTIONAL[type(example)][key]}
    own = columns | changed
    if tools := tools_of(getattr(example, "prompt", "")):
        own["tools"] = tools
    return own | {key: value for key, value in example.metadata.items() if key not in own}


def check(example: Example) -> None:
    """Refuse an example that means nothing: wrong lengths, ranges, or equal responses with different ranks.

    Raises:
        UserError: what is wrong with the row, without its location.
    """
    weight = getattr(example, "weight", 1.0)
    if weight < 0:
        raise UserError("'weight' is negative", "Write a weight of 0 or more")
    if isinstance(example, Comparison):
        _check_comparison(example)
    elif isinstance(example, Rating):
        if not example.ratings:
            raise UserError("'ratings' is empty", 'Give at least one attribute, e.g. {"overall": 4}')
        if not example.low < example.high:
            raise UserError("'low' must be less than 'high'")
        for name, value in example.ratings.items():
            if not example.low <= value <= example.high:
                raise UserError(
                    f"'{name}' lies outside the scale",
                    f"{value} is not in {example.low}..{example.high}; state the scale in the columns 'low' and 'high'",
                )


def _check_comparison(example: Comparison) -> None:
    responses, ranks = example.responses, example.ranks
    if len(responses) != len(ranks):
        raise UserError("'ranks' and 'responses' differ in length", f"{len(ranks)} ranks, {len(responses)} responses")
    ranked = [rank for rank in ranks if rank is not None]
    if len(ranked) < 2:
        raise UserError("fewer than two responses are ranked", "A comparison needs at least two ranks")
    if min(ranked) != 0:
        raise UserError("'ranks' must begin at 0, the best", f"The lowest rank here is {min(ranked)}")
    by_text: dict[str, int | None] = {}
    for text, rank in zip(responses, ranks, strict=True):
        if by_text.setdefault(text, rank) != rank:
            what = "chosen and rejected are equal" if len(responses) == 2 else "equal responses have different ranks"
            raise UserError(what, SKIP)
    for name in ("strength", "share"):
        value = getattr(example, name)
        if value is not None and len(responses) != 2:
            raise UserError(f"'{name}' is for two responses", f"There are {len(responses)} here")
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"'{name}' must lie in 0..1", f"It is {value} here")
