"""What ``--dry-run`` says of a stage: the data as the model will see it, steps, memory and time.

The stage's own ``load`` opens and checks every input, so a dry run finds the mistakes a real run would. Then a few of
its own batches go through the networks, in the precision that the run will choose; what is left is arithmetic. Each
stage's ``estimate`` is made by what fits it, `likelihood` or `sampling`, or calls `recorded`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from hearken.algorithms.stage import Inputs
from hearken.algorithms.watch import questions, watched
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import Scorer, TokenScorer
from hearken.rewards.learned import LearnedReward
from hearken.rollout.sampler import SamplingParameters
from hearken.training.batching import Order, microbatches
from hearken.training.estimate import (
    SAMPLE_TOKENS,
    Dry,
    Memory,
    Trial,
    parameters,
    timed,
    try_out,
    update_seconds,
)

ROWS = 128
"""Responses that a trial of sampling asks for at most."""
SAMPLING_SECONDS = 8.0
"""What a trial of sampling may take: where responses are long, it ends before they do."""


def likelihood(
    load: Callable[[Inputs, Any], Any], beside: Callable[[Any], int] = lambda setup: 0,
    loss: Callable[[Any, Sequence[int], Any], Tensor] | None = None,
) -> Callable[[Dry, Inputs, Any], dict[str, Any]]:  # fmt: skip
    """``estimate`` of a stage that learns from the likelihoods of recorded responses (see `recorded.Setup`).

    Args:
        load: opens everything. A reference's forward pass is made once, or each time.
        beside: tokens that policy and reference read in every epoch, without gradient.
        loss: of the rows with these numbers; by default the mere likelihood, which costs as much.
    """

    def estimate(dry: Dry, inputs: Inputs, options: Any) -> dict[str, Any]:
        """For a dry run."""
        setup = load(inputs, options)
        groups, held_out, more = setup.train.groups, setup.validation.groups, beside(setup)
        scorer = getattr(setup, "guided", setup.scorer)

        def likelihoods(some: Sequence[int]) -> Tensor:
            if loss is not None:
                return loss(setup, some, options)
            return scorer(lay_out([groups[i] for i in some], scorer.device)).logprobs.sum()  # type: ignore[no-any-return]

        modules: dict[str, Scorer] = {"policy": scorer}
        referred, epochs = 0, options.epochs
        if setup.reference is not None:
            modules["reference"] = setup.reference
            times = 1 if options.cache_reference else epochs
            referred = round(times * (tokens_of(groups) + more)) + tokens_of(held_out)
        return recorded(
            dry, setup, modules, groups, likelihoods, options,
            evaluated=tokens_of(held_out), referred=referred + round(epochs * more),
        )  # fmt: skip

    return estimate


def recorded(
    dry: Dry, ready: Any, modules: Mapping[str, Scorer], groups: Sequence[Group],
    loss: Callable[[Sequence[int]], Tensor], options: Any, *, evaluated: int = 0, calibrated: int = 0,
    referred: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Stages whose step is a forward and backward pass over recorded responses.

    Args:
        dry: what is known by now.
        ready: with the facts of the data.
        modules: the network that is trained, then others.
        groups: the data.
        loss: of those with these numbers.
        options: of the stage.
        evaluated: tokens that are read after the last step, to evaluate on.
        calibrated: the same, to centre the scores.
        referred: tokens that a reference reads.
    """
    scorer = next(iter(modules.values()))
    dry.settle(scorer, options)
    order = Order(len(groups), options.batch_size, options.seed)
    steps = max(round(options.epochs * order.steps_per_epoch), 1)
    tokens = round(tokens_of(groups) * options.epochs)
    trial = _trial(scorer, groups, order.rows(0), loss, options)
    trained = [p for p in scorer.parameters() if p.requires_grad]
    each = trial.forward_seconds / trial.tokens
    dry.seconds["training"] = tokens * trial.seconds / trial.tokens + steps * update_seconds(trained)
    for name, count in (("reference", referred), ("calibration", calibrated), ("evaluation", evaluated)):
        if count:
            dry.seconds[name] = count * each
    facts = {**ready.facts, **lengths_of(groups), "steps": steps, "tokens": tokens}
    gradients = sum(p.nbytes for p in trained)
    return dry.finish(facts, modules, options, activations=max(trial.peak_bytes - gradients, 0))


def _trial(
    scorer: Any, groups: Sequence[Group], batch: Sequence[int], loss: Callable[[Sequence[int]], Tensor], options: Any
) -> Trial:
    """The microbatches of a batch, as many as `SAMPLE_TOKENS` allows, among them the largest."""
    parts = [[batch[i] for i in part] for part in microbatches([groups[i] for i in batch], options.tokens, scorer)]
    parts.sort(key=lambda part: -tokens_of([groups[i] for i in part]))
    some, used = [parts[0]], tokens_of([groups[i] for i in parts[0]])
    for part in reversed(parts[1:]):  # the shortest stand for the rest: a batch has both
        if used + (count := tokens_of([groups[i] for i in part])) > SAMPLE_TOKENS:
            break
        some.append(part)
        used += count
    return try_out([partial(loss, part) for part in some], used, parameters({"x": scorer}), scorer.device)


def sampling(load: Callable[[Inputs, Any], Any], *, again: bool = True) -> Callable[[Dry, Inputs, Any], dict[str, Any]]:
    """``estimate`` of a stage that samples from the policy it trains (see `sampled.Setup`).

    Args:
        load: opens everything.
        again: whether the stage computes the log-probabilities of what was sampled anew in fp32, too.
    """

    def estimate(dry: Dry, inputs: Inputs, options: Any) -> dict[str, Any]:
        """For a dry run."""
        setup, callbacks = watched(load, inputs, options)
        return sampled(dry, setup, options, again=again) | questions(callbacks)

    return estimate


def sampled(dry: Dry, ready: Any, options: Any, *, again: bool) -> dict[str, Any]:
    """Facts, memory and time of such a stage, once everything is opened."""
    policy, device = ready.scorer, ready.scorer.device
    dry.settle(policy, options)
    trained: dict[str, Any] = {"policy": policy}
    if value := getattr(ready, "value", None):
        trained["value"] = value
    modules: dict[str, nn.Module] = dict(trained)
    if ready.reference is not policy:
        modules["reference"] = ready.reference
    if isinstance(network := getattr(ready.reward, "scorer", None), nn.Module):
        modules["reward"] = network
    iterations, prompts = options.iterations, ready.prompts.ids
    updates = iterations * options.updates
    memory = Memory(device)
    few = SamplingParameters(max_new_tokens=1)
    dry.seconds["start"] += timed(lambda: ready.sampler.sample(prompts[:1], 1, few, [0]), device)
    groups, sampling, held = _sample(policy, ready, options)
    taken = max(memory.peak() - memory.start, 0) + held

    # Learning and scoring, over what was sampled.
    def loss(some: Sequence[int]) -> Tensor:
        layout = lay_out([groups[i] for i in some], device)
        total = policy(layout).logprobs.sum()
        return total + trained["value"](layout).sum() if "value" in trained else total

    trial = _trial(policy, groups, range(len(groups)), loss, options)
    tokens = tokens_of(groups) * options.batch_size / max(sum(len(g.responses) for g in groups), 1)
    forward = 0.0
    half = groups[: max(len(groups) // 2, 1)]
    for name, module in modules.items():
        if name == "policy" and not (again or (policy.precision == "bf16" and options.updates > 1)):
            continue  # what the sampler found serves
        score: Any = LearnedReward(module, options.tokens) if name == "reward" else partial(_read, module, options)  # type: ignore[arg-type]
        forward += timed(partial(score, half), device) / tokens_of(half)
    trainable = [p for m in trained.values() for p in m.parameters() if p.requires_grad]
    each = trial.seconds / trial.tokens
    learning = options.epochs * (tokens * each + options.minibatches * update_seconds(trainable))
    if ptx := ready.ptx:
        pieces = options.ptx_batch or options.batch_size // options.minibatches
        share = 0.5 if "value" in trained else 1.0  # of the trial's two networks the policy alone
        learning += options.epochs * options.minibatches * pieces * share * each * tokens_of(ptx) / len(ptx)
    dry.seconds |= {
        "sampling": iterations * sampling, "scoring": iterations * tokens * forward, "learning": iterations * learning
    }  # fmt: skip
    facts = {
        **ready.facts,
        "prompt_tokens": {
            "mean": sum(map(len, prompts)) / len(prompts), "longest": max(map(len, prompts))
        },
        "response_tokens": {
            "mean": sum(len(r) for g in groups for r in g.responses) / sum(len(g.responses) for g in groups),
            "longest": options.max_new_tokens,
        },
        "iterations": iterations,
        "steps": updates,
        "tokens": round(iterations * tokens),
    }  # fmt: skip
    gradients = sum(p.nbytes for p in trainable)
    activations = max(trial.peak_bytes - gradients, 0)
    beside = {"activations": activations, "sampling": max(taken - gradients - activations, 0)}
    return dry.finish(facts, modules, options, **beside)


def _read(scorer: Any, options: Any, groups: Sequence[Group]) -> None:
    for part in microbatches(groups, options.tokens, scorer):
        scorer(lay_out([groups[i] for i in part], scorer.device))


def _sample(policy: Any, ready: Any, options: Any) -> tuple[list[Group], float, int]:
    """Prompts with responses of the policy as it is, seconds of sampling a batch, bytes of a longer cache.

    Where a whole response would take too long, the trial ends early: those that have not ended are taken to go on to
    the limit, and their lengths are an upper bound.
    """
    sampler, every = ready.sampler, ready.prompts.ids
    most, n = options.max_new_tokens, options.num_generations
    count = max(min(options.batch_size, ROWS) // n, 1)
    prompts = [every[i % len(every)] for i in range(count)]

    def run(limit: int) -> tuple[Any, float]:
        start = time.perf_counter()
        how = SamplingParameters(max_new_tokens=limit, temperature=options.temperature)
        return sampler.sample(prompts, n, how, range(count)), time.perf_counter() - start

    _, first = run(1)
    probe = min(9, most)
    _, some = run(probe)
    step = max(some - first, 0.0) / max(probe - 1, 1)
    limit = min(most, max(probe, int(SAMPLING_SECONDS / step) if step else most))
    samples, seconds = run(limit)
    lengths = [len(s.tokens) if s.finish_reason == "stop" else most for s in samples]
    going = sum(s.finish_reason == "length" for s in samples) / len(samples)
    if limit < most:
        seconds += (most - limit) * step * going
    made = [
        Group(p, [[*s.tokens, *[p[-1]] * (length - len(s.tokens))] for s, length in zip(own, mine, strict=True)])
        for p, own, mine in (
            (p, samples[i * n : (i + 1) * n], lengths[i * n : (i + 1) * n]) for i, p in enumerate(prompts)
        )
    ]
    held = _cache_bytes(policy, len(samples), most - limit)
    return made, seconds * options.batch_size / len(samples), held


def tokens_of(groups: Sequence[Group]) -> int:
    """Real tokens of them all."""
    return sum(g.tokens for g in groups)


def lengths_of(groups: Sequence[Group]) -> dict[str, Any]:
    """Mean and longest prompt and response, in tokens."""
    found = {}
    for name, lengths in (
        ("prompt_tokens", [len(g.prompt) for g in groups]),
        ("response_tokens", [len(r) for g in groups for r in g.responses]),
    ):
        found[name] = {"mean": sum(lengths) / len(lengths), "longest": max(lengths)}
    return found


def _cache_bytes(policy: TokenScorer, rows: int, width: int) -> int:
    """Keys and values of ``rows`` responses over ``width`` tokens."""
    config: Any = policy.model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    each = 2 if policy.precision == "bf16" else 4
    return 2 * each * int(config.num_hidden_layers * rows * kept * size * width)
