"""Rollouts: responses of the policy with their scores, and what stays fixed while they are learnt from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.rollout_options import RolloutOptions
from hearken.algorithms.sampled import Setup
from hearken.feedback.examples import Content
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.scorers import Scorer
from hearken.objectives.kl import sequence_kl
from hearken.rollout.sampler import Sample, SamplingParameters
from hearken.training import distributed
from hearken.training.batching import Order
from hearken.training.forward import gather, rows_of
from hearken.training.optimiser import NonFiniteGradient
from hearken.training.run import Run

ROLLOUTS = "rollouts.jsonl"


@dataclass
class Rollout:
    """Responses that the policy gave, with their scores; every tensor has a row for each of the R responses.

    Attributes:
        groups: prompts with their responses.
        contents: the prompts.
        samples: as the sampler returned them.
        scores: (R,) of the reward.
        version: of the policy that gave them: the iterations that it had learnt from.
    """

    groups: list[Group]
    contents: list[Content]
    samples: list[Sample]
    scores: Tensor
    version: int

    def take(self, chosen: Sequence[int]) -> Self:
        """The responses to some of the prompts, with all that belongs to them."""
        rows = rows_of(self.groups, chosen)
        index = torch.tensor(rows, dtype=torch.long, device=self.scores.device)
        taken: dict[str, Any] = {name: tensor[index] for name, tensor in self._tensors()}
        taken |= {"groups": [self.groups[i] for i in chosen], "contents": [self.contents[i] for i in chosen]}
        return replace(self, **taken, samples=[self.samples[r] for r in rows])

    def _tensors(self) -> list[tuple[str, Tensor]]:
        every = [(f.name, getattr(self, f.name)) for f in fields(self)]
        return [(name, value) for name, value in every if isinstance(value, Tensor)]

    def minibatches(self, step: int, options: RolloutOptions) -> Iterator[Self]:
        """The responses of every update on a batch: see `minibatches`."""
        for chosen in minibatches(len(self.groups), step, options):
            yield self.take(chosen)

    def microbatches(self, run: Run, scorer: Scorer) -> Iterator[tuple[Layout, Self]]:
        """What one forward pass reads, with its part of each tensor, as wide as the layout's own."""
        for chosen in run.microbatches(self.groups, scorer):
            part = self.take(chosen)
            layout = lay_out(part.groups, scorer.device)
            width = layout.mask.shape[1]
            cut: dict[str, Any] = {name: tensor[:, :width] for name, tensor in part._tensors() if tensor.ndim > 1}
            yield layout, replace(part, **cut)

    def figures(self) -> dict[str, float]:
        """What the batch was like; means over responses."""
        ended = torch.tensor([float(s.finish_reason == "stop") for s in self.samples], dtype=torch.float64)
        return {
            "score": distributed.mean(self.scores).item(), "eos_share": distributed.mean(ended).item(),
            "policy_version": self.version,
        }  # fmt: skip

    def kls(self) -> Tensor | None:
        """(R,) KL to the reference in nats, of each sample; None where the method has no reference."""
        return None

    def record(self, run: Run, setup: Setup) -> None:
        """Keep the responses in run/rollouts.jsonl, where the options say so."""
        if run.options.save_rollouts:
            run.record(ROLLOUTS, described(setup, self.samples, self.contents, self.scores, self.kls()))


@dataclass
class TokenRollout(Rollout):
    """With what stays fixed, token by token, while they are learnt from; (R, T) tensors are padded with zeros.

    Attributes:
        mask, old_logprobs, ref_logprobs: (R, T).
        entropy: (R, T) of the distribution that each token was drawn from, in nats; where the sampler is trusted, minus
            the token's log-probability, which is the same in the mean.
        advantages: (R, T), once the method has computed them.
        gap: mean |sampler's log-probability - the training path's| per token; None where the latter was not computed.
    """

    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    advantages: Tensor
    gap: float | None

    @property
    def tokens(self) -> int:
        """Response tokens, over all processes."""
        return distributed.total(int(self.mask.sum()))

    def kls(self) -> Tensor:
        """(R,) KL to the reference in nats, of each sample."""
        return sequence_kl(self.old_logprobs, self.ref_logprobs, self.mask)

    def kl(self) -> float:
        """KL to the reference in nats per response, estimated from these samples."""
        return distributed.mean(self.kls()).item()

    def figures(self) -> dict[str, float]:
        """What the batch was like; means over responses or real tokens, never over padding."""
        found = super().figures()
        return {
            "score": found["score"],
            "kl": self.kl(),
            "entropy": distributed.mean(self.entropy, self.mask).item(),
            "length": distributed.mean(self.mask.sum(-1).double()).item(),
            "eos_share": found["eos_share"],
            "policy_version": found["policy_version"],
            **({} if self.gap is None else {"sampler_gap": self.gap}),
        }


@dataclass
class Seen:
    """What a method without a critic must know of its earlier steps; part of the checkpoint."""

    learnt: bool = False
    """Some step changed the policy."""
    gap: float = math.inf
    """Of the first step: see `TokenRollout`."""

    def note(self, step: int, rollout: Rollout, *, learnt: bool) -> None:
        """What a step was like."""
        self.learnt = self.learnt or learnt
        if step == 0 and isinstance(rollout, TokenRollout) and rollout.gap is not None:
            self.gap = rollout.gap

    def tell(self, run: Run) -> None:
        """Say at the end that nothing was learnt, where nothing was."""
        if not self.learnt:
            run.notice("no step changed the policy: the responses to each prompt always scored alike")

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.learnt, self.gap = state["learnt"], state["gap"]


def sampling(options: RolloutOptions) -> SamplingParameters:
    """How responses are drawn."""
    return SamplingParameters(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p, top_k=options.top_k
    )


def draw(setup: Setup, step: int, run: Run, options: RolloutOptions, *, grouped: bool = False) -> Rollout:
    """``options.num_generations`` responses to each of the step's prompts, scored.

    ``grouped``: only what differs between the responses to one prompt teaches anything.
    """
    order = Order(len(setup.prompts.ids), options.batch_size // options.num_generations, options.seed)
    chosen = setup.prompts.take(order.endless(step))  # across epochs, so that all batches have the same size
    seeds = np.random.SeedSequence([options.seed, step]).generate_state(len(chosen.ids)).tolist()
    setup.sampler.update_weights(setup.scorer, step)
    samples = setup.sampler.sample(chosen.ids, options.num_generations, sampling(options), seeds)
    if options.truncate_at:
        samples = [truncate(s, setup, options.truncate_at) for s in samples]
    n = options.num_generations
    groups = [Group(p, [s.tokens for s in samples[i * n : (i + 1) * n]]) for i, p in enumerate(chosen.ids)]
    scores = rate(setup, groups, samples, options)
    for reason in without_signal(samples, scores, options, grouped=grouped) if step == 0 else ():
        run.notice(reason)
    return Rollout(groups, chosen.contents, samples, scores, setup.sampler.version)


def rate(setup: Setup, groups: Sequence[Group], samples: Sequence[Sample], options: RolloutOptions) -> Tensor:
    """(R,) scores of the responses; one that was cut gets ``missing_eos``.

    Raises:
        NonFiniteGradient: a score is NaN or infinite.
    """
    scores = setup.reward(groups)
    if not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores)).sum())
        raise NonFiniteGradient(f"the reward model scored {bad} responses as NaN or infinite", groups)
    if options.missing_eos is None:
        return scores
    cut = torch.tensor([s.finish_reason == "length" for s in samples], device=scores.device)
    return scores.masked_fill(cut, options.missing_eos)


def roll_out(
    setup: Setup, step: int, run: Run, options: RolloutOptions, *, grouped: bool = False, trust_sampler: bool = False
) -> TokenRollout:
    """Sample, score, and compute the log-probabilities under the policy that sampled and under the reference.

    With ``trust_sampler`` the first are those that the sampler found on its way: one forward pass less.
    """
    drawn = draw(setup, step, run, options, grouped=grouped)
    scorer, reference = setup.scorer, setup.reference

    def with_entropy(layout: Layout) -> Tensor:
        found = scorer(layout, temperature=options.temperature, entropy=True)
        return torch.stack([found.logprobs, found.entropy], -1)

    def referred(layout: Layout) -> Tensor:
        return reference(layout, temperature=options.temperature).logprobs

    ref = gather(referred, drawn.groups, options.tokens, scorer)
    lengths = torch.tensor([len(s.tokens) for s in drawn.samples], device=ref.device)
    mask = torch.arange(ref.shape[1], device=ref.device)[None] < lengths[:, None]
    found = torch.tensor([x for s in drawn.samples for x in s.logprobs], device=ref.device)
    sampled = torch.zeros_like(ref).masked_scatter(mask, found)
    nothing = torch.zeros_like(ref)
    if trust_sampler:
        return TokenRollout(**vars(drawn), mask=mask, old_logprobs=sampled, ref_logprobs=ref, entropy=-sampled,
                            advantages=nothing, gap=None)  # fmt: skip
    old, entropy = gather(with_entropy, drawn.groups, options.tokens, scorer).unbind(-1)
    gap = distributed.mean((sampled - old).abs(), mask).item()
    return TokenRollout(**vars(drawn), mask=mask, old_logprobs=old, ref_logprobs=ref, entropy=entropy,
                        advantages=nothing, gap=gap)  # fmt: skip


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
    table = scores.view(-1, options.num_generations)
    if count > 1 and (scores == scores[0]).all():
        yield f"all of the first {count} responses score {scores[0].item():g}: there is nothing to learn from that"
    elif grouped and count > options.num_generations and (table == table[:, :1]).all():
        yield (
            f"the {options.num_generations} responses to each of the first {len(table)} prompts score alike: every "
            "advantage is zero, and there is nothing to learn from that"
        )


def truncate(sample: Sample, setup: Setup, text: str) -> Sample:
    """Cut a response after the first token that contains ``text``; it then counts as finished."""
    for i, token in enumerate(sample.tokens):
        if text in setup.policy.tokenizer.decode([token]):
            return Sample(sample.prompt, sample.tokens[: i + 1], sample.logprobs[: i + 1], "stop")
    return sample


def minibatches(size: int, step: int, options: RolloutOptions) -> list[list[int]]:
    """Indices of prompts for every update on a batch: ``epochs`` shuffles, each cut into ``minibatches``."""
    found: list[list[int]] = []
    for epoch in range(options.epochs if size else 0):
        shuffled = np.random.default_rng([options.seed, step, epoch]).permutation(size)
        found += [part.tolist() for part in np.array_split(shuffled, min(options.minibatches, size))]
    return found


def described(
    setup: Setup, samples: Sequence[Sample], contents: Sequence[Content], scores: Tensor, kls: Tensor | None
) -> Iterator[dict[str, Any]]:
    """Responses with their figures, as run/rollouts.jsonl holds them; ``scores`` and ``kls`` (R,) in their order.

    ``kls`` is None where the method has no reference: its rows then say nothing of the KL.
    """
    spent = [None] * len(samples) if kls is None else kls.tolist()
    for sample, score, kl in zip(samples, scores.tolist(), spent, strict=True):
        prompt = contents[sample.prompt]
        yield {
            "prompt": prompt if isinstance(prompt, str) else [message.to_row() for message in prompt],
            "completion": setup.policy.encoder.decode(sample.tokens, prompt),
            "score": round(score, 4),
            **({} if kl is None else {"kl": round(kl, 4)}),
            "tokens": len(sample.tokens),
            "finish_reason": sample.finish_reason,
        }
