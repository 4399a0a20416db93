"""Responses of a saved policy to prompts: what `hearken sample` stores and evaluation reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field

from hearken.domains.best_of import BestOf, Width
from hearken.domains.text.encoder import TextEncoder
from hearken.domains.text.loading import TextPolicy, text_encoder
from hearken.domains.text.rewarding import Known, open_reward, plain
from hearken.feedback.examples import Content, content_key
from hearken.models.guided import with_guidance
from hearken.models.layout import Group
from hearken.models.loading import load_policy, load_tokenizer
from hearken.models.precision import to_read
from hearken.models.scorers import TokenScorer, probe
from hearken.rollout.sampler import SamplingParameters
from hearken.training.options import TextOptions
from hearken.training.precision import device_of, recorded


@dataclass(frozen=True)
class Sampled:
    """One response as it was sampled."""

    prompt: Content
    text: str
    tokens: list[int]
    finish_reason: str
    seed: int
    number: int
    """Which of the prompt's samples it is (0, 1, ...)."""
    tokenizer: str = ""
    """Whose ``tokens`` these are, where it writes ``text`` otherwise: then text alone would not give them back."""


def open_frozen(
    name: str, text: TextOptions | None = None, *, device: str = "auto", reserve: int = 1, precision: str = "auto"
) -> TextPolicy:
    """Load a policy to sample from or to measure, not to train; ``auto`` is the precision that `to_read` names."""
    text = text or TextOptions(long_prompts="truncate")
    tokenizer = load_tokenizer(name, text.eos)
    model = load_policy(name, device=device_of(device))
    encoder: TextEncoder = text_encoder(tokenizer, model, text, reserve)
    scorer = TokenScorer(model, adapter="default").requires_grad_(False)
    probe(scorer, encoder.max_length)
    scorer = with_guidance(scorer, name)
    scorer.compute_in(to_read(model, recorded(name)) if precision == "auto" else precision)
    return TextPolicy(scorer, tokenizer, encoder, base=None)


def prompt_seed(seed: int, prompt: Content) -> int:
    """A prompt's own seed: its draws do not depend on the other prompts."""
    return int(np.random.SeedSequence([seed, int(content_key(prompt)[:12], 16)]).generate_state(1)[0])


def sample(
    policy: TextPolicy, prompts: Sequence[Content], k: int, how: SamplingParameters, seed: int, *, rows: int = 128
) -> Iterator[list[Sampled]]:
    """``k`` responses to each prompt, about ``rows`` at a time, so that finished work can be stored as it comes."""
    sampler = policy.sampler(rows=rows)
    chunk = max(rows // k, 1)
    for start in range(0, len(prompts), chunk):
        part = prompts[start : start + chunk]
        ids = [policy.encoder.prompt(p) or [policy.encoder.eos] for p in part]
        seeds = [prompt_seed(seed, p) for p in part]
        yield [
            as_sampled(policy.encoder, part[s.prompt], s.tokens, seeds[s.prompt], i % k)
            for i, s in enumerate(sampler.sample(ids, k, how, seeds))
        ]


def as_sampled(encoder: TextEncoder, prompt: Content, tokens: list[int], seed: int, number: int) -> Sampled:
    """A response of these token ids (its end among them where it came) as it is stored; see `Sampled`."""
    text = encoder.decode(tokens, prompt)
    reason = "stop" if tokens[-1:] and tokens[-1] in encoder.stop else "length"
    found = Sampled(prompt, text, tokens, reason, seed, number)
    return found if encoder.writes(prompt, text, tokens) else replace(found, tokenizer=encoder.fingerprint)


class _Scoring(TextOptions):
    """How a reward reads what was sampled."""

    tokens: int = 0
    trust_reward: bool = True  # nothing is trained on it here
    pessimism: float = Field(0.0, ge=0)
    width: Width = "linear"
    combine: str = "sum"


def best_of(
    policy: TextPolicy, prompts: Sequence[Content], k: int, choice: BestOf, how: SamplingParameters, seed: int,
    metadata: Sequence[dict[str, Any]] | None = None, *, rows: int = 128,
) -> Iterator[list[Sampled]]:  # fmt: skip
    """As `sample`, but each of the ``k`` responses is the best of several by a reward (Nakano et al. 2021).

    Args:
        policy: who is sampled from.
        prompts: texts or dialogues.
        k: responses to each prompt.
        choice: of how many each is chosen, and by whom.
        how: temperature and the like.
        seed: see `sample`.
        metadata: of the prompts, for rewards in Python.
        rows: how many are decoded at once.

    Raises:
        UserError: the reward cannot be opened, or its confidence not be computed.
    """
    ids = {p: policy.encoder.prompt(p) or [policy.encoder.eos] for p in prompts}
    facts = metadata or [{} for _ in prompts]
    known: Known = {tuple(ids[p]): (plain(p), fact) for p, fact in zip(prompts, facts, strict=True)}
    reading = {"long_prompts": "truncate", "pessimism": choice.pessimism, "width": choice.width}
    scoring = _Scoring.parse(reading, where="best of n")
    score, n = open_reward(choice.reward, policy, known, scoring), choice.n
    for part in sample(policy, prompts, k * n, how, seed, rows=rows):
        every = [part[i : i + k * n] for i in range(0, len(part), k * n)]
        scores = score([Group(ids[some[0].prompt], [s.tokens for s in some]) for some in every])
        chosen = scores.view(-1, n).argmax(1).tolist()
        yield [replace(part[row * n + best], number=row % k) for row, best in enumerate(chosen)]
