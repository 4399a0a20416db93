"""What a round of the loop used and reached: one typed, versioned record.

The manifest of a round's evaluation holds it as its metrics; it is written and read here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import JsonValue, ValidationError

from hearken.errors import UserError
from hearken.evaluation.numbers import JsonInterval
from hearken.evaluation.record import Record
from hearken.evaluation.results import PolicyResult, TaskScores
from hearken.training.artifact import Artifact

VERSION: Final = 1


class RoundRecord(Record):
    """A round. What nobody measured is None or empty; intervals are 95 % ones."""

    version: Literal[1] = VERSION
    """Of this form."""
    number: int
    """From 1."""
    policy: str = ""
    """The one that it left."""
    judgments: int | None = None
    """New in this round."""
    accuracy: JsonInterval | None = None
    """Of its reward model on held-out comparisons, 0..1."""
    own_accuracy: JsonInterval | None = None
    """On its policy's own responses: by gold, else on the next round's held-out comparisons, which are of them."""
    win_rate: JsonInterval | None = None
    """Of its policy against the baseline, 0..1."""
    gold: JsonInterval | None = None
    """Mean gold reward of its policy, which built-in worlds know."""
    proxy: JsonInterval | None = None
    """Mean score by its reward model."""
    kl: JsonInterval | None = None
    """Nats a response to the baseline."""
    length: JsonInterval | None = None
    """Tokens a response."""
    distinct_2: float | None = None
    """Share of distinct word pairs, 0..1."""
    parse_rate: JsonInterval | None = None
    """Share of responses that the world's parser accepts, 0..1."""
    perplexity: float | None = None
    """Per token, of the first held-out text."""
    tasks: Mapping[str, TaskScores] = {}
    """By the task's name."""
    fooled: bool | None = None
    """Whether somebody who watched its training saw the reward being fooled; None where nobody did."""
    best_step: float | None = None
    """The step whose weights were kept, where somebody watched."""

    def reached(self, policy: PolicyResult) -> RoundRecord:
        """With what an evaluation says of its policy; what is known already stays."""
        names = (
            "own_accuracy",
            "win_rate",
            "gold",
            "proxy",
            "kl",
            "length",
            "distinct_2",
            "parse_rate",
            "perplexity",
            "tasks",
        )
        return self.but(**{name: getattr(self, name) or getattr(policy, name) for name in names})

    def told(self) -> dict[str, JsonValue]:
        """What is known, as plain JSON."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value not in (None, {}, "")}


def read_round(evaluation: Artifact) -> RoundRecord:
    """The record of a round from its evaluation; one of the form before versions is brought into today's.

    Raises:
        UserError: it is damaged, or a newer Hearken wrote it.
    """
    metrics = evaluation.metrics
    if metrics.get("version", VERSION) != VERSION:
        what = f"{evaluation.path} was written by a newer Hearken"
        raise UserError(what, "Install that, or make it anew: hearken loop --redo")
    try:
        return RoundRecord(**{"number": evaluation.round or 0, **metrics})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{evaluation.path}: {where}: {first['msg']}", "Make it anew: hearken loop --redo") from None
