"""Values of a row's columns: what a cell, a text, a number or a list of messages says, or why it says nothing."""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message, Role

Row = dict[str, Any]

SYSTEM = ("system", "system_prompt", "system_message")
"""Columns with what a model is told before the first turn."""

CONTENT = frozenset(
    {
        "prompt", "chosen", "rejected", "completion", "messages", "conversations", "context", "conversation_a",
        "conversation_b",
    }
)  # fmt: skip
"""Columns that hold text in some files and messages in others; in CSV the first row says which, for the whole file."""

ROLES: dict[str, Role] = {
    "system": "system", "user": "user", "human": "user", "prompter": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "bot": "assistant",
    "model": "assistant", "function_call": "assistant", "tool": "tool", "observation": "tool",
}  # fmt: skip
"""Who speaks in ShareGPT's layout (``from``), as roles. A function call is what the assistant said."""

_KNOWN = frozenset(get_args(Role))
_SPEAKERS = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "developer": "system"}
_MESSAGES = re.compile(r"""\s*(array\()?\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
SKIP = "Mend or leave out the row; or all such rows: --on-bad skip"


class Cell(str):
    """A cell of a CSV file: text that may stand for a number, a truth value or a list."""

    __slots__ = ()


# --- lists in cells --------------------------------------------------------------------------------------------------


def structured(value: Any) -> Any:
    """A list or object where a text writes one, as JSON or as Python does; any other value as it is.

    For columns whose layout says that they hold a list or an object, never for texts.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                found = parse(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, list | dict):
                return found
    return value


def dialogue(text: str) -> list[dict[str, Any]] | None:
    """The messages that a cell writes, as JSON or as Python does; None where it is text.

    Raises:
        UserError: it begins as messages do, and cannot be read as such.
    """
    found = structured(text)
    keys = ({"role", "content"}, {"from", "value"})
    if (
        isinstance(found, list)
        and found
        and all(isinstance(t, dict) and any(k <= t.keys() for k in keys) for t in found)
    ):
        return found
    if _MESSAGES.match(text):
        raise UserError(
            "a cell looks like a list of messages, and is neither JSON nor a list as Python writes it",
            "Write it as JSON: json.dumps(messages)",
        )
    return None


# --- single values ---------------------------------------------------------------------------------------------------


def column(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column.

    Raises:
        UserError: missing or null; the nearest column is named.
    """
    if row.get(name) is None:
        near = difflib.get_close_matches(name, [str(key) for key in row if row[key] is not None], n=1)
        hint = f"Did you mean '{name}' by '{near[0]}'?" if near and name not in row else f"Fill in the column '{name}'"
        raise UserError(f"the column '{name}' is {'null' if name in row else 'missing'}", hint)
    return row[name]


def type_error(name: str, wanted: str, value: Any) -> UserError:
    """What to say of a value of the wrong type."""
    shown = name if "'" in name else f"'{name}'"
    return UserError(f"{shown} must be {wanted}", f"It is {type(value).__name__} here")


def number(value: Any, name: str) -> float:
    """A finite number; a cell may write one."""
    if isinstance(value, Cell):
        try:
            value = json.loads(value)
        except ValueError:
            raise UserError(f"'{name}' must be a number", f"The cell reads '{value}'") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise type_error(name, "a number", value)
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise UserError(f"'{name}' is not a finite number", "Leave out the row or write a number")
    return value


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    found = number(value, name)
    if found != int(found) or not low <= found <= high:
        raise UserError(f"'{name}' must be a whole number from {low} to {high}", f"It is {found:g} here")
    return int(found)


def label(value: Any) -> bool:
    """A thumb: true or false, or 1 or 0 (see `formats.iter_examples` for what a column of such numbers must show)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Cell) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if is_digit(value):
        return float(value) == 1
    raise UserError("'label' must be true or false", f"It is {value!r:.40} here")


def is_digit(value: Any) -> bool:
    """Whether a label is written as the number 0 or 1."""
    if isinstance(value, Cell):
        return value in ("0", "1", "0.0", "1.0")
    return isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1)


def text(value: Any, name: str) -> str:
    """A text that says something."""
    if not isinstance(value, str):
        raise type_error(name, "text", value)
    if not value.strip():
        raise UserError(f"'{name}' is empty", SKIP)
    return str(value)


# --- messages --------------------------------------------------------------------------------------------------------


def messages(value: Any, name: str) -> tuple[Message, ...]:
    """A list of messages {role, content}, or {from, value} as ShareGPT writes them.

    Calls of tools and their results keep all that a chat template may take (`Message.more`).

    Raises:
        UserError: no such list; or a message that holds what a `Message` cannot, such as an image or a tool call.
    """
    value = structured(value)
    if not isinstance(value, list) or not value:
        raise type_error(name, "a list of messages {role, content}", value)
    found: list[Message] = []
    parts = {isinstance(turn.get("content"), list) for turn in value if isinstance(turn, dict)}
    for place, turn in enumerate(value, 1):
        where = f"message {place} of '{name}'"
        if not isinstance(turn, dict):
            raise type_error(where, "an object {role, content}", turn)
        shared = isinstance(turn.get("from"), str) and "value" in turn and turn.get("role") is None
        who, what = ("from", "value") if shared else ("role", "content")
        if not {who, what} <= turn.keys():
            raise UserError(f"'{name}', message {place} needs 'role' and 'content'", "Or ShareGPT's 'from' and 'value'")
        if len(parts) > 1 and isinstance(turn[what], list):
            raise UserError(
                f"{where} is a list of parts, and others of this row are text",
                'Write all of them as text, or all as [{"type": "text", "text": ...}]',
            )
        role, more = _role(turn[who], shared, name, place), _more(turn, (who, what), where)
        calls = more.get("tool_calls")
        if (calls and role != "assistant") or (role != "tool" and {"tool_call_id", "name"} & more.keys()):
            raise UserError(
                f"{where} has '{next(iter(more))}', and is {role}'s", "Only tools answer, and assistants call"
            )
        if role == "tool" and more and not any(json.loads(m.more).get("tool_calls") for m in found if m.more):
            raise UserError(f"{where} answers with '{next(iter(more))}' what nobody called", "Put the call before it")
        words = "" if calls and turn[what] is None else _spoken(turn[what], where)
        shown = "\n".join(filter(None, [words, *map(_call, calls or [])]))
        whole_ = json.dumps({"role": role, "content": words, **more}, ensure_ascii=False) if more else ""
        found.append(Message(role, shown, whole_))
    return tuple(found)


def with_system(prompt: Content, row: Mapping[str, Any], columns: Sequence[str] = ()) -> Content:
    """A prompt that begins with the system message that a column of the row gives, of none that is among ``columns``.

    Raises:
        UserError: the prompt begins with another one; or it is text, which has none.
    """
    for name in SYSTEM:
        said = row.get(name) if name not in columns else None
        if not isinstance(said, str) or not said.strip():
            continue
        if isinstance(prompt, str):
            raise UserError(
                f"'{name}' looks like a system message, and the prompt is text, which has none",
                'Write the prompt as messages, the first {"role": "system", "content": ...}; or rename the column',
            )
        if prompt[0].role != "system":
            prompt = (Message("system", text(said, name)), *prompt)
        elif prompt[0].content != said:
            raise UserError("the row has two system prompts", f"Keep the column '{name}' or that in the prompt")
    return prompt


def with_tools(prompt: Content, row: Mapping[str, Any]) -> Content:
    """A prompt whose first message has the tools that the row's column ``tools`` describes.

    Raises:
        UserError: they are no such list; or the prompt is text, which shows none.
    """
    if isinstance(prompt, str):
        value = structured(row.get("tools"))
        if isinstance(value, list) and any(isinstance(structured(one), dict) for one in value):
            raise UserError("'tools' describes tools, and the prompt is text, which shows none", "Write it as messages")
        return prompt
    tools = described(row)
    if not tools:
        return prompt
    first = json.dumps(prompt[0].plain() | {"tools": tools}, ensure_ascii=False)
    return (replace(prompt[0], more=first), *prompt[1:])


def tools_of(prompt: Content) -> list[Any]:
    """The tools that a prompt describes, as `with_tools` put them there."""
    return [] if isinstance(prompt, str) else list(prompt[0].plain().get("tools", ()))


def described(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that a row's column ``tools`` describes, as objects; none where it is empty.

    Raises:
        UserError: no list of objects.
    """
    value = structured(row.get("tools"))
    if value in (None, "", []):
        return []
    if isinstance(value, list):
        value = [structured(one) for one in value]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise UserError("'tools' must be a list of objects that describe tools", "As JSON schemas of functions")
    return [_without_nulls(one) for one in value]


def _without_nulls(value: Any) -> Any:
    """The value without the nulls that tables fill in."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _call(call: Mapping[str, Any]) -> str:
    """A call as text."""
    function = call["function"]
    said = function.get("arguments")
    words = said if isinstance(said, str) else json.dumps({} if said is None else said, ensure_ascii=False)
    return f"{function['name']}({words})"


def _role(said: Any, shared: bool, name: str, place: int) -> Role:
    if shared and said in ROLES:
        return ROLES[said]
    if isinstance(said, str) and said in _KNOWN:
        return cast(Role, said)
    known = isinstance(said, str) and said in _SPEAKERS
    hint = f"Write '{_SPEAKERS[said]}'" if known else f"Known roles: {', '.join(get_args(Role))}"
    raise UserError(f"'{name}', message {place} has the unknown role '{said}'", hint)


def _spoken(content: Any, where: str) -> str:
    """The text of a message; text parts one after the other, as chat templates put them."""
    if isinstance(content, list):
        return "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise type_error(f"content of {where}", "text", content)
    return content


def _part(part: Any, where: str) -> str:
    if not isinstance(part, dict):
        raise type_error(f"a part of {where}", 'an object {"type": "text", "text": ...}', part)
    kind = part.get("type")
    if kind != "text" or not isinstance(part.get("text"), str):
        raise UserError(f"{where} holds a part of type '{kind}'", "Only text is read here, no pictures, sound or files")
    other = [key for key, value in part.items() if key not in ("type", "text") and value is not None]
    if other:
        raise UserError(f"a text part of {where} has '{other[0]}'", "Only its text is read; remove the other")
    return str(part["text"])


def _more(turn: Mapping[str, Any], known: tuple[str, str], where: str) -> dict[str, Any]:
    """What a message says of tools beside its role and content; null and empty (as tables fill them in) say nothing.

    Raises:
        UserError: it says something else beside.
    """
    found: dict[str, Any] = {}
    for key, value in turn.items():
        if key in known or value is None or value in ("", [], {}):
            continue
        if key == "tool_calls":
            calls = structured(value)
            calls = [_without_nulls(one) for one in calls] if isinstance(calls, list) else []
            if not calls or not all(map(_is_call, calls)):
                raise UserError(f"the calls of {where} must be objects", 'Each {"function": {"name", "arguments"}}')
            found[key] = calls
        elif key in ("tool_call_id", "name") and isinstance(value, str):
            found[key] = value
        else:
            raise UserError(f"{where} has '{key}'", "Only role, content and calls of tools are read; remove it")
    return found


def content(value: Any, name: str = "prompt") -> Content:
    """A prompt: text, or a list of messages."""
    return messages(value, name) if isinstance(value, list) else text(value, name)


class Calling(str):
    """A response that calls tools: its words with the calls as text, and in ``more`` the whole message."""

    more: str


def words(message: Message, name: str) -> str:
    """The response that a message is."""
    said = text(message.content, name)
    if not message.more:
        return said
    calling = Calling(said)
    calling.more = message.more
    return calling


def response(value: Any, name: str) -> str:
    """A response: text, or a list with one assistant message."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return text(value, name)
    turns = messages(value, name)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise UserError(f"'{name}' must be one assistant message", "Put the earlier turns into 'prompt'")
    return words(turns[0], name)


def listed(row: Mapping[str, Any], name: str) -> list[Any]:
    """The list that a column holds."""
    value = structured(column(row, name))
    if not isinstance(value, list):
        raise type_error(name, "a list", value)
    return value


def turns(found: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as a row holds them."""
    return [{k: v for k, v in message.plain().items() if k != "tools"} for message in found]
