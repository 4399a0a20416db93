"""A pipeline learns captioned pictures by the denoising loss (Ho et al. 2020; flow matching: Lipman et al. 2023).

L = E ‖f_θ(x_t, t, c) - target‖²       t: `image_training.levels`; c: a caption, or none in a share of the rows
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hearken.algorithms.image_training import Figures, descend, keep, levels, open_policy, read_captioned

if TYPE_CHECKING:
    from hearken.algorithms.image_sft_options import PictureSFTConfig
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


def run(inputs: Inputs, options: PictureSFTConfig, out: Path) -> Artifact:
    """Train ``inputs.model`` on the captioned pictures of ``inputs.data``, and write it to ``out``."""
    began, rng = time.monotonic(), torch.Generator().manual_seed(options.seed)
    denoiser = open_policy(inputs, options)
    data = read_captioned(inputs.data, denoiser)
    text = denoiser.pipe.text_encoder.requires_grad_(options.train_text)
    denoiser.net.train().requires_grad_(True)

    def loss(step: int) -> tuple[Tensor, Figures]:
        some = torch.randint(len(data.captions), (options.batch_size,), generator=rng)
        bare = torch.rand(options.batch_size, generator=rng) < options.caption_dropout
        captions = ["" if none else data.captions[i] for i, none in zip(some.tolist(), bare.tolist(), strict=True)]
        with torch.no_grad():
            clean = denoiser.to_latents(data.pictures[some])
        noise = torch.randn(clean.shape, generator=rng)
        errors = denoiser.errors(clean, denoiser.encode(captions), levels(len(clean), rng), noise)
        return errors.mean(), {}

    modules = [denoiser.net, text] if options.train_text else [denoiser.net]
    figures = descend(modules, options, out, "SFT", loss, ema=options.ema)
    return keep(denoiser, inputs, options, out, began, figures, len(data.captions))
