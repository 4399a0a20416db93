"""What it means to sample: the parameters, the record that crosses the seam, and the protocol every sampler follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

from pydantic import Field

from hearken.config import Options

if TYPE_CHECKING:
    from hearken.models.scorers import TokenScorer


class SamplingParameters(Options):
    """How responses are drawn."""

    max_new_tokens: int = Field(128, ge=1)
    """Longest response in tokens."""
    temperature: float = Field(1.0, ge=0)
    """Divides the logits; 0 takes the most likely token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus: the smallest set of tokens with this probability."""
    top_k: int = Field(0, ge=0)
    """Only the k most likely tokens; 0 for all."""


class SamplingKeywords(TypedDict, total=False):
    """`SamplingParameters` as the keywords of a call."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled response.

    Attributes:
        prompt: index of its prompt in the call.
        tokens: the response's token ids, the end-of-sequence token included where it came.
        logprobs: per token, under softmax(logits / temperature) of all tokens (before top-p and top-k).
        finish_reason: ``stop`` (end-of-sequence) or ``length``.
    """

    prompt: int
    tokens: list[int]
    logprobs: list[float]
    finish_reason: str


class Sampler(Protocol):
    """Draws ``n`` responses to each prompt; sample i of prompt j stands at ``j * n + i``.

    ``seeds`` (one a prompt) fix the draws whatever the batching, so interrupted sampling goes on where it was.
    ``on_done`` is called with the number of responses finished since the last call.
    """

    version: int
    """Of the policy that it samples from: what `update_weights` was told last, 0 before."""

    def update_weights(self, scorer: TokenScorer, version: int) -> None:
        """Sample from the policy as it is now: ``version`` counts the changes of its weights."""
        ...

    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, parameters: SamplingParameters, seeds: Sequence[int],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Sample]: ...  # fmt: skip
