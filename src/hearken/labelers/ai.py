"""AI labelers: a judge model and a constitution, behind the same queue as people (Bai et al. 2022; Lee et al. 2023).

Every pair is asked about in both orders and the log-odds are averaged: what a judge gives to a place alone cancels. The
probability is read from the answer's log-probabilities where the judge tells them, else from its words.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hearken.errors import UserError
from hearken.feedback.examples import Content, Message, content_key
from hearken.feedback.records import ComparisonPayload, LabelerKind, hash_id
from hearken.labelers.constitution import Constitution, Principle
from hearken.labelers.judges import CHOICE_TOKENS, Judge
from hearken.labelers.protocol import Ranking, ranks_with_ties

CERTAIN = math.log(0.95 / 0.05)
"""Log-odds of an answer in words alone."""
_LETTER = re.compile(r"\b([AB])\b")


class Nonsense(Exception):
    """A judge answered neither A nor B; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Opinion(Ranking):
    """An AI labeler's ranking with what led to it.

    Attributes:
        share: probability that the first of two responses is the better; None for more than two.
        principle: the principle's id.
        reasoning: what the judge wrote before each answer, by the order of display, e.g. ``{"0,1": "..."}``.
        odds: log-odds of the one shown first, of each order asked.
        wins: each response's mean probability of winning against another.
    """

    share: float | None = None
    principle: str = ""
    reasoning: Mapping[str, str] = field(default_factory=dict)
    odds: Mapping[str, float] = field(default_factory=dict)
    wins: tuple[float, ...] = ()

    def payload(self, response_ids: Sequence[str]) -> ComparisonPayload:
        """What the feedback database keeps as the judgment."""
        return ComparisonPayload(response_ids=tuple(response_ids), ranks=self.ranks, share=self.share)

    @property
    def metadata(self) -> dict[str, Any]:
        """What it keeps beside."""
        found: dict[str, Any] = {
            "principle": self.principle,
            "log_odds": {k: round(v, 4) for k, v in self.odds.items()},
        }
        return found | ({"reasoning": dict(self.reasoning)} if self.reasoning else {})


@dataclass(frozen=True, slots=True)
class AILabeler:
    """A judge that goes by a constitution.

    Attributes:
        model: who answers.
        constitution: of whose principles each prompt draws one.
        reasoning: let it think in words first; they are kept.
        tie: mean win probabilities nearer than this are a tie.
        max_tokens: most tokens of its reasoning, critique or revision.
    """

    model: Judge
    constitution: Constitution
    reasoning: bool = False
    tie: float = 0.05
    max_tokens: int = 512

    @property
    def name(self) -> str:
        """The judge's and the constitution's."""
        return f"{self.model.name}/{self.constitution.name}"

    @property
    def id(self) -> str:
        """Of the judge's identity, which its name does not tell, and the constitution."""
        return f"ai-{hash_id(self.model.identity, self.constitution.name)[:12]}"

    @property
    def kind(self) -> LabelerKind:
        """Always ``"ai"``."""
        return "ai"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Judge and constitution."""
        return {"judge": self.model.name, "constitution": self.constitution.name, "reasoning": self.reasoning}

    @property
    def answer_tokens(self) -> int:
        """Most tokens of one answer."""
        return self.max_tokens if self.reasoning else CHOICE_TOKENS

    def judge_pair(self, prompt: Content, a: str, b: str, principle: Principle) -> tuple[float, str]:
        """Log-odds that ``a``, shown first, is the better, and the words that led there.

        Raises:
            Nonsense: the answer is neither A nor B.
        """
        dialogue = question(prompt, a, b, principle, reasoning=self.reasoning)
        if self.reasoning:
            text = self.model.ask(dialogue, self.max_tokens).text
            return spoken(text), text
        reply = self.model.choose(dialogue, ("A", "B"))
        if reply.choices and {"A", "B"} & reply.choices.keys():
            floor = min(reply.choices.values()) - 1.0  # an answer that is not among the likeliest is below them all
            return reply.choices.get("A", floor) - reply.choices.get("B", floor), ""
        return spoken(reply.text), ""

    def judge(self, prompt: Content, responses: Sequence[str], seed: int) -> Opinion:
        """Every pair in both orders; responses are ranked by their mean probability of winning.

        Raises:
            UserError: fewer than two responses.
            Nonsense: an answer is neither A nor B.
        """
        if len(responses) < 2:
            raise UserError(f"a comparison needs two responses or more, not {len(responses)}", "Sample more per prompt")
        principle = self.constitution.draw(f"{seed}:{content_key(prompt)}")
        odds: dict[str, float] = {}
        words: dict[str, str] = {}
        wins = [0.0] * len(responses)
        for i, j in itertools.combinations(range(len(responses)), 2):
            for first, second in ((i, j), (j, i)):
                key = f"{first},{second}"
                odds[key], said = self.judge_pair(prompt, responses[first], responses[second], principle)
                if said:
                    words[key] = said
            mean = (odds[f"{i},{j}"] - odds[f"{j},{i}"]) / 2
            chance = 0.5 * (1 + math.tanh(mean / 2))
            wins[i] += chance
            wins[j] += 1 - chance
        means = [w / (len(responses) - 1) for w in wins]
        share = means[0] if len(responses) == 2 else None
        return Opinion(ranks_with_ties(means, self.tie), None, share, principle.id, words, odds, tuple(means))

    def critique(self, prompt: Content, response: str, seed: int) -> tuple[str, str, Principle]:
        """What is wrong with a response by a principle, and the response rewritten (Bai et al. 2022, section 3).

        Returns:
            The critique, the revision and the principle.

        Raises:
            Nonsense: the revision is empty.
        """
        principle = self.constitution.draw(f"{seed}:critique:{content_key(prompt)}:{response}")
        ask = (
            f"{_shown(prompt)}\n\nResponse:\n{response}\n\nPrinciple: {principle.text}\n\n"
            "Say in a few sentences where this response falls short of the principle, and what would mend it."
        )
        dialogue = (Message("system", SYSTEM), Message("user", ask))
        critique = self.model.ask(dialogue, self.max_tokens).text.strip()
        again = "Now write the response anew so that it follows the principle. Give the new response alone."
        more = (*dialogue, Message("assistant", critique or "-"), Message("user", again))
        return critique, self._written(more), principle

    def heed(self, prompt: Content, response: str, critiques: Sequence[str]) -> str:
        """The response rewritten as people's critiques of it ask (Scheurer et al. 2023).

        Raises:
            Nonsense: the revision is empty.
        """
        said = "\n".join(f"- {critique}" for critique in critiques)
        ask = (
            f"{_shown(prompt)}\n\nResponse:\n{response}\n\nReaders say of it:\n{said}\n\n"
            "Write the response anew so that it heeds them and keeps the rest. Give the new response alone."
        )
        return self._written((Message("system", SYSTEM), Message("user", ask)))

    def _written(self, dialogue: Sequence[Message]) -> str:
        text = self.model.ask(dialogue, self.max_tokens).text.strip()
        if not text:
            raise Nonsense(text)
        return text


SYSTEM = "You judge responses to prompts, carefully and without favour to the order in which they are shown."


def question(prompt: Content, a: str, b: str, principle: Principle, *, reasoning: bool) -> tuple[Message, ...]:
    """The dialogue that asks which of two responses is the better."""
    how = (
        "Think about both in a few sentences. Then end with a line 'Answer: A' or 'Answer: B'."
        if reasoning
        else "Answer with one letter, A or B."
    )
    text = (
        f"{_shown(prompt)}\n\nResponse A:\n{a}\n\nResponse B:\n{b}\n\nPrinciple: {principle.text}\n\n"
        f"Which response follows the principle better? {how}"
    )
    return (Message("system", SYSTEM), Message("user", text))


def spoken(text: str) -> float:
    """Log-odds of A from an answer in words: the last letter A or B that stands alone.

    Raises:
        Nonsense: there is none.
    """
    letters = _LETTER.findall(text)
    if not letters:
        raise Nonsense(text)
    return CERTAIN if letters[-1] == "A" else -CERTAIN


def _shown(prompt: Content) -> str:
    if isinstance(prompt, str):
        return f"Prompt:\n{prompt}"
    turns = "\n".join(f"{m.role}: {m.content}" for m in prompt)
    return f"Dialogue:\n{turns}"
