"""The native sampler: any transformers causal model, a preallocated cache, each prompt computed once for its n samples.

Rows leave the batch as they finish; one uniform number a row replaces an exponential per vocabulary entry
(inverse-CDF sampling); logits live for one step only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearken.models.attention import KVCache
from hearken.models.head import FORBIDDEN
from hearken.models.layout import Group, lay_out
from hearken.models.lengths import forget
from hearken.models.loading import switch_adapter
from hearken.models.scorers import TokenScorer
from hearken.models.seq2seq import is_seq2seq
from hearken.rollout.lean import Lean, fits
from hearken.rollout.sampler import Sample, SamplingParameters
from hearken.rollout.seq2seq import Seq2SeqSteps

COMPACT = 0.8  # finished rows are removed once fewer than this share is alive


class NativeSampler:
    """Samples from a `TokenScorer`'s model.

    Args:
        scorer: the policy; packed where it can be, else transformers' own cache is used.
        eos: token ids that end a response.
        rows: most rows decoded at once.
    """

    def __init__(self, scorer: TokenScorer, eos: Sequence[int], rows: int = 128) -> None:
        self.scorer = scorer
        self.eos = torch.tensor(sorted(set(eos)), device=scorer.device)
        self.rows = rows
        self.version = 0

    @cached_property
    def lean(self) -> bool:
        """Whether the quick step is this model's: tried once, when it is first asked, in the precision of then."""
        switch_adapter(self.scorer.model, self.scorer.adapter)
        return fits(self.scorer) and self.scorer(_lean_agrees)

    def update_weights(self, scorer: TokenScorer, version: int) -> None:
        """See `rollout.sampler.Sampler`; the network is the policy's own, so that nothing is copied."""
        self.scorer, self.version = scorer, version

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], n: int, parameters: SamplingParameters, seeds: Sequence[int],
        on_done: Callable[[int], None] | None = None,
    ) -> list[Sample]:  # fmt: skip
        """See `rollout.sampler.Sampler`."""
        with self.scorer.autocast():
            return self._sample(prompts, n, parameters, seeds, on_done)

    def _sample(
        self, prompts: Sequence[Sequence[int]], n: int, parameters: SamplingParameters, seeds: Sequence[int],
        on_done: Callable[[int], None] | None,
    ) -> list[Sample]:  # fmt: skip
        switch_adapter(self.scorer.model, self.scorer.adapter)  # whoever computed last may have switched it off
        found: dict[int, Sample] = {}
        lean = self.scorer(Lean) if self.lean and fits(self.scorer) else None  # with the weights as they are now
        for batch in self._batches(prompts, max(self.rows // n, 1), parameters.max_new_tokens):
            draws = np.concatenate([_uniforms(seeds[i], n, parameters.max_new_tokens) for i in batch])
            rows = self._decode([prompts[i] for i in batch], n, parameters, torch.from_numpy(draws), on_done, lean)
            for row, (tokens, logprobs, reason) in enumerate(rows):
                prompt = batch[row // n]
                found[prompt * n + row % n] = Sample(prompt, tokens, logprobs, reason)
        return [found[i] for i in range(len(prompts) * n)]

    def _batches(self, prompts: Sequence[Sequence[int]], size: int, new_tokens: int) -> Iterator[list[int]]:
        """Indices of the prompts that are decoded together: of alike lengths, and never of several regimes."""
        found: dict[Hashable, list[int]] = {}
        for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
            found.setdefault(self._steady(len(prompts[i]), new_tokens), []).append(i)
        for order in found.values():
            yield from (order[start : start + size] for start in range(0, len(order), size))

    def _steady(self, length: int, new_tokens: int) -> int | None:
        """The regime that a prompt of this length and its response are of; None where it changes on the way."""
        regime = self.scorer.regime
        if regime is None:
            return 0
        first, last = regime(length), regime(length + new_tokens)
        return first if first == last else None

    def _decode(
        self, prompts: Sequence[Sequence[int]], n: int, how: SamplingParameters, draws: Tensor,
        on_done: Callable[[int], None] | None, lean: Lean | None,
    ) -> list[tuple[list[int], list[float], str]]:  # fmt: skip
        device, rows = self.scorer.device, len(prompts) * n
        draws = draws.to(device, torch.float32)
        steady = self._steady(len(prompts[0]), how.max_new_tokens) is not None

        def begun(net: TokenScorer) -> _Packed | _Anew | Seq2SeqSteps:
            if is_seq2seq(net.model):
                return Seq2SeqSteps(net, prompts, n)
            if net.path == "packed" and steady:
                return _Packed(net, prompts, n, how.max_new_tokens, lean)
            return _Anew(net, prompts, n)

        # Every step is a call of the policy's module, as training's passes are.
        stepper: _Packed | _Anew | Seq2SeqSteps = self.scorer(begun)
        tokens = torch.zeros(rows, how.max_new_tokens, dtype=torch.long, device=device)
        logprobs = torch.zeros(rows, how.max_new_tokens, device=device)
        lengths = torch.full((rows,), how.max_new_tokens, device=device)
        stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        slot = torch.arange(rows, device=device)  # which response each live row writes
        live = torch.ones(rows, dtype=torch.bool, device=device)
        logits = self.scorer(lambda _: stepper.start())
        for t in range(how.max_new_tokens):
            choice, logprob = draw(logits, draws[slot, t, None], how)
            tokens[slot, t], logprobs[slot, t] = choice, logprob  # what follows an end is cut off below
            ended = live & torch.isin(choice, self.eos)
            if ended.any():
                done = slot[ended]
                lengths[done], stopped[done] = t + 1, True
                live = live & ~ended
                if on_done:
                    on_done(len(done))
                count = int(live.sum())
                if count == 0:
                    break
                if count < COMPACT * len(slot):
                    keep = live.nonzero()[:, 0]
                    stepper.keep(keep)
                    slot, live, choice = slot[keep], live[keep], choice[keep]
            if t + 1 < how.max_new_tokens:
                logits = self.scorer(lambda _, fed=choice: stepper.step(fed))
        if on_done:
            on_done(int((~stopped).sum()))
        return [
            (ids[:length], logs[:length], "stop" if end else "length")
            for ids, logs, length, end in zip(
                tokens.tolist(), logprobs.tolist(), lengths.tolist(), stopped.tolist(), strict=True
            )
        ]


def _uniforms(seed: int, n: int, steps: int) -> np.ndarray:
    """(n, steps) numbers in [0, 1) that depend on the prompt's seed only."""
    return np.random.Generator(np.random.Philox(seed)).random((n, steps))


def draw(logits: Tensor, uniform: Tensor, how: SamplingParameters) -> tuple[Tensor, Tensor]:
    """One token a row by inverse CDF.

    Args:
        logits: (rows, V).
        uniform: (rows, 1) numbers in [0, 1).
        how: temperature, top_p and top_k.

    Returns:
        Token ids (rows,) and their log-probabilities (rows,) under softmax(logits / temperature).
    """
    if how.temperature == 0:
        logprobs = torch.log_softmax(logits.float(), -1)
        best = logprobs.argmax(-1)
        return best, logprobs.gather(-1, best[:, None])[:, 0]
    logits = logits.float() if how.temperature == 1 else logits.float() / how.temperature
    probabilities = torch.softmax(logits, -1)
    if how.top_p == 1 and how.top_k == 0:
        cumulative = probabilities.cumsum(-1)
        choice = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp_max(logits.shape[1] - 1)
    else:
        count = how.top_k or logits.shape[1]
        ranked, index = probabilities.topk(min(count, logits.shape[1]), -1)
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= how.top_p, 0)  # the token that crosses top_p stays
        cumulative = ranked.cumsum(-1)
        place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        choice = index.gather(-1, place.clamp_max(ranked.shape[1] - 1))
    chosen = probabilities.gather(-1, choice)[:, 0]
    return choice[:, 0], chosen.clamp_min(torch.finfo(chosen.dtype).tiny).log()


class _Packed:
    """Steps through the model with the preallocated cache, by its own modules or by ``lean``."""

    def __init__(
        self, scorer: TokenScorer, prompts: Sequence[Sequence[int]], n: int, new_tokens: int, lean: Lean | None = None
    ) -> None:
        self.scorer, self.lean = scorer, lean
        self.layout = lay_out([Group(p, [()]) for p in prompts], scorer.device)
        self.parent = torch.arange(len(prompts), device=scorer.device).repeat_interleave(n)
        self.cache = KVCache(self.layout, self.parent, new_tokens)

    def start(self) -> Tensor:
        """Logits of each row's first token: (rows, V)."""
        if self.scorer.regime is not None:
            forget(self.scorer)
        hidden = self.scorer.backbone(
            input_ids=self.layout.ids[None], position_ids=self.layout.positions[None], use_cache=False, cache=self.cache
        ).last_hidden_state[0]
        self.cache.layout = None
        return self.scorer.logits(hidden[self.layout.state[:, 0]])[self.parent]

    def step(self, tokens: Tensor) -> Tensor:
        """Feed (rows,) tokens, get the next logits (rows, V)."""
        if self.lean is not None:
            logits = self.lean.step(tokens, self.cache)
        else:
            states = self.scorer.backbone(
                input_ids=tokens[:, None], position_ids=self.cache.positions, use_cache=False, cache=self.cache
            ).last_hidden_state
            logits = self.scorer.logits(states[:, 0])
        self.cache.advance()
        return logits

    def keep(self, rows: Tensor) -> None:
        """Drop finished rows."""
        self.cache.keep(rows)


@torch.no_grad()
def _lean_agrees(scorer: TokenScorer) -> bool:
    """Whether the lean step computes what the model's own code does, on two short prompts.

    Layer by layer, each given what the model's own got: over many layers the rounding of bf16 may grow to anything.
    """
    last = scorer.model.config.vocab_size - 1
    passed: list[tuple[Tensor, Tensor]] = []

    def note(_: Any, given: Any, made: Any) -> None:
        passed.append((given[0][:, 0], (made[0] if isinstance(made, tuple) else made)[:, 0]))

    with scorer.autocast():
        lean = Lean(scorer)
        own, other = (_Packed(scorer, [[0, last, 1], [last]], 2, 2) for _ in range(2))
        own.start()
        other.start()
        hooks = [layer.register_forward_hook(note) for layer in scorer.backbone.layers]  # type: ignore[union-attr,operator]
        try:
            truth = own.step(torch.tensor([0, 1, last, 0], device=scorer.device)).float()
        finally:
            for hook in hooks:
                hook.remove()
        with torch.autocast(scorer.device.type, enabled=False):
            angles = lean.angles(other.cache.positions[:, 0])
            gaps = [
                _apart(lean.block(number, given, angles, other.cache) - given, made - given)
                for number, (given, made) in enumerate(passed)
            ]
            known = truth[0] > FORBIDDEN / 2
            gaps.append(_apart(lean.logits(passed[-1][1]).float()[:, known], truth[:, known]))
    return len(passed) == len(lean.layers) and max(gaps) < (1e-3 if lean.low == torch.float32 else 0.03)


def _apart(found: Tensor, truth: Tensor) -> float:
    """Root mean square of the difference, over that of ``truth``."""
    return float((found - truth).square().mean().sqrt() / truth.square().mean().sqrt())


class _Anew:
    """The guarded fallback where keys and values cannot be kept: every row is computed anew each step.

    Slow, but exact for any architecture, whatever state it carries, and where the rotary embedding changes on the way.
    """

    def __init__(self, scorer: TokenScorer, prompts: Sequence[Sequence[int]], n: int) -> None:
        self.scorer = scorer
        self.rows = [list(p) for p in prompts for _ in range(n)]

    def start(self) -> Tensor:
        """Logits of each row's next token: (rows, V)."""
        layout = lay_out([Group(row, [()]) for row in self.rows], self.scorer.device)
        last = layout.state[:, 0]
        if self.scorer.whole:
            return self.scorer.own_logits(layout)[last]
        return self.scorer.logits(self.scorer.hidden(layout)[last])

    def step(self, tokens: Tensor) -> Tensor:
        """Append (rows,) tokens, get the next logits (rows, V)."""
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)
        return self.start()

    def keep(self, rows: Tensor) -> None:
        """Drop finished rows."""
        self.rows = [self.rows[i] for i in rows.tolist()]
