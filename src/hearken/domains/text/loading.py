"""Open a model for training on text: tokenizer, model, encoder, adapters, probe, each as early as it can fail."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hearken.domains.text.encoder import TextEncoder
from hearken.errors import UserError
from hearken.models.loading import (
    add_adapter,
    check_size,
    context_length,
    fit,
    has_adapter,
    load_adapter,
    load_policy,
    load_tokenizer,
    other_tokens,
    save,
    stop_tokens,
    switch_adapter,
)
from hearken.models.scorers import TokenScorer, probe
from hearken.models.seq2seq import is_seq2seq
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import Sampler
from hearken.training.options import TextOptions, TrainingOptions
from hearken.training.precision import device_of


@dataclass(frozen=True)
class TextPolicy:
    """A policy with what it takes to feed it text."""

    scorer: TokenScorer
    tokenizer: PreTrainedTokenizerBase
    encoder: TextEncoder
    base: str | None
    """The frozen adapter that is the policy before training, where it came with one; None is the bare model."""

    def reference(self) -> TokenScorer | None:
        """The policy before training at no cost in memory, where it is trained through an adapter; else None."""
        if not has_adapter(self.scorer.model):
            return None
        without = TokenScorer(self.scorer.model, self.scorer.path, adapter=self.base)
        without.compute_like(self.scorer)
        return without

    @property
    def stop(self) -> list[int]:
        """Token ids that end a response."""
        return sorted(self.encoder.stop)

    def sampler(self, scorer: TokenScorer | None = None, rows: int = 128) -> Sampler:
        """What draws responses of the policy (or of ``scorer``, over the same tokens), about ``rows`` at a time."""
        return NativeSampler(scorer or self.scorer, self.stop, rows)

    def save(self, folder: Path) -> None:
        """Write the trained policy as a folder that transformers loads."""
        switch_adapter(self.scorer.model, "policy")
        save(self.scorer.model, self.tokenizer, folder)


def max_length(options: TextOptions, model: PreTrainedModel) -> int:
    """The option, or the model's context (at most 2048).

    Raises:
        UserError: the option exceeds the context.
    """
    context = context_length(model)
    if options.max_length > context:
        raise UserError(f"max_length {options.max_length} exceeds the model's context of {context} tokens", "Lower it")
    return options.max_length or min(context, 2048)


def text_encoder(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, options: TextOptions, reserve: int = 1
) -> TextEncoder:
    """The encoder for a model, which is told what its tokenizer knows (`models.loading.fit`)."""
    fit(tokenizer, model)
    length = max_length(options, model)
    if reserve >= length:
        raise UserError(f"responses of {reserve} tokens leave no room for a prompt in {length}", "Lower max_new_tokens")
    stop = stop_tokens(tokenizer, model)
    encoder = TextEncoder(
        tokenizer, length, stop=stop, long_prompts=options.long_prompts, reserve=reserve, seq2seq=is_seq2seq(model)
    )
    settings = getattr(model, "generation_config", None)
    if settings is not None and encoder.stop - set(stop):  # the saved model stops where the template closes a turn
        settings.eos_token_id = sorted(encoder.stop)
    return encoder


def open_policy(name: str, options: TrainingOptions, text: TextOptions, *, reserve: int = 1) -> TextPolicy:
    """Load a policy to be trained, fully or through a LoRA adapter called ``policy``.

    An adapter folder goes on as a trainable copy of its adapter; the adapter itself stays beside it, frozen.
    """
    tokenizer = load_tokenizer(name, text.eos)
    model = load_policy(name, device=device_of(options.device))
    encoder = text_encoder(tokenizer, model, text, reserve)
    prepare(model, options)
    base = None
    if has_adapter(model):
        base = str(model.active_adapters()[0])
        with warnings.catch_warnings():  # PEFT wonders about a second adapter
            warnings.simplefilter("ignore")
            load_adapter(model, name, "policy", is_trainable=True)
    elif options.lora:
        adapt(model, "policy", options)
    scorer = TokenScorer(model)
    probe(scorer, encoder.max_length)
    return TextPolicy(scorer, tokenizer, encoder, base)


def open_reference(model: str, ref: str | None, policy: TextPolicy) -> TokenScorer:
    """The frozen reference ``ref``, by default ``model`` as it was before training.

    Where that is what ``policy`` started from, the policy without its adapter serves; else its own weights are loaded.
    """
    if ref in (None, model) and (without := policy.reference()) is not None:
        return without
    if differs := other_tokens(policy.tokenizer, ref or model):
        raise UserError(f"--ref {ref} has another tokenizer than the policy: {differs}", "Name one with the policy's")
    reference = TokenScorer(load_policy(ref or model, device=policy.scorer.device), adapter="default")
    check_size(policy.tokenizer, reference.model, f"--ref {ref}")
    fit(policy.tokenizer, reference.model)
    reference.requires_grad_(False)
    probe(reference, policy.encoder.max_length)
    reference.compute_like(policy.scorer)
    return reference


def adapt(model: PreTrainedModel, name: str, options: TrainingOptions) -> None:
    """Add the LoRA adapter that the options describe."""
    add_adapter(model, name, options.lora, alpha=options.lora_alpha, targets=options.lora_targets, seed=options.seed)


def prepare(model: PreTrainedModel, options: TrainingOptions) -> None:
    """Turn gradient checkpointing on where asked for; it needs training mode, so dropout is set to 0 first."""
    if not options.gradient_checkpointing:
        return
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0  # type: ignore[assignment]
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.enable_input_require_grads()  # else nothing below a frozen embedding would have a gradient
