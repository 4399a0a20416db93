"""What a policy does on held-out prompts: its responses, their KL to the reference, its language on held-out text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearken.domains.best_of import asked_of
from hearken.domains.text.data import demonstrations
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import text_encoder
from hearken.domains.text.rewarding import plain
from hearken.domains.text.sampling import Sampled, best_of, open_frozen, sample
from hearken.errors import UserError
from hearken.feedback.examples import Content, Document, Said
from hearken.models.layout import Group, Layout
from hearken.models.loading import load_reward, load_tokenizer
from hearken.models.precision import to_read
from hearken.models.scorers import RewardScorer, TokenScorer, probe
from hearken.objectives.kl import sequence_kl
from hearken.objectives.language import nll, perplexity
from hearken.progress import progress
from hearken.rewards.learned import LearnedReward
from hearken.rewards.terms import RewardFunction, load_function, parse_terms
from hearken.rollout.sampler import SamplingParameters
from hearken.statistics.bestofn import best_of_n_kl
from hearken.training.forward import gather
from hearken.training.options import TextOptions
from hearken.training.precision import recorded

TOKENS = 8192


@dataclass(frozen=True)
class Measured:
    """A policy's answers to held-out prompts, in the order of the prompts.

    Attributes:
        texts: the responses.
        kl: log π(y|x) - log π_ref(y|x) of each, in nats; its mean estimates the KL per response.
        lengths: tokens of each.
        finished: whether each ended by itself.
        entropy: of each, the sum over its tokens of the entropy, in nats, of the distribution that the token was drawn
            from; of the best of n, that of the policy it was chosen from.
    """

    texts: list[str]
    kl: list[float]
    lengths: list[int]
    finished: list[bool]
    entropy: list[float]


def measure(
    name: str, reference: str | None, prompts: Sequence[Content], how: SamplingParameters, seed: int, *,
    by: str | None = None, metadata: Mapping[Content, dict[str, Any]] | None = None,
) -> Measured:  # fmt: skip
    """Sample one response a prompt from the policy ``name`` and measure its KL to ``reference``.

    Where the name asks for the best of n (`asked_of`), it is that by the reward model ``by``; its log-ratio is then
    that of the policy itself plus log n - (n-1)/n, the mean log-ratio of best-of-n to the policy (an upper bound where
    scores repeat).

    Raises:
        UserError: best of several, and nobody to choose.
    """
    asked = asked_of(name)
    source, many, choice = asked.source, asked.many, asked.by(by)
    facts = [(metadata or {}).get(prompt, {}) for prompt in prompts]
    policy = open_frozen(source, reserve=how.max_new_tokens)
    samples: list[Sampled] = []
    with progress(f"Sampling from {source.rstrip('/').rpartition('/')[2]}", len(prompts), "prompt") as bar:
        parts = (
            sample(policy, prompts, 1, how, seed)
            if choice is None
            else best_of(policy, prompts, 1, choice, how, seed, facts)
        )
        for part in parts:
            samples += part
            bar.advance(len(part))
    groups = [
        Group(policy.encoder.prompt(prompt) or [policy.encoder.eos], [s.tokens])
        for prompt, s in zip(prompts, samples, strict=True)
    ]
    temperature = how.temperature or 1.0
    mine, spread = _logprobs(policy.scorer, groups, temperature)
    if reference is None or reference == source:
        kl = [0.0] * len(groups)
    else:
        against = open_frozen(reference, reserve=how.max_new_tokens).scorer
        mask = torch.arange(mine.shape[1])[None] < torch.tensor([len(g.responses[0]) for g in groups])[:, None]
        theirs, _ = _logprobs(against, groups, temperature)
        kl = sequence_kl(mine, theirs, mask.to(mine.device)).tolist()
    chosen = best_of_n_kl(many)
    return Measured(
        [s.text for s in samples], [x + chosen for x in kl], [len(s.tokens) for s in samples],
        [_ended(s) for s in samples], spread.sum(1).tolist(),
    )  # fmt: skip


def _ended(sample: Sampled) -> bool:
    return sample.finish_reason == "stop"


def _logprobs(scorer: TokenScorer, groups: Sequence[Group], temperature: float) -> tuple[Tensor, Tensor]:
    """(R, T) log-probabilities of the responses' tokens, and the entropies of the distributions they come from."""

    def answer(layout: Layout) -> Tensor:
        found = scorer(layout, temperature=temperature, entropy=True)
        return torch.stack([found.logprobs, found.entropy], -1)

    logprobs, entropy = gather(answer, groups, TOKENS, scorer, "Log-probabilities").unbind(-1)
    return logprobs, entropy


def text_perplexity(name: str, documents: Sequence[str]) -> float:
    """Perplexity per token of plain text."""
    total, tokens = text_nll(name, documents)
    return perplexity(total, tokens)


def text_nll(name: str, documents: Sequence[str]) -> tuple[float, int]:
    """Negative log-likelihood of plain text in nats, and its tokens (each text's end included)."""
    policy = open_frozen(name)
    groups = demonstrations([Document(text) for text in documents], policy.encoder)

    def answer(layout: object) -> Tensor:
        return nll(policy.scorer(layout).logprobs, layout.trained)  # type: ignore[attr-defined]

    total = gather(answer, groups, TOKENS, policy.scorer, "Perplexity").sum().item()
    return total, sum(len(r) for g in groups for r in g.responses)


class Judge:
    """A trained reward model that scores texts."""

    def __init__(self, name: str) -> None:
        network = load_reward(name)
        self.scorer = RewardScorer(network).requires_grad_(False)
        self.encoder: TextEncoder = text_encoder(load_tokenizer(name), network, TextOptions(long_prompts="truncate"))
        probe(self.scorer, self.encoder.max_length)
        self.scorer.compute_in(to_read(network, recorded(name)))

    def __call__(
        self,
        prompts: Sequence[Content],
        responses: Sequence[Sequence[Said]],
        finished: Sequence[Sequence[bool]] | None = None,
    ) -> list[list[float]]:
        """Scores of the responses to each prompt; what several rows ask for is computed once."""
        ends = finished or [[True] * len(texts) for texts in responses]
        rows = [(p, tuple(t), tuple(e)) for p, t, e in zip(prompts, responses, ends, strict=True)]
        once = {row: at for at, row in enumerate(dict.fromkeys(rows))}
        some, texts, ended = zip(*once, strict=True) if once else ((), (), ())
        flat = (
            LearnedReward(self.scorer, TOKENS, "Reward model")(self.groups(some, texts, ended)).tolist() if once else []
        )
        found = in_rows(flat, texts)
        return [list(found[once[row]]) for row in rows]

    def groups(
        self,
        prompts: Sequence[Content],
        responses: Sequence[Sequence[Said]],
        finished: Sequence[Sequence[bool]] | None = None,
    ) -> list[Group]:
        """The texts as the model reads them; all ended by themselves where ``finished`` does not say."""
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
        return groups


class ByReward:
    """What ``--reward`` names as a judge of texts: reward models, rules and functions, alone or added up.

    Args:
        reward: see `rewards.terms.parse_terms`.
        metadata: of prompts, for rules and functions.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, reward: str, metadata: Mapping[Content, dict[str, Any]]) -> None:
        self.name, self.metadata = reward, metadata
        self.parts: list[tuple[Judge | RewardFunction, float]] = []
        for term in parse_terms(reward):
            if term.kind == "function":
                self.parts.append((load_function(term.name), term.weight))
                continue
            judge = Judge(term.name)
            if term.attributes:
                judge.scorer.weigh(dict(term.attributes))
            self.parts.append((judge, term.weight))

    def __call__(
        self, prompts: Sequence[Content], responses: Sequence[Sequence[str]],
        finished: Sequence[Sequence[bool]] | None = None,
    ) -> list[list[float]]:  # fmt: skip
        """Scores of the responses to each prompt."""
        total = np.zeros(sum(map(len, responses)))
        for judge, weight in self.parts:
            if isinstance(judge, Judge):
                found = [x for row in judge(prompts, responses, finished) for x in row]
            else:
                asked = [p for p, texts in zip(prompts, responses, strict=True) for _ in texts]
                facts = [self.metadata.get(p, {}) for p in asked]
                found = list(judge([plain(p) for p in asked], [t for texts in responses for t in texts], facts))
                if len(found) != len(asked) or not np.isfinite(np.asarray(found, float)).all():
                    what = f"--reward {self.name} did not give a finite number for each response"
                    raise UserError(what, "Mend the function")
            total += weight * np.asarray(found, float)
        return in_rows(total.tolist(), responses)


def in_rows(flat: Sequence[float], responses: Sequence[Sequence[str]]) -> list[list[float]]:
    """Scores of all responses in a row, cut by prompts."""
    cuts = np.cumsum([0, *(len(texts) for texts in responses)])
    return [list(flat[a:b]) for a, b in pairwise(cuts)]
