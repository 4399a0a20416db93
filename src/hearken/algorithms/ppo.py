"""PPO for language models: Ziegler et al. 2019, Stiennon et al. 2020, Ouyang et al. 2022 (PPO-ptx).

repeat:
    sample responses from the policy, score them with the reward model
    reward per token = -β (log π - log π_ref), plus the score on the last token
    advantages by GAE from the value model, whitened over the batch
    for some passes over minibatches:
        clipped policy loss + vf_coef x clipped value loss (+ ptx_coef x pretraining loss)
    adapt β to the KL target, where there is one
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hearken.algorithms.ppo_options import PPOOptions
from hearken.algorithms.stage import Inputs
from hearken.domains.text.data import Reader, demonstrations, nothing_fits, prompts
from hearken.domains.text.loading import TextPolicy, adapt, open_policy, prepare, text_encoder
from hearken.errors import UserError
from hearken.feedback.examples import Content
from hearken.models.layout import Group, Layout, lay_out
from hearken.models.loading import load_policy, load_reward, load_tokenizer, save, switch_adapter
from hearken.models.scorers import RewardScorer, TokenScorer, ValueScorer, probe
from hearken.objectives.kl import adapt_kl, k3, sequence_kl
from hearken.objectives.language import nll
from hearken.objectives.policy import explained_variance, gae, ppo_clip, token_rewards, value_clip
from hearken.objectives.reduce import masked_mean, masked_sum, whiten
from hearken.rewards.learned import LearnedReward, Reward
from hearken.rollout.native import NativeSampler
from hearken.rollout.sampler import Sample, SamplingParameters
from hearken.training.artifact import Artifact, finish
from hearken.training.batching import Order, microbatches
from hearken.training.forward import gather, rows_of
from hearken.training.optimiser import NonFiniteGradient, Optimiser
from hearken.training.run import Run

ROLLOUTS = "rollouts.jsonl"


@dataclass
class Models:
    """The four networks of PPO (two sets of weights where the policy and the value model are adapters)."""

    policy: TokenScorer
    reference: TokenScorer
    value: ValueScorer
    reward: Reward


@dataclass
class KLControl:
    """β, fixed or adapted; part of the checkpoint."""

    beta: float

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.beta = state["beta"]


@dataclass
class Rollout:
    """A batch of sampled responses with everything the updates need; (R, T) tensors are padded with zeros.

    Attributes:
        groups: prompts with their sampled responses.
        samples: as the sampler returned them.
        scores: (R,) of the reward model.
        mask, old_logprobs, ref_logprobs, values, entropy, advantages, returns: (R, T).
        gap: mean |sampler's log-probability - the training path's| per token.
    """

    groups: list[Group]
    samples: list[Sample]
    scores: Tensor
    mask: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    gap: float
    advantages: Tensor
    returns: Tensor
    rewards: Tensor


@dataclass(frozen=True)
class Ready:
    """Everything that is read and checked before the first step."""

    policy: TextPolicy
    models: Models
    contents: list[Content]
    prompts: list[list[int]]
    ptx: list[Group]
    facts: dict[str, Any]


def load(inputs: Inputs, options: PPOOptions) -> Ready:
    """Open the four networks and encode the prompts and the pretraining text."""
    if options.top_p < 1 or options.top_k:
        warnings.warn("top_p and top_k make the measured KL wrong: it is not that of the sampled policy", stacklevel=2)
    whole = options.samples * options.minibatches
    if options.batch % whole:
        raise UserError(
            f"batch {options.batch} is not a multiple of samples x minibatches ({whole})",
            "Choose batch so that every minibatch holds whole prompts",
        )
    policy = open_policy(inputs.model, options, options, reserve=options.max_new_tokens)
    reader = Reader(options)
    rows = reader.rows(inputs.data, inputs.validation, 0.0, options.seed)
    contents, ids = prompts(rows.train, policy.encoder)
    if not ids:
        raise nothing_fits(inputs.data)
    ptx = demonstrations(reader.read(inputs.ptx), policy.encoder)
    more = {"prompts": len(ids), "ptx_pieces": len(ptx), "skipped": reader.skipped}
    facts = rows.facts | more | {"truncation": policy.encoder.truncation.say()}
    return Ready(policy, open_models(inputs, options, policy), contents, ids, ptx, facts)


def open_models(inputs: Inputs, options: PPOOptions, policy: TextPolicy) -> Models:
    """Reference, reward and value model beside the policy.

    With LoRA the reference is the policy without its adapter, and the value model an adapter on the reward model.
    """
    device = policy.scorer.device
    length = policy.encoder.max_length
    reference = None if inputs.ref else policy.reference()
    if reference is None:
        reference = TokenScorer(load_policy(inputs.ref or inputs.model, device=device), adapter="default")
        reference.requires_grad_(False)
        probe(reference, length)
    assert inputs.reward is not None  # `check_inputs`
    network = load_reward(inputs.reward, device=device)
    shared = bool(options.lora)
    value_network = network if shared else load_reward(inputs.reward, device=device)
    prepare(value_network, options)
    if shared:
        adapt(value_network, "value", options)
    else:
        network.requires_grad_(False)
    reward = RewardScorer(network)
    value = ValueScorer(value_network, adapter="value" if shared else None)
    value.use(probe(reward, length))
    scores = translated(LearnedReward(reward, options.tokens), inputs.reward, policy, options)
    return Models(policy.scorer, reference, value, scores)


def translated(reward: LearnedReward, name: str, policy: TextPolicy, options: PPOOptions) -> Reward:
    """The reward itself where it reads the policy's tokens; else through text, by its own tokenizer."""
    tokenizer = load_tokenizer(name)
    mine, its = policy.tokenizer.get_vocab(), tokenizer.get_vocab()
    if all(its.get(token) == i for token, i in mine.items()):
        return reward
    encoder = text_encoder(tokenizer, reward.scorer.model, options)

    def score(groups: Sequence[Group]) -> Tensor:
        again = []
        for g in groups:
            prompt = str(policy.tokenizer.decode(list(g.prompt)))
            ids = encoder.prompt(prompt) or [encoder.eos]
            room = encoder.max_length - len(ids)
            texts = [(policy.encoder.decode(r), r[-1] in policy.encoder.stop) for r in g.responses]
            again.append(Group(ids, [encoder.response(prompt, text, room, finished=end) for text, end in texts]))
        return reward(again)

    return score


def run(inputs: Inputs, options: PPOOptions, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data`` by ``inputs.reward`` and write the policy to ``out``.

    The outer loop: one step of the run is one batch of responses and the updates on it.
    """
    ready = load(inputs, options)
    policy, models, ids, ptx = ready.policy, ready.models, ready.prompts, ready.ptx
    iterations = max(options.episodes // options.batch, 1)
    updates = options.epochs * options.minibatches
    order = Order(len(ids), options.batch // options.samples, options.seed)
    pretraining = (
        Order(len(ptx), options.ptx_batch or options.batch // options.minibatches, options.seed + 1) if ptx else None
    )
    control = KLControl(options.beta)
    actor = Optimiser([models.policy], options, iterations * updates)
    critic = Optimiser(
        [models.value], options, iterations * updates, scale=(options.value_lr or options.lr) / options.lr
    )
    run = Run(out, options, {"policy": actor, "value": critic, "control": control}, label="PPO", records=[ROLLOUTS])
    sampler = NativeSampler(models.policy, policy.stop)
    run.choose_precision(lambda: _trial(models.policy, ids, options).backward())
    actor.adam.zero_grad()

    for step in run.steps(iterations):
        chosen = order.endless(step)
        with run.guard():
            rollout = collect(policy, models, sampler, [ids[i] for i in chosen], step, control.beta, run, options)
            stats: list[dict[str, float]] = []
            for update, batch in enumerate(minibatches(len(rollout.groups), step, options)):
                extra = [ptx[i] for i in pretraining.endless(step * updates + update)] if pretraining else []
                run.batch = [rollout.groups[i] for i in batch]
                stats.append(learn(models, actor, critic, rollout, batch, extra, step * updates + update, run, options))
        kl = sequence_kl(rollout.old_logprobs, rollout.ref_logprobs, rollout.mask).mean().item()
        run.log(**summary(rollout, stats, kl, control.beta, options))
        if options.save_rollouts:
            run.record(ROLLOUTS, described(policy, rollout, [ready.contents[i] for i in chosen]))
        if options.kl_target:
            control.beta = adapt_kl(control.beta, kl, options.kl_target, len(rollout.samples), options.kl_horizon)

    last = run.history[-1]
    metrics = {key: last[key] for key in ("score", "kl", "beta", "entropy", "length", "eos_share")} | {
        "steps": iterations
    }
    switch_adapter(policy.scorer.model, "policy")
    save(policy.scorer.model, policy.tokenizer, out)
    artifact = finish(
        out, "ppo", inputs=inputs, options=options, data=ready.facts, metrics=metrics, seconds=run.seconds
    )
    run.discard_checkpoint()
    return artifact


def collect(
    policy: TextPolicy, models: Models, sampler: NativeSampler, chosen: Sequence[list[int]], step: int, beta: float,
    run: Run, options: PPOOptions,
) -> Rollout:  # fmt: skip
    """Sample, score, and compute what stays fixed during the updates."""
    how = SamplingParameters(
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, top_p=options.top_p, top_k=options.top_k
    )
    seeds = np.random.SeedSequence([options.seed, step]).generate_state(len(chosen)).tolist()
    with run.autocast():
        samples = sampler.sample(chosen, options.samples, how, seeds)
    if options.truncate_at:
        samples = [truncate(s, policy, options.truncate_at) for s in samples]
    n = options.samples
    groups = [Group(p, [s.tokens for s in samples[i * n : (i + 1) * n]]) for i, p in enumerate(chosen)]
    run.batch = groups

    scores = models.reward(groups)
    if not torch.isfinite(scores).all():
        raise NonFiniteGradient(
            f"the reward model scored {int((~torch.isfinite(scores)).sum())} responses as NaN or infinite"
        )
    if options.missing_eos is not None:
        cut = torch.tensor([s.finish_reason == "length" for s in samples], device=scores.device)
        scores = scores.masked_fill(cut, options.missing_eos)

    device = models.policy.device

    def with_entropy(layout: Layout) -> Tensor:
        found = models.policy(layout, temperature=options.temperature, entropy=True)
        return torch.stack([found.logprobs, found.entropy], -1)

    def reference(layout: Layout) -> Tensor:
        return models.reference(layout, temperature=options.temperature).logprobs

    old, entropy = gather(with_entropy, groups, options.tokens, device, run.autocast).unbind(-1)
    lengths = torch.tensor([len(s.tokens) for s in samples], device=device)
    mask = torch.arange(old.shape[1], device=device)[None] < lengths[:, None]
    sampled = torch.zeros_like(old).masked_scatter(
        mask, torch.tensor([x for s in samples for x in s.logprobs], device=device)
    )
    ref = gather(reference, groups, options.tokens, device, run.autocast)
    values = gather(models.value, groups, options.tokens, device, run.autocast)
    rewards = token_rewards(scores, old, ref, mask, beta)
    if options.whiten_rewards:
        rewards = whiten(rewards, mask, keep_mean=True)
    advantages, returns = gae(rewards, values, mask, options.gamma, options.lam)
    if options.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Rollout(
        groups, samples, scores, mask, old, ref, values, entropy,
        masked_mean((sampled - old).abs(), mask).item(), advantages, returns, rewards,
    )  # fmt: skip


def truncate(sample: Sample, policy: TextPolicy, text: str) -> Sample:
    """Cut a response after the first token that contains ``text``; it then counts as finished."""
    for i, token in enumerate(sample.tokens):
        if text in policy.tokenizer.decode([token]):
            return Sample(sample.prompt, sample.tokens[: i + 1], sample.logprobs[: i + 1], "stop")
    return sample


def minibatches(size: int, step: int, options: PPOOptions) -> list[list[int]]:
    """Indices of prompts for every update on a batch: ``epochs`` shuffles, each cut into ``minibatches``."""
    found: list[list[int]] = []
    for epoch in range(options.epochs):
        shuffled = np.random.default_rng([options.seed, step, epoch]).permutation(size)
        found += [part.tolist() for part in np.array_split(shuffled, min(options.minibatches, size))]
    return found


def learn(
    models: Models, actor: Optimiser, critic: Optimiser, rollout: Rollout, batch: Sequence[int], ptx: Sequence[Group],
    update: int, run: Run, options: PPOOptions,
) -> dict[str, float]:  # fmt: skip
    """One optimiser step of policy and value model on the minibatch ``batch`` (indices of prompts)."""
    groups = [rollout.groups[i] for i in batch]
    whole = torch.tensor(rows_of(rollout.groups, batch), device=rollout.mask.device)
    tokens = rollout.mask[whole].sum().item()
    sums = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "value_clip_fraction"), 0.0)
    farthest = 0.0
    for part in microbatches(groups, options.tokens):
        layout = lay_out([groups[i] for i in part], models.policy.device)
        rows = torch.tensor(rows_of(rollout.groups, [batch[i] for i in part]), device=whole.device)
        mask, width = layout.mask, layout.mask.shape[1]
        with run.autocast():
            logprobs = models.policy(layout, temperature=options.temperature).logprobs
            values = models.value(layout)
        policy = ppo_clip(logprobs, rollout.old_logprobs[rows, :width], rollout.advantages[rows, :width], options.clip)
        value = value_clip(
            values, rollout.values[rows, :width], rollout.returns[rows, :width], options.value_clip or None
        )
        policy_loss, value_loss = masked_sum(policy.loss, mask) / tokens, masked_sum(value.loss, mask) / tokens
        run.backward(policy_loss + options.vf_coef * value_loss)
        sums["policy_loss"] += policy_loss.item()
        sums["value_loss"] += value_loss.item()
        sums["approx_kl"] += masked_sum(policy.approx_kl, mask).item() / tokens
        sums["clip_fraction"] += masked_sum(policy.clipped.float(), mask).item() / tokens
        sums["value_clip_fraction"] += masked_sum(value.clipped.float(), mask).item() / tokens
        farthest = max(farthest, ((policy.ratio - 1).abs() * mask).max().item())
    if ptx:
        sums["ptx_loss"] = 0.0
        count = sum(len(r) for g in ptx for r in g.responses)
        for part in microbatches(ptx, options.tokens):
            layout = lay_out([ptx[i] for i in part], models.policy.device)
            with run.autocast():
                share = nll(models.policy(layout).logprobs, layout.trained).sum() / count
            run.backward(options.ptx_coef * share)
            sums["ptx_loss"] += share.item()
    norms = actor.clip(), critic.clip()  # both are looked at before either changes a weight
    steps = actor.update(update, norms[0])
    critic.update(update, norms[1])
    return {**sums, **steps, "value_grad_norm": norms[1], "ratio_gap": farthest}


def summary(
    rollout: Rollout, stats: Sequence[dict[str, float]], kl: float, beta: float, options: PPOOptions
) -> dict[str, float]:
    """The figures of an iteration; means are over real tokens or responses, never over padding."""
    mask = rollout.mask
    mean = {key: sum(s[key] for s in stats) / len(stats) for key in stats[0] if key != "ratio_gap"}
    return {
        "score": rollout.scores.mean().item(),
        "kl": kl,
        "reward": masked_sum(rollout.rewards, mask).item() / len(rollout.samples),
        "kl_k3": masked_sum(k3(rollout.old_logprobs, rollout.ref_logprobs), mask).item() / len(rollout.samples),
        "beta": beta,
        "entropy": masked_mean(rollout.entropy, mask).item(),
        "length": mask.sum().item() / len(rollout.samples),
        "eos_share": sum(s.finish_reason == "stop" for s in rollout.samples) / len(rollout.samples),
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask).item(),
        "sampler_gap": rollout.gap,
        "first_ratio_gap": stats[0]["ratio_gap"],
        **mean,
    }


def _trial(scorer: TokenScorer, ids: Sequence[list[int]], options: PPOOptions) -> Tensor:
    """A small forward pass, for measuring precision."""
    groups = [Group(p, [[p[-1]] * min(options.max_new_tokens, 64)]) for p in ids[:16]]
    return scorer(lay_out(groups, scorer.device)).logprobs.sum()


def described(policy: TextPolicy, rollout: Rollout, contents: Sequence[Content]) -> Iterator[dict[str, Any]]:
    """The batch's responses with their figures, as run/rollouts.jsonl holds them."""
    kls = sequence_kl(rollout.old_logprobs, rollout.ref_logprobs, rollout.mask).tolist()
    for sample, score, kl in zip(rollout.samples, rollout.scores.tolist(), kls, strict=True):
        prompt = contents[sample.prompt]
        yield {
            "prompt": prompt if isinstance(prompt, str) else [asdict(message) for message in prompt],
            "completion": policy.encoder.decode(sample.tokens),
            "score": round(score, 4),
            "kl": round(kl, 4),
            "finish_reason": sample.finish_reason,
        }
