"""What ``--dry-run`` says of a stage: the data as the model will see it, steps, memory and time.

The stage's own ``load`` opens and checks every input, so a dry run finds the mistakes a real run would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from hearken.algorithms.stage import Inputs
from hearken.models.layout import Group, lay_out
from hearken.models.scorers import Scorer, TokenScorer
from hearken.training.batching import Order, budget
from hearken.training.estimate import SAMPLE_TOKENS, Trial, parameters, sample_of, try_out, weight_bytes


def estimate(stage: str, inputs: Inputs, options: Any) -> dict[str, Any]:
    """Rows, tokens, steps, parameters, memory in bytes by part, and seconds.

    Seconds come from one microbatch (for PPO also a few sampled responses) on this machine in fp32; evaluation, loading
    and saving are not in them. A stage from outside the package gets its inputs checked by name only.
    """
    known = {"sft": _sft, "reward": _reward, "ilql": _ilql, "kto": _kto, "rft": _rft}
    known |= dict.fromkeys(("dpo", "ipo", "simpo", "orpo"), _direct)
    known |= {"ppo": _ppo, "a2c": _ppo, "nlpo": _nlpo, "trpo": _trpo}
    known |= dict.fromkeys(("rloo", "grpo", "reinforce", "online_dpo"), _sampled)
    return known[stage](inputs, options) if stage in known else {"note": f"{stage} has no estimate"}


def _sft(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.sft import load, summed_nll

    ready = load(inputs, options)
    scorer = ready.policy.scorer
    return _recorded(ready, {"policy": scorer}, ready.data, lambda n: summed_nll(scorer, ready.data[:n]), options)


def _reward(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.reward import load, losses

    ready = load(inputs, options)
    groups = [j.group for j in ready.data]
    return _recorded(
        ready, {"reward": ready.scorer}, groups,
        lambda n: losses(ready.scorer, ready.data[:n], options).sum(), options,
    )  # fmt: skip


def _ilql(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.ilql import load, losses, weighted_tokens

    ready = load(inputs, options)
    groups = [group for group, _ in ready.data]
    return _recorded(
        ready, {"policy": ready.scorer}, groups,
        lambda n: losses(ready.scorer, ready.data[:n], weighted_tokens(groups[:n]), options).total, options,
    )  # fmt: skip


def _direct(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.dpo import load

    ready = load(inputs, options)
    return _likelihood(ready, [j.group for j in ready.data], options)


def _kto(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.kto import load

    ready = load(inputs, options)
    found = _likelihood(ready, [o.group for o in ready.data], options)
    return found | {"seconds": 1.4 * found["seconds"]}  # the mismatched pairs' forward passes


def _likelihood(ready: Any, groups: Sequence[Group], options: Any) -> dict[str, Any]:
    """Stages that compare likelihoods, most of them with a reference's: its forward pass is made once, or each time."""
    scorer = ready.policy.scorer
    modules: dict[str, Scorer] = {"policy": scorer}
    again = 0.0
    if ready.reference is not None:
        modules["reference"] = ready.reference
        again = 1 if options.cache_reference else options.epochs
    return _recorded(
        ready, modules, groups, lambda n: scorer(lay_out(groups[:n], scorer.device)).logprobs.sum(), options, again
    )


def _recorded(
    ready: Any, modules: Mapping[str, Scorer], groups: Sequence[Group], loss: Callable[[int], Tensor], options: Any,
    again: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Stages whose step is a forward and backward pass over recorded responses.

    Args:
        ready: with the facts of the data.
        modules: the network that is trained, then others.
        groups: the data.
        loss: of the first so many of them.
        options: of the stage.
        again: passes over the data that are forward only.
    """
    scorer = next(iter(modules.values()))
    small = sample_of(groups, SAMPLE_TOKENS)
    trial = try_out(lambda: loss(len(small)), _tokens(small), parameters({"trained": scorer}), scorer.device)
    steps = max(round(options.epochs * Order(len(groups), options.batch, 0).steps_per_epoch), 1)
    tokens = round(_tokens(groups) * options.epochs)
    most = min(budget(options.tokens, scorer), _largest(groups, options.batch))
    return {
        **ready.facts,
        **_lengths(groups),
        "steps": steps,
        "tokens": tokens,
        **_memory(modules, trial, most, _vocabulary(scorer)),
        "seconds": (tokens * trial.seconds + _tokens(groups) * again * trial.forward_seconds) / trial.tokens,
    }


def _ppo(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.ppo import load

    return _with_critic(load(inputs, options), options)


def _nlpo(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.nlpo import load

    return _with_critic(load(inputs, options), options)


def _trpo(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.trpo import load

    return _with_critic(load(inputs, options), options)


def _with_critic(ready: Any, options: Any) -> dict[str, Any]:
    models = ready.models
    trained: dict[str, Any] = {"policy": models.policy, "value": models.value}
    found = _rollouts(ready, trained, {"reference": models.reference}, models.reward, options, ready.ptx)
    if ready.judge is not None:
        looks = -(-max(options.episodes // options.batch, 1) // options.judge_every) + 1
        found["judge_comparisons"] = looks * len(ready.held_out.ids)
    return found


def _sampled(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.policy_gradient import load

    ready = load(inputs, options)
    return _rollouts(ready, {"policy": ready.policy.scorer}, {"reference": ready.reference}, ready.reward, options, [])


def _rft(inputs: Inputs, options: Any) -> dict[str, Any]:
    from hearken.algorithms.policy_gradient import load

    ready = load(inputs, options, with_reference=False)
    return _rollouts(ready, {"policy": ready.policy.scorer}, {}, ready.reward, options, [])


def _rollouts(
    ready: Any, trained: dict[str, Any], frozen: dict[str, nn.Module], reward: Any, options: Any, ptx: list[Group]
) -> dict[str, Any]:
    """Stages that sample from the policy they train."""
    from hearken.rollout.native import NativeSampler
    from hearken.rollout.sampler import SamplingParameters

    policy = trained["policy"]
    iterations = max(options.episodes // options.batch, 1)
    updates = iterations * options.epochs * options.minibatches

    # Responses are taken to be as long as they may be: memory and time are upper bounds in this.
    mean_prompt = sum(map(len, ready.prompts)) / len(ready.prompts)
    iteration_tokens = round(options.batch * (options.max_new_tokens + mean_prompt / options.samples))
    made = [Group(p, [[p[-1]] * options.max_new_tokens] * options.samples) for p in ready.prompts]
    small = sample_of(made, SAMPLE_TOKENS)
    modules: dict[str, nn.Module] = {**trained, **frozen}
    if isinstance(network := getattr(reward, "scorer", None), nn.Module):
        modules["reward"] = network

    def loss() -> Tensor:
        layout = lay_out(small, policy.device)
        total = policy(layout).logprobs.sum()
        return total + trained["value"](layout).sum() if "value" in trained else total

    trial = try_out(loss, _tokens(small), parameters(modules), policy.device)

    rows = NativeSampler(policy, ready.policy.stop).rows
    drawn = ready.prompts[: max(min(rows // options.samples, len(ready.prompts), 16), 1)]
    short = min(options.max_new_tokens, 8)
    start = time.perf_counter()
    NativeSampler(policy, []).sample(
        drawn, options.samples, SamplingParameters(max_new_tokens=short), range(len(drawn))
    )
    per_token = (time.perf_counter() - start) / (len(drawn) * options.samples * short)

    # Scoring is a forward pass of every network; those that are trained are in the trial.
    scoring = iteration_tokens * len(modules) / len(trained) * trial.forward_seconds / trial.tokens
    learning = iteration_tokens * options.epochs * trial.seconds / trial.tokens
    sampling = options.batch * options.max_new_tokens * per_token
    pretraining = 0.0
    if ptx:
        pieces = options.ptx_batch or options.batch // options.minibatches
        each = _tokens(ptx) / len(ptx)
        pretraining = updates * pieces * each * 0.5 * trial.seconds / trial.tokens
    width = max(map(len, ready.prompts)) + options.max_new_tokens
    cache = _cache_bytes(policy.model.config, min(rows, options.batch), width)
    memory = _memory(
        modules, trial, min(budget(options.tokens, policy), iteration_tokens), _vocabulary(policy), kv_cache=cache
    )
    return {
        **ready.facts,
        "prompt_tokens": {"mean": mean_prompt, "longest": max(map(len, ready.prompts))},
        "response_tokens": {"longest": options.max_new_tokens},
        "iterations": iterations,
        "steps": updates,
        "tokens": iterations * iteration_tokens,
        **memory,
        "seconds": iterations * (sampling + scoring + learning) + pretraining,
        "seconds_of": {
            "sampling": iterations * sampling,
            "scoring": iterations * scoring,
            "learning": iterations * learning + pretraining,
        },
    }


def _tokens(groups: Sequence[Group]) -> int:
    return sum(g.tokens for g in groups)


def _largest(groups: Sequence[Group], batch: int) -> int:
    """Tokens of the largest batch there can be."""
    return sum(sorted((g.tokens for g in groups), reverse=True)[:batch])


def _vocabulary(scorer: Any) -> int:
    """How wide the logits are; 0 of a reward model, which has none."""
    return int(scorer.model.get_output_embeddings().weight.shape[0]) if isinstance(scorer, TokenScorer) else 0


def _lengths(groups: Sequence[Group]) -> dict[str, Any]:
    """Mean and longest prompt and response, in tokens."""
    found = {}
    for name, lengths in (
        ("prompt_tokens", [len(g.prompt) for g in groups]),
        ("response_tokens", [len(r) for g in groups for r in g.responses]),
    ):
        found[name] = {"mean": sum(lengths) / len(lengths), "longest": max(lengths)}
    return found


def _memory(
    modules: Mapping[str, nn.Module], trial: Trial, tokens: int, vocabulary: int, **more: int
) -> dict[str, Any]:
    """Parameters, and bytes by part: weights of each network, gradients, AdamW's moments, activations."""
    every = parameters(modules)
    trained = sum(p.untyped_storage().nbytes() for p in every if p.requires_grad)
    parts: dict[str, int] = {f"weights_of_{name}": size for name, size in weight_bytes(modules).items()}
    parts |= {"gradients": trained, "adam": 2 * trained, "activations": trial.scaled(tokens, vocabulary)} | more
    return {
        "parameters": {
            "trained": sum(p.numel() for p in every if p.requires_grad),
            "frozen": sum(p.numel() for p in every if not p.requires_grad),
        },
        "memory": parts | {"total": sum(parts.values())},
    }


def _cache_bytes(config: Any, rows: int, width: int) -> int:
    """Keys and values in fp32 of ``rows`` responses, ``width`` tokens with their prompts."""
    config = config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * 4 * int(config.num_hidden_layers * rows * kept * size * width)
