"""The value model beside a policy: what it starts from, and the networks that it shares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hearken.algorithms.ppo_options import CriticOptions
from hearken.algorithms.sampled import Setup, set_up
from hearken.algorithms.stage import Inputs
from hearken.domains.text.loading import TextPolicy, adapt, prepare
from hearken.models.loading import check_size, load_reward, load_tokenizer, new_reward, other_tokens
from hearken.models.scorers import ValueScorer, probe
from hearken.rewards.terms import parse_terms


@dataclass
class CriticSetup(Setup):
    """With a value model: two sets of weights in all where policy and value model are adapters, else four."""

    value: ValueScorer


def set_up_critic(inputs: Inputs, options: CriticOptions) -> CriticSetup:
    """Open the four networks and encode the prompts and the pretraining text.

    The value model starts from the (first) reward model with the policy's tokenizer; where there is none, from the
    policy with a fresh head. With LoRA the reference is the policy without its adapter, and the value model an adapter
    on the reward model.
    """
    assert inputs.reward is not None  # `check_inputs`
    tokenizer = load_tokenizer(inputs.model, options.eos)
    models = (term.name for term in parse_terms(inputs.reward) if term.kind == "model")
    learned = next((name for name in models if not other_tokens(tokenizer, name)), None)
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
