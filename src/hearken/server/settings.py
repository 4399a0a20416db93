"""How people are asked: what the owner of a project chooses. Kept in the feedback database, version by version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from hearken.config import Options
from hearken.errors import UserError
from hearken.feedback.names import check_name
from hearken.feedback.records import ItemKind
from hearken.feedback.store import FeedbackStore


class Attribute(Options):
    """Something a response is rated on."""

    name: str = Field(min_length=1, max_length=40)
    about: str = Field("", max_length=300)
    """What it means, in the labelers' words."""


class Question(Options):
    """Something labelers may say about themselves; never required."""

    name: str = Field(min_length=1, max_length=40)
    ask: str = Field("", max_length=300)
    options: list[str] = Field([], max_length=40)
    """To choose from; empty for free text."""


class Practice(Options):
    """An item that shows a newcomer how judging works."""

    prompt: str
    responses: list[str] = Field(min_length=2, max_length=9)
    best: int = Field(ge=0)
    """Which response is the better one (0, 1, ...)."""
    explanation: str

    @model_validator(mode="after")
    def _check(self) -> Practice:
        if self.best >= len(self.responses):
            raise ValueError(f"best = {self.best} names no response")
        return self


PRACTICE = [
    Practice(
        prompt="Name three things to check before a long bicycle ride.",
        responses=[
            "1. **Tyres**: firm, without cuts.\n2. **Brakes**: both stop the wheel at once.\n"
            "3. **Chain**: clean, and with a drop of oil.",
            "Bicycles are a wonderful way to travel. People have ridden them for more than a century, and they are "
            "good for your health. Enjoy the ride!",
        ],
        best=0,
        explanation="The first response does what was asked. The second is friendly, but names nothing to check.",
    ),
    Practice(
        prompt="Which is longer, a mile or a kilometre?",
        responses=[
            "A kilometre is longer. There are about 1.6 miles in every kilometre, which is easy to remember because it "
            "is close to the golden ratio. Runners often use this to convert their distances.",
            "A mile: it is about 1.6 kilometres.",
        ],
        best=1,
        explanation="Short and right beats long and wrong. Length by itself is worth nothing.",
    ),
    Practice(
        prompt="My neighbour plays loud music at night. Write a short note I can leave at the door.",
        responses=[
            "Hello! The walls between us are thin, and at night I hear your music as if I were in the room. Could "
            "you turn it down after ten? Thank you, and sorry to write instead of knocking.",
            "Turn the music off. I know where you live. This is the last time I ask nicely.",
        ],
        best=0,
        explanation="Both are notes about the music. The first one would help; the second is a threat.",
    ),
]
"""What newcomers practise on where the owner has written nothing else."""


class LabelSettings(Options):
    """How people are asked."""

    project: str = Field("Hearken", max_length=80)
    """What the labelers see as its name."""
    kinds: list[ItemKind] = Field(["comparison"], min_length=1)
    """Kinds of judgment that people are given."""
    question: str = Field("Which response is better?", max_length=200)
    """Above every comparison."""
    strength: Literal[3, 8, 9] = 3
    """Steps between "A is much better" and "B is much better"; with 3 and 9 the middle one is a tie."""
    partial: bool = True
    """Rankings may leave responses out."""
    attributes: list[Attribute] = Field([Attribute(name="overall", about="All in all")], min_length=1, max_length=12)
    """What responses are rated on."""
    scale: tuple[int, int] = (1, 5)
    """Lowest and highest rating."""
    tags: list[str] = Field([], max_length=20)
    """Reasons that labelers may give with a judgment."""
    span_labels: list[str] = Field(["wrong", "harmful", "unclear"], min_length=1, max_length=9)
    """What a passage can be marked as."""
    flags: list[str] = Field(["harmful", "private", "broken", "other"], min_length=1, max_length=9)
    """Reasons to flag an item."""
    confirm: bool = False
    """A choice is sent only when it is confirmed with Enter. With tags it always is."""
    chat: bool = False
    """Labelers may talk to the current policy and choose between two answers at every turn."""
    consent: str = Field(
        "Your judgments are stored with the time they took, and are used to train and to study language models. You "
        "may stop at any moment, and ask the owner of this project to erase what you gave.",
        max_length=8_000,
    )
    """The notice that labelers agree to before they begin."""
    about_you: list[Question] = Field([], max_length=20)
    """What labelers may say about themselves."""
    practice: list[Practice] = Field(PRACTICE, max_length=20)
    """What newcomers practise on."""
    check_share: float = Field(0.05, ge=0, le=0.5)
    """Share of items that measure the labeler: gold items, and their own earlier ones a second time."""
    check_window: int = Field(10, ge=3, le=1_000)
    """A labeler is paused by how they did in so many gold items ..."""
    check_least: float = Field(0.6, ge=0, le=1)
    """... if fewer than this share of the answers were right."""
    undo_seconds: int = Field(600, ge=0, le=31_536_000)
    """How long a labeler may take a judgment back."""
    lease_seconds: int = Field(900, ge=30, le=86_400)
    """How long an item is kept for the labeler who has it on the screen."""
    break_minutes: int = Field(50, ge=0, le=525_600)
    """After how long a pause is proposed; 0 for never."""
    hourly_cost: FiniteFloat | None = Field(None, ge=0)
    """What an hour of judging costs."""
    budget: FiniteFloat | None = Field(None, ge=0)
    """What the labelling may cost altogether."""
    currency: str = Field("", max_length=8)
    """Of cost and budget."""
    population: dict[str, dict[str, Annotated[FiniteFloat, Field(ge=0)]]] = {}
    """Whom the labelers should stand for: shares by attribute and value."""

    @model_validator(mode="after")
    def _check(self) -> LabelSettings:
        if not self.scale[0] < self.scale[1] or self.scale[1] - self.scale[0] > 9:
            raise ValueError("a scale has two to ten steps, e.g. [1, 5]")
        names = [one.name for one in self.attributes]
        if len(set(names)) != len(names):
            raise ValueError("two attributes have the same name")
        return self


def load(store: FeedbackStore) -> tuple[int, LabelSettings]:
    """The settings in force and their version (0: nobody has made any)."""
    version, values = store.access.settings()
    return version, LabelSettings.parse(values, where="settings")


def _words(settings: LabelSettings) -> Iterator[tuple[str, str, int]]:
    """What labelers choose from or see as a heading: what it is, the text, and how long it may be."""
    yield "project", settings.project, 80
    yield "question", settings.question, 200
    for what, words in (("tags", settings.tags), ("span_labels", settings.span_labels), ("flags", settings.flags)):
        for word in words:
            yield what, word, 100
        if len(set(words)) < len(words):
            raise UserError(f"settings: {what} names one thing twice", "Leave one out")
    for attribute in settings.attributes:
        yield "attributes", attribute.name, 40
    for question in settings.about_you:
        yield "about_you", question.name, 40
        for option in question.options:
            yield "about_you", option, 200
    if settings.currency:
        yield "currency", settings.currency, 8


def save(store: FeedbackStore, values: dict[str, Any]) -> tuple[int, LabelSettings]:
    """Put new settings in force: those in force, with ``values`` over them.

    Raises:
        UserError: an unknown key, a wrong value, or a word that cannot be read as what it is.
    """
    settings = LabelSettings.parse({**store.access.settings()[1], **values}, where="settings")
    for what, word, longest in _words(settings):
        check_name(word, f"settings: {what}", longest)
    return store.access.set_settings(settings.model_dump(mode="json", exclude_unset=True)), settings
