"""Options of PPO."""

from __future__ import annotations

from pydantic import Field

from hearken.training.options import TextOptions, TrainingOptions


class PPOOptions(TrainingOptions, TextOptions):
    """PPO with a KL penalty against a reference policy."""

    lr: float = Field(3e-6, gt=0)
    """Peak learning rate of the policy."""
    value_lr: float = Field(0.0, ge=0)
    """Peak learning rate of the value model; 0 takes the policy's."""
    episodes: int = Field(100_000, ge=1)
    """Responses sampled in the whole run."""
    batch: int = Field(512, ge=1)
    """Responses sampled per iteration."""
    samples: int = Field(1, ge=1)
    """Responses per prompt within a batch; the prompt is computed once for all of them."""
    minibatches: int = Field(1, ge=1)
    """Optimiser steps per pass over a batch."""
    epochs: int = Field(4, ge=1)
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
    """KL coefficient (at the start, where it adapts)."""
    kl_target: float = Field(0.0, ge=0)
    """Adapt beta to this KL in nats per response, summed over its tokens (Ziegler 2019); 0 keeps beta fixed."""
    kl_horizon: float = Field(10_000, gt=0)
    """Episodes over which an adapting beta can change by about a fifth."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    clip: float = Field(0.2, gt=0)
    """Bound of the policy's probability ratio."""
    value_clip: float = Field(0.2, ge=0)
    """Bound of the value's change; 0 for the plain squared error."""
    vf_coef: float = Field(0.1, ge=0)
    """Weight of the value loss."""
    missing_eos: float | None = -1.0
    """Score of a response without end-of-sequence token, instead of the reward model's; none keeps the model's."""
    truncate_at: str = ""
    """Cut responses after the first token that contains this text (Ziegler's truncation token)."""
    whiten_rewards: bool = False
    """Scale the per-token rewards of a batch to unit variance, keeping their mean."""
    whiten_advantages: bool = True
    """Scale the advantages of a batch to mean 0 and variance 1."""
    ptx_coef: float = Field(1.0, ge=0)
    """Weight of the pretraining loss where --ptx is given; both are means per token (InstructGPT's 27.8 is not)."""
    ptx_batch: int = Field(0, ge=0)
    """Pieces of pretraining text per optimiser step; 0 takes as many as responses."""
    save_rollouts: bool = True
    """Keep every sampled response with its figures in run/rollouts.jsonl."""
