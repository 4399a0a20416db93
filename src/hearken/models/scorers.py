"""The forward passes of training, one module each: token log-probabilities, rewards, values.

Each holds an unmodified transformers model and reads a `Layout`. Hidden states are computed for every real token, the
head only where it is needed, in chunks recomputed in the backward pass: no tensor of tokens x vocabulary is kept.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from hearken.errors import UserError
from hearken.models import attention, lengths, precision, seq2seq
from hearken.models.head import chunk_rows, forbid, is_plain, linear_logprobs
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.loading import context_length, last_linear, score_head, switch_adapter

Path = Literal["packed", "padded", "full", "alone"]


class Scorer(nn.Module):
    """A transformers model that reads layouts.

    ``adapter`` names the LoRA adapter it computes with, where the model has any; None is the model without them.
    ``path`` says how: ``packed`` (real tokens only), ``padded`` (where a model's attention cannot be packed), ``full``
    (padded, with the model's own head, where even its logits are not head(hidden)) or ``alone`` (as full, one sequence
    at a time, where a sequence's numbers depend on what lies beside it). `probe` chooses it. An encoder-decoder is
    never packed. Whatever the path, sequences whose rotary embeddings differ by length are computed apart.

    Every pass is made in ``precision``, which `compute_in` sets.

    Whatever is computed for training goes through the module's call, so that what wraps it (gathered weights, hooks) is
    in force: ``scorer(layout)``, and for all else that its parts can compute ``scorer(lambda net: net.hidden(...))``.
    """

    def __init__(self, model: PreTrainedModel, path: Path = "packed", adapter: str | None = "policy") -> None:
        super().__init__()
        self.adapter = adapter
        # Dropout off, always: the ratio of PPO's first minibatch must be 1. (Checkpointing needs training mode; whoever
        # turned it on has set dropout to 0.)
        self.model = model.train(any(getattr(m, "gradient_checkpointing", False) for m in model.modules()))
        chosen = model.config._attn_implementation or "eager"
        self.native = "eager" if chosen == attention.NAME else chosen
        self.regime = lengths.regime(model.config)
        self.path: Path = path
        self.precision = "fp32"
        self._followers: list[Scorer] = []
        self.use(path)

    def forward(self, given: Layout | Callable[[Self], Any], **how: Any) -> Any:
        """`compute` on a layout; or what a function of this module finds, called within the forward pass."""
        return given(self) if callable(given) else self.compute(given, **how)

    def compute(self, layout: Layout) -> Any:
        """What the scorer says of a layout's responses."""
        raise NotImplementedError

    def compute_in(self, chosen: str) -> None:
        """Compute in ``fp32`` or ``bf16`` from now on; there is no way back to fp32."""
        self.precision = chosen
        if chosen == "bf16":
            precision.lower(self.model)
        for other in self._followers:
            other.compute_in(chosen)

    def compute_like(self, leader: Scorer) -> None:
        """Compute in whatever precision ``leader`` computes in, now and later: what is compared is computed alike."""
        leader._followers.append(self)
        self.compute_in(leader.precision)

    def autocast(self) -> AbstractContextManager[None]:
        """The context of its precision."""
        return precision.autocast(self.precision, self.device)

    @property
    def backbone(self) -> nn.Module:
        """The model without its head."""
        found = getattr(self.model, self.model.base_model_prefix, None)
        return self.model.model if found is None else found  # Llama 4's prefix is that of its pictures' model

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

    @property
    def whole(self) -> bool:
        """Whether only the model's own forward pass gives its logits."""
        return self.path in ("full", "alone")

    def need_hidden_states(self, what: str, instead: str) -> None:
        """Refuse a `whole` one: ``what`` cannot be done to it, e.g. "ILQL cannot guide a", and what to do ``instead``.

        Raises:
            UserError: it is one.
        """
        if self.whole:
            raise UserError(f"{what} {type(self.model).__name__}", instead)

    def _keys(self, layout: Layout) -> list[Hashable]:
        """Of each response, what it shares with those that it may be computed with; empty where all may be."""
        if self.path == "alone":
            return list(range(len(layout.mask)))
        if self.regime is None:
            return []
        return [self.regime(n) for n in (layout.prompt_lengths + layout.lengths).tolist()]

    def apart(self, layout: Layout) -> Layout:
        """The layout, its responses joined with their prompts where they may not all be computed together."""
        return layout.apart() if len(set(self._keys(layout))) > 1 else layout

    def _together(self, compute: Callable[[Layout], Tensor], layout: Layout) -> Tensor:
        """(N, ...) of a row, by calls of ``compute`` on what may be computed together."""
        switch_adapter(self.model, self.adapter)
        keys = self._keys(layout)
        if self.regime is not None:
            lengths.forget(self)
        if len(set(keys)) < 2:
            return compute(layout)
        if layout.prompts is not None:
            raise ValueError("responses of several regimes share a prompt: lay them `apart`")
        whole: Tensor | None = None
        for part, where in layout.split(keys):
            if self.regime is not None:
                lengths.forget(self)
            found = compute(part)
            if whole is None:
                whole = found.new_zeros(len(layout.ids), *found.shape[1:])
            whole = whole.index_copy(0, where, found)
        assert whole is not None
        return whole

    def hidden(self, layout: Layout) -> Tensor:
        """Last hidden states of the row: (N, d). The layout is one that `apart` returned."""
        with self.autocast():
            return self._together(self._hidden, layout)

    def _hidden(self, layout: Layout) -> Tensor:
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
    """A causal language model as the scorer of given responses.

    Its distributions are over the ids that the tokenizer knows (see `loading.fit`), here as in every sampler.
    """

    @property
    def forbidden(self) -> Tensor | None:
        """Ids that have no probability."""
        return getattr(self.model, "forbidden_ids", None)

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
        with self.autocast():
            logits = self.model.get_output_embeddings()(seq2seq.before_head(self.model, hidden))
        logits = seq2seq.after_head(self.model, logits)
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        if scaling := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scaling
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        return forbid(logits, self.forbidden)

    def own_logits(self, layout: Layout) -> Tensor:
        """The model's own logits in the order of the row: (N, V). The layout is one that `apart` returned."""
        with self.autocast():
            return forbid(self._together(self._own_logits, layout), self.forbidden)

    def _own_logits(self, layout: Layout) -> Tensor:
        if seq2seq.is_seq2seq(self.model):
            return seq2seq.logits(self.model, layout)
        ids, keep, source = layout.padded()
        return self.model(input_ids=ids, attention_mask=keep, use_cache=False).logits.flatten(0, 1)[source]

    def response_logits(self, layout: Layout) -> Tensor:
        """Logits at the response tokens, in fp32: (n, V)."""
        layout = self.apart(layout)
        return self.logits(self.hidden(layout)[layout.state[layout.mask]]).float()

    def compute(self, layout: Layout, *, temperature: float = 1.0, entropy: bool = False) -> TokenScores:
        """Log-probabilities of the response tokens under softmax(logits / temperature).

        Args:
            layout: the batch.
            temperature: divides the logits, as in sampling.
            entropy: also compute the entropy in nats of each token's distribution (without a gradient).
        """
        with self.autocast():
            return self._scores(self.apart(layout), temperature, entropy)

    def _scores(self, layout: Layout, temperature: float, entropy: bool) -> TokenScores:
        targets, state = layout.targets[layout.mask], layout.state[layout.mask]
        if self.whole:
            rows = self.own_logits(layout)[state]
            logprobs, spread = _select(rows, targets, temperature, entropy)
            return TokenScores(layout.grid(logprobs), layout.grid(spread) if entropy else None)
        states = self.hidden(layout)[state]
        head = self.model.get_output_embeddings()
        if self.plain_head:
            logprobs, spread = linear_logprobs(states, head, targets, temperature, entropy, self.forbidden)
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

    def apply_head(self, hidden: Tensor) -> Tensor:
        """(n, d) hidden states to (n, A), in fp32 always: in bf16 alike responses would tie."""
        with torch.autocast(hidden.device.type, enabled=False):
            scores: Tensor = self.head(hidden.float())
        return scores

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
        layout = self.apart(layout)
        hidden = self.hidden(layout)
        if self.pooling == "last":
            return self.apply_head(hidden[layout.last])
        scores = self.apply_head(hidden[layout.token[layout.mask]])
        return torch.stack([layout.grid(one).sum(1) for one in scores.unbind(1)], 1) / layout.lengths[:, None]

    def raw(self, layout: Layout) -> Tensor:
        """Pooled logits before gain and bias: (R,)."""
        return self.combine(self.heads(layout))

    def compute(self, layout: Layout) -> Tensor:
        """Rewards of the responses: (R,)."""
        return self.raw(layout) * self.gain + self.bias

    def features(self, layout: Layout) -> Tensor:
        """Hidden states of the responses, pooled as the score is, which is a linear function of them: (R, d)."""
        layout = self.apart(layout)
        hidden = self.hidden(layout)
        if self.pooling == "last":
            return hidden[layout.last].float()
        owner = layout.mask.nonzero()[:, 0]
        total = hidden.new_zeros(len(layout.lengths), hidden.shape[1])
        return (total.index_add(0, owner, hidden[layout.token[layout.mask]]) / layout.lengths[:, None]).float()

    def of_features(self, features: Tensor) -> Tensor:
        """(R,) scores of responses with these `features`."""
        return self.combine(self.apply_head(features)) * self.gain + self.bias

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

    def compute(self, layout: Layout) -> Tensor:
        """Values V(prompt, tokens before t): (R, T), 0 in the padding."""
        layout = self.apart(layout)
        values = self.combine(self.apply_head(self.hidden(layout)[layout.state[layout.mask]]))
        return layout.grid(values * self.gain + self.bias)


def attributes(model: PreTrainedModel) -> tuple[str, ...]:
    """The attributes that a reward model with several heads scores, in their order; empty where it has one score."""
    if getattr(model.config, "hearken_attribute_weights", None) is None:
        return ()
    return tuple(name for _, name in sorted((model.config.id2label or {}).items(), key=lambda pair: int(pair[0])))


def probe(scorer: TokenScorer | RewardScorer, max_length: int = 512) -> Path:
    """Compare the packed computation with the model's own, one sequence at a time, and choose the fastest exact path.

    The probe mixes short sequences with ones beyond every length at which the config says that something may change
    (sliding windows, the context before it was scaled) and training could reach (``max_length``), and has prompts with
    one and with two responses. Call it once after loading; a fallback is said aloud.

    Raises:
        UserError: the model's own answers differ from call to call, are no numbers, or depend on what comes later.
        RuntimeError: memory is short; or the mistake is ours.
    """
    config = scorer.model.config.get_text_config()
    most = max_length if getattr(config, "rope_parameters", None) else min(max_length, context_length(scorer.model))
    beyond = [min(t + 12, most) for t in lengths.thresholds(config, most)] or [min(24, most)]
    generator = torch.Generator().manual_seed(0)
    unknown = scorer.forbidden.tolist() if isinstance(scorer, TokenScorer) and scorer.forbidden is not None else []
    ids = torch.tensor(sorted(set(range(scorer.model.get_input_embeddings().weight.shape[0])) - set(unknown)))

    def tokens(n: int) -> list[int]:
        return ids[torch.randint(0, len(ids), (max(n, 1),), generator=generator)].tolist()

    long, end = [tokens(n - 9) for n in beyond], min(9, most // 2)
    batches = [[*(Group(p, [tokens(end)]) for p in long), Group(tokens(4), [tokens(6)])],
               [*(Group(p, [tokens(end), tokens(3)]) for p in long), Group(tokens(4), [tokens(5)])]]  # fmt: skip
    relative = 1e-3 if scorer.model.dtype == torch.float32 else 0.1  # of the spread: an untrained model's is tiny
    kind = type(scorer.model).__name__
    paths: list[Path] = ["packed", "padded", "full", "alone"]
    if seq2seq.is_seq2seq(scorer.model):
        paths.remove("packed")
    if isinstance(scorer, RewardScorer):
        paths.remove("full")  # its head is read from its hidden states
    why = ""
    with torch.no_grad():
        scorer.use("padded")
        truths = [torch.cat([_plain(scorer, g.prompt, r) for g in b for r in g.responses]) for b in batches]
        tolerance = relative * torch.cat(truths).std().item()
        if math.isnan(tolerance):
            raise UserError(f"the answers of this {kind} are no numbers (NaN)", "Look at its weights: some may be NaN")
        ahead = _ahead(scorer, batches[0][-1]) if isinstance(scorer, TokenScorer) else 0.0
        for path in paths:
            if path == "packed" and not _passes_on(scorer.backbone):
                why = "its code does not take what packing needs"
                continue
            try:
                scorer.use(path)
                worst = max(
                    (_probe_values(scorer, lay_out(b, scorer.device)) - truth).abs().max().item()
                    for b, truth in zip(batches, truths, strict=True)
                )
            except Exception as error:
                if not _is_the_models(error, scorer.model):
                    raise
                why = why or f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                continue
            if worst < tolerance:
                break
            why = why or f"numbers differ by {worst:.2g}"
        else:
            raise UserError(f"the answers of this {kind} differ from call to call ({why})", "It cannot be trained")
    if ahead > tolerance:
        raise UserError(f"this {kind} reads ahead: what it says of a token depends on later ones", "It is no causal LM")
    if path != paths[0]:
        warnings.warn(f"{kind} cannot be {paths[0]} exactly ({why}); using the slower {path} computation", stacklevel=2)
    return path


def _ahead(scorer: TokenScorer, group: Group) -> float:
    """How much what a model says of tokens changes with those after them: not at all, where it is causal."""
    response = list(group.responses[0])
    half = len(response) // 2
    one, other = (_plain(scorer, group.prompt, response[:half] + rest) for rest in (response[half:], response[:half]))
    return (one - other)[:half].abs().max().item()


def _passes_on(backbone: object) -> bool:
    """Whether a model's forward pass takes positions, and further arguments for its attention."""
    taken = inspect.signature(backbone.forward).parameters if isinstance(backbone, nn.Module) else {}
    further = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    return "position_ids" in taken and further


def _is_the_models(error: Exception, model: PreTrainedModel) -> bool:
    """Whether an error says that a model cannot be computed in some way: raised by its own code, and not for memory."""
    if isinstance(error, attention.Unreached):
        return True
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate" in str(error):
        return False
    theirs = {type(part).__module__ for part in model.modules()} - {nn.Linear.__module__}
    where, trace = "", error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.startswith("hearken.") or name in theirs or name.startswith("transformers."):
            where = name
        trace = trace.tb_next
    return not where.startswith("hearken.")


def _plain(scorer: TokenScorer | RewardScorer, prompt: Sequence[int], response: Sequence[int]) -> Tensor:  # type: ignore[type-arg]
    """The model's own answer for one sequence without padding: (t,) log-probabilities, or (1,) logit."""
    lengths.forget(scorer.model)
    if seq2seq.is_seq2seq(scorer.model):
        if isinstance(scorer, TokenScorer):
            own = forbid(seq2seq.one(scorer.model, scorer.model, prompt, response[:-1]).logits[0], scorer.forbidden)
            return _select(own, torch.tensor(list(response), device=scorer.device), 1.0)[0]
        states = seq2seq.one(scorer.model, scorer.backbone, prompt, response).last_hidden_state
        return scorer.head(states)[0, -1, :1].float()
    ids = torch.tensor([[*prompt, *response]], device=scorer.device)
    if isinstance(scorer, TokenScorer):
        logits = scorer.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        logits = forbid(logits, scorer.forbidden)
        return _select(logits, ids[0, len(prompt) :], 1.0)[0]
    hidden = scorer.backbone(input_ids=ids, use_cache=False).last_hidden_state
    return scorer.head(hidden)[0, -1, :1].float()


def _probe_values(scorer: TokenScorer | RewardScorer, layout: Layout) -> Tensor:
    if isinstance(scorer, TokenScorer):
        return scorer(layout).logprobs[layout.mask]
    layout = scorer.apart(layout)
    return scorer.head(scorer.hidden(layout)[layout.last])[:, 0].float()
