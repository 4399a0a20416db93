"""The forward passes of training, one module each: token log-probabilities, rewards, values.

Each holds an unmodified transformers model and reads a `Layout`. Hidden states are computed for every real token, the
head only where it is needed, in chunks recomputed in the backward pass: no tensor of tokens x vocabulary is kept.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from hearken.errors import UserError
from hearken.models import attention, seq2seq
from hearken.models.head import chunk_rows, is_plain, linear_logprobs
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.loading import last_linear, score_head, switch_adapter

Path = Literal["packed", "padded", "full"]


class Scorer(nn.Module):
    """A transformers model that reads layouts.

    ``adapter`` names the LoRA adapter it computes with, where the model has any; None is the model without them.
    ``path`` says how: ``packed`` (real tokens only), ``padded`` (where a model's attention cannot be packed) or
    ``full`` (padded, with the model's own head, where even its logits are not head(hidden)). `probe` chooses it. An
    encoder-decoder is never packed.
    """

    def __init__(self, model: PreTrainedModel, path: Path = "packed", adapter: str | None = "policy") -> None:
        super().__init__()
        self.adapter = adapter
        # Dropout off, always: the ratio of PPO's first minibatch must be 1. (Checkpointing needs training mode; whoever
        # turned it on has set dropout to 0.)
        self.model = model.train(any(getattr(m, "gradient_checkpointing", False) for m in model.modules()))
        chosen = model.config._attn_implementation or "eager"
        self.native = "eager" if chosen == attention.NAME else chosen
        self.path: Path = path
        self.use(path)

    @property
    def backbone(self) -> nn.Module:
        """The model without its head."""
        return getattr(self.model, self.model.base_model_prefix)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        """The size of its hidden states."""
        return int(self.model.config.get_text_config().hidden_size)

    def use(self, path: Path) -> None:
        """Switch the way of computing."""
        if path == "packed" and seq2seq.is_seq2seq(self.model):
            path = "padded"
        self.path = path
        self.model.set_attn_implementation(attention.NAME if path == "packed" else self.native)

    def hidden(self, layout: Layout) -> Tensor:
        """Last hidden states of the row: (N, d)."""
        switch_adapter(self.model, self.adapter)
        if seq2seq.is_seq2seq(self.model):
            return seq2seq.hidden(self.model, layout)
        if self.path == "packed":
            row = self.backbone(
                input_ids=layout.ids[None], position_ids=layout.positions[None], use_cache=False, layout=layout
            ).last_hidden_state
            return row[0]
        ids, keep, source = layout.padded()
        states = self.backbone(input_ids=ids, attention_mask=keep, use_cache=False).last_hidden_state
        return states.flatten(0, 1)[source]


@dataclass(frozen=True, slots=True)
class TokenScores:
    """What a policy says of given responses: ``logprobs`` and, if asked for, ``entropy``, (R, T), 0 in the padding."""

    logprobs: Tensor
    entropy: Tensor | None


class TokenScorer(Scorer):
    """A causal language model as the scorer of given responses."""

    @property
    def plain_head(self) -> bool:
        """Whether the head is a linear map, with nothing done to its output."""
        config = self.model.config.get_text_config()
        bends = ("final_logit_softcapping", "logits_scaling", "logit_scale", "scale_decoder_outputs")
        if hasattr(self.model, "final_logits_bias") or any(getattr(config, name, None) for name in bends):
            return False
        return is_plain(self.model.get_output_embeddings())

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, d) hidden states -> (n, V), with what a few architectures do to their head's output."""
        config = self.model.config.get_text_config()
        logits = self.model.get_output_embeddings()(seq2seq.before_head(self.model, hidden))
        logits = seq2seq.after_head(self.model, logits)
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        return logits * scale if (scale := getattr(config, "logit_scale", None)) else logits  # Cohere

    def _own_logits(self, layout: Layout) -> Tensor:
        """The model's own logits in the order of the row: (N, V)."""
        if seq2seq.is_seq2seq(self.model):
            return seq2seq.logits(self.model, layout)
        ids, keep, source = layout.padded()
        return self.model(input_ids=ids, attention_mask=keep, use_cache=False).logits.flatten(0, 1)[source]

    def forward(self, layout: Layout, *, temperature: float = 1.0, entropy: bool = False) -> TokenScores:
        """Log-probabilities of the response tokens under softmax(logits / temperature).

        Args:
            layout: the batch.
            temperature: divides the logits, as in sampling.
            entropy: also compute the entropy in nats of each token's distribution (without a gradient).
        """
        targets, state = layout.targets[layout.mask], layout.state[layout.mask]
        if self.path == "full":
            switch_adapter(self.model, self.adapter)
            rows = self._own_logits(layout)[state]
            logprobs, spread = _select(rows, targets, temperature, entropy)
            return TokenScores(layout.grid(logprobs), layout.grid(spread) if entropy else None)
        states = self.hidden(layout)[state]
        head = self.model.get_output_embeddings()
        if self.plain_head:
            logprobs, spread = linear_logprobs(states, head, targets, temperature, entropy)
            return TokenScores(layout.grid(logprobs), layout.grid(spread) if entropy else None)

        def chunk(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            return _select(self.logits(h), t, temperature, entropy)

        size = chunk_rows(head.weight.shape[0])
        pieces = [
            checkpoint(chunk, h, t, use_reentrant=False) if h.requires_grad else chunk(h, t)
            for h, t in zip(states.split(size), targets.split(size), strict=True)
        ]
        logprobs = torch.cat([p[0] for p in pieces])
        return TokenScores(layout.grid(logprobs), layout.grid(torch.cat([p[1] for p in pieces])) if entropy else None)


def _select(logits: Tensor, targets: Tensor, temperature: float, entropy: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the targets, and (detached) entropies or zeros: (n, V), (n,) -> (n,), (n,)."""
    logits = logits.float() if temperature == 1 else logits.float() / temperature
    normaliser = logits.logsumexp(-1)
    spread = torch.zeros_like(normaliser)
    if entropy:
        with torch.no_grad():
            spread = normaliser - (torch.exp(logits - normaliser[:, None]) * logits).sum(-1)
    return logits.gather(-1, targets[:, None])[:, 0] - normaliser, spread


class RewardScorer(Scorer):
    """A sequence classifier as a reward model: logit x gain + bias, pooled over the response.

    A model with several labels has a head for each of several attributes; their weighted sum is the logit (`weigh`).
    Where ``by`` names something that labelers say about themselves, each head is the taste of those who say one thing.
    ``pooling`` ``last`` reads the last response token, as ``AutoModelForSequenceClassification`` does; ``mean``
    averages over the response tokens (our reading only: transformers would still read the last).
    """

    def __init__(self, model: PreTrainedModel, path: Path = "packed", adapter: str | None = None) -> None:
        super().__init__(model, path, adapter)
        self.pooling: str = getattr(model.config, "hearken_pooling", "last")
        self.gain = float(getattr(model.config, "hearken_reward_gain", 1.0))
        self.bias = float(getattr(model.config, "hearken_reward_bias", 0.0))
        self.attributes: tuple[str, ...] = attributes(model)
        self.by: str = getattr(model.config, "hearken_heads_by", "")
        self.weights: Tensor | None = None
        if self.attributes:
            self._combine(model.config.hearken_attribute_weights)

    @property
    def head(self) -> nn.Module:
        """From hidden states to the score: a linear map (or, of an encoder-decoder, two layers)."""
        return score_head(self.model)

    @property
    def output(self) -> nn.Linear:
        """The head's last layer."""
        return last_linear(self.head)

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Let the score be Σ weight x attribute, centred where the model's own is; attributes not named count nothing.

        Raises:
            UserError: no such attribute.
        """
        unknown = sorted(set(weights) - set(self.attributes))
        if unknown:
            known = f"Its attributes: {', '.join(self.attributes)}" if self.attributes else "It has one score alone"
            raise UserError(f"this reward model has no attribute '{unknown[0]}'", known)
        self._combine(weights)
        means = getattr(self.model.config, "hearken_attribute_means", {})
        self.bias = -self.gain * sum(weight * means.get(name, 0.0) for name, weight in weights.items())

    def _combine(self, weights: Mapping[str, float]) -> None:
        self.weights = torch.tensor([float(weights.get(a, 0.0)) for a in self.attributes], device=self.device)

    def combine(self, scores: Tensor) -> Tensor:
        """(..., A) scores of the heads to the one that counts, (...)."""
        return scores[..., 0] if self.weights is None else scores @ self.weights

    def own(self, whose: Sequence[str | None]) -> Tensor:
        """(B, A) weights of the heads that speak for each labeler: its own; all together where none is."""
        known = {name: i for i, name in enumerate(self.attributes)}
        assert self.weights is not None
        everyone = self.weights / self.weights.sum()
        one = torch.eye(len(known), device=self.device)
        return torch.stack([one[known[who]] if who in known else everyone for who in whose])

    def heads(self, layout: Layout) -> Tensor:
        """Pooled logits of every head, before weights, gain and bias: (R, A)."""
        hidden = self.hidden(layout)
        if self.pooling == "last":
            return self.head(hidden[layout.last]).float()
        scores = self.head(hidden[layout.token[layout.mask]]).float()
        return torch.stack([layout.grid(one).sum(1) for one in scores.unbind(1)], 1) / layout.lengths[:, None]

    def raw(self, layout: Layout) -> Tensor:
        """Pooled logits before gain and bias: (R,)."""
        return self.combine(self.heads(layout))

    def forward(self, layout: Layout) -> Tensor:
        """Rewards of the responses: (R,)."""
        return self.raw(layout) * self.gain + self.bias

    def calibrate(self, gain: float, bias: float) -> None:
        """Set the affine map that makes reference responses score 0 on average; saved in the model's config."""
        self.gain, self.bias = gain, bias
        self.model.config.hearken_reward_gain, self.model.config.hearken_reward_bias = gain, bias


class ValueScorer(RewardScorer):
    """A reward model's network as the value function: expected return before each response token is chosen.

    With an adapter the network may be the reward model's own; the head is then a copy: only this one is trained.
    """

    def __init__(self, model: PreTrainedModel, path: Path = "packed", adapter: str | None = None) -> None:
        super().__init__(model, path, adapter)
        self.own_head = copy.deepcopy(score_head(model)).requires_grad_(True) if adapter else None

    @property
    def head(self) -> nn.Module:
        """From hidden states to values."""
        return score_head(self.model) if self.own_head is None else self.own_head

    def forward(self, layout: Layout) -> Tensor:
        """Values V(prompt, tokens before t): (R, T), 0 in the padding."""
        values = self.combine(self.head(self.hidden(layout)[layout.state[layout.mask]]).float())
        return layout.grid(values * self.gain + self.bias)


def attributes(model: PreTrainedModel) -> tuple[str, ...]:
    """The attributes that a reward model with several heads scores, in their order; empty where it has one score."""
    if getattr(model.config, "hearken_attribute_weights", None) is None:
        return ()
    return tuple(name for _, name in sorted((model.config.id2label or {}).items(), key=lambda pair: int(pair[0])))


def probe(scorer: TokenScorer | RewardScorer, max_length: int = 512) -> Path:
    """Compare the packed computation with the model's own, one sequence at a time, and choose the fastest exact path.

    The probe is longer than the model's sliding window where training could be (``max_length``), and has prompts with
    one and with two responses. Call it once after loading; a fallback is said aloud.
    """
    config = scorer.model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or 0
    length = min(window + 12, max_length) if window else 24
    generator = torch.Generator().manual_seed(0)

    def tokens(n: int) -> list[int]:
        return torch.randint(0, config.vocab_size, (n,), generator=generator).tolist()

    long = tokens(max(length - 9, 5))
    batches = [[Group(long, [tokens(9)]), Group(tokens(4), [tokens(6)])],
               [Group(long, [tokens(9), tokens(3)]), Group(tokens(4), [tokens(5)])]]  # fmt: skip
    relative = 1e-3 if scorer.model.dtype == torch.float32 else 0.1  # of the spread: an untrained model's is tiny
    chosen = scorer.path
    paths: tuple[Path, ...] = ("padded", "full") if seq2seq.is_seq2seq(scorer.model) else ("packed", "padded", "full")
    with torch.no_grad():
        scorer.use("padded")
        truths = [torch.cat([_plain(scorer, g.prompt, r) for g in b for r in g.responses]) for b in batches]
        tolerance = relative * torch.cat(truths).std().item()
        for path in paths:
            try:
                scorer.use(path)
                worst = max(
                    (_probe_values(scorer, lay_out(b, scorer.device)) - truth).abs().max().item()
                    for b, truth in zip(batches, truths, strict=True)
                )
            except (TypeError, RuntimeError, ValueError, AttributeError):
                worst = float("inf")
            if worst < tolerance:
                chosen = path
                break
        else:
            chosen = "full"
    scorer.use(chosen)
    if chosen != paths[0]:
        kind = type(scorer.model).__name__
        warnings.warn(f"{kind} cannot be {paths[0]} exactly; using the slower {chosen} computation", stacklevel=2)
    return chosen


def _plain(scorer: TokenScorer | RewardScorer, prompt: Sequence[int], response: Sequence[int]) -> Tensor:  # type: ignore[type-arg]
    """The model's own answer for one sequence without padding: (t,) log-probabilities, or (1,) logit."""
    if seq2seq.is_seq2seq(scorer.model):
        if isinstance(scorer, TokenScorer):
            own = seq2seq.one(scorer.model, scorer.model, prompt, response[:-1]).logits[0]
            return _select(own, torch.tensor(list(response), device=scorer.device), 1.0)[0]
        states = seq2seq.one(scorer.model, scorer.backbone, prompt, response).last_hidden_state
        return scorer.head(states)[0, -1, :1].float()
    ids = torch.tensor([[*prompt, *response]], device=scorer.device)
    if isinstance(scorer, TokenScorer):
        logits = scorer.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        return _select(logits, ids[0, len(prompt) :], 1.0)[0]
    hidden = scorer.backbone(input_ids=ids, use_cache=False).last_hidden_state
    return scorer.head(hidden)[0, -1, :1].float()


def _probe_values(scorer: TokenScorer | RewardScorer, layout: Layout) -> Tensor:
    if isinstance(scorer, TokenScorer):
        return scorer(layout).logprobs[layout.mask]
    return scorer.head(scorer.hidden(layout)[layout.last])[:, 0].float()
