"""The text domain's encoder: prompts and responses as the token ids a scorer reads.

What is read is what the tokenizer and its chat template make of prompt and response together. The prompt's ids are
those of its own text (it is sampled from before there is a response), the response's are the rest of the whole. Where
no token ends between the two, the response is tokenised as a text that goes on. A dialogue goes through the template; a
tokenizer without one gets "Human/Assistant" turns. Plain text stays plain.

Special tokens that structure the text (beginning and end, padding, the template's turns) are never read from words:
who writes about ``</s>`` writes three or four ordinary tokens. A prompt to which somebody applied the template already
is the exception. A response that its author finished ends with an end token, which the model must learn to say and the
reward model reads last.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from hearken.domains.text.template import Template
from hearken.domains.text.tokens import Tokens
from hearken.errors import UserError
from hearken.feedback.examples import Content, Message, Said, content_key
from hearken.models.layout import Group

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Say where a mistake stands."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.what}" if where else error.what, error.hint) from None


def _message(said: Said) -> Message:
    return said if isinstance(said, Message) else Message("assistant", said)


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many elements two sequences have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass
class Truncation:
    """What did not fit, and what was not read as it was written, counted so that it can be said."""

    responses: int = 0
    prompts: int = 0
    dropped: int = 0
    templated: int = 0
    ended: int = 0
    hidden: int = 0
    rewritten: int = 0
    trimmed: int = 0
    moved: int = 0
    unclosed: int = 0
    unknown: int = 0
    spelled: Counter[str] = field(default_factory=Counter)
    """By special token: texts that spell it."""

    def say(self) -> str:
        """A sentence, empty where everything fitted and was read as written."""
        spelled = ", ".join(f"{name} ({count})" for name, count in self.spelled.most_common(5))
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.responses, "responses were cut at max_length (no end-of-sequence token)"),
                (self.prompts, "prompts lost their beginning"),
                (self.dropped, "rows were left out because the prompt alone fills max_length"),
                (self.templated, "texts have a chat template applied already: their special tokens are read as such"),
                (self.ended, "responses end with the name of the end token, which is read as the end"),
                (self.hidden, "prompts have words that the chat template does not show"),
                (self.rewritten, "responses would lose words by the chat template: they are trained whole"),
                (self.trimmed, "responses have other white space by the chat template"),
                (self.moved, "prompts are written otherwise by the chat template once they are answered"),
                (self.unclosed, "responses have no </think>, which the chat template's <think> asks for"),
                (self.unknown, "texts hold what the tokenizer has no token for, read as its token of the unknown"),
                (sum(self.spelled.values()), f"texts spell special tokens, read as plain text: {spelled}"),
            )
            if count
        ]
        return "; ".join(parts)


class TextEncoder:
    """Turns text into token ids.

    Args:
        tokenizer: a transformers tokenizer with an EOS token.
        max_length: longest prompt and response together.
        stop: token ids that end a response; EOS where None. The token with which the chat template closes an
            assistant's turn is one in any case.
        long_prompts: ``error``, ``drop`` or ``truncate`` (keep the end, and the beginning-of-sequence token).
        reserve: tokens of ``max_length`` kept free for the response.
        seq2seq: prompt and response are two texts, each with the beginning and end that the tokenizer gives a text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, *, stop: Sequence[int] | None = None,
        long_prompts: str = "error", reserve: int = 1, seq2seq: bool = False,
    ) -> None:  # fmt: skip
        self.tokenizer, self.max_length = tokenizer, max_length
        self.eos: int = tokenizer.eos_token_id  # type: ignore[assignment]
        self.long_prompts, self.reserve, self.seq2seq = long_prompts, reserve, seq2seq
        self.template = Template(tokenizer)
        self.stop = set(stop or [self.eos]) | {self.eos}
        closing = self._written(self.template.usual.tail) if self.template.own else []
        self.end = closing[0] if closing else self.eos
        """Closes an assistant's turn."""
        self.stop.add(self.end)
        self.tokens = Tokens(tokenizer, self._control())
        self.template.escape = self.tokens.escape
        self.ends = self.stop & set(self.tokens.control)
        """The tokens of ``stop`` that no words spell: where one stands, a response ends."""
        self._tail = self.tokens.words(self.template.usual.tail)
        self.truncation = Truncation()
        self._before: tuple[str, list[int]] = ("", [])
        # GPT-2 calls its end the unknown, and has a token for everything.
        self._unknown = None if tokenizer.unk_token_id in self.stop else tokenizer.unk_token_id

    def _written(self, text: str) -> list[int]:
        """The added tokens whose names stand in a text, in its order."""
        added = {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [i for i in ids if i in added and added[i] in text]

    def _control(self) -> set[int]:
        """The tokens that structure a text: special ones, ends, and what the template writes around turns.

        Pairs that enclose a part of an answer (``<think>`` and ``</think>``) are the answer's own words, unless the
        template writes them around turns.
        """
        added = {i: str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        named = {str(name) for name in self.tokenizer.special_tokens_map.values()}
        pairs = {(n, n[0] + "/" + n[1:]) for n in added.values() if n[:1] in ("<", "[")}
        inside = {n for pair in pairs if pair[1] in added.values() and not named & set(pair) for n in pair}
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        found = {i for i in special if added[i] not in inside and not _BYTE.fullmatch(added[i])} | self.stop
        found |= {i for i, name in added.items() if name in named}
        turns = (Message("user", "a"), Message("assistant", "a"), Message("user", "a"))
        for some in (turns, turns[:1], (Message("system", "a"), *turns)):
            try:
                found |= set(self._written(self.template.render(some)))
            except UserError:
                continue
        return found

    # Plain text

    def _applied(self, text: str) -> bool:
        """Whether somebody applied the chat template to a plain text already, or wrote its special tokens."""
        if self.tokens.begins_with_control(text):
            return True
        if not self.template.own:
            return False
        opening, closing = self.template.around
        start = opening.strip().removeprefix(str(self.tokenizer.bos_token or "")).strip()
        return bool(start and text.lstrip().startswith(start)) or bool(
            closing.strip() and text.rstrip().endswith(closing.strip())
        )

    def _plain(self, text: str) -> tuple[str, bool]:
        """A prompt or document of plain text, escaped, and whether a template was applied to it already."""
        applied = self._applied(text)
        return (text if applied else self.tokens.escape(text)), applied

    def _note(self, *texts: str, applied: bool = False) -> None:
        """Count the special tokens that texts spell."""
        spelled = {name for text in texts for name in self.tokens.spelled(text)}
        if applied:
            self.truncation.templated += bool(spelled)
        else:
            self.truncation.spelled.update(spelled)

    def _plain_response(self, text: str) -> str:
        """A response of plain text, escaped, but for the end token that was written at its end."""
        written = text.rstrip()
        name = next((self.tokens.control[i] for i in self.ends if written.endswith(self.tokens.control[i])), None)
        if name is not None:
            self.truncation.ended += 1
            text = written.removesuffix(name)
        self._note(text)
        return self.tokens.escape(text) + (name or "")

    # Prompts

    def render(self, prompt: Content) -> str:
        """The prompt as the model sees it, up to where the response begins."""
        return prompt if isinstance(prompt, str) else self.tokens.unescape(self.template.before(prompt))

    def _lead(self, prompt: Content, ids: Sequence[int]) -> list[int]:
        """What the tokenizer puts before a text: once, and nothing where a template of its own writes it."""
        lead = self.tokens.lead
        if (not isinstance(prompt, str) and self.template.own) or list(ids[: len(lead)]) == lead:
            return []
        return lead

    def prompt(self, prompt: Content, where: str = "") -> list[int] | None:
        """Token ids of a prompt (at least one); None where it is to be left out.

        Raises:
            UserError: it leaves no room for a response, and ``long_prompts`` is ``error``; the template refuses it.
        """
        with _at(where):
            if isinstance(prompt, str):
                text, applied = self._plain(prompt)
                self._note(prompt, applied=applied)
            else:
                self.template.check_tools(prompt)
                text = self.template.before(prompt)
                self.truncation.hidden += self.template.hides(prompt, text)
                self._note(*(m.content for m in prompt))
            ids = self._ids(text)
        self.truncation.unknown += self._unknown in ids
        return self._fit([*self._lead(prompt, ids), *ids], prompt, where)

    def _ids(self, text: str) -> list[int]:
        """Of a prompt, which several responses may follow."""
        if self._before[0] != text:
            self._before = text, self.tokens.ids(text)
        return self._before[1]

    def _fit(self, ids: list[int], prompt: Content, where: str) -> list[int] | None:
        if self.seq2seq and (isinstance(prompt, str) or not self.template.own):
            ids = [*ids, *self.tokens.close]
        if not ids:
            ids = [self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eos]
        room = self.max_length - self.reserve
        if len(ids) <= room:
            return ids
        if self.long_prompts == "error":
            name = where or f"prompt {content_key(prompt)[:8]}"
            raise UserError(
                f"{name} has {len(ids)} tokens; with {self.reserve} for the response it must fit in {self.max_length}",
                "Shorten it, raise max_length if the model allows, or set -o long_prompts=truncate (or drop)",
            )
        if self.long_prompts == "drop":
            self.truncation.dropped += 1
            return None
        self.truncation.prompts += 1
        return self.cut(ids, room)

    def cut(self, ids: list[int], room: int) -> list[int]:
        """The last ids of a prompt that there is room for; its beginning-of-sequence token stays."""
        if len(ids) <= room:
            return ids
        start = [i for i in ids[:1] if i == self.tokenizer.bos_token_id and room > 1]
        return start + ids[len(ids) - room + len(start) :]

    # Responses

    def response(self, prompt: Content, response: Said, room: int, *, finished: bool = True) -> list[int]:
        """Token ids of a response with its end token, cut (and counted) at ``room``.

        Args:
            prompt: what it answers.
            response: its words, or the message that it is.
            room: most tokens.
            finished: whether it ended by itself; else it has no end token.
        """
        end, message = self.eos, _message(response)
        if isinstance(prompt, str):
            before, applied = self._plain(prompt)
            text = self._plain_response(message.content)
            end = self.end if applied and self.template.own else end
        else:
            self._note(message.content)
            before, text = self._said(prompt, message)
            text = text if finished else text.removesuffix(self.template.usual.tail)
        ids = self._after(before, text)
        self.truncation.unknown += self._unknown in ids
        last = next((i for i, token in enumerate(ids) if token in self.ends), None)
        if last is not None:
            ids = ids[: last + finished]
        elif finished:
            ids = [*ids, end]
        if len(ids) > room:
            self.truncation.responses += 1
            ids = ids[:room]
        return ids or [self.eos]

    def _said(self, prompt: Sequence[Message], message: Message) -> tuple[str, str]:
        said, notes = self.template.say(prompt, message), self.truncation
        notes.rewritten += not said.whole
        notes.trimmed += said.trimmed
        notes.moved += said.moved
        notes.unclosed += "<think>" in said.before[-40:] and "</think>" not in said.text
        return said.before, said.text

    def _after(self, before: str, text: str) -> list[int]:
        """The ids of a text behind another: the rest of the whole, else those of a text that goes on."""
        if self.seq2seq:
            return [*self.tokens.lead, *self.tokens.ids(text)]
        start = self._ids(before)
        whole = self.tokens.ids(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
        return self.tokens.ids(text, continues=True)

    def group(
        self, prompt: Content, responses: Sequence[Said], where: str = "", *, finished: Sequence[bool] | None = None,
        tokens: Sequence[Sequence[int] | None] | None = None,
    ) -> Group | None:  # fmt: skip
        """A prompt with its responses; None where the prompt is to be left out.

        Args:
            prompt: a text or a dialogue.
            responses: their words, or the messages that they are.
            where: for messages.
            finished: which of them ended by themselves; all, where None.
            tokens: what each was sampled as, where its words would be written otherwise.
        """
        ids = self.prompt(prompt, where)
        if ids is None:
            return None
        room, ends = self.max_length - len(ids), finished or [True] * len(responses)
        with _at(where):
            found = [self.response(prompt, r, room, finished=e) for r, e in zip(responses, ends, strict=True)]
        own = tokens or [None] * len(found)
        return Group(ids, [mine if kept is None else list(kept)[:room] for mine, kept in zip(found, own, strict=True)])

    def writes(self, prompt: Content, response: str, tokens: Sequence[int]) -> bool:
        """Whether a response's words are encoded as these token ids."""
        again, alike = copy(self), bool(tokens) and tokens[-1] in self.stop
        again.truncation = Truncation()
        return again.response(prompt, response, self.max_length, finished=alike) == list(tokens)

    @cached_property
    def fingerprint(self) -> str:
        """Of the tokenizer: equal where the same ids mean the same."""
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]

    def demonstration(self, prompt: Content, response: Said, where: str = "", *, finished: bool = True) -> Group | None:
        """As `group`, of a response to imitate: where the chat template marks what is said, only that is trained."""
        if (
            finished
            and not isinstance(prompt, str)
            and self.template.marks
            and self.template.say(prompt, _message(response)).whole
        ):
            return self.dialogue((*prompt, _message(response)), where, last=True)
        return self.group(prompt, [response], where, finished=[finished])

    # Dialogues of which more than the last answer is trained

    def dialogue(self, turns: Sequence[Message], where: str = "", *, last: bool = False) -> Group | None:
        """A dialogue of which assistant turns are trained: the first prompt, then one response with holes.

        A template that marks with ``{% generation %}`` what the assistant says is believed. Else it is rendered up to
        each turn and after it, and the whole must begin with both.

        Args:
            turns: the last one the assistant's.
            where: for messages.
            last: train the last turn alone.

        Raises:
            UserError: no assistant turn follows a prompt; the template drops words of a turn, or writes it otherwise.
        """
        answers = [i for i, m in enumerate(turns) if m.role == "assistant" and i > 0]
        if not answers:
            raise UserError(
                f"{where or 'a dialogue'} has no assistant turn after a prompt", "Add one, or leave the row out"
            )
        self._note(*(m.content for m in turns))
        with _at(where):
            self.template.check_tools(turns)
            self.truncation.hidden += self.template.hides(turns, self.template.render(turns))
            text, spans = self._spans(turns, answers[-1:] if last else answers)
            whole = self.tokens.ids(text)
        self.truncation.unknown += self._unknown in whole
        cuts = [(self._cut(text, a, whole), self._cut(text, b, whole, inside=True)) for a, b in spans]
        start = cuts[0][0]
        first = self._fit([*self._lead(tuple(turns), whole), *whole[:start]], tuple(turns), where)
        if first is None:
            return None
        stand = range(start, cuts[-1][1] if last else len(whole))
        ids, mask = [whole[i] for i in stand], [any(a <= i < b for a, b in cuts) for i in stand]
        if not self.ends & set(whole[cuts[-1][0] :]) and not self.template.marks:
            ids, mask = [*ids, self.eos], [*mask, True]
        room = self.max_length - len(first)
        if len(ids) > room:
            self.truncation.responses += 1
        return Group(first, [ids[:room]], [mask[:room]])

    def _cut(self, text: str, at: int, whole: list[int], *, inside: bool = False) -> int:
        """How many of the ids of ``text`` stand before a character.

        A token on both sides of it counts as behind it, as before it with ``inside``.
        """
        ids = self.tokens.ids(text[:at])
        common = _common(ids, whole)
        return common + (inside and common < len(ids) and common < len(whole))

    def _spans(self, turns: Sequence[Message], answers: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a dialogue, and where in it the turns ``answers`` begin and end, their end tokens included."""
        if self.template.marks:
            text, spans = self.template.marked(turns)
            if len(spans) < len(answers):
                raise UserError(
                    f"the chat template marks {len(spans)} of {len(answers)} answers with {{% generation %}}",
                    "Mend the template",
                )
            spans = spans[-len(answers) :]
            for i, (a, b) in zip(answers, spans, strict=True):
                self._kept(turns, i, text[a:b], "")
            return text, spans
        text = self.template.render(turns)
        found = []
        for i in answers:
            before, frame = self.template.before(turns[:i]), self.template.frame(turns[:i])
            before = before if text.startswith(before) else frame.head
            upto = _common(text, self.template.render(turns[: i + 1]))
            self._kept(turns, i, text[len(before) : upto] if text.startswith(before) else "", frame.prefill)
            end = self.tokens.first_control(text, len(before), self.ends)
            found.append((len(before), upto if end is None or end > upto else end))
        return text, found

    def _kept(self, turns: Sequence[Message], i: int, shown: str, prefill: str) -> None:
        """Refuse to train all answers where the template leaves out words of one of them."""
        words = str(turns[i].plain()["content"])  # of calls of tools the template has words of its own
        said, opening = ("".join(text.split()) for text in (self.tokens.escape(words), prefill))
        if said.removeprefix(opening) not in "".join(shown.split()):
            raise UserError(
                f"this chat template rewrites earlier turns (message {i + 1} is not what was said there), "
                "so they cannot all be trained at once",
                "Set -o train_on=last",
            )

    # Documents

    def documents(self, texts: Sequence[str]) -> list[Group]:
        """Each text as one sequence with its end token, every token trained; longer ones in pieces of ``max_length``.

        Texts are not joined: without padding there is nothing to fill up, and no text is read after another's words.
        """
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eos
        found = []
        for text in texts:
            words, applied = self._plain(text)
            self._note(text, applied=applied)
            ids = self.tokens.ids(words)
            self.truncation.unknown += self._unknown in ids
            ended = applied and any(text.rstrip().endswith(self.tokens.control[i]) for i in self.ends)
            ids = [*([] if ids[:1] == [start] else [start]), *ids, *([] if ended else [self.eos])]
            pieces = [ids[i : i + self.max_length] for i in range(0, len(ids), self.max_length)]
            found += [Group(p[:1], [p[1:]]) for p in pieces if len(p) > 1]
        return found

    # Back to text

    def decode(self, tokens: Sequence[int], prompt: object = "") -> str:
        """The words of a sampled response, without end and control tokens, and without what the template adds to them.

        Encoding them again gives ``tokens``, unless these are not how the tokenizer writes the text.

        Args:
            tokens: of the response.
            prompt: what it answers, a text or a dialogue.
        """
        finished = bool(tokens) and tokens[-1] in self.stop
        ids = tokens[:-1] if finished else tokens
        text = self.tokens.text(ids, self.tokens.control)
        if isinstance(prompt, str):
            return text
        text = text.removeprefix(self.template.usual.lead)
        return text.removesuffix(self._tail) if finished else text

    def tell(self) -> str:
        """Warn of what was not read as written, where there is anything; the sentence."""
        if said := self.truncation.say():
            warnings.warn(said, stacklevel=3)
        return said
