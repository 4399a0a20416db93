"""What methods with a value model share: advantages from it, and a KL coefficient that may adapt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hearken.algorithms.ppo_options import CriticOptions
from hearken.algorithms.rollouts import TokenRollout, roll_out
from hearken.algorithms.value_model import CriticSetup
from hearken.objectives.kl import adapt_kl, k3
from hearken.objectives.policy import explained_variance, gae, token_rewards, value_clip
from hearken.objectives.reduce import masked_sum, whiten
from hearken.training import distributed
from hearken.training.forward import gather
from hearken.training.optimiser import Optimiser
from hearken.training.run import Run


@dataclass
class CriticRollout(TokenRollout):
    """With everything that the updates need.

    Attributes:
        values: (R, T), V before each token, like the others.
        rewards: KL penalty on every token, the score on the last.
        returns: by GAE, as the advantages.
    """

    values: Tensor
    rewards: Tensor
    returns: Tensor

    def figures(self) -> dict[str, float]:
        """With the mean reward of a response, its KL by k3, and how much of the returns the value model foretold."""
        shares = {
            "reward": masked_sum(self.rewards, self.mask).item(),
            "kl_k3": masked_sum(k3(self.old_logprobs, self.ref_logprobs), self.mask).item(),
        }
        count = distributed.total(len(self.samples))
        return {
            **super().figures(),
            **{name: share / count for name, share in distributed.totals(shares).items()},
            "explained_variance": explained_variance(self.values, self.returns, self.mask).item(),
        }


@dataclass
class KLControl:
    """β, fixed or adapted; part of the checkpoint."""

    beta: float

    def adapt(self, rollout: TokenRollout, options: CriticOptions) -> None:
        """Move β towards the KL target, where there is one."""
        if options.kl_target:
            episodes = distributed.total(len(rollout.samples))
            self.beta = adapt_kl(self.beta, rollout.kl(), options.kl_target, episodes, options.kl_horizon)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.beta = state["beta"]


def collect(setup: CriticSetup, step: int, beta: float, run: Run, options: CriticOptions) -> CriticRollout:
    """Sample, score, and compute what stays fixed during the updates."""
    found = roll_out(setup, step, run, options)
    rewards = token_rewards(found.scores, found.old_logprobs, found.ref_logprobs, found.mask, beta)
    if step == 0 and options.value_warmup:
        warm_up(setup, found, rewards, run, options)
    values = gather(setup.value, found.groups, options.tokens, setup.scorer)
    whole = partial(whiten, mask=found.mask, total=distributed.total)
    if options.whiten_rewards:
        rewards = whole(rewards, keep_mean=True)
    advantages, returns = gae(rewards, values, found.mask, options.gamma, options.lam)
    if options.whiten_advantages:
        advantages = whole(advantages)
    return CriticRollout(**vars(found) | {"advantages": advantages}, values=values, rewards=rewards, returns=returns)


def warm_up(setup: CriticSetup, rollout: TokenRollout, rewards: Tensor, run: Run, options: CriticOptions) -> None:
    """Fit the value model alone to the first batch's returns, before any advantage is taken from it.

    It starts as a reward model, whose outputs before the last token say nothing of what is to come. The returns are
    those of λ = 1, which no value bends; nothing bounds the values' change.
    """
    zeros = torch.zeros_like(rewards)
    _, returns = gae(rewards, zeros, rollout.mask, options.gamma, 1.0)
    whole = CriticRollout(**vars(rollout) | {"advantages": zeros}, values=zeros, rewards=rewards, returns=returns)
    alone = options.model_copy(update={"epochs": options.value_warmup})
    critic = Optimiser([setup.value], options, alone.updates, options.value_scale)
    for update, batch in enumerate(whole.minibatches(0, alone)):
        for layout, part in batch.microbatches(run, setup.scorer):
            values = value_clip(setup.value(layout), part.values, part.returns, None)
            run.backward(masked_sum(values.loss, part.mask) / batch.tokens)
        critic.step(update)


def fit_values(
    setup: CriticSetup, critic: Optimiser, rollout: CriticRollout, updates: range, run: Run, options: CriticOptions
) -> dict[str, float]:
    """Steps of the value model alone towards the returns, ``updates`` of its run; the last one's figures."""
    tokens = rollout.tokens
    loss = norm = 0.0
    for update in updates:
        loss = 0.0
        for layout, part in rollout.microbatches(run, setup.scorer):
            values = value_clip(setup.value(layout), part.values, part.returns, options.value_clip or None)
            share = masked_sum(values.loss, part.mask) / tokens
            run.backward(share)
            loss += share.item()
        norm = critic.step(update)["grad_norm"]
    return {"value_loss": distributed.total(loss), "value_grad_norm": norm}
