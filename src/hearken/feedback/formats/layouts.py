"""Layouts: what one row of a file means. Each reads a row (a dictionary of columns) into examples and writes it back.

A row's further columns are kept in ``metadata`` and written back. So is an optional column that states its own default
(``"weight": 1``): reading and writing in the same layout gives the same row.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any, get_args

from hearken.errors import UserError
from hearken.feedback.examples import (
    Comparison,
    Content,
    Demonstration,
    Document,
    Example,
    Message,
    PromptOnly,
    Rating,
    Role,
    Thumb,
    content_key,
)
from hearken.feedback.formats import canonical, hh, oasst, tldr

Row = dict[str, Any]


class Cell(str):
    """A cell of a CSV file: text that may stand for a number, a truth value or a list."""

    __slots__ = ()


@dataclass(frozen=True)
class Layout:
    """One way to write examples as rows.

    ``read`` raises UserError without a location (the file reader knows it); ``write`` is None for a layout that is
    only read.
    """

    name: str
    kind: Any
    """The class of the examples that it holds."""
    columns: tuple[str, ...]
    read: Callable[[Row], list[Example]]
    write: Callable[[Any], Row] | None


# --- values ----------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """The value of a CSV cell that holds JSON lists or objects; any other value as it is."""
    if isinstance(value, Cell):
        if value[:1] in ("[", "{"):
            try:
                return json.loads(value)
            except ValueError:
                pass
        return str(value)
    return value


def _column(row: Row, name: str) -> Any:
    if row.get(name) is None:
        near = difflib.get_close_matches(name, [str(key) for key in row if row[key] is not None], n=1)
        hint = f"Did you mean '{name}' by '{near[0]}'?" if near and name not in row else f"Fill in the column '{name}'"
        raise UserError(f"the column '{name}' is {'null' if name in row else 'missing'}", hint)
    return row[name]


def _type_error(name: str, wanted: str, value: Any) -> UserError:
    return UserError(f"'{name}' must be {wanted}", f"It is {type(value).__name__} here")


def _number(value: Any, name: str) -> float:
    if isinstance(value, Cell):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f"'{name}' must be a number", f"The cell reads '{value}'") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _type_error(name, "a number", value)
    if not math.isfinite(value):
        raise UserError(f"'{name}' is not a finite number", "Leave out the row or write a number")
    return value


def _label(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, Cell) and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    raise UserError("'label' must be true or false", f"It is {value!r:.40} here")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _type_error(name, "text", value)
    if not value.strip():
        raise UserError(f"'{name}' is empty", "Leave out the row, or skip such rows while reading (on_bad='skip')")
    return str(value)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    value = _plain(value)
    if not isinstance(value, list) or not value:
        raise _type_error(name, "a list of messages {role, content}", value)
    messages = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise UserError(f"'{name}', message {number} needs 'role' and 'content'")
        role, content = turn["role"], turn["content"]
        if role not in get_args(Role):
            known = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "developer": "system"}
            hint = f"Write '{known[role]}'" if role in known else f"Known roles: {', '.join(get_args(Role))}"
            raise UserError(f"'{name}', message {number} has the unknown role '{role}'", hint)
        if not isinstance(content, str):
            raise _type_error(f"content of message {number} of {name}", "text", content)
        extra = [key for key in turn if key not in ("role", "content") and turn[key] is not None]
        if extra:
            raise UserError(f"'{name}', message {number} has '{extra[0]}'", "Only role and content are read; remove it")
        messages.append(Message(role, content))
    return tuple(messages)


def _content(value: Any, name: str = "prompt") -> Content:
    value = _plain(value)
    return _messages(value, name) if isinstance(value, list) else _text(value, name)


def _response(value: Any, name: str) -> str:
    """A response: text, or a list with one assistant message."""
    value = _plain(value)
    if not isinstance(value, list):
        return _text(value, name)
    turns = _messages(value, name)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise UserError(f"'{name}' must be one assistant message", "Put the earlier turns into 'prompt'")
    return _text(turns[0].content, name)


def _turns(content: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in content]


def _content_row(content: Content) -> Any:
    return content if isinstance(content, str) else _turns(content)


def _response_row(text: str, prompt: Content) -> Any:
    return text if isinstance(prompt, str) else _turns([Message("assistant", text)])


# --- examples --------------------------------------------------------------------------------------------------------


def _defaults(kind: type[Example], names: Sequence[str]) -> dict[str, Any]:
    return {f.name: f.default for f in fields(kind) if f.name in names and f.default is not MISSING}


OPTIONAL: dict[type[Example], dict[str, Any]] = {
    kind: _defaults(kind, ("strength", "share", "weight", "low", "high")) for kind in Example.__args__
}
"""The optional columns of each kind of example, with their defaults; all are numbers."""


def _make(kind: type[Example], row: Row, columns: Sequence[str], **values: Any) -> list[Example]:
    """An example of ``values``, the row's optional columns, and its further columns as metadata."""
    metadata = {}
    for key, value in row.items():
        if key in columns:
            continue
        if key in OPTIONAL[kind] and value is not None and value != "":
            number = _number(value, key)
            if number != OPTIONAL[kind][key]:
                values[key] = number
                continue
        metadata[key] = str(value) if isinstance(value, Cell) else value
    example = kind(**values, metadata=metadata)
    check(example)
    return [example]


def _row(example: Example, **columns: Any) -> Row:
    """``columns``, the optional columns that differ from their defaults, and the metadata."""
    options = {key: getattr(example, key) for key, default in OPTIONAL[type(example)].items()}
    changed = {key: value for key, value in options.items() if value != OPTIONAL[type(example)][key]}
    own = columns | changed
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
            raise UserError(what, "Leave out the row, or skip such rows while reading (on_bad='skip')")
    for name in ("strength", "share"):
        value = getattr(example, name)
        if value is not None and len(responses) != 2:
            raise UserError(f"'{name}' is for two responses", f"There are {len(responses)} here")
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"'{name}' must lie in 0..1", f"It is {value} here")


# --- layouts ---------------------------------------------------------------------------------------------------------


def _pair(row: Row, columns: Sequence[str], prompt: Content, chosen: str, rejected: str) -> list[Example]:
    return _make(Comparison, row, columns, prompt=prompt, responses=(chosen, rejected), ranks=(0, 1))


def _ordered(example: Comparison) -> tuple[Comparison, str, str]:
    """A comparison of two responses with the better one first, and the two responses."""
    if example.ranks not in ((0, 1), (1, 0)):
        raise UserError("only two responses, one better than the other, make a pair", "Write the layout 'rankings'")
    if example.ranks == (0, 1):
        return example, *example.responses  # type: ignore[return-value]
    share = None if example.share is None else 1 - example.share
    second, first = example.responses
    return (
        Comparison(example.prompt, (first, second), (0, 1), example.strength, share, example.weight, example.metadata),
        first,
        second,
    )


def _read_pairs(row: Row) -> list[Example]:
    prompt = _content(_column(row, "prompt"))
    chosen, rejected = _column(row, "chosen"), _column(row, "rejected")
    if isinstance(prompt, str) and isinstance(_plain(chosen), list):
        prompt = (Message("user", prompt),)
    texts = _response(chosen, "chosen"), _response(rejected, "rejected")
    return _pair(row, ("prompt", "chosen", "rejected"), prompt, *texts)


def _write_pairs(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    prompt = example.prompt
    return _row(
        example,
        prompt=_content_row(prompt),
        chosen=_response_row(chosen, prompt),
        rejected=_response_row(rejected, prompt),
    )


def _read_implicit(row: Row) -> list[Example]:
    chosen = _messages(_column(row, "chosen"), "chosen")
    rejected = _messages(_column(row, "rejected"), "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise UserError("chosen and rejected share no prompt", "Both must begin with the same messages")
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) != shared + 1 or turns[-1].role != "assistant":
            raise UserError(f"'{name}' must be the shared messages and one assistant message after them")
    texts = _text(chosen[-1].content, "chosen"), _text(rejected[-1].content, "rejected")
    return _pair(row, ("chosen", "rejected"), chosen[:shared], *texts)


def _write_implicit(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    if isinstance(example.prompt, str):
        raise UserError("a plain prompt cannot be written as messages", "Write the layout 'pairs'")
    turns = [(*example.prompt, Message("assistant", text)) for text in (chosen, rejected)]
    return _row(example, chosen=_turns(turns[0]), rejected=_turns(turns[1]))


def _read_hh(row: Row) -> list[Example]:
    for name in ("chosen", "rejected"):
        if not isinstance(_column(row, name), str):
            raise _type_error(name, "a dialogue as text", row[name])
    prompt, chosen, rejected = hh.parse(str(row["chosen"]), str(row["rejected"]))
    return _pair(row, ("chosen", "rejected"), prompt, _text(chosen, "chosen"), _text(rejected, "rejected"))


def _write_hh(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    texts = hh.render(example.prompt, chosen, rejected)
    return _row(example, chosen=texts[0], rejected=texts[1])


def _read_rankings(row: Row) -> list[Example]:
    columns = ("prompt", "responses", "ranks")
    prompt = _content(_column(row, "prompt"))
    responses, ranks = (_plain(_column(row, name)) for name in columns[1:])
    if not isinstance(responses, list):
        raise _type_error("responses", "a list of texts", responses)
    if not isinstance(ranks, list):
        raise _type_error("ranks", "a list of ranks", ranks)
    for rank in ranks:
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 0):
            raise UserError("'ranks' must be whole numbers from 0, or null", f"One is {rank!r:.40} here")
    texts = tuple(_text(text, "responses") for text in responses)
    return _make(Comparison, row, columns, prompt=prompt, responses=texts, ranks=tuple(ranks))


def _write_rankings(example: Comparison) -> Row:
    prompt = _content_row(example.prompt)
    return _row(example, prompt=prompt, responses=list(example.responses), ranks=list(example.ranks))


def _read_response(row: Row, kind: type[Example], columns: tuple[str, ...], **values: Any) -> list[Example]:
    prompt, response = _content(_column(row, "prompt")), _column(row, "completion")
    if isinstance(prompt, str) and isinstance(_plain(response), list):
        prompt = (Message("user", prompt),)
    values |= {"prompt": prompt, "response": _response(response, "completion")}
    return _make(kind, row, ("prompt", "completion", *columns), **values)


def _write_response(example: Rating | Thumb | Demonstration, **columns: Any) -> Row:
    prompt, response = example.prompt, example.response
    return _row(example, prompt=_content_row(prompt), completion=_response_row(response, prompt), **columns)


def _read_binary(row: Row) -> list[Example]:
    return _read_response(row, Thumb, ("label",), label=_label(_column(row, "label")))


def _write_binary(example: Thumb) -> Row:
    return _write_response(example, label=example.label)


def _read_ratings(row: Row) -> list[Example]:
    ratings = _plain(_column(row, "ratings"))
    if not isinstance(ratings, dict):
        raise _type_error("ratings", 'an object such as {"overall": 4}', ratings)
    # A null is an attribute that was not rated (Parquet writes one for each attribute the row lacks).
    numbers = {str(name): _number(value, str(name)) for name, value in ratings.items() if value is not None}
    return _read_response(row, Rating, ("ratings",), ratings=numbers)


def _write_ratings(example: Rating) -> Row:
    return _write_response(example, ratings=dict(example.ratings))


def _read_overall(row: Row, column: str) -> list[Example]:
    return _read_response(row, Rating, (column,), ratings={"overall": _number(_column(row, column), column)})


def _write_overall(example: Rating, column: str) -> Row:
    if set(example.ratings) != {"overall"}:
        raise UserError(f"the layout '{column}' holds one number, 'overall'", "Write the layout 'ratings'")
    return _write_response(example, **{column: example.ratings["overall"]})


def _read_sft(row: Row) -> list[Example]:
    return _read_response(row, Demonstration, ())


def _read_messages(row: Row) -> list[Example]:
    turns = _messages(_column(row, "messages"), "messages")
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise UserError("'messages' must end with an assistant message after a prompt")
    response = _text(turns[-1].content, "messages")
    return _make(Demonstration, row, ("messages",), prompt=turns[:-1], response=response)


def _write_messages(example: Demonstration) -> Row:
    if isinstance(example.prompt, str):
        raise UserError("a plain prompt cannot be written as messages", "Write the layout 'sft'")
    return _row(example, messages=_turns((*example.prompt, Message("assistant", example.response))))


def _read_text(row: Row) -> list[Example]:
    return _make(Document, row, ("text",), text=_text(_column(row, "text"), "text"))


def _write_text(example: Document) -> Row:
    return _row(example, text=example.text)


def _read_prompts(row: Row) -> list[Example]:
    return _make(PromptOnly, row, ("prompt",), prompt=_content(_column(row, "prompt")))


def _write_prompts(example: PromptOnly) -> Row:
    return _row(example, prompt=_content_row(example.prompt))


def _read_oasst(row: Row) -> list[Example]:
    examples: list[Example] = list(oasst.comparisons(row))
    for example in examples:
        check(example)
    return examples


def _read_tldr(row: Row) -> list[Example]:
    return [tldr.demonstration({key: _plain(value) for key, value in row.items()})]


def _read_summaries(row: Row) -> list[Example]:
    example = tldr.comparison({key: _plain(value) for key, value in row.items()})
    check(example)
    return [example]


def _read_snapshot(row: Row) -> list[Example]:
    return [canonical.load(str(_column(row, "kind")), _text(_column(row, "example"), "example"))]


def _write_snapshot(example: Example) -> Row:
    prompt = example.text if isinstance(example, Document) else example.prompt
    return {"kind": canonical.kind_name(example), "prompt": content_key(prompt), "example": canonical.dump(example)}


_ALL = (
    Layout("snapshot", Example, ("kind", "prompt", "example"), _read_snapshot, _write_snapshot),
    Layout("oasst", Comparison, ("message_tree_id", "prompt"), _read_oasst, None),
    Layout("tldr", Demonstration, ("title", "post", "summary"), _read_tldr, None),
    Layout("summaries", Comparison, ("info", "summaries", "choice"), _read_summaries, None),
    Layout("pairs", Comparison, ("prompt", "chosen", "rejected"), _read_pairs, _write_pairs),
    Layout("implicit", Comparison, ("chosen", "rejected"), _read_implicit, _write_implicit),
    Layout("hh", Comparison, ("chosen", "rejected"), _read_hh, _write_hh),
    Layout("rankings", Comparison, ("prompt", "responses", "ranks"), _read_rankings, _write_rankings),
    Layout("binary", Thumb, ("prompt", "completion", "label"), _read_binary, _write_binary),
    Layout("ratings", Rating, ("prompt", "completion", "ratings"), _read_ratings, _write_ratings),
    *(
        Layout(
            name,
            Rating,
            ("prompt", "completion", name),
            partial(_read_overall, column=name),
            partial(_write_overall, column=name),
        )
        for name in ("score", "rating")
    ),
    Layout("sft", Demonstration, ("prompt", "completion"), _read_sft, _write_response),
    Layout("messages", Demonstration, ("messages",), _read_messages, _write_messages),
    Layout("text", Document, ("text",), _read_text, _write_text),
    Layout("prompts", PromptOnly, ("prompt",), _read_prompts, _write_prompts),
)
LAYOUTS = {layout.name: layout for layout in _ALL}
"""All layouts by name, the more specific before the less specific (detection takes the first that fits)."""


def find_layout(name: str) -> Layout:
    """The layout called ``name``.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name, LAYOUTS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: auto, {', '.join(LAYOUTS)}"
        raise UserError(f"unknown format '{name}'", hint)
    return LAYOUTS[name]


def detect(row: Row) -> Layout:
    """The layout whose columns (and kinds of value) this row shows.

    Raises:
        UserError: no layout fits; names the nearest column that one wants.
    """
    columns = {key for key, value in row.items() if value is not None}
    if isinstance(_plain(row.get("prompt")), dict):
        return LAYOUTS["oasst"]
    if {"chosen", "rejected"} <= columns:
        chosen = _plain(row["chosen"])
        if isinstance(chosen, list) and ("prompt" not in columns or len(chosen) > 1):
            return LAYOUTS["implicit"]
        if "prompt" not in columns and isinstance(chosen, str):
            return LAYOUTS["hh"]
    for half, whole in (({"chosen", "rejected"}, "pairs"), ({"responses", "ranks"}, "rankings")):
        if half & columns and not half <= columns and "completion" not in columns:
            return LAYOUTS[whole]  # so that a missing or misspelt column is named, instead of a file of prompts read
    for layout in _ALL:
        if set(layout.columns) <= columns and layout.name not in ("oasst", "implicit", "hh"):
            return layout
    missing = {name for layout in _ALL for name in layout.columns} - columns
    guesses = [(key, difflib.get_close_matches(str(key), missing, n=1)) for key in sorted(map(str, columns))]
    hints = [f"Did you mean '{near[0]}' by '{key}'?" for key, near in guesses if near]
    shown = ", ".join(sorted(map(str, columns))) or "none"
    raise UserError(
        f"no known layout has the columns {shown}", hints[0] if hints else "docs/formats.md says which columns are read"
    )
