"""Options that make no sense for the data at hand: said in a dry run and at the start, before they cost anything."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from hearken.models.layout import Group

MOST_NATS = 20.0
"""A lead of the better response beyond this is one that no policy near its reference has."""


def say(doubts: Iterator[str]) -> dict[str, str]:
    """Warn of each; a fact for the dry run and the manifest where there are any."""
    found = list(doubts)
    for one in found:
        warnings.warn(one, stacklevel=3)
    return {"doubts": "; ".join(found)} if found else {}


def of_recorded(options: Any, groups: Sequence[Group], strengths: bool = False) -> Iterator[str]:
    """Of a stage that learns from recorded responses.

    Args:
        options: of the stage.
        groups: what an epoch goes over.
        strengths: whether any judgment says how much better a response is.
    """
    rows = len(groups)
    if _given(options, "batch_size") and options.batch_size > rows:
        yield f"batch_size={options.batch_size} is more than the {rows} rows there are: every step sees all of them"
    steps = max(round(options.epochs * -(-rows // options.batch_size)), 1)
    yield from _of_training(options, steps)
    if hasattr(options, "log_ratio"):
        yield from _of_pairs(options, groups, strengths)
    if hasattr(options, "polyak") and (way := 1 - (1 - options.polyak) ** steps) < 0.5:
        yield (
            f"polyak={options.polyak:g}: in {steps} steps the lagging heads, which guide decoding, go {way:.0%} of the "
            "way to the trained ones"
        )


def of_sampled(options: Any, prompts: Sequence[Sequence[int]], ptx: bool = True) -> Iterator[str]:
    """Of a stage that samples from the policy it trains, to these prompts; ``ptx``: there is text for pretraining."""
    iterations, batch = max(options.episodes // options.batch_size, 1), options.batch_size
    if batch > options.episodes:
        yield (
            f"batch_size={batch} is more than episodes={options.episodes}: {batch} responses are sampled, in one "
            "iteration"
        )
    elif left := options.episodes % batch:
        yield f"episodes={options.episodes} is no multiple of batch_size={batch}: the last {left} are not sampled"
    if (asked := batch // options.num_generations) > len(prompts):
        yield (
            f"a batch asks {asked} prompts, and there are {len(prompts)}: some are asked several times in it "
            f"(batch_size={batch}, num_generations={options.num_generations})"
        )
    yield from _of_training(options, iterations * options.epochs * options.minibatches)
    if target := getattr(options, "kl_target", 0.0):
        if not options.beta:
            yield f"kl_target={target:g} with beta=0: a coefficient of zero stays zero, whatever the KL"
        elif (reach := math.expm1(0.2 * iterations * batch / options.kl_horizon)) < 0.1:
            yield (
                f"kl_target={target:g}: over {iterations * batch} episodes beta can change by {reach:.1%} at most; "
                f"lower kl_horizon={options.kl_horizon:g}"
            )
        if target / options.max_new_tokens > 1:
            yield (
                f"kl_target={target:g} nats per response is {target / options.max_new_tokens:.1f} for each of its at "
                f"most {options.max_new_tokens} tokens: such a policy has nothing of its reference"
            )
    if getattr(options, "refresh", 0) >= iterations > 1:
        yield f"refresh={options.refresh}: in {iterations} iterations the mask policy stays as it was at the start"
    for name in ("ptx_coef", "ptx_batch", "ptx_format"):
        if not ptx and _given(options, name):
            yield f"{name} does nothing without --ptx"
    for name in ("percentile", "last_percentile"):
        if _given(options, name) and options.select == "best":
            yield f"{name} does nothing with select=best: set select=percentile"
    if hasattr(options, "log_ratio"):
        longest = [Group([], [range(options.max_new_tokens)])]
        yield from _of_pairs(options, longest, strengths=False)


def _given(options: Any, name: str) -> bool:
    """Whether an option was set, and not left as it is."""
    return name in options.model_fields_set and hasattr(options, name)


def _of_training(options: Any, steps: int) -> Iterator[str]:
    if options.warmup and round(options.warmup * steps) < 1:
        yield f"warmup={options.warmup:g} of {steps} steps is none: the learning rate begins at its peak"
    for name in ("lora_alpha", "lora_targets"):
        if _given(options, name) and not options.lora:
            yield f"{name} does nothing without --lora"


def _of_pairs(options: Any, groups: Sequence[Group], strengths: bool) -> Iterator[str]:
    lengths = [len(response) for group in groups for response in group.responses]
    mean = sum(lengths) / len(lengths)
    if options.loss == "ipo":
        goal = 1 / (2 * options.beta)
        nats = goal * mean if options.log_ratio == "mean" else goal
        if nats > MOST_NATS:
            each = f"{goal:g} nats a token, {nats:.0f} in a response of the mean length {mean:.0f}: "
            yield (
                f"beta={options.beta:g} asks the better response of a pair for a lead of "
                + (each if options.log_ratio == "mean" else f"{nats:g} nats: ")
                + f"more than {MOST_NATS:g} wreck a policy. "
                + ("Set log_ratio=sum, as in the paper, or raise beta" if options.log_ratio == "mean" else "Raise beta")
            )
    reads = {"epsilon": ("cdpo", "robust"), "gamma": ("simpo",), "margin": ("dpo",)}
    for name, losses in reads.items():
        if _given(options, name) and options.loss not in losses:
            yield f"{name} does nothing with loss={options.loss}: {' and '.join(losses)} read it"
    if _given(options, "log_ratio") and options.loss in ("simpo", "orpo"):
        yield f"log_ratio does nothing with loss={options.loss}, which takes the mean"
    if options.loss == "dpo" and options.margin and not strengths:
        yield f"margin={options.margin:g} does nothing: no judgment says how much better its response is"
