"""Reward-weighted likelihood: a pipeline imitates its own pictures, the better ones more (Lee et al. 2023, eq. 4).

    w_i = n softmax(r_i / τσ) within a prompt's n pictures        σ: deviation of the scores within prompts
    L   = E w ‖f_θ(x_t, t, c) - target‖²

The denoising loss bounds the likelihood from below, so this is reward-weighted regression (Peters and Schaal 2007) of
policies whose likelihood is not known. It stays near the pictures that the policy can draw already.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.image_training import (
    TOGETHER,
    Figures,
    descend,
    encoded,
    keep,
    levels,
    open_policy,
    open_reward,
    read_prompts,
)
from hearken.objectives.diffusion import reward_weights
from hearken.progress import progress

if TYPE_CHECKING:
    from hearken.algorithms.image_rwr_options import RWRConfig
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


def run(inputs: Inputs, options: RWRConfig, out: Path) -> Artifact:
    """Improve ``inputs.model`` on pictures of the prompts of ``inputs.data``, and write it to ``out``."""
    began, rng = time.monotonic(), torch.Generator().manual_seed(options.seed)
    denoiser = open_policy(inputs, options)
    reward = open_reward(inputs, trust=options.trust_reward)
    prompts = read_prompts(inputs.data, denoiser)
    rows = [prompt for prompt in prompts for _ in range(options.samples)]

    latents, scores = [], []
    with progress("Pictures", len(rows)) as bar, torch.no_grad():
        for first in range(0, len(rows), TOGETHER):
            some = rows[first : first + TOGETHER]
            start = torch.randn(len(some), *denoiser.shape, generator=rng) * denoiser.start_scale
            latents.append(denoiser.sample(denoiser.encode(some), start))
            pictures = denoiser.to_pictures(latents[-1]).clamp(-1, 1)
            scores.append(reward(pictures, reward.denoiser.encode(some)))
            bar.advance(len(some))
    clean, conditions = torch.cat(latents), encoded(denoiser, rows)
    scored = torch.cat(scores).view(-1, options.samples)
    spread = scored.std(1).pow(2).mean().sqrt().clamp(min=1e-6)
    weights = reward_weights(scored / spread, options.tau).flatten()

    denoiser.net.train().requires_grad_(True)

    def loss(step: int) -> tuple[Tensor, Figures]:
        """Rows are drawn by their weight, which is the weighted loss with less noise."""
        some = torch.multinomial(weights, options.batch_size, replacement=True, generator=rng)
        noise = torch.randn(len(some), *denoiser.shape, generator=rng)
        errors = denoiser.errors(clean[some], conditions.rows(some), levels(len(some), rng), noise)
        return errors.mean(), {}

    figures = descend([denoiser.net], options, out, "RWR", loss, ema=options.ema)
    figures |= {"score": float(scored.mean()), "weighted_score": float((weights * scored.flatten()).mean())}
    return keep(denoiser, inputs, options, out, began, figures, len(prompts))
