"""What the stages of pictures share: their data, and the loop around a loss."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from hearken.domains.base import find_domain
from hearken.domains.image.domain import caption
from hearken.domains.image.rewarding import PictureReward
from hearken.domains.image.tensors import to_tensor
from hearken.errors import UserError
from hearken.feedback.examples import Demonstration, PromptOnly
from hearken.feedback.formats import read_examples
from hearken.feedback.media import MediaFolder
from hearken.models.diffusion import Conditions, Denoiser, open_denoiser
from hearken.progress import progress
from hearken.rewards.trust import check_card
from hearken.training.artifact import finish, hash_files

if TYPE_CHECKING:
    from hearken.algorithms.image_options import PictureTraining, PolicyTraining
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact

TOGETHER = 96
"""Pictures that are drawn or encoded at once."""

Figures = dict[str, float]


class Captioned(NamedTuple):
    """N pictures and their captions."""

    captions: list[str]
    pictures: Tensor
    """(N, 3, H, W) in [-1, 1]."""


def read_captioned(paths: Sequence[str], denoiser: Denoiser) -> Captioned:
    """Captioned pictures, brought to the size that a pipeline makes.

    Raises:
        UserError: there are none, or one cannot be read: which.
    """
    domain, captions, pictures, size = find_domain("image"), [], [], denoiser.picture_size
    for path in paths:
        files = MediaFolder.beside(path)
        for number, row in enumerate(read_examples(path), 1):
            if not isinstance(row, Demonstration):
                raise UserError(f"{path}, row {number}: no captioned picture", "Give rows of a prompt and a completion")
            try:
                pictures.append(to_tensor([domain.read(row.response, files)], size)[0])
            except UserError as error:
                raise UserError(f"{path}, row {number}: {error.what}", error.hint) from None
            captions.append(caption(row.prompt))
    if not captions:
        raise UserError(
            f"{', '.join(paths)}: there are no captioned pictures", "Give rows of a prompt and a completion"
        )
    denoiser.check_prompts(captions)
    return Captioned(captions, torch.stack(pictures))


LARGE = 100_000_000
"""Weights from which on adapters are usual."""


def open_policy(inputs: Inputs, options: PolicyTraining) -> Denoiser:
    """The pipeline that is trained; says what training all of a large one's weights takes."""
    denoiser = open_denoiser(inputs.model, options.sampling_steps, options.guidance)
    size = sum(p.numel() for p in denoiser.net.parameters())
    if size > LARGE:
        warnings.warn(
            f"all {size / 1e6:,.0f} million weights of {inputs.model} are trained: about {size * 20 / 2**30:.0f} GiB "
            "with their gradients, AdamW's moments and the running mean; adapters (LoRA) are for texts only so far",
            stacklevel=2,
        )
    return denoiser


def read_prompts(paths: Sequence[str], denoiser: Denoiser) -> list[str]:
    """Captions to draw pictures of; the same prompt counts once.

    Raises:
        UserError: there are none, a row is something else, or two cannot be told apart (`Denoiser.check_prompts`).
    """
    found: dict[str, None] = {}
    for path in paths:
        for number, row in enumerate(read_examples(path), 1):
            if not isinstance(row, PromptOnly):
                raise UserError(f"{path}, row {number}: more than a prompt", "Give rows of a prompt each")
            found[caption(row.prompt)] = None
    denoiser.check_prompts(list(found))
    if not found:
        raise UserError(f"{', '.join(paths)}: there are no prompts", "Give rows of a prompt each")
    return list(found)


def open_reward(inputs: Inputs, *, trust: bool) -> PictureReward:
    """The reward model that is named, if its card does not speak against it."""
    assert inputs.reward
    check_card(inputs.reward, trust=trust)
    return PictureReward.load(inputs.reward)


@torch.no_grad()
def encoded(denoiser: Denoiser, prompts: Sequence[str]) -> Conditions:
    """What prompts are to the network, some at a time."""
    parts = [denoiser.encode(prompts[i : i + TOGETHER]) for i in range(0, len(prompts), TOGETHER)]
    masks = [part.mask for part in parts if part.mask is not None]
    return Conditions(torch.cat([part.hidden for part in parts]), torch.cat(masks) if masks else None)


def levels(n: int, generator: torch.Generator) -> Tensor:
    """(n,) noise levels to train at: 70 % by a logistic normal (Esser et al. 2024), which leaves the ends bare, the
    rest even.
    """
    even = torch.rand(n, generator=generator) * 0.98 + 0.01
    middle = torch.randn(n, generator=generator).sigmoid()
    return torch.where(torch.rand(n, generator=generator) < 0.3, even, middle)


def descend(
    modules: Sequence[nn.Module], options: PictureTraining, out: Path, title: str,
    loss: Callable[[int], tuple[Tensor, Figures]], *, ema: float = 0.0, epochs: int = 1,
) -> Figures:  # fmt: skip
    """AdamW on what ``loss`` gives for each step; ends with the running mean of the weights, if there is one.

    Args:
        modules: what is trained.
        options: of the stage.
        out: an artifact's folder.
        title: of the progress bar.
        loss: number of the step, from 0 -> loss, figures for the log.
        ema: decay of the running mean; 0: none.
        epochs: updates a step, with the loss computed anew for each.

    Returns:
        the last row of the log.

    Raises:
        UserError: the loss is no finite number.
    """
    parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
    kept = copy.deepcopy([one.detach() for one in parameters]) if ema else []
    adam = torch.optim.AdamW(parameters, options.lr, weight_decay=options.weight_decay)
    rising, row = max(1, options.steps // 50), {}
    with progress(title, options.steps) as bar, (out / "run" / "metrics.jsonl").open("w") as file:
        for step in range(options.steps):
            share = min(1.0, (step + 1) / rising) * min(1.0, max(0.05, 2 * (1 - step / options.steps)))
            adam.param_groups[0]["lr"] = options.lr * share
            for _ in range(epochs):
                value, figures = loss(step)
                if not torch.isfinite(value):
                    raise UserError(f"the loss of step {step + 1} is no finite number", "Lower --lr")
                adam.zero_grad()
                value.backward()
                norm = nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
                adam.step()
            decay = min(ema, (step + 1) / (step + 10))
            for mean, one in zip(kept, parameters, strict=False):
                mean.lerp_(one.detach(), 1 - decay)
            if (step + 1) % options.log_every == 0 or step + 1 == options.steps:
                row = {"step": step + 1, "loss": value.item(), "grad_norm": norm.item(), **figures}
                file.write(json.dumps(row) + "\n")
                file.flush()
            bar.advance(1)
    with torch.no_grad():
        for mean, one in zip(kept, parameters, strict=False):
            one.copy_(mean)
    return {name: number for name, number in row.items() if name != "step"}


def keep(
    denoiser: Denoiser, inputs: Inputs, options: PolicyTraining, out: Path, began: float, figures: Figures, rows: int
) -> Artifact:
    """Save a policy and its manifest."""
    denoiser.save(out)
    data = {"hash": hash_files(inputs.data), "rows": rows}
    seconds = time.monotonic() - began
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=figures, seconds=seconds)
