"""Which layout a file has: told from its columns, the same for every row, and never one that ignores a judgment."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from hearken.errors import UserError
from hearken.feedback.formats.exports import is_answers
from hearken.feedback.formats.layouts import LAYOUTS, OWN, PUBLISHED, Layout, repeats_prompt
from hearken.feedback.formats.making import OPTIONAL
from hearken.feedback.formats.values import Cell, Row, is_digit

AHEAD = 16
"""Rows that are looked at before a file is taken for one whose responses repeat the prompt."""

_RESPONSES = frozenset(
    {
        "response", "responses", "answers", "output", "outputs", "completion", "completions", "generation",
        "generations", "candidates", "chosen", "rejected", "response_0", "response_1", "response_2", "response_a",
        "response_b", "response_A", "response_B", "response1", "response2", "response_j", "response_k", "answer_a",
        "answer_b", "answer1", "answer2", "answer_0", "answer_1", "text1", "text2", "better", "worse", "accepted",
    }
)  # fmt: skip
"""Columns that hold responses in other layouts: a row with one of them is no bare prompt."""

_JUDGED = frozenset(
    {
        "label", "labels", "kto_tag", "score", "scores", "rating", "ratings", "rank", "ranks", "ranking", "rankings",
        "preference", "preferred", "winner", "choice", "thumb", "thumbs", "vote", "votes", "upvotes", "reward",
        "rewards", "better_response_id", "safer_response_id", "overall_preference", "preference_strength", "chosen",
        "rejected", "is_preferred", "feedback", "verdict",
    }
)  # fmt: skip
"""Columns that hold a judgment in other layouts: a row with one of them is no demonstration."""

_CONTRADICTS = frozenset(
    {
        "label", "labels", "rank", "ranks", "ranking", "winner", "tie", "is_tie", "vote", "votes", "preference",
        "preferred", "choice", "chosen_index", "better_response_id",
    }
)  # fmt: skip
"""Columns that say who is better in other layouts: beside chosen and rejected, it would be unclear which is meant."""
_PAIRS = ("pairs", "implicit", "hh", "sharegpt-pairs", "alpaca-pairs")

_SCALES = frozenset({"scale", "min", "max", "minimum", "maximum", "range", "max_score", "min_score", "max_rating"})
"""Columns that state a scale in other words than ours."""

_WRITE = (
    "Write prompt, chosen, rejected (pairs); prompt, responses, ranks (rankings); prompt, completion, label (thumbs); "
    "or prompt, completion, score (ratings)"
)
_BESIDE = {
    "prompts": _RESPONSES, "sft": _JUDGED | _RESPONSES, "messages": _JUDGED, "sharegpt": _JUDGED, "alpaca": _JUDGED,
    "binary": frozenset({"ratings", "score", "rating"}), "ratings": frozenset({"score", "rating"}) | _SCALES,
    "score": frozenset({"rating"}) | _SCALES, "rating": _SCALES, **dict.fromkeys(_PAIRS, _CONTRADICTS),
}  # fmt: skip
"""What a row of a layout must not have beside its columns: it would be ignored."""

_SHAPED = ("prompt", "chosen", "answers", "conversations", "conversation")
"""Columns whose kind of value matters too."""

_NAME = "Name the response 'completion', and a judgment of it 'label' or 'score'"
_LAST = ("sft", "messages", "text", "prompts")
"""Layouts that say little, tried when no other fits."""
_BY_VALUE = ("oasst", "repeated", "implicit", "hh")
"""Layouts that the kind of a column's values tells."""

_ADVICE: dict[str, tuple[frozenset[str], str]] = {
    "a prompt with a response": (frozenset({"prompt", "response"}), _NAME),
    "a prompt with an output": (frozenset({"prompt", "output"}), _NAME),
    "messages of OpenAssistant, one a row": (
        frozenset({"text", "message_id", "role", "message_tree_id"}),
        "Give the file of trees (…trees.jsonl.gz), which holds the same; rows apart are no rankings",
    ),
    "red-team transcripts": (frozenset({"transcript", "min_harmlessness_score_transcript"}), _WRITE),
}  # fmt: skip
"""What some sets look like whose judgment or order no row tells: by columns, with what to write instead."""


def detect(row: Row) -> Layout:
    """The layout whose columns (and kinds of value) this row shows.

    Raises:
        UserError: no layout fits (the nearest column that one wants is named), or the one that fits would ignore a
            judgment.
    """
    columns = {key for key, value in row.items() if value is not None}
    if isinstance(row.get("prompt"), dict):
        return LAYOUTS["oasst"]
    if any(str(key).endswith(".responses") for key in row) or any(is_answers(row[key]) for key in columns):
        return LAYOUTS["argilla-table"]
    if {"chosen", "rejected"} <= columns and (found := _chosen(row, columns)):
        _refuse_ignored(LAYOUTS[found], columns)
        return LAYOUTS[found]
    for layout in (*(one for one in OWN if one.name not in (*_LAST, *_BY_VALUE)), *PUBLISHED):
        if set(layout.columns) <= columns and (layout.fits is None or layout.fits(row)):
            _refuse_ignored(layout, columns)
            return layout
    for what, (named, hint) in _ADVICE.items():
        if named <= columns and "completion" not in columns:
            raise UserError(f"the row looks like {what}, which is no layout here", hint)
    for half, whole in (({"chosen", "rejected"}, "pairs"), ({"responses", "ranks"}, "rankings")):
        if half & columns and not half <= columns and "completion" not in columns:
            return LAYOUTS[whole]  # so that a missing or misspelt column is named, instead of a file of prompts read
    for name in _LAST:
        if set(LAYOUTS[name].columns) <= columns:
            _refuse_ignored(LAYOUTS[name], columns)
            return LAYOUTS[name]
    raise _unknown(columns)


def _chosen(row: Row, columns: set[str]) -> str:
    """The layout of a row with a chosen and a rejected response; "" where nothing says what they answer."""
    chosen, prompt = row["chosen"], row.get("prompt")
    texts = isinstance(chosen, list) and bool(chosen) and all(isinstance(one, str) for one in chosen)
    if texts and prompt is not None:
        return "rewardbench2"
    if isinstance(chosen, list) and len(chosen) > 1:
        return "implicit"
    if prompt is not None:
        return "hh" if _dialogue(prompt) and _dialogue(chosen) else "pairs"
    if {"conversations", "messages"} & columns:
        return "sharegpt-pairs"
    if {"instruction", "question"} & columns:
        return "alpaca-pairs"
    return "implicit" if isinstance(chosen, list) else "hh" if isinstance(chosen, str) else ""


def _dialogue(said: Any) -> bool:
    return isinstance(said, str) and said.startswith("\n\nHuman: ")


def _refuse_ignored(layout: Layout, columns: set[str]) -> None:
    """Refuse a row that is read as less than it holds: a prompt with responses, a demonstration with a judgment."""
    also, own = _BESIDE.get(layout.name, frozenset()), {*layout.columns, *OPTIONAL.get(layout.kind, ())}
    for name in sorted(map(str, columns - own)):
        meant = name.strip().lower()
        if meant != name and meant in also | own:
            raise UserError(f"the column '{name}' would be ignored", f"Did you mean '{meant}'?")
        if name in also - own:
            what = "a scale" if name in _SCALES else "a response" if name in _RESPONSES - _JUDGED else "a judgment"
            write = "Write it as 'low' and 'high'" if name in _SCALES else _WRITE
            raise UserError(
                f"'{name}' looks like {what}, which the layout '{layout.name}' would ignore",
                f"{write}; or drop the column, or --format {layout.name} reads the rest",
            )


def _unknown(columns: set[str]) -> UserError:
    missing = {name for layout in (*OWN, *PUBLISHED) for name in layout.columns} - columns
    guesses = [(key, difflib.get_close_matches(str(key), missing, n=1)) for key in sorted(map(str, columns))]
    hints = [f"Did you mean '{near[0]}' by '{key}'?" for key, near in guesses if near]
    shown = ", ".join(sorted(map(str, columns))) or "none"
    return UserError(
        f"no known layout has the columns {shown}", hints[0] if hints else "docs/formats.md says which columns are read"
    )


def signature(row: Row) -> tuple[Any, ...]:
    """What `detect` looks at: equal signatures, equal layouts."""
    shapes = [_shape(row[name]) for name in _SHAPED if name in row]
    return (frozenset(key for key, value in row.items() if value is not None), *shapes)


def _shape(value: Any) -> Any:
    if isinstance(value, list):
        return "list", len(value) > 1, tuple(value[0]) if value and isinstance(value[0], dict) else type(value[:1])
    return type(value).__name__, isinstance(value, str) and value.startswith("\n\nHuman: ")


Located = tuple[str, Row | UserError]


def look_ahead(rows: Iterator[Located]) -> tuple[Layout | None, Iterator[Located]]:
    """The layout of a file where several rows tell it, else None; and the rows, none of them missing.

    * Responses that repeat the prompt: in all of the first `AHEAD` rows of texts.
    * Thumbs as 0 and 1: a column of both; where all are 1 (or all 0) it may as well count something.
    """
    first = list(islice(rows, AHEAD))
    good = [row for _, row in first if isinstance(row, dict)]
    rest = chain(first, rows)
    repeated = good and all(repeats_prompt(row) and not _CONTRADICTS & row.keys() for row in good)
    if repeated and not any(_dialogue(row["prompt"]) for row in good):
        return LAYOUTS["repeated"], rest
    if good and all(is_digit(row.get("label")) for row in good[:1]) and "completion" in good[0]:
        return None, _both_labels(rest)
    return None, rest


def _both_labels(rows: Iterator[Located]) -> Iterator[Located]:
    """The rows; those of a file whose labels are all the same number are refused instead."""
    held: list[Located] = []
    seen: set[float] = set()
    for where, row in rows:
        held.append((where, row))
        if isinstance(row, dict):
            if not is_digit(row.get("label")):
                break
            seen.add(float(row["label"]))
        if len(seen) > 1:
            break
    else:
        yield from ((where, row if isinstance(row, UserError) else _one_number(row["label"])) for where, row in held)
        return
    yield from chain(held, rows)


def _one_number(value: Any) -> UserError:
    said = str(value) if isinstance(value, Cell) else repr(value)
    return UserError(
        f"'label' must be true or false: it is {said} in every row, which may be a thumb or a count",
        "Write true or false; or --format binary reads 1 as true",
    )
