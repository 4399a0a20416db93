"""What a policy does on held-out prompts: its responses, their KL to the reference, its language on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from hearken.domains.text.data import demonstrations
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import text_encoder
from hearken.domains.text.sampling import Sampled, open_frozen, sample
from hearken.feedback.examples import Content, Document
from hearken.models.layout import Group
from hearken.models.loading import load_reward, load_tokenizer
from hearken.models.scorers import RewardScorer, TokenScorer, probe
from hearken.objectives.kl import sequence_kl
from hearken.objectives.language import nll, perplexity
from hearken.progress import progress
from hearken.rewards.learned import LearnedReward
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.intervals import Interval, cluster_bootstrap
from hearken.training.forward import gather
from hearken.training.options import TextOptions

TOKENS = 8192


@dataclass(frozen=True)
class Measured:
    """A policy's answers to held-out prompts, in the order of the prompts.

    Attributes:
        texts: the responses.
        kl: log π(y|x) - log π_ref(y|x) of each, in nats; its mean estimates the KL per response.
        lengths: tokens of each.
        finished: whether each ended by itself.
    """

    texts: list[str]
    kl: list[float]
    lengths: list[int]
    finished: list[bool]


def measure(
    name: str, reference: str | None, prompts: Sequence[Content], how: SamplingParameters, seed: int
) -> Measured:
    """Sample one response a prompt from the policy ``name`` and measure its KL to ``reference``."""
    policy = open_frozen(name, reserve=how.max_new_tokens)
    samples: list[Sampled] = []
    with progress(f"Sampling from {name.rstrip('/').rpartition('/')[2]}", len(prompts), "prompt") as bar:
        for part in sample(policy, prompts, 1, how, seed):
            samples += part
            bar.advance(len(part))
    groups = [
        Group(policy.encoder.prompt(prompt) or [policy.encoder.eos], [s.tokens])
        for prompt, s in zip(prompts, samples, strict=True)
    ]
    if reference is None or reference == name:
        kl = [0.0] * len(groups)
    else:
        against = open_frozen(reference, reserve=how.max_new_tokens).scorer
        temperature = how.temperature or 1.0
        kl = _sequence_kl(policy.scorer, against, groups, temperature).tolist()
    return Measured(
        [s.text for s in samples], kl, [len(s.tokens) for s in samples], [s.finish_reason == "stop" for s in samples]
    )


def _sequence_kl(policy: TokenScorer, reference: TokenScorer, groups: Sequence[Group], temperature: float) -> Tensor:
    """(R,) log-ratios of the responses."""

    def logprobs(scorer: TokenScorer) -> Tensor:
        return gather(lambda layout: scorer(layout, temperature=temperature).logprobs, groups, TOKENS, scorer.device)

    mine = logprobs(policy)
    mask = torch.arange(mine.shape[1])[None] < torch.tensor([len(g.responses[0]) for g in groups])[:, None]
    return sequence_kl(mine, logprobs(reference), mask.to(mine.device))


def text_perplexity(name: str, documents: Sequence[str]) -> float:
    """Perplexity per token of plain text."""
    policy = open_frozen(name)
    groups = demonstrations([Document(text) for text in documents], policy.encoder)

    def answer(layout: object) -> Tensor:
        return nll(policy.scorer(layout).logprobs, layout.trained)  # type: ignore[attr-defined]

    total = gather(answer, groups, TOKENS, policy.scorer.device).sum().item()
    return perplexity(total, sum(len(r) for g in groups for r in g.responses))


class Judge:
    """A trained reward model that scores texts."""

    def __init__(self, name: str) -> None:
        network = load_reward(name)
        self.scorer = RewardScorer(network).requires_grad_(False)
        self.encoder: TextEncoder = text_encoder(load_tokenizer(name), network, TextOptions(long_prompts="truncate"))
        probe(self.scorer, self.encoder.max_length)

    def __call__(
        self,
        prompts: Sequence[Content],
        responses: Sequence[Sequence[str]],
        finished: Sequence[Sequence[bool]] | None = None,
    ) -> list[list[float]]:
        """Scores of the responses to each prompt."""
        groups = []
        for i, (prompt, texts) in enumerate(zip(prompts, responses, strict=True)):
            ids = self.encoder.prompt(prompt) or [self.encoder.eos]
            ends = finished[i] if finished else [True] * len(texts)
            room = self.encoder.max_length - len(ids)
            groups.append(
                Group(
                    ids, [self.encoder.response(prompt, t, room, finished=e) for t, e in zip(texts, ends, strict=True)]
                )
            )
        flat = LearnedReward(self.scorer, TOKENS)(groups).tolist()
        cuts = np.cumsum([0, *(len(texts) for texts in responses)])
        return [flat[a:b] for a, b in pairwise(cuts)]


def mean(values: Sequence[float], prompts: Sequence[Content]) -> Interval:
    """Mean with a 95 % interval by bootstrap over prompts."""
    return cluster_bootstrap(np.asarray(values, float), np.array([repr(p) for p in prompts]))
