"""A conversation with one policy, or the same one with two beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from hearken.domains.text.talk import Talker
from hearken.errors import UserError
from hearken.feedback.examples import Message
from hearken.models.loading import load_tokenizer
from hearken.rollout.sampler import SamplingParameters

Form = Literal["auto", "dialogue", "plain"]


class Conversation:
    """Says the same to every model; each goes on with its own answers.

    Args:
        models: folders or Hub names, one or more.
        how: how answers are drawn.
        form: ``dialogue`` gives a model the whole dialogue, through its chat template where it has one; ``plain``
            gives it the last message alone, as text to go on from; ``auto`` is a dialogue for a model with a chat
            template, else plain.
        system: the first message of every dialogue; empty for none.
        seed: of the first answers; every turn adds one.
        device: as in training.

    Raises:
        UserError: a tokenizer cannot be loaded, or a system message meets a model that takes plain text.
    """

    def __init__(
        self, models: Sequence[str], how: SamplingParameters, *, form: Form = "auto", system: str = "", seed: int = 0,
        device: str = "auto",
    ) -> None:  # fmt: skip
        self.names = _names(models)
        self.system, self.seed, self.turn = system, seed, 0
        self._talkers = [Talker(lambda name=name: name, how, device=device) for name in models]  # type: ignore[misc]
        self.plain = [form == "plain" or (form == "auto" and not load_tokenizer(name).chat_template) for name in models]
        if system and any(self.plain):
            name = self.names[self.plain.index(True)]
            raise UserError(
                f"{name} takes plain text, so it cannot read a system message",
                "Add --as dialogue if it was trained on dialogues, or leave --system out",
            )
        self._said: list[list[Message]] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        first = [Message("system", self.system)] if self.system else []
        self._said = [list(first) for _ in self._talkers]

    def say(self, text: str) -> Iterator[tuple[int, str]]:
        """Say ``text`` to every model, and hear their answers in turns.

        The answers belong to the dialogue as far as they were heard: who stops listening keeps what came.

        Yields:
            Which model, and what is added to its answer.
        """
        self._said = [[*said, Message("user", text)] for said in self._said]
        heard = [""] * len(self._talkers)
        seed, self.turn = self.seed + self.turn, self.turn + 1
        streams = {
            i: talker.stream(text if self.plain[i] else tuple(self._said[i]), 1, seed)
            for i, talker in enumerate(self._talkers)
        }
        try:
            while streams:
                for i in list(streams):
                    found = next(streams[i], None)
                    if found is None:
                        del streams[i]
                    else:
                        heard[i] += found[1]
                        yield i, found[1]
        finally:
            for stream in streams.values():
                stream.close()
            self._said = [[*said, Message("assistant", h)] for said, h in zip(self._said, heard, strict=True)]

    def again(self) -> Iterator[tuple[int, str]]:
        """Other answers to what was said last.

        Raises:
            UserError: nothing was said yet.
        """
        if not self.messages(0) or self.messages(0)[-1].role == "system":
            raise UserError("nothing was said yet", "Say something first")
        last = self.messages(0)[-2].content
        self._said = [said[:-2] for said in self._said]
        return self.say(last)

    def messages(self, model: int) -> list[Message]:
        """The dialogue with one of the models so far."""
        return list(self._said[model])


def _names(models: Sequence[str]) -> list[str]:
    """Short names that tell the models apart."""
    short = [Path(name).name or name for name in models]
    if len(set(short)) == len(short):
        return short
    if len(set(models)) == len(models):
        return list(models)
    return [f"{name} ({i})" for i, name in enumerate(short, 1)]
