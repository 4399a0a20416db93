"""What a model really sees of a text example: every token, which part it belongs to, and whether it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Literal

from hearken.domains.text.data import encoded
from hearken.domains.text.encoder import TextEncoder, Truncation
from hearken.errors import UserError
from hearken.feedback.examples import Demonstration, Document, Example, PromptOnly, verdicts
from hearken.feedback.formats import ReadReport, iter_examples
from hearken.feedback.reading import ReadingOptions
from hearken.models.layout import Group
from hearken.models.loading import load_tokenizer, stop_tokens_of

NO_LIMIT = 1 << 30
SUMMARY_EXAMPLES = 1000
"""The summary is over at most so many examples."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token."""

    id: int
    text: str
    part: Literal["prompt", "response", "end"]
    """``end`` is a token that ends a response."""
    trained: bool
    """Whether supervised fine-tuning has a loss on it."""


@dataclass(frozen=True, slots=True)
class View:
    """One prompt with one response (or none, or a document) as tokens."""

    example: int
    """Number of the example in the data, from 1."""
    kind: str
    note: str
    """What the example says about the response: ``rank 0``, ``thumb up``, ..."""
    pieces: tuple[Piece, ...]
    prompt_lost: int
    """Tokens of the prompt's beginning that do not fit."""
    response_lost: int
    """Tokens of the response's end that do not fit, its end token among them."""

    def count(self, part: str) -> int:
        """How many tokens are of this part."""
        return sum(piece.part == part for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect` found."""

    model: str
    template: str
    """Where the template of dialogues comes from."""
    max_length: int
    tokens: dict[str, str]
    """The special tokens: name to text."""
    views: tuple[View, ...]
    summary: dict[str, Any]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain lists and dictionaries."""
        return asdict(self)


def inspect(
    data: str | Path,
    model: str | Path,
    *,
    count: int = 3,
    start: int = 1,
    reading: ReadingOptions | None = None,
    max_length: int = 0,
    eos: str = "",
    train_on: Literal["last", "all"] = "last",
) -> Inspection:
    """Encode examples as the training stages do, and say what becomes of them.

    Args:
        data: a file, folder or Hub name, as `hearken.feedback.formats.read_examples` takes.
        model: the folder or Hub name of the tokenizer; a model's weights are not loaded.
        count: how many examples to show.
        start: number of the first one, counted from 1.
        reading: how ``data`` are read.
        max_length: longest prompt and response together; 0 takes the model's context, at most 2048, as training does.
        eos: the token that ends a response, where the tokenizer names none.
        train_on: of a dialogue, train the last response or all assistant turns.

    Raises:
        UserError: data or tokenizer cannot be read, or there is no example number ``start``.
    """
    tokenizer = load_tokenizer(str(model), eos)
    context, seq2seq = _settings(str(model))
    limit = max_length or min(context, 2048)
    encoder = TextEncoder(
        tokenizer, limit, stop=stop_tokens_of(str(model), tokenizer), long_prompts="truncate",
        seq2seq=seq2seq,
    )  # fmt: skip
    views: list[View] = []
    lengths: list[tuple[int, int]] = []
    lost_prompts = lost_responses = 0
    report = ReadReport()
    examples = iter_examples(data, report=report, **(reading or ReadingOptions()).reading())
    for number, example in enumerate(islice(examples, max(SUMMARY_EXAMPLES, start - 1 + count)), 1):
        seen = list(_views(example, number, encoder, train_on))
        lost_prompts += any(view.prompt_lost for view in seen)
        lost_responses += sum(view.response_lost > 0 for view in seen)
        lengths += [(view.count("prompt"), view.count("response") + view.count("end")) for view in seen]
        if start <= number < start + count:
            views += seen
    if not views:
        raise UserError(f"{data} has no example {start}", f"It has {number}")
    summary = {
        "examples": number,
        "prompt_tokens": {"median": median(p for p, _ in lengths), "longest": max(p for p, _ in lengths)},
        "response_tokens": {"median": median(r for _, r in lengths), "longest": max(r for _, r in lengths)},
        "prompts_too_long": lost_prompts,
        "responses_cut": lost_responses,
    }
    return Inspection(
        model=str(model),
        template="the tokenizer's chat template" if tokenizer.chat_template else "Human/Assistant turns, no template",
        max_length=limit,
        tokens={
            name: str(token)
            for name in ("bos", "eos", "pad", "unk")
            if (token := getattr(tokenizer, f"{name}_token")) is not None
        },
        views=tuple(views),
        summary=summary,
        warnings=(*_left_out(report), *_warnings(encoder, views, summary)),
    )


def _settings(model: str) -> tuple[int, bool]:
    """A model's context, and whether it is an encoder-decoder."""
    from transformers import AutoConfig

    from hearken.models.gguf import plain

    try:
        config = AutoConfig.from_pretrained(plain(model))
    except (OSError, ValueError):  # a folder with a tokenizer only
        return 2048, False
    text = config.get_text_config()
    return int(getattr(text, "max_position_embeddings", None) or 2048), bool(config.is_encoder_decoder)


def _views(example: Example, number: int, encoder: TextEncoder, train_on: str) -> Iterator[View]:
    """One view for each response of an example."""
    kind = type(example).__name__
    unlimited = copy(encoder)
    unlimited.max_length, unlimited.truncation = NO_LIMIT, Truncation()
    where = f"example {number}"
    cut, whole = (encoded(example, e, where, train_on) for e in (encoder, unlimited))
    if isinstance(example, Document):
        notes = [f"piece {part} of {len(cut)}" if len(cut) > 1 else "" for part in range(1, len(cut) + 1)]
        whole = cut
    elif isinstance(example, PromptOnly):
        notes = [""]
    elif isinstance(example, Demonstration):
        every = train_on == "all" and not isinstance(example.prompt, str)
        notes = ["every assistant turn" if every else ""]
    else:
        notes = verdicts(example)
    fitting = [part for group in cut for part in _parts(group)]
    full = [part for group in whole for part in _parts(group)]
    for (prompt, response, mask), (all_prompt, all_response, _), note in zip(fitting, full, notes, strict=True):
        pieces = [_piece(encoder, token, "prompt", False) for token in prompt]
        for at, (token, on) in enumerate(zip(response, mask, strict=True), 1):
            ends = on and (token in encoder.ends or (token in encoder.stop and at == len(all_response)))
            pieces.append(_piece(encoder, token, "end" if ends else "response", on))
        yield View(number, kind, note, tuple(pieces), len(all_prompt) - len(prompt), len(all_response) - len(response))


def _parts(group: Group) -> Iterator[tuple[Sequence[int], Sequence[int], Sequence[bool]]]:
    """Prompt, response and what of it is trained, of every response of a group; of a prompt alone, one empty one."""
    for i, response in enumerate(group.responses or [[]]):
        yield group.prompt, response, group.masks[i] if group.masks else [True] * len(response)


def _piece(encoder: TextEncoder, token: int, part: Literal["prompt", "response", "end"], trained: bool) -> Piece:
    return Piece(token, str(encoder.tokenizer.decode([token])), part, trained)


def _left_out(report: ReadReport) -> Iterator[str]:
    if report.skipped:
        yield f"{report}; the first: {report.first}"


def _warnings(encoder: TextEncoder, views: Iterable[View], summary: dict[str, Any]) -> Iterator[str]:
    """What is likely to be a mistake, each with what it does."""
    tokenizer = encoder.tokenizer
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        yield "pad == EOS: harmless here (masks are kept apart), but other programs may hide the EOS"
    if summary["prompts_too_long"]:
        yield (
            f"{summary['prompts_too_long']} of {summary['examples']} prompts do not fit in {encoder.max_length} "
            "tokens: training stops with an error unless long_prompts is drop or truncate"
        )
    if summary["responses_cut"]:
        yield f"{summary['responses_cut']} response(s) are cut and so never end: raise max_length if the model allows"
    fitted = replace(encoder.truncation, responses=0, prompts=0)
    if said := fitted.say():
        yield said
    for view in views:
        ids = [piece.id for piece in view.pieces[:2]]
        if tokenizer.bos_token_id is not None and ids == [tokenizer.bos_token_id] * 2:
            yield f"example {view.example} begins with two {tokenizer.bos_token} tokens: mend the chat template"
            break
