"""What other labelling programs export: Argilla's records and Label Studio's tasks, each labeler's answer a judgment.

Their fields and questions are named by whoever made the project. Read is what the names leave no doubt about: a prompt,
responses that are numbered or lettered (``response1``, ``answer_b``), and a ranking, a choice or a rating of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Demonstration, Example, Rating
from hearken.feedback.formats.making import make, refuse_unread
from hearken.feedback.formats.published import levels
from hearken.feedback.formats.values import Row, column, content, number, structured, text

_PROMPTS = ("prompt", "instruction", "question", "input", "context", "query", "text")
_RESPONSE = re.compile(r"(response|answer|completion|generation|output|reply|text)[-_ ]?([1-9]|[a-d])?", re.IGNORECASE)
_WAY_OUT = "Write prompt, chosen and rejected (or prompt, responses and ranks), and the labeler as 'labeler'"
_RECORD = (
    "id",
    "status",
    "_server_id",
    "inserted_at",
    "updated_at",
    "external_id",
    "metadata",
    "vectors",
    "suggestions",
)


@dataclass(frozen=True)
class _Asked:
    """A record or task: what was shown, and what it says beside."""

    prompt: Content
    responses: dict[str, str]
    """By the name of the field, in the order of their numbers or letters."""
    rest: Row = field(default_factory=dict)


def _asked(fields: Mapping[str, Any], rest: Row) -> _Asked:
    refuse_unread(fields)
    shown = [name for name, value in fields.items() if value not in (None, "")]
    matched = {name: found for name in shown if (found := _RESPONSE.fullmatch(name))}
    numbered = sorted((found[2].lower(), name) for name, found in matched.items() if found[2])
    several = [name for _, name in numbered]
    single = [name for name, found in matched.items() if not found[2] and found[1].lower() != "text"]
    prompts = [name for name in _PROMPTS if name in shown]
    responses = several if len(several) > 1 else [*several, *single][:1]
    if not prompts:
        raise UserError(
            f"none of the fields {', '.join(shown) or '(none)'} is a prompt", f"Name it 'prompt'. {_WAY_OUT}"
        )
    unread = [
        name for name in shown if name != prompts[0] and name not in responses and name in (*prompts, *several, *single)
    ]
    if unread:
        raise UserError(f"'{prompts[0]}' and '{unread[0]}' are both fields of text", f"Make them one. {_WAY_OUT}")
    further = {name: value for name, value in fields.items() if name != prompts[0] and name not in responses}
    return _Asked(
        content(fields[prompts[0]]), {name: text(fields[name], name) for name in responses}, {**rest, **further}
    )


def _named(said: Any, asked: _Asked, question: str) -> str:
    """The field that an answer names, ``response-1`` for ``response1`` too."""
    plain = {re.sub(r"\W|_", "", name).lower(): name for name in asked.responses}
    key = re.sub(r"\W|_", "", str(said)).lower()
    if key not in plain:
        raise UserError(f"'{question}' says '{said!s:.40}', which is no field", f"Fields: {', '.join(asked.responses)}")
    return plain[key]


# --- Argilla ---------------------------------------------------------------------------------------------------------


def argilla(row: Row) -> list[Example]:
    """A record as Argilla 2 writes it to JSON: fields, and responses by question."""
    fields, told = structured(column(row, "fields")), structured(column(row, "responses"))
    if not isinstance(fields, dict) or not isinstance(told, dict):
        raise UserError("'fields' and 'responses' must be objects", "As Argilla's records.to_json writes them")
    rest = {key: value for key, value in row.items() if key not in ("fields", "responses")}
    return _records(fields, rest, {question: list(_answers(said, question)) for question, said in told.items() if said})


def argilla_table(row: Row) -> list[Example]:
    """A record as a row of a table: ``QUESTION.responses`` (Argilla 2), or answers {user_id, value, status} (1)."""
    told: dict[str, list[tuple[Any, Any]]] = {}
    read = set()
    for key, value in row.items():
        if key.endswith(".responses"):
            users = structured(row.get(f"{key}.users")) or []
            status = structured(row.get(f"{key}.status")) or []
            values = structured(value) or []
            if not all(isinstance(one, list) for one in (values, users, status)):
                raise UserError(f"'{key}', its users and its status must be lists", "One element for each labeler")
            users, status = ([*found, *[None] * (len(values) - len(found))] for found in (users, status))
            said = [{"value": v, "user_id": u, "status": s} for v, u, s in zip(values, users, status, strict=False)]
            told[key.removesuffix(".responses")] = list(_answers(said, key))
            read |= {key, f"{key}.users", f"{key}.status"}
        elif is_answers(value):
            told[key] = list(_answers(structured(value), key))
            read.add(key)
    beside = {
        key for key in row if key in _RECORD or ".suggestion" in key or key.endswith(("-suggestion", "-metadata"))
    }
    fields = {key: value for key, value in row.items() if key not in read | beside}
    return _records(fields, {key: row[key] for key in beside}, told)


def is_answers(value: Any) -> bool:
    """Whether a column holds answers as Argilla 1 writes them."""
    found = structured(value)
    first = found[0] if isinstance(found, list) and found else None
    return isinstance(first, dict) and {"user_id", "value"} <= first.keys()


def _answers(said: Any, question: str) -> Iterator[tuple[Any, Any]]:
    """Who answered a question, and what; drafts and discarded answers are none."""
    if not isinstance(said, list):
        raise UserError(f"the answers to '{question}' must be a list", "One {value, user_id} for each labeler")
    for one in said:
        if not isinstance(one, dict) or "value" not in one:
            raise UserError(f"an answer to '{question}' has no 'value'", "Each is {value, user_id}")
        if one["value"] is not None and one.get("status") in (None, "submitted"):
            yield one.get("user_id"), one["value"]


def _records(fields: Mapping[str, Any], rest: Row, told: Mapping[str, list[tuple[Any, Any]]]) -> list[Example]:
    if not any(told.values()):
        return []  # nobody has answered it yet
    asked = _asked(fields, rest)
    found: list[Example] = []
    ratings: dict[Any, dict[str, float]] = {}
    for question, answers in told.items():
        for who, value in answers:
            more: Row = {**asked.rest, "question": question} | ({} if who is None else {"labeler": str(who)})
            if len(asked.responses) > 1:
                found += _ranked(value, asked, question, more)
            elif asked.responses and isinstance(value, int | float) and not isinstance(value, bool):
                ratings.setdefault(who, {})[question] = number(value, question)
            elif not asked.responses and isinstance(value, str):
                found += make(Demonstration, more, (), prompt=asked.prompt, response=text(value, question))
            else:
                raise UserError(f"the answer to '{question}' is no ranking, choice or rating of a response", _WAY_OUT)
    for who, rated in ratings.items():
        more = asked.rest | ({} if who is None else {"labeler": str(who)})
        (answer,) = asked.responses.values()
        found += make(Rating, more, (), prompt=asked.prompt, response=answer, ratings=rated)
    return found


def _ranked(value: Any, asked: _Asked, question: str, more: Row) -> list[Example]:
    """A ranking (names from best to worst, or each with its rank from 1), or the name of the best one."""
    value = structured(value)
    if isinstance(value, dict) and {"value", "rank"} <= value.keys():  # a table's way to write a list of objects
        value = [{"value": v, "rank": r} for v, r in zip(value["value"], value["rank"], strict=True)]
    places: dict[str, float] = {}
    if isinstance(value, list) and value:
        for place, one in enumerate(value, 1):
            said, rank = (one.get("value"), one.get("rank") or place) if isinstance(one, dict) else (one, place)
            places[_named(said, asked, question)] = number(rank, f"rank of '{question}'")
    elif isinstance(value, str):
        best = _named(value, asked, question)
        places = {name: float(name != best) for name in asked.responses}
    else:
        raise UserError(f"the answer to '{question}' is no ranking or choice", _WAY_OUT)
    ranks = levels([places.get(name) for name in asked.responses], best_is_low=True)
    return make(Comparison, more, (), prompt=asked.prompt, responses=tuple(asked.responses.values()), ranks=ranks)


# --- Label Studio ----------------------------------------------------------------------------------------------------


def label_studio(row: Row) -> list[Example]:
    """A task as Label Studio exports it to JSON, with its annotations; cancelled ones are none."""
    data, annotations = structured(column(row, "data")), structured(column(row, "annotations"))
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise UserError("'data' must be an object and 'annotations' a list", "As Label Studio's JSON export has them")
    found: list[Example] = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise UserError("an annotation must be an object", "As Label Studio's JSON export has them")
        if annotation.get("was_cancelled") or annotation.get("skipped") or not annotation.get("result"):
            continue
        who = annotation.get("completed_by")
        who = (who.get("email") or who.get("id")) if isinstance(who, dict) else who
        more: Row = {"task": row.get("id"), "annotation_id": annotation.get("id")}
        more |= {} if who is None else {"labeler": str(who)}
        results = annotation["result"]
        if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
            raise UserError("the 'result' of an annotation must be a list of objects", "One for each control")
        said = [(one.get("type"), one.get("value"), one.get("to_name", "")) for one in results]
        found += _annotated(data, more, said)
    return found


def label_studio_table(row: Row) -> list[Example]:
    """An annotation as a row of Label Studio's JSON_MIN or CSV export: the control's name is a column."""
    beside = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history")
    said, controls = [], set()
    for key, value in row.items():
        values = None if key in _PROMPTS or _RESPONSE.fullmatch(key) else structured(value)
        one = values[0] if isinstance(values, list) and len(values) == 1 else values
        if key in beside or not isinstance(one, dict):
            continue
        for sign, kind in (("selected", "pairwise"), ("rating", "rating"), ("ranker", "ranker")):
            if sign in one:
                said.append((kind, one, ""))
                controls.add(key)
    if not said:
        raise UserError("no column holds a choice between two or a rating", _WAY_OUT)
    more: Row = {key: row[key] for key in ("annotation_id", "created_at", "lead_time") if row.get(key) is not None}
    more |= {"task": row["id"]} if row.get("id") is not None else {}
    more |= {"labeler": str(row["annotator"])} if row.get("annotator") not in (None, "") else {}
    data = {key: value for key, value in row.items() if key not in controls and key not in beside}
    return _annotated(data, more, said)


def _annotated(data: Mapping[str, Any], more: Row, said: Iterable[tuple[Any, Mapping[str, Any], str]]) -> list[Example]:
    asked = _asked(data, more)
    found: list[Example] = []
    for kind, value, to in said:
        if not isinstance(value, dict):
            raise UserError("the 'value' of a result must be an object", f"It is {type(value).__name__} here")
        if kind == "pairwise":
            texts = _sides(asked, data, to)
            if value.get("selected") not in ("left", "right"):
                raise UserError(f"'{value.get('selected')!s:.40}' is no side", "Known: left, right")
            ranks = (0, 1) if value["selected"] == "left" else (1, 0)
            found += make(Comparison, asked.rest, (), prompt=asked.prompt, responses=texts, ranks=ranks)
        elif kind == "rating" and len(asked.responses) == 1:
            (answer,) = asked.responses.values()
            rated = {"overall": number(value.get("rating"), "rating")}
            found += make(Rating, asked.rest, (), prompt=asked.prompt, response=answer, ratings=rated)
        elif kind == "textarea" and not asked.responses and len(value.get("text") or []) == 1:
            found += make(Demonstration, asked.rest, (), prompt=asked.prompt, response=text(value["text"][0], "text"))
        else:
            raise UserError(f"an annotation of type '{kind}' is not read with these fields", _WAY_OUT)
    return found


def _sides(asked: _Asked, data: Mapping[str, Any], to: str) -> tuple[str, str]:
    """The left and the right text: as the control names them, else the two numbered fields."""
    names = [name.strip() for name in to.split(",")] if isinstance(to, str) else []
    if len(names) == 2 and all(name in data for name in names):
        return text(data[names[0]], names[0]), text(data[names[1]], names[1])
    if len(asked.responses) != 2:
        raise UserError(f"{len(asked.responses)} fields are responses, and a choice is between two", _WAY_OUT)
    first, second = asked.responses.values()
    return first, second
