"""Policy gradient on denoising steps: DDPO (Black et al. 2024), Flow-GRPO (Liu et al. 2025), DPOK (Fan et al. 2023).

    A    = (r - mean of the prompt's pictures) / deviation of the batch
    L    = E_steps [max(-A ρ, -A clip(ρ)) + β KL(π_θ(x' | x, c) ‖ π_ref(x' | x, c))] / d

A step is an action: the next latent, drawn from a Gaussian, so that both the ratio ρ and the KL are exact. With β = 0
it is DDPO (in flow models Flow-GRPO); DPOK's published code penalises the squared difference of the networks instead of
the KL that its paper bounds. Division by the d numbers of a latent changes the size of the gradient alone.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from hearken.algorithms.image_training import Figures, descend, keep, open_policy, open_reward, read_prompts
from hearken.models.diffusion import Conditions, Denoiser, open_denoiser
from hearken.objectives.diffusion import batch_advantages, ddpo_clip, log_prob, step_kl

if TYPE_CHECKING:
    from hearken.algorithms.image_ddpo_options import DDPOConfig
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


class Paths(NamedTuple):
    """R paths from noise to pictures."""

    conditions: Conditions
    latents: list[Tensor]
    """S + 1 of (R, C, H, W)."""
    logprobs: dict[int, Tensor]
    """(R,) of the steps that have a density."""


@torch.no_grad()
def draw(denoiser: Denoiser, prompts: list[str], noise: float, rng: torch.Generator) -> Paths:
    """Paths with noise at every step."""
    conditions, empty = denoiser.encode(prompts), denoiser.unguided()
    latents = [torch.randn(len(prompts), *denoiser.shape, generator=rng) * denoiser.start_scale]
    logprobs = {}
    for i in range(denoiser.steps):
        step = denoiser.step(latents[-1], denoiser.predict(latents[-1], i, conditions, empty), i, noise)
        drawn = step.mean
        if float(step.std.min()) > 0:  # else the step has no density: it is taken, not learnt from
            drawn = step.mean + step.std * torch.randn(step.mean.shape, generator=rng)
            logprobs[i] = log_prob(step, drawn)
        latents.append(drawn)
    return Paths(conditions, latents, logprobs)


def run(inputs: Inputs, options: DDPOConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on the prompts of ``inputs.data``, and write it to ``out``."""
    began, rng = time.monotonic(), torch.Generator().manual_seed(options.seed)
    denoiser = open_policy(inputs, options)
    ref = open_denoiser(inputs.ref or inputs.model, denoiser.steps, denoiser.guidance)
    ref.net.requires_grad_(False)
    reward = open_reward(inputs, trust=options.trust_reward)
    prompts, n, d = read_prompts(inputs.data, denoiser), options.num_generations, denoiser.dimensions
    denoiser.net.requires_grad_(True)
    behaviour = copy.deepcopy(denoiser) if options.epochs > 1 else denoiser
    batch: list[tuple[int, Paths, Tensor, list[int], Figures]] = []

    def collect(step: int) -> tuple[int, Paths, Tensor, list[int], Figures]:
        if batch and batch[0][0] == step:
            return batch[0]
        behaviour.net.load_state_dict(denoiser.net.state_dict())
        some = torch.randperm(len(prompts), generator=rng)[: options.prompts].tolist()
        rows = [prompts[i] for i in some for _ in range(n)]
        paths = draw(behaviour, rows, options.noise, rng)
        with torch.no_grad():
            pictures = denoiser.to_pictures(paths.latents[-1]).clamp(-1, 1)
            scores = reward(pictures, reward.denoiser.encode(rows)).view(-1, n)
        advantages = batch_advantages(scores, options.advantage_clip).flatten()
        dense = sorted(paths.logprobs)
        chosen = torch.randperm(len(dense), generator=rng)[: options.timesteps].tolist()
        figures = {"score": float(scores.mean()), "score_std": float(scores.std())}
        batch[:] = [(step, paths, advantages, [dense[i] for i in chosen], figures)]
        return batch[0]

    def loss(step: int) -> tuple[Tensor, Figures]:
        _, paths, advantages, chosen, figures = collect(step)
        empty, total = denoiser.unguided(), torch.zeros(())
        kls, clipped = [], []
        for i in chosen:
            latent, after = paths.latents[i], paths.latents[i + 1]
            here = denoiser.step(latent, denoiser.predict(latent, i, paths.conditions, empty), i, options.noise)
            with torch.no_grad():
                there = ref.step(latent, ref.predict(latent, i, paths.conditions, empty), i, options.noise)
            gain = ddpo_clip(log_prob(here, after), paths.logprobs[i], advantages, options.clip, d)
            kl = step_kl(here.mean, there.mean, here.std)
            total = total + (gain.loss + options.beta * kl).mean() / (len(chosen) * d)
            kls.append(kl.mean().item())
            clipped.append(float(gain.clipped.float().mean()))
        path_kl = sum(kls) / len(kls) * len(paths.logprobs)
        return total, figures | {"kl": path_kl, "clipped": sum(clipped) / len(clipped)}

    figures = descend([denoiser.net], options, out, "DDPO", loss, ema=options.ema, epochs=options.epochs)
    return keep(denoiser, inputs, options, out, began, figures, len(prompts))
