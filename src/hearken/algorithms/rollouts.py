"""What every stage that samples from its own policy does alike: sample, score, and compute what stays fixed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.doubts import of_sampled, say
from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader, Rows, nothing_fits, prompts
from hearken.domains.text.loading import TextPolicy, open_policy
from hearken.errors import UserError
from hearken.feedback.examples import Content, Example
from hearken.models.layout import Group, Layout
from hearken.models.scorers import TokenScorer
from hearken.objectives.kl import sequence_kl
from hearken.objectives.reduce import masked_mean
from hearken.rewards.learned import Reward
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import Sample, Sampler, SamplingParameters
from hearken.training.batching import Order
from hearken.training.forward import gather
from hearken.training.optimiser import NonFiniteGradient, Optimiser
from hearken.training.run import Run

ROLLOUTS = "rollouts.jsonl"
GROUPED = ("rloo", "grpo", "dr_grpo")
"""Estimators that compare the responses to one prompt."""


class Opened(NamedTuple):
    """A policy with the prompts that it is to answer."""

    policy: TextPolicy
    reader: Reader
    rows: Rows
    contents: list[Content]
    ids: list[list[int]]
    """Tokens of ``contents``."""
    ptx: list[Example]
    """Text for the pretraining term."""
    doubts: dict[str, str]
    """See `doubts.say`."""

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the data."""
        more = self.doubts | {"prompts": len(self.ids), "skipped": self.reader.skipped}
        return self.rows.facts | more | {"truncation": self.policy.encoder.tell()}


@dataclass
class Batch:
    """Sampled responses with what stays fixed while they are learnt from; (R, T) tensors are padded with zeros.

    Attributes:
        groups: prompts with their sampled responses.
        samples: as the sampler returned them.
        scores: (R,) of the reward.
        mask, old_logprobs, ref_logprobs: (R, T).
        entropy: (R, T) of the distribution that each token was drawn from, in nats; where the sampler is trusted, minus
            the token's log-probability, which is the same in the mean.
        gap: mean |sampler's log-probability - the training path's| per token; None where the latter was not computed.
    """

    groups: list[Group]
    samples: list[Sample]
    scores: Tensor
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    gap: float | None

    def kls(self) -> Tensor:
        """(R,) KL to the reference in nats, of each sample."""
        return sequence_kl(self.old_logprobs, self.ref_logprobs, self.mask)

    def kl(self) -> float:
        """KL to the reference in nats per response, estimated from these samples."""
        return self.kls().mean().item()


@dataclass(frozen=True)
class Loop:
    """What goes round in a method without a critic: how often, over which prompts, and by what."""

    iterations: int
    updates: int
    """Optimiser steps on each iteration's batch."""
    order: Order
    optimiser: Optimiser
    run: Run
    sampler: NativeSampler


def open_prompts(inputs: Inputs, options: RolloutOptions) -> Opened:
    """Open the policy and encode the prompts, with room for the responses.

    Raises:
        UserError: a minibatch would cut a prompt's responses apart; no prompt fits.
    """
    check_batches(options)
    reader = Reader(options)  # what is wrong with a file shows before a model is loaded
    rows, ptx = reader.rows(inputs.data, inputs.validation, 0.0, options.seed), reader.read(inputs.ptx, "auto")
    policy = open_policy(inputs.model, options, options, reserve=options.max_new_tokens)
    contents, ids = prompts(rows.train, policy.encoder)
    if not ids:
        raise nothing_fits(inputs.data)
    doubts = say(of_sampled(options, ids, ptx=bool(inputs.ptx)))
    return Opened(policy, reader, rows, contents, ids, ptx, doubts)


def set_up(policy: TextPolicy, ids: Sequence[list[int]], options: RolloutOptions, out: Path, *, label: str) -> Loop:
    """The loop of a method that samples responses to the prompts ``ids`` and trains the policy alone."""
    iterations, updates = max(options.episodes // options.batch, 1), options.epochs * options.minibatches
    optimiser = Optimiser([policy.scorer], options, iterations * updates)
    run = Run(out, options, {"policy": optimiser}, label=label, records=[ROLLOUTS])
    run.choose_precision(policy.scorer, beginnings(ids))
    order = Order(len(ids), options.batch // options.samples, options.seed)
    return Loop(iterations, updates, order, optimiser, run, NativeSampler(policy.scorer, policy.stop))


def check_batches(options: RolloutOptions) -> None:
    """Refuse batches that cannot be cut evenly, and warn where the measured KL will be wrong.

    Raises:
        UserError: a minibatch would cut a prompt's responses apart.
    """
    if options.top_p < 1 or options.top_k:
        warnings.warn("top_p and top_k make the measured KL wrong: it is not that of the sampled policy", stacklevel=3)
    whole = options.samples * options.minibatches
    if options.batch % whole:
        raise UserError(
            f"batch {options.batch} is not a multiple of samples x minibatches ({whole})",
            "Choose batch so that every minibatch holds whole prompts",
        )


def draw(
    policy: TextPolicy, sampler: Sampler, chosen: Sequence[list[int]], step: int, run: Run, options: RolloutOptions
) -> tuple[list[Group], list[Sample]]:
    """``options.samples`` responses to each of the chosen prompts."""
    how = SamplingParameters(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p, top_k=options.top_k
    )
    seeds = np.random.SeedSequence([options.seed, step]).generate_state(len(chosen)).tolist()
    samples = sampler.sample(chosen, options.samples, how, seeds)
    if options.truncate_at:
        samples = [truncate(s, policy, options.truncate_at) for s in samples]
    n = options.samples
    return [Group(p, [s.tokens for s in samples[i * n : (i + 1) * n]]) for i, p in enumerate(chosen)], samples


def rate(reward: Reward, groups: Sequence[Group], samples: Sequence[Sample], options: RolloutOptions) -> Tensor:
    """(R,) scores of the responses; one that was cut gets ``missing_eos``.

    Raises:
        NonFiniteGradient: a score is NaN or infinite.
    """
    scores = reward(groups)
    if not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores)).sum())
        raise NonFiniteGradient(f"the reward model scored {bad} responses as NaN or infinite")
    if options.missing_eos is None:
        return scores
    cut = torch.tensor([s.finish_reason == "length" for s in samples], device=scores.device)
    return scores.masked_fill(cut, options.missing_eos)


def roll_out(
    policy: TextPolicy, reference: TokenScorer, reward: Reward, sampler: Sampler, chosen: Sequence[list[int]],
    step: int, run: Run, options: RolloutOptions, *, trust_sampler: bool = False,
) -> Batch:  # fmt: skip
    """Sample, score, and compute the log-probabilities under the policy that sampled and under the reference.

    With ``trust_sampler`` the first are those that the sampler found on its way: one forward pass less.
    """
    groups, samples = draw(policy, sampler, chosen, step, run, options)
    run.batch = groups
    scores = rate(reward, groups, samples, options)
    tell(run, step, without_signal(samples, scores, options, grouped=getattr(options, "estimator", "") in GROUPED))
    scorer = policy.scorer

    def with_entropy(layout: Layout) -> Tensor:
        found = scorer(layout, temperature=options.temperature, entropy=True)
        return torch.stack([found.logprobs, found.entropy], -1)

    def referred(layout: Layout) -> Tensor:
        return reference(layout, temperature=options.temperature).logprobs

    ref = gather(referred, groups, options.tokens, scorer)
    lengths = torch.tensor([len(s.tokens) for s in samples], device=ref.device)
    mask = torch.arange(ref.shape[1], device=ref.device)[None] < lengths[:, None]
    found = torch.tensor([x for s in samples for x in s.logprobs], device=ref.device)
    sampled = torch.zeros_like(ref).masked_scatter(mask, found)
    if trust_sampler:
        return Batch(groups, samples, scores, mask, sampled, ref, -sampled, None)
    old, entropy = gather(with_entropy, groups, options.tokens, scorer).unbind(-1)
    gap = masked_mean((sampled - old).abs(), mask).item()
    return Batch(groups, samples, scores, mask, old, ref, entropy, gap)


def without_signal(
    samples: Sequence[Sample], scores: Tensor, options: RolloutOptions, *, grouped: bool = False
) -> Iterator[str]:
    """Why a first batch teaches nothing, or hardly anything.

    Args:
        samples: the responses.
        scores: (R,) theirs.
        options: of the stage.
        grouped: only what differs between the responses to one prompt counts.
    """
    count, cut = len(samples), sum(s.finish_reason == "length" for s in samples)
    if cut >= 0.9 * count:
        scored = "" if options.missing_eos is None else f" and scored {options.missing_eos:g} (missing_eos)"
        yield (
            f"{cut} of the first {count} responses did not end within max_new_tokens={options.max_new_tokens}: each "
            f"was cut{scored}, whatever it said. Raise max_new_tokens; or keep the reward's score: -o missing_eos=none"
        )
    table = scores.view(-1, options.samples)
    if count > 1 and (scores == scores[0]).all():
        yield f"all of the first {count} responses score {scores[0].item():g}: there is nothing to learn from that"
    elif grouped and count > options.samples and (table == table[:, :1]).all():
        yield (
            f"the {options.samples} responses to each of the first {len(table)} prompts score alike: every advantage "
            "is zero, and there is nothing to learn from that"
        )


def tell(run: Run, step: int, reasons: Iterator[str]) -> None:
    """Say at the first step what `without_signal` finds."""
    for reason in reasons if step == 0 else ():
        run.notice(reason)


def truncate(sample: Sample, policy: TextPolicy, text: str) -> Sample:
    """Cut a response after the first token that contains ``text``; it then counts as finished."""
    for i, token in enumerate(sample.tokens):
        if text in policy.tokenizer.decode([token]):
            return Sample(sample.prompt, sample.tokens[: i + 1], sample.logprobs[: i + 1], "stop")
    return sample


def minibatches(size: int, step: int, options: RolloutOptions) -> list[list[int]]:
    """Indices of prompts for every update on a batch: ``epochs`` shuffles, each cut into ``minibatches``."""
    found: list[list[int]] = []
    for epoch in range(options.epochs):
        shuffled = np.random.default_rng([options.seed, step, epoch]).permutation(size)
        found += [part.tolist() for part in np.array_split(shuffled, min(options.minibatches, size))]
    return found


def beginnings(ids: Sequence[list[int]]) -> list[Group]:
    """A few prompts with some response or other, to measure precision with."""
    return [Group(p, [p]) for p in ids[:16]]


def sampling_figures(batch: Batch) -> dict[str, float]:
    """What a batch of responses was like; means over responses or real tokens, never over padding."""
    count = len(batch.samples)
    return {
        "score": batch.scores.mean().item(),
        "kl": batch.kl(),
        "entropy": masked_mean(batch.entropy, batch.mask).item(),
        "length": batch.mask.sum().item() / count,
        "eos_share": sum(s.finish_reason == "stop" for s in batch.samples) / count,
        **({} if batch.gap is None else {"sampler_gap": batch.gap}),
    }


def described(
    policy: TextPolicy, samples: Sequence[Sample], contents: Sequence[Content], scores: Tensor, kls: Tensor | None
) -> Iterator[dict[str, Any]]:
    """Responses with their figures, as run/rollouts.jsonl holds them; ``scores`` and ``kls`` (R,) in their order.

    ``kls`` is None where the method has no reference: its rows then say nothing of the KL.
    """
    spent = [None] * len(samples) if kls is None else kls.tolist()
    for sample, score, kl in zip(samples, scores.tolist(), spent, strict=True):
        prompt = contents[sample.prompt]
        yield {
            "prompt": prompt if isinstance(prompt, str) else [message.to_row() for message in prompt],
            "completion": policy.encoder.decode(sample.tokens, prompt),
            "score": round(score, 4),
            **({} if kl is None else {"kl": round(kl, 4)}),
            "tokens": len(sample.tokens),
            "finish_reason": sample.finish_reason,
        }
