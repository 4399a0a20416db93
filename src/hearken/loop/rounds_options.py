"""The section ``loop`` of hearken.yaml: how rounds follow each other. Torch-free."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from hearken.config import Options
from hearken.labelers.kinds import JudgeName, Who

Selection = Literal["uniform", "disagreement", "disputed", "low-score"]
Source = Literal["newest", "earlier", "reference"]


class AIOptions(Options):
    """The AI labeler, where one judges."""

    judge: str = ""
    """A folder or Hub name, or the server's name of its model."""
    url: str = ""
    """Base URL of an OpenAI-compatible server; empty takes OPENAI_BASE_URL, or loads the judge here."""
    constitution: str = "general"
    """The principles: general, stories, summaries, or a file."""
    reasoning: bool = False
    """Let it think in words first, and keep them."""
    workers: int = Field(4, ge=1)
    """Requests at once."""
    per_minute: float = Field(0.0, ge=0)
    """Most requests a minute; 0 for no limit."""
    price_in: float = Field(0.0, ge=0)
    """Price of a million tokens read, for what the report says it cost."""
    price_out: float = Field(0.0, ge=0)
    """Price of a million tokens written."""


class OnlineOptions(Options):
    """Labels that keep arriving while the policy trains (Christiano et al. 2017; Ziegler et al. 2019)."""

    labels: int = Field(0, ge=0)
    """Comparisons asked for while the policy of a round trains; 0 trains it on a reward model that stays."""
    refit_every: int = Field(100, ge=1)
    """Refit the reward model after so many new ones. The KL reference stays."""
    ahead: int = Field(0, ge=0)
    """Training waits for labels when it is further ahead of them than this; 0 means refit_every."""


class WatchOptions(Options):
    """Somebody who is not optimised compares a policy with its reference while it trains (ppo, a2c)."""

    judge: str = ""
    """gold, people, ai, simulated, a reward model of other labels, or module:function; empty for nobody."""
    every: int = Field(5, ge=1)
    """Iterations between two looks."""
    prompts: int = Field(32, ge=1)
    """Held-out prompts compared at each look. Training waits for people to do so."""


class LoopOptions(Options):
    """Rounds of sampling, judging, reward modelling, improving and evaluating."""

    rounds: int = Field(3, ge=1)
    """How many, where ``--rounds`` does not say."""
    prompts: int = Field(0, ge=0)
    """Training prompts whose responses are judged in each round; 0 for all."""
    held_out: int = Field(50, ge=1)
    """Held-out prompts whose responses are judged in each round: the same ones, drawn uniformly."""
    labelers: dict[Who, float] = {"people": 1.0}
    """Who judges: people, ai, simulated; several with their shares, such as {ai: 0.8, people: 0.2}."""
    enough: float = Field(1.0, gt=0, le=1)
    """Go on when people have given this share of the judgments asked of them; the rest is closed."""
    poll_seconds: float = Field(5.0, gt=0)
    """How often to look for new judgments of people."""
    ai: AIOptions = AIOptions()
    """The AI labeler."""

    mix: dict[Source, float] = {"newest": 1.0}
    """Whose responses are judged, by shares: the newest policy's, the one's before it (earlier), the first one's
    (reference). Held-out ones are the newest's."""
    select: Selection = "uniform"
    """From round 2, prompts where reward models disagree, labelers disagreed before, or responses score low."""
    uniform: float = Field(0.2, ge=0.2, le=1)
    """Share of them that is drawn uniformly all the same, and tagged so, for figures that selection does not bend."""
    candidates: float = Field(2.0, ge=1)
    """Prompts answered for each that is judged, where responses decide (disagreement, low-score)."""

    ensemble: int = Field(1, ge=1, le=16)
    """Reward models fitted in each round, by different seeds; the first one is optimised."""
    reward_start: Literal["sft", "last"] = "sft"
    """Fit each round's reward model from the first policy, or go on from the last round's."""
    reward_data: Literal["all", "round"] = "all"
    """On the judgments of all rounds so far, or of the newest alone."""
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of a judgment for each round that has passed since: .5 halves it every round."""
    references: list[str] = []
    """Files of responses whose mean score is set to 0; empty for demonstrations in the database, where there are."""

    improve: str = "ppo"
    """The stage that improves the policy, such as ppo, rloo, grpo, dpo, rft."""
    policy_start: Literal["sft", "last"] = "sft"
    """Start each round's policy from the first one, or go on from the last round's."""
    reference: Literal["sft", "last"] = "sft"
    """The KL penalty's reference: the first policy, or the last round's."""
    data: list[str] = []
    """Files of prompts to improve on; empty for the training prompts of the database."""
    ptx: list[str] = []
    """Files of text for the pretraining term, where the stage has one."""
    online: OnlineOptions = OnlineOptions()
    """Labels that arrive while the policy trains."""

    trust_reward: bool = False
    """Improve by a reward model whose card fails; else the loop stops there, for you to decide."""
    pessimism: float = Field(0.0, ge=0)
    """Take off this many widths of the reward model's confidence from each score; 0 believes it."""
    width: Literal["linear", "heads", "models"] = "linear"
    """The width: of linear theory, of 5 bootstrapped heads, or the spread of the ensemble's models."""
    watch: WatchOptions = WatchOptions()
    """Who watches a policy while it trains; the one that won most is what the round leaves."""
    early_stop: Literal["", "overoptimization"] = ""
    """overoptimization: end a round's training once the watcher's win rate falls while the reward rises."""

    evaluate: int = Field(200, ge=1)
    """Held-out prompts on which policies are compared after each round."""
    judge: JudgeName = "auto"
    """Who compares them: gold where the world knows it, else the reward model; or people, ai, simulated."""
    perplexity: list[str] = []
    """Files of held-out text on which each policy's perplexity is measured."""
    tasks: list[str] = []
    """Task files (YAML, as lm-eval's) that each policy is tried on."""

    @field_validator("labelers", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        """``people`` or ``[ai, people]`` mean equal shares."""
        if isinstance(value, str):
            return {value: 1.0}
        if isinstance(value, list):
            return {one: 1.0 for one in value}
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.labelers or min(self.labelers.values()) <= 0:
            raise ValueError("labelers: somebody has to judge; leave out who has no share")
        if "ai" in (*self.labelers, self.judge, self.watch.judge) and not self.ai.judge:
            raise ValueError("labelers: ai needs a model: set loop.ai.judge")
        if not self.mix or min(self.mix.values()) <= 0:
            raise ValueError("mix: some policy has to answer; leave out what has no share")
        if self.select == "disagreement" and self.ensemble < 2:
            raise ValueError("select: disagreement needs an ensemble of 2 or more")
        if self.pessimism and self.width == "models" and self.ensemble < 2:
            raise ValueError("width: models needs an ensemble of 2 or more")
        if self.pessimism and self.width == "models" and self.online.labels:
            raise ValueError("width: models needs models that stay, and online.labels refits one: take linear or heads")
        if self.early_stop and not self.watch.judge:
            raise ValueError("early_stop: overoptimization needs somebody to ask: set loop.watch.judge")
        return self
