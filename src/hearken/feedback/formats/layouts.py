"""Layouts: what one row of a file means. Each reads a row (a dictionary of columns) into examples and writes it back.

A row's further columns are kept in ``metadata`` and written back. So is an optional column that states its own default
(``"weight": 1``): reading and writing in the same layout gives the same row.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import (
    CALLS,
    Comparison,
    Content,
    Demonstration,
    Document,
    Example,
    Message,
    PromptOnly,
    Rating,
    Thumb,
    content_key,
    spoken,
)
from hearken.feedback.formats import canonical, exports, hh, oasst, published, tldr
from hearken.feedback.formats.making import check, make, row_of
from hearken.feedback.formats.published import objects_with
from hearken.feedback.formats.values import (
    Row,
    column,
    content,
    label,
    messages,
    number,
    response,
    structured,
    text,
    turns,
    type_error,
    words,
)


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
    write: Callable[[Any], Row] | None = None
    fits: Callable[[Row], bool] | None = None
    """Told from the columns alone, or asked too, where other layouts have the same columns."""
    says: str = ""
    """What to tell, once a file, about what is not read."""


# --- pairs -----------------------------------------------------------------------------------------------------------

_NAMES = ("score_{}", "{}_score", "rating_{}", "{}_rating", "{}-rating", "{}_avg_rating")
_SCORES = tuple((name.format("chosen"), name.format("rejected")) for name in _NAMES)


def _pair(row: Row, columns: Sequence[str], prompt: Content, chosen: str, rejected: str) -> list[Example]:
    """A chosen and a rejected response; a tie where the row's own scores say so (as some of UltraFeedback's do)."""
    lead = 1.0
    for first, second in _SCORES:
        if row.get(first) not in (None, "") and row.get(second) not in (None, ""):
            lead = number(row[first], first) - number(row[second], second)
            if lead < 0:
                raise UserError(
                    f"'{second}' is above '{first}': the row contradicts itself", "Mend it, or drop the two scores"
                )
            break
    return published.pair(row, columns, prompt, (chosen, rejected), lead)


def _ordered(example: Comparison) -> tuple[Comparison, str, str]:
    """A comparison of two responses with the better one first, and the two responses."""
    if example.ranks not in ((0, 1), (1, 0)):
        raise UserError("only two responses, one better than the other, make a pair", "Write the layout 'rankings'")
    if example.ranks == (0, 1):
        return example, *example.responses  # type: ignore[return-value]
    share = None if example.share is None else 1 - example.share
    second, first = example.responses
    return replace(example, responses=(first, second), ranks=(0, 1), share=share), first, second


def _content_row(said: Content) -> Any:
    return said if isinstance(said, str) else turns(said)


def _response_row(example: Any, said: str) -> Any:
    return said if isinstance(example.prompt, str) else turns([spoken(example, said)])


def _message_row(example: Any, **columns: Any) -> Row:
    """As `row_of`, of columns in whose messages the calls of tools stand."""
    row = row_of(example, **columns)
    if not isinstance(example.prompt, str):
        row.pop(CALLS, None)
    return row


def _read_pairs(row: Row) -> list[Example]:
    prompt = content(column(row, "prompt"))
    chosen, rejected = column(row, "chosen"), column(row, "rejected")
    if isinstance(prompt, str) and isinstance(chosen, list):
        prompt = (Message("user", prompt),)
    return _pair(
        row, ("prompt", "chosen", "rejected"), prompt, response(chosen, "chosen"), response(rejected, "rejected")
    )


def _write_pairs(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    return _message_row(
        example,
        prompt=_content_row(example.prompt),
        chosen=_response_row(example, chosen),
        rejected=_response_row(example, rejected),
    )


def repeats_prompt(row: Mapping[str, Any]) -> bool:
    """Whether both responses begin with the prompt and go on after it, all three as text."""
    prompt, *both = (row.get(name) for name in ("prompt", "chosen", "rejected"))
    if not isinstance(prompt, str) or len(prompt) < 8:
        return False
    return all(isinstance(one, str) and one.startswith(prompt) and one[len(prompt) :].strip() for one in both)


def _read_repeated(row: Row) -> list[Example]:
    texts = [text(column(row, name), name) for name in ("chosen", "rejected")]
    prompt = text(column(row, "prompt"), "prompt")
    for name, said in zip(("chosen", "rejected"), texts, strict=True):
        if not said.startswith(prompt):
            raise UserError(
                f"'{name}' does not begin with the prompt, as in the rows before",
                "Write the responses alone in all rows; or --format pairs reads them as they stand",
            )
    chosen, rejected = (
        text(said[len(prompt) :], name) for name, said in zip(("chosen", "rejected"), texts, strict=True)
    )
    return _pair(row, ("prompt", "chosen", "rejected"), prompt, chosen, rejected)


def _read_implicit(row: Row) -> list[Example]:
    chosen = messages(column(row, "chosen"), "chosen")
    rejected = messages(column(row, "rejected"), "rejected")
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise UserError("chosen and rejected share no prompt", "Both must begin with the same messages")
    for name, said in (("chosen", chosen), ("rejected", rejected)):
        if len(said) != shared + 1 or said[-1].role != "assistant":
            raise UserError(f"'{name}' must be the shared messages and one assistant message after them")
    _check_inside(row.get("prompt"), chosen[:shared])
    texts = words(chosen[-1], "chosen"), words(rejected[-1], "rejected")
    return _pair(row, ("chosen", "rejected"), chosen[:shared], *texts)


def _check_inside(prompt: Any, shared: Sequence[Message]) -> None:
    """Refuse a further column ``prompt`` that says what the dialogues do not: it would be lost."""
    if prompt is None or prompt == "":
        return
    if isinstance(prompt, list):
        inside = messages(prompt, "prompt") == tuple(shared[: len(prompt)])
    else:
        said = " ".join(str(prompt).split())
        inside = any(said == " ".join(message.content.split()) for message in shared)
    if not inside:
        raise UserError(
            "'prompt' is not what chosen and rejected begin with",
            "Drop the column, or write the responses alone in chosen and rejected",
        )


def _write_implicit(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    if isinstance(example.prompt, str):
        raise UserError("a plain prompt cannot be written as messages", "Write the layout 'pairs'")
    both = [turns((*example.prompt, spoken(example, said))) for said in (chosen, rejected)]
    return _message_row(example, chosen=both[0], rejected=both[1])


def _read_hh(row: Row) -> list[Example]:
    for name in ("chosen", "rejected"):
        if not isinstance(column(row, name), str):
            raise type_error(name, "a dialogue as text", row[name])
    chosen, rejected = str(row["chosen"]), str(row["rejected"])
    prompt = row.get("prompt")
    if isinstance(prompt, str) and not (chosen.startswith(prompt.rstrip()) and rejected.startswith(prompt.rstrip())):
        raise UserError("'prompt' is not what chosen and rejected begin with", "Drop the column 'prompt'")
    shared, better, worse = hh.parse(chosen, rejected)
    return _pair(row, ("chosen", "rejected"), shared, text(better, "chosen"), text(worse, "rejected"))


def _write_hh(example: Comparison) -> Row:
    example, chosen, rejected = _ordered(example)
    texts = hh.render(example.prompt, chosen, rejected)
    return row_of(example, chosen=texts[0], rejected=texts[1])


# --- other judgments -------------------------------------------------------------------------------------------------


def _read_rankings(row: Row) -> list[Example]:
    columns = ("prompt", "responses", "ranks")
    prompt = content(column(row, "prompt"))
    responses, ranks = (structured(column(row, name)) for name in columns[1:])
    if not isinstance(responses, list):
        raise type_error("responses", "a list of texts", responses)
    if not isinstance(ranks, list):
        raise type_error("ranks", "a list of ranks", ranks)
    for rank in ranks:
        if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 0):
            raise UserError("'ranks' must be whole numbers from 0, or null", f"One is {rank!r:.40} here")
    texts = tuple(text(said, "responses") for said in responses)
    return make(Comparison, row, columns, prompt=prompt, responses=texts, ranks=tuple(ranks))


def _write_rankings(example: Comparison) -> Row:
    prompt = _content_row(example.prompt)
    return row_of(example, prompt=prompt, responses=list(example.responses), ranks=list(example.ranks))


def _read_response(row: Row, kind: type[Example], columns: tuple[str, ...], **more: Any) -> list[Example]:
    prompt, said = content(column(row, "prompt")), column(row, "completion")
    if isinstance(prompt, str) and isinstance(said, list):
        prompt = (Message("user", prompt),)
    more |= {"prompt": prompt, "response": response(said, "completion")}
    return make(kind, row, ("prompt", "completion", *columns), **more)


def _write_response(example: Rating | Thumb | Demonstration, **columns: Any) -> Row:
    said = _response_row(example, example.response)
    return _message_row(example, prompt=_content_row(example.prompt), completion=said, **columns)


def _read_binary(row: Row) -> list[Example]:
    return _read_response(row, Thumb, ("label",), label=label(column(row, "label")))


def _write_binary(example: Thumb) -> Row:
    return _write_response(example, label=example.label)


def _read_ratings(row: Row) -> list[Example]:
    ratings = structured(column(row, "ratings"))
    if not isinstance(ratings, dict):
        raise type_error("ratings", 'an object such as {"overall": 4}', ratings)
    # A null is an attribute that was not rated (Parquet writes one for each attribute the row lacks).
    numbers = {str(name): number(value, str(name)) for name, value in ratings.items() if value is not None}
    return _read_response(row, Rating, ("ratings",), ratings=numbers)


def _write_ratings(example: Rating) -> Row:
    return _write_response(example, ratings=dict(example.ratings))


def _read_overall(row: Row, name: str) -> list[Example]:
    return _read_response(row, Rating, (name,), ratings={"overall": number(column(row, name), name)})


def _write_overall(example: Rating, name: str) -> Row:
    if set(example.ratings) != {"overall"}:
        raise UserError(f"the layout '{name}' holds one number, 'overall'", "Write the layout 'ratings'")
    return _write_response(example, **{name: example.ratings["overall"]})


# --- what is imitated, read or only asked ----------------------------------------------------------------------------


def _read_sft(row: Row) -> list[Example]:
    return _read_response(row, Demonstration, ())


def _read_messages(row: Row) -> list[Example]:
    found = messages(column(row, "messages"), "messages")
    if len(found) < 2 or found[-1].role != "assistant":
        raise UserError("'messages' must end with an assistant message after a prompt")
    return make(Demonstration, row, ("messages",), prompt=found[:-1], response=words(found[-1], "messages"))


def _write_messages(example: Demonstration) -> Row:
    if isinstance(example.prompt, str):
        raise UserError("a plain prompt cannot be written as messages", "Write the layout 'sft'")
    return _message_row(example, messages=turns((*example.prompt, spoken(example, example.response))))


def _read_text(row: Row) -> list[Example]:
    return make(Document, row, ("text",), text=text(column(row, "text"), "text"))


def _write_text(example: Document) -> Row:
    return row_of(example, text=example.text)


def _read_prompts(row: Row) -> list[Example]:
    return make(PromptOnly, row, ("prompt",), prompt=content(column(row, "prompt")))


def _write_prompts(example: PromptOnly) -> Row:
    return row_of(example, prompt=_content_row(example.prompt))


# --- trees and summaries ---------------------------------------------------------------------------------------------


def _checked(examples: Sequence[Example]) -> list[Example]:
    for example in examples:
        check(example)
    return list(examples)


def _read_oasst(row: Row) -> list[Example]:
    return _checked(list(oasst.comparisons(row)))


def _read_tldr(row: Row) -> list[Example]:
    return [tldr.demonstration(row)]


def _read_summaries(row: Row) -> list[Example]:
    return _checked([tldr.comparison(row | {name: structured(row[name]) for name in ("info", "summaries")})])


def _read_axes(row: Row) -> list[Example]:
    return _checked([tldr.rating(row | {name: structured(row[name]) for name in ("info", "summary")})])


def _read_snapshot(row: Row) -> list[Example]:
    return [canonical.load(str(column(row, "kind")), text(column(row, "example"), "example"))]


def _write_snapshot(example: Example) -> Row:
    prompt = example.text if isinstance(example, Document) else example.prompt
    return {"kind": canonical.kind_name(example), "prompt": content_key(prompt), "example": canonical.dump(example)}


# --- all of them -----------------------------------------------------------------------------------------------------


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: any(row.get(name) is not None for name in names)


def _turns_in(name: str) -> Callable[[Row], bool]:
    return lambda row: isinstance(structured(row.get(name)), list)


OWN = (
    Layout("snapshot", Example, ("kind", "prompt", "example"), _read_snapshot, _write_snapshot),
    Layout("oasst", Comparison, ("message_tree_id", "prompt"), _read_oasst),
    Layout("tldr", Demonstration, ("title", "post", "summary"), _read_tldr),
    Layout("summaries", Comparison, ("info", "summaries", "choice"), _read_summaries),
    Layout("axes", Rating, ("info", "summary", "worker"), _read_axes),
    Layout("pairs", Comparison, ("prompt", "chosen", "rejected"), _read_pairs, _write_pairs),
    Layout("repeated", Comparison, ("prompt", "chosen", "rejected"), _read_repeated),
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
            partial(_read_overall, name=name),
            partial(_write_overall, name=name),
        )
        for name in ("score", "rating")
    ),
    Layout("sft", Demonstration, ("prompt", "completion"), _read_sft, _write_response),
    Layout("messages", Demonstration, ("messages",), _read_messages, _write_messages),
    Layout("text", Document, ("text",), _read_text, _write_text),
    Layout("prompts", PromptOnly, ("prompt",), _read_prompts, _write_prompts),
)
"""Hearken's own, the more specific before the less specific."""

_KEPT = "safer_response_id is kept with the rows and not read; --format saferlhf-safer reads it"

# fmt: off
PUBLISHED = (
    Layout(
        "argilla", Example, ("fields", "responses"), exports.argilla, fits=_has("_server_id", "status", "suggestions")
    ),
    Layout("label-studio", Example, ("data", "annotations"), exports.label_studio),
    Layout("label-studio-table", Example, ("annotator", "annotation_id"), exports.label_studio_table),
    Layout("arena", Comparison, ("conversation_a", "conversation_b", "winner"), published.arena),
    Layout("sharegpt-pairs", Comparison, ("conversations", "chosen", "rejected"), published.sharegpt_pairs),
    *(
        Layout("sharegpt-thumbs", Thumb, (name, thumb), published.sharegpt_thumbs)
        for name in ("conversations", "messages")
        for thumb in ("kto_tag", "label")
    ),
    *(
        Layout("sharegpt", Demonstration, (name,), published.sharegpt, fits=_turns_in(name))
        for name in ("conversations", "conversation")
    ),
    Layout("sharegpt", Demonstration, ("messages",), published.sharegpt, fits=_has("system", "tools")),
    Layout("ultrafeedback", Rating, ("instruction", "completions"), published.ultrafeedback),
    *(
        Layout("distilabel", Rating, (name, "generations", "ratings"), published.distilabel)
        for name in ("instruction", "prompt")
    ),
    Layout("alpaca-pairs", Comparison, ("instruction", "chosen", "rejected"), published.alpaca_pairs),
    *(
        Layout("alpaca-thumbs", Thumb, ("instruction", name, thumb), published.alpaca_thumbs)
        for name in ("output", "response")
        for thumb in ("kto_tag", "label")
    ),
    *(Layout("alpaca", Demonstration, ("instruction", name), published.alpaca) for name in ("output", "response")),
    Layout("helpsteer", Rating, ("prompt", "response", "helpfulness"), published.helpsteer),
    Layout(
        "helpsteer2-pairs",
        Comparison,
        ("prompt", "response_1", "response_2", "preference_strength"),
        published.helpsteer2_pairs,
    ),
    Layout("helpsteer3", Comparison, ("context", "response1", "response2", "overall_preference"), published.helpsteer3),
    Layout(
        "saferlhf",
        Comparison,
        ("prompt", "response_0", "response_1", "better_response_id"),
        published.saferlhf,
        says=_KEPT,
    ),
    Layout(
        "saferlhf-safer",
        Comparison,
        ("prompt", "response_0", "response_1", "safer_response_id"),
        partial(published.saferlhf, which="safer_response_id"),
    ),
    Layout(
        "nectar",
        Comparison,
        ("prompt", "answers"),
        published.nectar,
        fits=lambda row: objects_with(row, "answers", ("answer", "rank")),
    ),
    Layout(
        "stackexchange",
        Comparison,
        ("question", "answers"),
        published.stackexchange,
        fits=lambda row: objects_with(row, "answers", ("text", "pm_score")),
    ),
    Layout("stackexchange-pairs", Comparison, ("question", "response_j", "response_k"), published.stackexchange_pairs),
    Layout("shp", Comparison, ("history", "human_ref_A", "human_ref_B", "labels"), published.shp),
    Layout("rewardbench2", Comparison, ("prompt", "chosen", "rejected"), published.rewardbench2),
    Layout("argilla-table", Example, ("QUESTION.responses",), exports.argilla_table),
)
# fmt: on
"""Those of well-known sets and programs, read only. Columns of several spellings stand there once for each."""

LAYOUTS = {layout.name: layout for layout in (*OWN, *PUBLISHED)}
"""All layouts by name."""


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
