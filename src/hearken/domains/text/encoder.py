"""The text domain's encoder: prompts and responses as the token ids a scorer reads.

A dialogue goes through the tokenizer's own chat template; a tokenizer without one gets "Human/Assistant" turns. Plain
text stays plain. A response that its author finished ends with an end-of-sequence token, which the model must learn to
say and the reward model reads last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message, content_key
from hearken.models.layout import Group

SPEAKER = {"system": "System", "user": "Human", "assistant": "Assistant", "tool": "Tool"}


@dataclass
class Truncation:
    """What did not fit, counted so that it can be said."""

    responses: int = 0
    prompts: int = 0
    dropped: int = 0

    def say(self) -> str:
        """A sentence, empty where everything fitted."""
        parts = [
            f"{count} {what}"
            for count, what in (
                (self.responses, "responses were cut at max_length (no end-of-sequence token)"),
                (self.prompts, "prompts lost their beginning"),
                (self.dropped, "rows were left out because the prompt alone fills max_length"),
            )
            if count
        ]
        return "; ".join(parts)


class TextEncoder:
    """Turns text into token ids.

    Args:
        tokenizer: a transformers tokenizer with an EOS token.
        max_length: longest prompt and response together.
        stop: token ids that end a response; EOS where None.
        long_prompts: ``error``, ``drop`` or ``truncate`` (keep the end).
        reserve: tokens of ``max_length`` kept free for the response.
        seq2seq: prompt and response are two texts, each with the beginning and end that the tokenizer gives a text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, *, stop: Sequence[int] | None = None,
        long_prompts: str = "error", reserve: int = 1, seq2seq: bool = False,
    ) -> None:  # fmt: skip
        self.tokenizer, self.max_length = tokenizer, max_length
        self.eos: int = tokenizer.eos_token_id  # type: ignore[assignment]
        self.stop = set(stop or [self.eos]) | {self.eos}
        self.long_prompts, self.reserve, self.seq2seq = long_prompts, reserve, seq2seq
        self.truncation = Truncation()

    def render(self, prompt: Content) -> str:
        """The prompt as the model sees it, up to where the response begins."""
        if isinstance(prompt, str):
            return prompt
        if self.tokenizer.chat_template:
            return self._template(prompt, add_generation_prompt=True)
        end = self.tokenizer.eos_token
        turns = (f"\n\n{SPEAKER[m.role]}: {m.content}{end if m.role == 'assistant' else ''}" for m in prompt)
        return "".join(turns) + "\n\nAssistant:"

    def _template(self, turns: Sequence[Message], *, add_generation_prompt: bool) -> str:
        plain = [{"role": m.role, "content": m.content} for m in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            roles = ", ".join(m.role for m in turns)
            raise UserError(
                f"the chat template refuses a dialogue of {roles}: {error}", "Mend the dialogue or the template"
            ) from None
        return str(text)

    def render_response(self, prompt: Content, response: str) -> str:
        """The response as it follows `render`'s text, with what the template puts after it."""
        if isinstance(prompt, str):
            return response
        if self.tokenizer.chat_template:
            before = self.render(prompt)
            whole = self._template([*prompt, Message("assistant", response)], add_generation_prompt=False)
            if not whole.startswith(before):  # some templates strip or rewrite history
                return response
            return whole[len(before) :]
        return f" {response}"

    def _ids(self, text: str, special: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]

    def prompt(self, prompt: Content, where: str = "") -> list[int] | None:
        """Token ids of a prompt (at least one); None where it is to be left out.

        Raises:
            UserError: it leaves no room for a response, and ``long_prompts`` is ``error``.
        """
        templated = not isinstance(prompt, str) and bool(self.tokenizer.chat_template)
        ids = self._ids(self.render(prompt), special=not templated)
        if ids and ids[-1] == self.eos and isinstance(prompt, str) and not self.seq2seq:
            ids = ids[:-1]  # tokenizers that close every text
        if not ids:
            ids = [self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eos]
        room = self.max_length - self.reserve
        if len(ids) > room:
            if self.long_prompts == "error":
                name = where or f"prompt {content_key(prompt)[:8]}"
                raise UserError(
                    f"{name} has {len(ids)} tokens; with {self.reserve} for the response "
                    f"it must fit in {self.max_length}",
                    "Shorten it, raise max_length if the model allows, or set -o long_prompts=truncate (or drop)",
                )
            if self.long_prompts == "drop":
                self.truncation.dropped += 1
                return None
            self.truncation.prompts += 1
            ids = ids[-room:]
        return ids

    def response(self, prompt: Content, response: str, room: int, *, finished: bool = True) -> list[int]:
        """Token ids of a response with its end token, cut (and counted) at ``room``."""
        ids = self._ids(self.render_response(prompt, response), special=self.seq2seq)
        end = next((i for i, token in enumerate(ids) if token in self.stop), None)
        if end is not None:
            ids = ids[: end + 1]
        elif finished:
            ids = [*ids, self.eos]
        if len(ids) > room:
            self.truncation.responses += 1
            ids = ids[:room]
        return ids or [self.eos]

    def group(self, prompt: Content, responses: Sequence[str], where: str = "") -> Group | None:
        """A prompt with its responses; None where the prompt is to be left out."""
        ids = self.prompt(prompt, where)
        if ids is None:
            return None
        room = self.max_length - len(ids)
        return Group(ids, [self.response(prompt, r, room) for r in responses])

    def dialogue(self, turns: Sequence[Message], where: str = "") -> Group | None:
        """A dialogue of which every assistant turn is trained: the first prompt, then one response with holes.

        The template is rendered turn by turn, so a mask is right for any template that only ever appends.
        """
        answers = [i for i, m in enumerate(turns) if m.role == "assistant" and i > 0]
        if not answers:
            raise UserError(
                f"{where or 'a dialogue'} has no assistant turn after a prompt", "Add one, or leave the row out"
            )
        first = self.prompt(tuple(turns[: answers[0]]), where)
        if first is None:
            return None
        text = self.render(tuple(turns[: answers[0]]))
        ids: list[int] = []
        mask: list[bool] = []
        for i in answers:
            before = tuple(turns[:i])
            rendered = self.render(before)
            if not rendered.startswith(text):
                raise UserError(
                    f"{where or 'a dialogue'}: this chat template rewrites earlier turns, "
                    "so they cannot all be trained at once",
                    "Set -o train_on=last",
                )
            between = self._ids(rendered[len(text) :], special=False) if len(rendered) > len(text) else []
            answer_text = self.render_response(before, turns[i].content)
            answer = self._ids(answer_text, special=False)
            end = next((k for k, token in enumerate(answer) if token in self.stop), None)
            if end is None:  # a template-less dialogue: `render` writes the end token after the turn
                answer, end = [*answer, self.eos], len(answer)
                answer_text += str(self.tokenizer.eos_token)
            text = rendered + answer_text
            ids += between + answer
            mask += [False] * len(between) + [k <= end for k in range(len(answer))]
        room = self.max_length - len(first)
        if len(ids) > room:
            self.truncation.responses += 1
        return Group(first, [ids[:room]], [mask[:room]])

    def documents(self, texts: Sequence[str]) -> list[Group]:
        """Each text as one sequence with its end token, every token trained; longer ones in pieces of ``max_length``.

        Texts are not joined: without padding there is nothing to fill up, and no text is read after another's words.
        """
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.eos
        found = []
        for text in texts:
            ids = [start, *self._ids(text, special=False), self.eos]
            pieces = [ids[i : i + self.max_length] for i in range(0, len(ids), self.max_length)]
            found += [Group(p[:1], [p[1:]]) for p in pieces if len(p) > 1]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without end and special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
