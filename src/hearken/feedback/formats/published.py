"""Layouts of well-known sets, read only: what their columns mean, by the sets' own cards (docs/formats.md names them).

What a user said there becomes a user message, so that a chat template applies. Ties stay ties, and degrees of a
preference become its ``strength``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Comparison, Content, Demonstration, Example, Message, Rating, Thumb
from hearken.feedback.formats import hh
from hearken.feedback.formats.making import make
from hearken.feedback.formats.values import (
    SKIP,
    Row,
    column,
    label,
    listed,
    messages,
    number,
    response,
    structured,
    text,
    whole,
    words,
)

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_HELPSTEER_TURN = re.compile(r"<extra_id_1>(User|Assistant)\n")
_ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def levels(values: Sequence[float | None], *, best_is_low: bool) -> tuple[int | None, ...]:
    """Ranks 0, 1, ... of scores, equal scores tied; None where there is none."""
    order = sorted({value for value in values if value is not None}, reverse=not best_is_low)
    return tuple(None if value is None else order.index(value) for value in values)


def pair(
    row: Row, columns: Sequence[str], prompt: Content, texts: Sequence[str], lead: float, **more: Any
) -> list[Example]:
    """A comparison of two responses.

    Args:
        row: its further columns become metadata.
        columns: those that are read.
        prompt: what was answered.
        texts: the two responses.
        lead: above 0 where the first is better, below 0 where the second is, 0 for a tie.
        more: further fields of the comparison.
    """
    ranks = (0, 1) if lead > 0 else (1, 0) if lead < 0 else (0, 0)
    return make(Comparison, row, columns, prompt=prompt, responses=tuple(texts), ranks=ranks, **more)


def _said(value: Any, name: str) -> tuple[Message, ...]:
    return (Message("user", text(value, name)),)


# --- dialogues for tuning: ShareGPT, Alpaca --------------------------------------------------------------------------


def _shared(row: Row) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The turns of a row in ShareGPT's layout, and the column read."""
    name = next((n for n in ("conversations", "conversation", "messages") if row.get(n) is not None), "conversations")
    return messages(column(row, name), name), (name,)


def sharegpt(row: Row) -> list[Example]:
    """A conversation that ends with the assistant's response."""
    turns, columns = _shared(row)
    return make(Demonstration, row, columns, **_last(turns, columns[0]))


def sharegpt_pairs(row: Row) -> list[Example]:
    """A conversation, and a chosen and a rejected message after it."""
    turns, columns = _shared(row)
    texts = response(column(row, "chosen"), "chosen"), response(column(row, "rejected"), "rejected")
    return pair(row, (*columns, "chosen", "rejected"), turns, texts, 1)


def sharegpt_thumbs(row: Row) -> list[Example]:
    """A conversation whose last message is marked good or bad (``kto_tag`` or ``label``)."""
    turns, columns = _shared(row)
    name = _thumb(row)
    return make(Thumb, row, (*columns, name), **_last(turns, columns[0]), label=label(column(row, name)))


def _last(turns: tuple[Message, ...], name: str) -> dict[str, Any]:
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise UserError(f"'{name}' must end with an assistant message after a prompt")
    return {"prompt": turns[:-1], "response": words(turns[-1], name)}


def _thumb(row: Mapping[str, Any]) -> str:
    return next((name for name in ("kto_tag", "label") if row.get(name) is not None), "label")


def _instructed(row: Row) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The prompt of a row in Alpaca's layout (instruction, line break, input), and the columns read."""
    name = "instruction" if row.get("instruction") is not None else "question"
    extra = "input" if "input" in row else "context"
    asked = text(column(row, name), name)
    given = row.get(extra)
    if given is not None and not isinstance(given, str):
        raise UserError(f"'{extra}' must be text", f"It is {type(given).__name__} here")
    turns: list[Message] = []
    history = structured(row.get("history")) or []
    if not isinstance(history, list):
        raise UserError("'history' must be a list", "Write [[question, answer], ...]")
    for number_, turn in enumerate(history, 1):
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise UserError(f"turn {number_} of 'history' must be two texts", "Write [[question, answer], ...]")
        turns += [Message("user", text(turn[0], "history")), Message("assistant", text(turn[1], "history"))]
    turns.append(Message("user", f"{asked}\n{given}" if given and given.strip() else asked))
    return tuple(turns), (name, extra, "history", "text")


def _output(row: Row) -> tuple[str, str]:
    name = "output" if row.get("output") is not None else "response"
    return name, response(column(row, name), name)


def alpaca(row: Row) -> list[Example]:
    """An instruction, perhaps an input, and the output."""
    prompt, columns = _instructed(row)
    name, output = _output(row)
    return make(Demonstration, row, (*columns, name), prompt=prompt, response=output)


def alpaca_pairs(row: Row) -> list[Example]:
    """An instruction, a chosen and a rejected output."""
    prompt, columns = _instructed(row)
    texts = response(column(row, "chosen"), "chosen"), response(column(row, "rejected"), "rejected")
    return pair(row, (*columns, "chosen", "rejected"), prompt, texts, 1)


def alpaca_thumbs(row: Row) -> list[Example]:
    """An instruction and an output that is marked good or bad."""
    prompt, columns = _instructed(row)
    (name, output), thumb = _output(row), _thumb(row)
    columns = (*columns, name, thumb)
    return make(Thumb, row, columns, prompt=prompt, response=output, label=label(column(row, thumb)))


# --- ratings ---------------------------------------------------------------------------------------------------------


def helpsteer(row: Row) -> list[Example]:
    """HelpSteer 1 and 2: a response rated from 0 to 4 on up to five attributes."""
    ratings = {name: number(row[name], name) for name in HELPSTEER if row.get(name) is not None}
    prompt, answer = _helpsteer_prompt(row), text(column(row, "response"), "response")
    columns = ("prompt", "response", *HELPSTEER)
    return make(Rating, row, columns, prompt=prompt, response=answer, ratings=ratings, low=0.0, high=4.0)


def _helpsteer_prompt(row: Row) -> tuple[Message, ...]:
    """Its first turn is the user's; each further one begins with ``<extra_id_1>`` and who speaks."""
    parts = _HELPSTEER_TURN.split(text(column(row, "prompt"), "prompt"))
    turns = [Message("user", parts[0].removesuffix("\n") if len(parts) > 1 else parts[0])]
    for who, said in zip(parts[1::2], parts[2::2], strict=True):
        turns.append(Message("user" if who == "User" else "assistant", said.removesuffix("\n")))
    if turns[-1].role == "assistant" and not turns[-1].content.strip():
        turns.pop()
    return tuple(turns)


def ultrafeedback(row: Row) -> list[Example]:
    """UltraFeedback in full: every completion rated from 1 to 5 on each aspect; "N/A" is an aspect not rated."""
    prompt = _said(column(row, "instruction"), "instruction")
    found: list[Example] = []
    for place, one in enumerate(listed(row, "completions"), 1):
        where = f"completion {place}"
        if not isinstance(one, dict):
            raise UserError(f"{where} must be an object", f"It is {type(one).__name__} here")
        told = structured(column(one, "annotations"))
        if not isinstance(told, dict):
            raise UserError(f"the annotations of {where} must be an object", f"They are {type(told).__name__} here")
        ratings = {name: r for name in told if (r := _aspect(told[name], f"{name} of {where}")) is not None}
        rest = {key: value for key, value in row.items() if key not in ("instruction", "completions", "models")}
        rest |= {key: value for key, value in one.items() if key not in ("response", "annotations")}
        if not ratings:
            raise UserError(f"{where} has no rating", f"Known aspects: {', '.join(_ASPECTS)}")
        answer = text(column(one, "response"), f"response of {where}")
        found += make(Rating, rest, (), prompt=prompt, response=answer, ratings=ratings)
    if not found:
        raise UserError("'completions' is empty", SKIP)
    return found


def _aspect(told: Any, name: str) -> float | None:
    told = told[0] if isinstance(told, list) and len(told) == 1 else told
    rated = told.get("Rating") if isinstance(told, dict) else None
    if rated is None or rated == "N/A":
        return None
    try:
        return number(float(rated), name)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"the rating '{rated}' of {name} is no number", "Write 1 to 5, or N/A") from None


def distilabel(row: Row) -> list[Example]:
    """An instruction, several generations and a rating from 1 to 5 of each."""
    name = "instruction" if row.get("instruction") is not None else "prompt"
    prompt = _said(column(row, name), name)
    answers, ratings = listed(row, "generations"), listed(row, "ratings")
    if len(answers) != len(ratings):
        raise UserError("'generations' and 'ratings' differ in length", f"{len(answers)} and {len(ratings)} here")
    found: list[Example] = []
    columns = (name, "generations", "ratings")
    for answer, rated in zip(answers, ratings, strict=True):
        if rated is not None:
            rating = {"overall": number(rated, "ratings")}
            found += make(Rating, row, columns, prompt=prompt, response=text(answer, "generations"), ratings=rating)
    if not found:
        raise UserError("'ratings' is empty", SKIP)
    return found


# --- comparisons -----------------------------------------------------------------------------------------------------


def helpsteer2_pairs(row: Row) -> list[Example]:
    """HelpSteer2's preferences: -3, the first response is much better, to 3, the second is; 0 is a tie."""
    lead = whole(column(row, "preference_strength"), "preference_strength", -3, 3)
    columns = ("prompt", "response_1", "response_2", "preference_strength")
    return _degrees(row, columns, _helpsteer_prompt(row), lead)


def helpsteer3(row: Row) -> list[Example]:
    """HelpSteer3's preferences: as HelpSteer2's, after a dialogue (``context``)."""
    lead = whole(column(row, "overall_preference"), "overall_preference", -3, 3)
    columns = ("context", "response1", "response2", "overall_preference")
    return _degrees(row, columns, messages(column(row, "context"), "context"), lead)


def _degrees(row: Row, columns: Sequence[str], prompt: Content, lead: int) -> list[Example]:
    first, second = (text(column(row, name), name) for name in columns[1:3])
    return pair(row, columns, prompt, (first, second), -lead, strength=abs(lead) / 3)


def saferlhf(row: Row, which: str = "better_response_id") -> list[Example]:
    """PKU-SafeRLHF: the number of the more helpful of two responses, or (``safer_response_id``) of the safer one.

    Source: the card, huggingface.co/datasets/PKU-Alignment/PKU-SafeRLHF.
    """
    texts = text(column(row, "response_0"), "response_0"), text(column(row, "response_1"), "response_1")
    better = whole(column(row, which), which, 0, 1)
    columns = ("prompt", "response_0", "response_1", which)
    prompt = _said(column(row, "prompt"), "prompt")
    return pair(row, columns, prompt, texts, 1 if better == 0 else -1)


def nectar(row: Row) -> list[Example]:
    """Nectar: answers with ranks from 1, the best; the prompt may be a dialogue as HH writes it.

    Source: the card, huggingface.co/datasets/berkeley-nest/Nectar.
    """
    said = text(column(row, "prompt"), "prompt")
    prompt = hh.turns(said) if said.startswith("\n\nHuman: ") else (Message("user", said),)
    answers = _objects(row, "answers")
    texts = tuple(text(column(one, "answer"), "answer") for one in answers)
    ranks = levels([None if (r := one.get("rank")) is None else number(r, "rank") for one in answers], best_is_low=True)
    rest = row | {"models": [one.get("model") for one in answers]} if any("model" in one for one in answers) else row
    return make(Comparison, rest, ("prompt", "answers"), prompt=prompt, responses=texts, ranks=ranks)


def stackexchange(row: Row) -> list[Example]:
    """Stack Exchange's answers, the higher ``pm_score`` the better; the texts are HTML and stay so.

    Source: the card, huggingface.co/datasets/HuggingFaceH4/stack-exchange-preferences (Askell et al. 2021).
    """
    answers = _objects(row, "answers")
    texts = tuple(text(column(one, "text"), "text of an answer") for one in answers)
    ranks = levels([number(column(one, "pm_score"), "pm_score") for one in answers], best_is_low=False)
    prompt = _said(column(row, "question"), "question")
    return make(Comparison, row, ("question", "answers"), prompt=prompt, responses=texts, ranks=ranks)


def stackexchange_pairs(row: Row) -> list[Example]:
    """Stack Exchange in pairs: ``response_j`` had the higher score.

    Source: the loss of github.com/huggingface/trl, examples/research_projects/stack_llama/scripts/reward_modeling.py.
    """
    texts = text(column(row, "response_j"), "response_j"), text(column(row, "response_k"), "response_k")
    prompt = _said(column(row, "question"), "question")
    return pair(row, ("question", "response_j", "response_k"), prompt, texts, 1)


def shp(row: Row) -> list[Example]:
    """Stanford Human Preferences: ``labels`` is 1 where comment A was preferred to B, as their scores say too.

    Source: the card, huggingface.co/datasets/stanfordnlp/SHP.
    """
    texts = text(column(row, "human_ref_A"), "human_ref_A"), text(column(row, "human_ref_B"), "human_ref_B")
    first = whole(column(row, "labels"), "labels", 0, 1)
    if None not in (row.get("score_A"), row.get("score_B")):
        lead = number(row["score_A"], "score_A") - number(row["score_B"], "score_B")
        if lead and (lead > 0) != bool(first):
            raise UserError("'labels' and the scores disagree", "1 means that A, with the higher score, was preferred")
    prompt = _said(column(row, "history"), "history")
    columns = ("history", "human_ref_A", "human_ref_B", "labels")
    return pair(row, columns, prompt, texts, 1 if first else -1)


def arena(row: Row) -> list[Example]:
    """Chatbot arena: two conversations on one prompt, and which won (``model_a``, ``model_b``, or a tie).

    Source: how votes are written in github.com/lm-sys/FastChat, fastchat/serve/monitor/clean_battle_data.py.
    """
    sides = [messages(column(row, name), name) for name in ("conversation_a", "conversation_b")]
    winner = str(column(row, "winner"))
    lead = {"model_a": 1, "model_b": -1, "tie": 0, "tie (bothbad)": 0, "both_bad": 0}.get(winner)
    if lead is None:
        raise UserError(f"'winner' is '{winner:.40}'", "Known: model_a, model_b, tie, tie (bothbad), both_bad")
    if sides[0][:-1] != sides[1][:-1]:
        raise UserError("the two conversations differ before their last message", "Only their last one can be compared")
    texts = tuple(_last(turns, "conversation")["response"] for turns in sides)
    columns = ("conversation_a", "conversation_b", "winner")
    return pair(row, columns, sides[0][:-1], texts, lead)


def rewardbench2(row: Row) -> list[Example]:
    """RewardBench 2: responses that are right, each better than each that is wrong.

    Source: the card, huggingface.co/datasets/allenai/reward-bench-2, and its program, scripts/run_v2.py of
    github.com/allenai/reward-bench.
    """
    right, wrong = ([text(one, name) for one in listed(row, name)] for name in ("chosen", "rejected"))
    for name, counted in (("num_correct", right), ("num_incorrect", wrong)):
        if row.get(name) is not None and number(row[name], name) != len(counted):
            raise UserError(f"'{name}' is {row[name]}, and there are {len(counted)}", "Are 'chosen' and 'rejected' so?")
    ranks = (*[0] * len(right), *[1] * len(wrong))
    columns = ("prompt", "chosen", "rejected")
    prompt = _said(column(row, "prompt"), "prompt")
    return make(Comparison, row, columns, prompt=prompt, responses=(*right, *wrong), ranks=ranks)


def _objects(row: Row, name: str) -> list[dict[str, Any]]:
    found = listed(row, name)
    if not found or not all(isinstance(one, dict) for one in found):
        raise UserError(f"'{name}' must be a list of objects", "One for each answer")
    return found


def objects_with(row: Mapping[str, Any], name: str, keys: Iterable[str]) -> bool:
    """Whether a column holds a list of objects with these keys."""
    found = structured(row.get(name))
    return isinstance(found, list) and bool(found) and isinstance(found[0], dict) and set(keys) <= found[0].keys()
