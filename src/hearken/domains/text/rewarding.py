"""Rewards for text: what ``--reward`` names, opened as scorers of the policy's own tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from hearken.domains.text.loading import TextPolicy, text_encoder
from hearken.errors import UserError
from hearken.feedback.examples import Content, Document, Example
from hearken.models.layout import Group
from hearken.models.loading import load_reward, load_tokenizer
from hearken.models.scorers import RewardScorer, probe
from hearken.rewards.functions import FunctionReward, Prompt, load_function
from hearken.rewards.learned import LearnedReward, Reward
from hearken.rewards.terms import parse_terms
from hearken.training.options import TextOptions

Known = Mapping[tuple[int, ...], tuple[Prompt, dict[str, Any]]]


class WeightedSum:
    """Several rewards added up with weights."""

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = parts

    def __call__(self, groups: Sequence[Group]) -> Tensor:
        """(R,) scores of all responses of all groups, in order."""
        first, *others = (weight * reward(groups) for reward, weight in self.parts)
        return sum((x.to(first.device) for x in others), first)


def prompt_facts(rows: Sequence[Example], contents: Sequence[Content], ids: Sequence[list[int]]) -> Known:
    """What a reward function is told of each prompt, by its token ids.

    Raises:
        UserError: two prompts have the same tokens (their beginnings were cut off) but different metadata.
    """
    metadata: dict[Content, dict[str, Any]] = {}
    for row in rows:
        if not isinstance(row, Document):
            metadata.setdefault(row.prompt, row.metadata)
    known: dict[tuple[int, ...], tuple[Prompt, dict[str, Any]]] = {}
    for content, tokens in zip(contents, ids, strict=True):
        facts = metadata[content]
        if known.setdefault(tuple(tokens), (plain(content), facts))[1] != facts:
            raise UserError(
                "two prompts are the same once cut to max_length, but their metadata differ", "Raise max_length"
            )
    return known


def plain(content: Content) -> Prompt:
    """A prompt as reward functions see it: a text, or a list of messages."""
    return content if isinstance(content, str) else [asdict(message) for message in content]


def open_reward(
    text: str, policy: TextPolicy, known: Known, options: Any,
    models: Callable[[str], PreTrainedModel] | None = None,
) -> Reward:  # fmt: skip
    """The reward that ``text`` names (see `rewards.terms.parse_terms`).

    Args:
        text: as given to ``--reward``.
        policy: whose tokens are scored.
        known: see `prompt_facts`.
        options: ``tokens`` of a microbatch, and `TextOptions`.
        models: loads a reward model by name; a stage that shares one (PPO's value model) passes its own.
    """
    device = policy.scorer.device
    parts: list[tuple[Reward, float]] = []
    for term in parse_terms(text):
        if term.kind == "function":
            reward: Reward = FunctionReward(load_function(term.name), term.name, policy.encoder.decode, known)
        else:
            network = models(term.name) if models else load_reward(term.name, device=device).requires_grad_(False)
            scorer = RewardScorer(network)
            if term.attributes:
                scorer.weigh(dict(term.attributes))
            probe(scorer, policy.encoder.max_length)
            reward = translated(LearnedReward(scorer, options.tokens), term.name, policy, options)
        parts.append((reward, term.weight))
    if len(parts) == 1 and parts[0][1] == 1.0:
        return _on(device, parts[0][0])
    return _on(device, WeightedSum(parts))


def _on(device: Any, reward: Reward) -> Reward:
    """Scores on the policy's device; a learned reward is there already and stays itself."""
    if isinstance(reward, LearnedReward):
        return reward
    return lambda groups: reward(groups).to(device)


def translated(reward: LearnedReward, name: str, policy: TextPolicy, options: TextOptions) -> Reward:
    """The reward itself where it reads the policy's tokens; else through text, by its own tokenizer."""
    tokenizer = load_tokenizer(name)
    mine, its = policy.tokenizer.get_vocab(), tokenizer.get_vocab()
    if all(its.get(token) == i for token, i in mine.items()):
        return reward
    encoder = text_encoder(tokenizer, reward.scorer.model, options)

    def score(groups: Sequence[Group]) -> Tensor:
        again = []
        for g in groups:
            prompt = str(policy.tokenizer.decode(list(g.prompt)))
            ids = encoder.prompt(prompt) or [encoder.eos]
            room = encoder.max_length - len(ids)
            texts = [(policy.encoder.decode(r), r[-1] in policy.encoder.stop) for r in g.responses]
            again.append(Group(ids, [encoder.response(prompt, text, room, finished=end) for text, end in texts]))
        return reward(again)

    return score
