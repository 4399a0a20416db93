"""Simulated labelers: people of two tastes, who err, tie, and lean to one side and to long answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Content, content_key
from hearken.feedback.records import LabelerKind
from hearken.labelers.protocol import Ranking, ranks_with_ties

SHARPNESS = 2.0
Utility = Callable[[str, Any, str], float]
"""(prompt, response, group) -> what the response is worth to the group."""


def prompt_text(prompt: Content) -> str:
    """The prompt as the world knows it: the text, or what the user said last."""
    if isinstance(prompt, str):
        return prompt
    return next((message.content for message in reversed(prompt) if message.role == "user"), "")


def dialogue_text(prompt: Content) -> str:
    """The prompt as a world that judges dialogues knows it: all that was said, with an empty line between turns."""
    return prompt if isinstance(prompt, str) else "\n\n".join(message.content for message in prompt)


def as_it_is(content: str) -> str:
    """A text."""
    return content


@dataclass(frozen=True, slots=True)
class PairVote:
    """Probabilities of the three outcomes of a comparison of a with b; they add up to 1."""

    win: float
    """a is preferred."""
    tie: float
    loss: float
    """b is preferred."""

    @property
    def share(self) -> float:
        """The probability that a is preferred, a tie counting half."""
        return self.win + self.tie / 2


@dataclass(frozen=True, slots=True)
class SimulatedLabeler:
    """A labeler with Plackett-Luce noise on its group's utility, and with known weaknesses.

    The score of response y at place k of K (from 0) is
    ``sharpness * (utility(y) + quirk * z(y)) + length * words(y) - side * k / (K - 1)`` plus standard Gumbel noise, and
    responses are ranked by it; z is a standard normal number that is this labeler's own for this response. A
    response within ``tie`` of the best one of a rank shares that rank. For two responses this is the model of Rao and
    Kupper (1967): the difference of two Gumbel numbers is logistic, so
    ``P(a first) = sigmoid(s_a - s_b - tie)``, and without ties it is Bradley and Terry's.

    Attributes:
        name: its own in the panel.
        group: whose utility it goes by.
        utility: the world's.
        sharpness: log-odds per unit of utility; more is less noise.
        tie: width of the band of ties, in log-odds.
        side: log-odds that the first place has over the last, for equal responses.
        length: log-odds per word.
        quirk: standard deviation of its own taste, in units of utility.
        reads: how it reads a prompt, for the utility.
        opens: what it reads of a response's content: the text, or what a file holds (see `domains.base`).
    """

    name: str
    group: str
    utility: Utility
    sharpness: float = SHARPNESS
    tie: float = 0.4
    side: float = 0.8
    length: float = 0.04
    quirk: float = 0.2
    reads: Callable[[Content], str] = prompt_text
    opens: Callable[[str], Any] = as_it_is

    @property
    def id(self) -> str:
        """Of its name."""
        return f"simulated-{self.name}"

    @property
    def kind(self) -> LabelerKind:
        """Always ``"simulated"``."""
        return "simulated"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its group."""
        return {"group": self.group}

    def score(self, prompt: Content, response: str) -> float:
        """What it thinks of a response before noise and place, in log-odds."""
        own = random.Random(f"{self.name}:{content_key(prompt)}:{response}").gauss()
        worth = self.utility(self.reads(prompt), self.opens(response), self.group) + self.quirk * own
        return self.sharpness * worth + self.length * (len(response.split()) if self.length else 0)

    def judge(self, prompt: Content, responses: Sequence[str], seed: int) -> Ranking:
        """Rank the responses, shown in a random order; the same seed, prompt and responses give the same ranking.

        Raises:
            UserError: fewer than two responses.
        """
        count = len(responses)
        if count < 2:
            raise UserError(f"a comparison needs two responses or more, not {count}", "Sample more per prompt (-k)")
        rng = random.Random(f"{seed}:{self.name}:{content_key(prompt)}:" + "\0".join(responses))
        order = rng.sample(range(count), count)
        scores = [self.score(prompt, response) for response in responses]
        for place, i in enumerate(order):
            gumbel = -math.log(rng.expovariate(1.0))
            scores[i] += gumbel - self.side * place / (count - 1)
        return Ranking(ranks_with_ties(scores, self.tie), tuple(order))

    def pair_vote(self, prompt: Content, a: str, b: str) -> PairVote:
        """The exact probabilities of its verdict on two responses, over its noise and the order of display."""
        margin = self.score(prompt, a) - self.score(prompt, b)
        win = sum(_sigmoid(margin + side - self.tie) for side in (self.side, -self.side)) / 2
        loss = sum(_sigmoid(-margin + side - self.tie) for side in (self.side, -self.side)) / 2
        return PairVote(win, 1.0 - win - loss, loss)


@dataclass(frozen=True, slots=True)
class Panel:
    """Several labelers, of whom each judgment asks one at random."""

    labelers: tuple[SimulatedLabeler, ...]

    def __post_init__(self) -> None:
        if not self.labelers:
            raise UserError("a panel without labelers", "Give it at least one")

    def pick(self, prompt: Content, seed: int) -> SimulatedLabeler:
        """The labeler who judges this prompt: every one as likely, the same for the same seed."""
        return random.Random(f"{seed}:who:{content_key(prompt)}").choice(self.labelers)

    def rank(self, prompt: Content, responses: Sequence[str], seed: int) -> tuple[SimulatedLabeler, Ranking]:
        """One labeler of the panel and its ranking of the responses; the same for the same seed and item."""
        labeler = self.pick(prompt, seed)
        return labeler, labeler.judge(prompt, responses, seed)

    def pair_vote(self, prompt: Content, a: str, b: str) -> PairVote:
        """The exact probabilities of the verdict of a random labeler shown the pair in random order."""
        votes = [labeler.pair_vote(prompt, a, b) for labeler in self.labelers]
        n = len(votes)
        return PairVote(sum(v.win for v in votes) / n, sum(v.tie for v in votes) / n, sum(v.loss for v in votes) / n)

    def vote_probability(self, prompt: Content, a: str, b: str) -> float:
        """The exact probability that a random labeler of the panel prefers a over b, a tie counting half.

        Whoever predicts the likelier verdict of each pair is right as often as anyone can be: that accuracy is the
        ceiling for a reward model on the same pairs.
        """
        return self.pair_vote(prompt, a, b).share


def make_panel(
    utility: Utility,
    groups: Sequence[str],
    per_group: int = 4,
    seed: int = 0,
    *,
    side: float = 0.8,
    length: float = 0.04,
    reads: Callable[[Content], str] = prompt_text,
    opens: Callable[[str], Any] = as_it_is,
) -> Panel:
    """A panel with ``per_group`` labelers of each group, who differ a little in how sharp and how biased they are.

    Args:
        utility: the world's (`worlds.world.World`).
        groups: its groups.
        per_group: labelers of each group.
        seed: decides how each labeler differs: sharpness, side and length bias within a factor of .6 to 1.4.
        side: see `SimulatedLabeler`; the mean.
        length: the same holds.
        reads: the same for all; `dialogue_text` for worlds that judge whole dialogues.
        opens: the same for all.
    """
    rng = random.Random(f"panel:{seed}")
    return Panel(
        tuple(
            SimulatedLabeler(
                name=f"{group}-{number}",
                group=group,
                utility=utility,
                sharpness=SHARPNESS * rng.uniform(0.6, 1.4),
                side=side * rng.uniform(0.6, 1.4),
                length=length * rng.uniform(0.6, 1.4),
                reads=reads,
                opens=opens,
            )
            for group in groups
            for number in range(1, per_group + 1)
        )
    )


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(x / 2.0))
