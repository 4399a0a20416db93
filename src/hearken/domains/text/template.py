"""Dialogues as text, by the tokenizer's own chat template, and where in it a response stands.

A template is a program: it may drop what stands before ``</think>``, ignore ``add_generation_prompt``, begin the answer
itself, trim, add a system message, or write an earlier turn otherwise than a last one. So nothing is assumed about it:
it is rendered with and without the response, and the two are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from hearken.errors import UserError
from hearken.feedback.examples import Message

PLAIN_TURNS = (
    "{% set speaker = {'system': 'System', 'user': 'Human', 'assistant': 'Assistant', 'tool': 'Tool'} %}"
    "{% for m in messages %}{{ '\n\n' + speaker[m.role] + ': ' + m.content }}"
    "{{ eos_token if m.role == 'assistant' else '' }}{% endfor %}"
    "{{ '\n\nAssistant:' if add_generation_prompt else '' }}"
)
"""Of a tokenizer that has no chat template."""
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "Zq7ResponseZq7"
_OPENING = 40
"""No template begins an answer with more characters than these."""


@dataclass(frozen=True)
class Spoken:
    """A response as the template puts it behind its prompt; every text perhaps escaped.

    Attributes:
        before: the text up to where the response begins.
        text: the response, with what the template puts around it.
        whole: whether the template itself keeps all of the response; else it was put where the template puts one.
        trimmed: whether white space of the response was changed.
        moved: whether the template writes the prompt otherwise once it is answered.
    """

    before: str
    text: str
    whole: bool = True
    trimmed: bool = False
    moved: bool = False


@dataclass(frozen=True)
class Frame:
    """What a template puts around a response.

    Attributes:
        head: the text of prompt and response up to the response's own words.
        lead: what the template writes between `Template.before` and these words.
        prefill: what `Template.before` has already of the response (``<think>``).
        tail: what follows the words.
        moved: the prompt is written otherwise where it is answered.
    """

    head: str
    lead: str
    prefill: str
    tail: str
    moved: bool


class Template:
    """A chat template, or the turns of a tokenizer that has none.

    Args:
        tokenizer: a transformers tokenizer.
        escape: makes words of the special tokens that a message spells.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, escape: Callable[[str], str] = str) -> None:
        self.tokenizer, self.escape = tokenizer, escape
        self.own = bool(tokenizer.chat_template)
        self._names: dict[str, Any] = dict(tokenizer.special_tokens_map)
        self.source, self.with_tools = self._sources() if self.own else (PLAIN_TURNS, PLAIN_TURNS)
        self.marks = _GENERATION.search(self.source) is not None
        self.parts = False
        """Whether messages go to the template as lists of parts."""
        self.parts = self.own and self._asks_for_parts()
        hello = (Message("user", "a"),)
        self.headless, self.usual = False, Frame("", "", "", "", False)
        self.around = ("", "")
        """What stands before the first message of a user and between it and the answer."""
        try:
            self.headless = self.render(hello, ask=True) == self.render(hello)
            self.usual = self.frame(hello)
            opening, _, closing = self.before((Message("user", _PROBE),)).partition(_PROBE)
            self.around = opening, closing
        except UserError:  # it asks for other turns; each dialogue will tell
            pass

    def _sources(self) -> tuple[str, str]:
        """The template, and that for dialogues with tools, where the tokenizer has one of its own for them.

        Raises:
            UserError: it has several, and none is the default.
        """
        try:
            return self.tokenizer.get_chat_template(), self.tokenizer.get_chat_template(tools=[{}])
        except ValueError:
            known = ", ".join(self.tokenizer.chat_template)
            raise UserError(
                f"the tokenizer has several chat templates, none of which is the default: {known}",
                "Save it with the one that is meant as its chat_template",
            ) from None

    def _asks_for_parts(self) -> bool:
        """Whether the template shows the words of a message only where its content is a list of parts."""

        def shows(parts: bool) -> bool:
            self.parts = parts
            try:
                return _PROBE in self.render((Message("user", _PROBE),))
            except UserError:
                return False

        return not shows(False) and shows(True)

    def render(self, turns: Sequence[Message], *, ask: bool = False) -> str:
        """The text of a dialogue; with ``ask`` up to where the assistant answers, as far as the template says.

        Raises:
            UserError: the template refuses these turns.
        """
        return self._render(turns, add_generation_prompt=ask)[0]

    def _render(self, turns: Sequence[Message], **how: Any) -> tuple[str, list[tuple[int, int]]]:
        # Without a template, calls of tools are read as text.
        plain = [self._escaped(m.plain() if self.own else {"role": m.role, "content": m.content}) for m in turns]
        if self.parts:
            plain = [p | {"content": [{"type": "text", "text": p["content"]}]} for p in plain]
        tools = next((p.pop("tools") for p in plain if "tools" in p), None)
        try:
            source = self.with_tools if tools else self.source
            made: Any = render_jinja_template([plain], tools=tools, chat_template=source, **(self._names | how))
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            roles = ", ".join(m.role for m in turns)
            raise UserError(
                f"the chat template refuses a dialogue of {roles}: {error}", "Mend the dialogue or the template"
            ) from None
        (text,), spans = made
        return str(text), list(spans[0]) if spans else []

    def _escaped(self, value: Any) -> Any:
        """A message with its calls of tools, every text of it escaped."""
        if isinstance(value, dict):
            return {key: self._escaped(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._escaped(one) for one in value]
        return self.escape(value) if isinstance(value, str) else value

    def check_tools(self, turns: Sequence[Message]) -> None:
        """Refuse a dialogue whose tools or calls the template does not write: the model would not see them.

        Raises:
            UserError: naming what is not shown.
        """
        for i, turn in enumerate(turns):
            if not turn.more:
                continue
            for key in ("tools", "tool_calls") if self.own else ("tools",):
                whole = turn.plain()
                if key not in whole:
                    continue
                less = replace(turn, more=json.dumps({k: v for k, v in whole.items() if k != key}))
                if self.render(turns) == self.render([*turns[:i], less, *turns[i + 1 :]]):
                    hint = "Write them into the content, or take another template"
                    raise UserError(f"the chat template does not show '{key}'", hint)

    def marked(self, turns: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        """The text of a dialogue, and what stands between ``{% generation %}`` and ``{% endgeneration %}`` in it."""
        return self._render(turns, return_assistant_tokens_mask=True)

    def before(self, prompt: Sequence[Message]) -> str:
        """The text up to where the response begins.

        A template that ignores ``add_generation_prompt`` still writes a header when there is an answer: it is taken
        from there.
        """
        asked = self.render(prompt, ask=True)
        if not self.headless:
            return asked
        head = self._head(prompt)[0]
        header = head[len(asked) :] if head.startswith(asked) else ""
        return asked + (header.rstrip(" ") if header.strip() else "")

    def hides(self, prompt: Sequence[Message], text: str) -> bool:
        """Whether words of a prompt are missing in its text; but for answers (see `say`) and calls (`check_tools`)."""
        shown = _words(text)
        return any(_words(self.escape(m.content)) not in shown for m in prompt if m.role != "assistant" and not m.more)

    def _head(self, prompt: Sequence[Message]) -> tuple[str, str]:
        """What stands before and behind the words of a response; all and nothing where it is not shown.

        Raises:
            UserError: it is shown in other letters, and so nobody can tell where.
        """
        text, other = (self.render((*prompt, Message("assistant", said))) for said in (_PROBE, _PROBE[::-1]))
        head, found, tail = text.rpartition(_PROBE)
        if not found and text != other:
            raise UserError("the chat template changes the letters of what the assistant says", "Mend the template")
        return (head, tail) if found else (text, "")

    def frame(self, prompt: Sequence[Message]) -> Frame:
        """What the template puts around a response to this prompt."""
        before, (head, tail) = self.before(prompt), self._head(prompt)
        if head.startswith(before):
            return Frame(head, head[len(before) :], "", tail, moved=False)
        if before.startswith(head):
            return Frame(head, "", before[len(head) :], tail, moved=False)
        return Frame(head, "", "", tail, moved=True)

    def say(self, prompt: Sequence[Message], message: Message) -> Spoken:
        """A response behind its prompt: as the template has it where it keeps all its words, else put there whole.

        Raises:
            UserError: it calls tools, and the template does not write the calls.
        """
        before, text = self.before(prompt), self.escape(message.content)
        whole = self.render((*prompt, message))
        if message.more and self.own:
            self.check_tools((*prompt, message))
            return self._calling(prompt, before, whole)
        rest = whole[len(before) :]
        if whole.startswith(before) and text in rest:
            return Spoken(before, rest)
        if whole.startswith(before) and _follows(text, before, rest):
            return Spoken(before, rest, trimmed=True)
        frame, said = self.frame(prompt), text
        opening = frame.prefill.strip()
        if opening and text.startswith(frame.prefill):
            said = text[len(frame.prefill) :]
        elif opening and text.lstrip().startswith(opening):
            said = text.lstrip()[len(opening) :]
        kept = frame.moved or _words(text) in _words(whole[len(frame.head) :])
        return Spoken(before, frame.lead + said + frame.tail, whole=kept, moved=frame.moved)

    def _calling(self, prompt: Sequence[Message], before: str, whole: str) -> Spoken:
        """A response that calls tools: what the template writes behind the prompt, in its own words for the calls."""
        head = before if whole.startswith(before) else self.frame(prompt).head
        if not whole.startswith(head):
            raise UserError(
                "the chat template writes the dialogue otherwise where its answer calls tools",
                "Leave the row out, or take another template",
            )
        return Spoken(before, whole[len(head) :], moved=head is not before)


def _words(text: str) -> str:
    """A text without white space."""
    return "".join(text.split())


def _follows(response: str, before: str, rest: str) -> bool:
    """Whether all words of a response stand in ``rest``, but for the first that ``before`` may have as its last."""
    said, asked, shown = _words(response), _words(before[-_OPENING:]), _words(rest)
    return any(asked.endswith(said[:k]) and said[k:] in shown for k in range(min(len(said), _OPENING) or 1))
