"""Options of every stage that samples from the policy it trains."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hearken.algorithms.trust_options import TrustOptions
from hearken.training.options import TextOptions, TrainingOptions


class RolloutOptions(TrainingOptions, TextOptions, TrustOptions):
    """Sampling, batches of responses, and the KL penalty."""

    reported: ClassVar[tuple[str, ...]] = ("beta", "num_generations", "temperature")

    episodes: int = Field(100_000, ge=1)
    """Responses sampled in the whole run."""
    batch_size: int = Field(512, ge=1)
    """Responses sampled per iteration."""
    num_generations: int = Field(1, ge=1)
    """Responses per prompt within a batch; the prompt is computed once for all of them."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass over a batch."""
    epochs: int = Field(1, ge=1)
    """Passes over each batch."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest response in tokens."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling; the log-probabilities of policy, old policy and reference are taken at the same one."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling. Below 1 the measured KL is not that of the sampled policy: you are warned."""
    top_k: int = Field(0, ge=0)
    """Top-k sampling; the same holds."""
    beta: float = Field(0.05, ge=0)
    """KL coefficient."""
    missing_eos: float | None = -1.0
    """Score of a response without end-of-sequence token, instead of the reward's; none keeps the reward's."""
    truncate_at: str = ""
    """Cut responses after the first token that contains this text (Ziegler's truncation token)."""
    save_rollouts: bool = True
    """Keep every sampled response with its figures in run/rollouts.jsonl."""

    @property
    def iterations(self) -> int:
        """Batches of responses in the whole run."""
        return max(self.episodes // self.batch_size, 1)

    @property
    def updates(self) -> int:
        """Optimiser steps on each of them."""
        return self.epochs * self.minibatches
