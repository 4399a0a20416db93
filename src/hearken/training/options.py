"""Options that every training stage shares. Torch-free, so that ``--help`` is instant."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from hearken.config import Options
from hearken.feedback.reading import ReadingOptions


class TrainingOptions(Options):
    """Optimiser, schedule, batching, precision, adapters and bookkeeping."""

    reported: ClassVar[tuple[str, ...]] = ("lr", "batch_size", "epochs", "lora")
    """Options that a report names (of all classes that an option's class inherits from)."""

    stage: ClassVar[str]
    """The stage's name."""

    seed: int = 0
    """Fixes the order of the data, the initialisation of new weights and every draw."""
    lr: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    lora_faster: ClassVar[float] = 10.0
    """By how much the default learning rate is higher with LoRA: few weights move, from zero."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls to zero after warm-up."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay, on matrices only."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW first-moment decay."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW second-moment decay."""
    eps: float = Field(1e-5, gt=0)
    """AdamW epsilon (1e-5 in the RLHF papers' code, against 1e-8 elsewhere)."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    tokens: int = Field(0, ge=0)
    """Real tokens of one microbatch: memory, not mathematics; the loss does not depend on it.
    0: on a CPU 262,144 over the model's width, but at least 1024 (its caches hold no more); 16384 on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 from a width of 256 where the device has instructions for it: a rule, so that seeds repeat."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    lora: int = Field(0, ge=0)
    """Rank of LoRA adapters; 0 trains all weights."""
    lora_alpha: float = Field(0, ge=0)
    """Scale of the adapters; 0 means twice the rank."""
    lora_targets: str = "all-linear"
    """Modules that get adapters: all-linear, or names separated by commas."""
    device: str = "auto"
    """cpu, cuda, cuda:1 …; auto takes a GPU where there is one."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Save a checkpoint to resume from this often."""
    trackers: str = "tensorboard"
    """Where metrics go besides metrics.jsonl: names of accelerate's trackers separated by commas, or none."""

    @model_validator(mode="after")
    def _rate_of_adapters(self) -> Self:
        """Raise the default learning rate where adapters are trained; a rate that is given stands."""
        if self.lora and "lr" not in self.model_fields_set:
            usual = type(self).model_fields["lr"].default
            self.__dict__["lr"] = float(f"{usual * self.lora_faster:.3g}")
        return self


class TextOptions(ReadingOptions):
    """How text becomes tokens."""

    max_length: int = Field(0, ge=0)
    """Longest prompt and response together in tokens; 0 takes the model's context, at most 2048."""
    long_prompts: Literal["error", "drop", "truncate"] = "error"
    """What to do with a prompt that leaves no room for a response: refuse, leave out, or cut its beginning."""
    eos: str = ""
    """Token that ends a response, where the tokenizer names none."""
