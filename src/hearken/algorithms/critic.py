"""What methods with a value model share: opening one, advantages from it, and a KL coefficient that may adapt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hearken.algorithms.estimate import sampled
from hearken.algorithms.ppo_options import CriticOptions
from hearken.algorithms.rollouts import Setup, TokenRollout, roll_out, set_up
from hearken.algorithms.stage import Inputs
from hearken.algorithms.watch import questions, watched
from hearken.domains.text.loading import TextPolicy, adapt, prepare
from hearken.models.loading import check_size, load_reward, new_reward
from hearken.models.scorers import ValueScorer, probe
from hearken.objectives.kl import adapt_kl, k3
from hearken.objectives.policy import explained_variance, gae, token_rewards
from hearken.objectives.reduce import masked_sum, whiten
from hearken.rewards.terms import parse_terms
from hearken.training import distributed
from hearken.training.estimate import Dry
from hearken.training.forward import gather
from hearken.training.run import Run


@dataclass
class CriticSetup(Setup):
    """With a value model: two sets of weights in all where policy and value model are adapters, else four."""

    value: ValueScorer


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


def set_up_critic(inputs: Inputs, options: CriticOptions) -> CriticSetup:
    """Open the four networks and encode the prompts and the pretraining text.

    The value model starts from the (first) reward model; where the reward is a function, from the policy with a fresh
    head. With LoRA the reference is the policy without its adapter, and the value model an adapter on the reward model.
    """
    assert inputs.reward is not None  # `check_inputs`
    learned = next((term.name for term in parse_terms(inputs.reward) if term.kind == "model"), None)
    shared: dict[str, PreTrainedModel] = {}

    def network(policy: TextPolicy, name: str) -> PreTrainedModel:
        """A reward model; the first one's network serves the value model, too, where only adapters are trained."""
        device = policy.scorer.device
        if options.lora and name == learned:
            return shared.setdefault(name, value_network(inputs, options, policy, learned))
        return load_reward(name, device=device).requires_grad_(False)

    setup = set_up(inputs, options, models=network)
    own = shared.get(learned or "")
    net = value_network(inputs, options, setup.policy, learned) if own is None else own
    value = ValueScorer(net, adapter="value" if options.lora else None)
    probe(value, setup.policy.encoder.max_length)
    value.compute_like(setup.scorer)
    if not learned:
        torch.nn.init.zeros_(value.output.weight)  # nothing is known of the reward's scale
    return CriticSetup(**vars(setup), value=value)


def value_network(inputs: Inputs, options: CriticOptions, policy: TextPolicy, learned: str | None) -> PreTrainedModel:
    """The network that the value model starts from, with its adapter, if any."""
    device = policy.scorer.device
    if learned:
        found = load_reward(learned, device=device)
    else:
        found = new_reward(inputs.model, options.seed, eos=options.eos, device=device)[0]
    check_size(policy.tokenizer, found, f"the value model, which starts from {learned or inputs.model},")
    prepare(found, options)
    if options.lora:
        adapt(found, "value", options)
    return found


def collect(setup: CriticSetup, step: int, beta: float, run: Run, options: CriticOptions) -> CriticRollout:
    """Sample, score, and compute what stays fixed during the updates."""
    found = roll_out(setup, step, run, options)
    values = gather(setup.value, found.groups, options.tokens, setup.scorer)
    rewards = token_rewards(found.scores, found.old_logprobs, found.ref_logprobs, found.mask, beta)
    whole = partial(whiten, mask=found.mask, total=distributed.total)
    if options.whiten_rewards:
        rewards = whole(rewards, keep_mean=True)
    advantages, returns = gae(rewards, values, found.mask, options.gamma, options.lam)
    if options.whiten_advantages:
        advantages = whole(advantages)
    return CriticRollout(**vars(found) | {"advantages": advantages}, values=values, rewards=rewards, returns=returns)


def estimator(load: Callable[[Inputs, Any], CriticSetup]) -> Callable[[Dry, Inputs, Any], dict[str, Any]]:
    """``estimate`` of a method that trains a value model, too; ``load`` opens its networks."""

    def estimate(dry: Dry, inputs: Inputs, options: Any) -> dict[str, Any]:
        """For a dry run."""
        setup, callbacks = watched(load, inputs, options)
        trained, frozen = {"policy": setup.scorer, "value": setup.value}, {"reference": setup.reference}
        return sampled(dry, setup, trained, frozen, setup.reward, options) | questions(callbacks)

    return estimate
