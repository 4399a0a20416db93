"""Text-to-image pipelines of diffusers, step by step: each step is a Gaussian of known density.

Shapes: R pictures, (R, C, H, W) latents; pictures are (R, 3, H, W) in [-1, 1]. A step's density is all that policy
gradients need (`objectives.diffusion`), and schedulers without one are refused.
"""

from __future__ import annotations

import json
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hearken.errors import UserError
from hearken.objectives.diffusion import (
    Gaussian,
    clean_and_noise,
    ddim_step,
    ddpm_noised,
    ddpm_target,
    denoising_error,
    flow_noised,
    flow_step,
)

INDEX = "model_index.json"
EXTRA = 'pip install "hearken[image]"'
SMALLEST = 0.05
"""Noise level below which PRX's pixel pipeline divides by this one, in diffusers as here."""

Draw = Callable[[Tensor], Tensor]
"""Latents -> standard normal noise of their shape."""


class Conditions(NamedTuple):
    """What prompts are to the network, a row each."""

    hidden: Tensor
    """(R, L, E)."""
    mask: Tensor | None = None
    """(R, L), False at padding."""

    def rows(self, some: Tensor | slice) -> Conditions:
        """Of some of the prompts."""
        return Conditions(self.hidden[some], None if self.mask is None else self.mask[some])


class Denoiser(ABC):
    """A pipeline whose steps are taken one by one.

    Args:
        pipe: of the class `pipeline`.
        steps: from noise to a picture; None: `usual_steps`.
        guidance: weight of classifier-free guidance; 1 is without; None: `usual_guidance`.
    """

    pipeline: ClassVar[str]
    scheduler: ClassVar[str]
    usual_steps: ClassVar[int]
    usual_guidance: ClassVar[float]

    def __init__(self, pipe: Any, steps: int | None = None, guidance: float | None = None) -> None:
        self.pipe = pipe
        self.steps = self.usual_steps if steps is None else steps
        self.guidance = self.usual_guidance if guidance is None else guidance

    @property
    @abstractmethod
    def net(self) -> nn.Module:
        """What is trained."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a latent."""

    @property
    def dimensions(self) -> int:
        """Numbers of a latent."""
        c, h, w = self.shape
        return c * h * w

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditions:
        """What prompts are to the network; with a gradient where the text encoder has one."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of a prompt that are read; what stands behind them is cut."""

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Say which prompts are cut.

        Raises:
            UserError: two of them are the same as far as they are read.
        """
        every = list(dict.fromkeys(prompts))
        ids = [tuple(row) for row in self.pipe.tokenizer(every, truncation=False)["input_ids"]] if every else []
        cut = [i for i, row in enumerate(ids) if len(row) > self.longest]
        if not cut:
            return
        seen: dict[tuple[int, ...], int] = {}
        for i, row in enumerate(ids):
            other = seen.setdefault(row[: self.longest - 1], i)  # the last token that is read ends the prompt
            if other != i and max(len(row), len(ids[other])) > self.longest:
                raise UserError(
                    f"two prompts are the same to the text encoder, which reads {self.longest} tokens: "
                    f"{every[other][:60]!r}... and {every[i][:60]!r}...",
                    "Shorten them so that they differ earlier",
                )
        warnings.warn(
            f"{len(cut)} of {len(every)} prompts are cut: the text encoder reads {self.longest} tokens, and "
            f"{every[cut[0]][:60]!r}... has {len(ids[cut[0]])}",
            stacklevel=2,
        )

    @abstractmethod
    def network(self, latent: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        """What the network predicts, (R, C, H, W), at (R,) times as it counts them."""

    @abstractmethod
    def time(self, i: int) -> float:
        """When step ``i`` begins, as the network counts it."""

    @abstractmethod
    def step(self, latent: Tensor, predicted: Tensor, i: int, noise: float) -> Gaussian:
        """Where step ``i`` leads: its deviation is 0 where ``noise`` is, and at the last step."""

    @abstractmethod
    def clean(self, latent: Tensor, predicted: Tensor, i: int) -> Tensor:
        """What ``predicted`` at step ``i`` says of the clean latent."""

    @abstractmethod
    def errors(self, clean: Tensor, conditions: Conditions, levels: Tensor, noise: Tensor) -> Tensor:
        """Denoising errors (R,) of latents at (R,) levels in (0, 1), 1 being noise: the loss of pretraining."""

    @abstractmethod
    def hidden(self, pictures: Tensor, conditions: Conditions) -> Tensor:
        """(R, T, F) what the network makes of pictures before its last layer."""

    def to_pictures(self, latent: Tensor) -> Tensor:
        """Pictures of clean latents, not clamped."""
        return latent

    def to_latents(self, pictures: Tensor) -> Tensor:
        """Latents of pictures."""
        return pictures

    @property
    def start_scale(self) -> float:
        """Deviation of the noise that pictures begin as."""
        return 1.0

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of what it makes."""
        return self.shape[1:]

    def start(self, generators: Sequence[torch.Generator]) -> Tensor:
        """Noise, a generator a row."""
        rows = [torch.randn(self.shape, generator=one) for one in generators]
        return torch.stack(rows) * self.start_scale

    def predict(self, latent: Tensor, i: int, conditions: Conditions, empty: Conditions | None = None) -> Tensor:
        """What the network predicts at step ``i``; guided where the ``empty`` prompt's conditions are given."""
        times = torch.full((len(latent),), self.time(i), device=latent.device)
        predicted = self.network(latent, times, conditions)
        if empty is None:
            return predicted
        hidden, mask = (one if one is None else one.expand(len(latent), *one.shape[1:]) for one in empty)
        assert hidden is not None
        without = self.network(latent, times, Conditions(hidden, mask))
        return without + self.guidance * (predicted - without)

    def unguided(self) -> Conditions | None:
        """The empty prompt's conditions where there is guidance, for `predict`."""
        return self.encode([""]) if self.guidance != 1 else None

    @torch.no_grad()
    def sample(
        self, conditions: Conditions, start: Tensor, noise: float = 0.0, draw: Draw = torch.randn_like
    ) -> Tensor:
        """From noise to clean latents.

        Args:
            conditions: of R prompts.
            start: (R, C, H, W) noise.
            noise: η of DDIM, a of the flow's SDE; 0 is deterministic.
            draw: the noise of a step.
        """
        latent, empty = start, self.unguided()
        for i in range(self.steps):
            mean, std = self.step(latent, self.predict(latent, i, conditions, empty), i, noise)
            latent = mean + std * draw(mean) if bool((std > 0).any()) else mean
        return latent

    def save(self, folder: Path) -> None:
        """A folder that ``DiffusionPipeline.from_pretrained`` reads."""
        self.pipe.save_pretrained(folder)

    def hook(self, layer: nn.Module, *, before: bool, run: Callable[[], Any]) -> Tensor:
        """What goes into a layer, or comes out of it, while ``run`` does."""
        seen: list[Tensor] = []
        if before:
            handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        else:
            handle = layer.register_forward_hook(lambda _, given, made: seen.append(made))
        try:
            run()
        finally:
            handle.remove()
        return seen[-1]


class PixelFlow(Denoiser):
    """PRX's pixel pipeline: flow matching between pictures and noise, the network predicts the picture."""

    pipeline = "PRXPixelPipeline"
    scheduler = "FlowMatchEulerDiscreteScheduler"
    usual_steps = 10
    usual_guidance = 1.0

    def __init__(self, pipe: Any, steps: int | None = None, guidance: float | None = None) -> None:
        super().__init__(pipe, steps, guidance)
        shift = pipe.scheduler.config.shift
        even = torch.linspace(1, 1 / self.steps, self.steps)
        self.sigmas = torch.cat([shift * even / (1 + (shift - 1) * even), torch.zeros(1)])

    @property
    def net(self) -> nn.Module:
        """The transformer."""
        return self.pipe.transformer

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture."""
        size = self.pipe.config.default_sample_size
        return self.pipe.transformer.config.in_channels, size, size

    @property
    def start_scale(self) -> float:
        """As the pipeline has it."""
        return float(self.pipe.config.noise_scale)

    @property
    def longest(self) -> int:
        """As the pipeline has it."""
        return int(self.pipe.config.prompt_max_tokens)

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """By the pipeline's text encoder."""
        tokens, mask = self.pipe._tokenize_prompts(list(prompts), self.pipe.device)
        hidden = self.pipe.text_encoder(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        return Conditions(hidden["last_hidden_state"], mask)

    def network(self, latent: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        """The picture, at noise levels s in (0, 1]."""
        return self.net(
            hidden_states=latent, timestep=times, encoder_hidden_states=conditions.hidden,
            attention_mask=conditions.mask, return_dict=False,
        )[0]  # fmt: skip

    def time(self, i: int) -> float:
        """S."""
        return float(self.sigmas[i])

    def step(self, latent: Tensor, predicted: Tensor, i: int, noise: float) -> Gaussian:
        """Flow-GRPO's; the last is Euler's."""
        s, after, second = (self.sigmas[k].to(latent) for k in (i, i + 1, 1))
        velocity = (latent - predicted) / s.clamp(min=SMALLEST)
        return flow_step(latent, velocity, s, after, noise if i < self.steps - 1 else 0.0, second=second)

    def clean(self, latent: Tensor, predicted: Tensor, i: int) -> Tensor:
        """It is what is predicted."""
        return predicted

    def errors(self, clean: Tensor, conditions: Conditions, levels: Tensor, noise: Tensor) -> Tensor:
        """Of the velocity."""
        s = levels.view(-1, 1, 1, 1)
        noisy, floor = flow_noised(clean, self.pipe.config.noise_scale * noise, s), s.clamp(min=SMALLEST)
        predicted = self.network(noisy, levels, conditions)
        return denoising_error((noisy - predicted) / floor, (noisy - clean) / floor)

    def hidden(self, pictures: Tensor, conditions: Conditions) -> Tensor:
        """What goes into the last layer, a row a patch."""
        times = torch.full((len(pictures),), SMALLEST, device=pictures.device)
        return self.hook(
            self.pipe.transformer.final_layer, before=True, run=lambda: self.network(pictures, times, conditions)
        )


class StableDiffusion(Denoiser):
    """Stable Diffusion 1 and 2: a U-Net on an autoencoder's latents, with DDIM."""

    pipeline = "StableDiffusionPipeline"
    scheduler = "DDIMScheduler"
    usual_steps = 50
    usual_guidance = 7.5

    def __init__(self, pipe: Any, steps: int | None = None, guidance: float | None = None) -> None:
        super().__init__(pipe, steps, guidance)
        scheduler, config = pipe.scheduler, pipe.scheduler.config
        scheduler.set_timesteps(self.steps)
        self.times = scheduler.timesteps.tolist()
        self.every = config.num_train_timesteps
        self.prediction = config.prediction_type
        before = [t - self.every // self.steps for t in self.times]
        self.alphas = scheduler.alphas_cumprod
        self.next = torch.stack([self.alphas[t] if t >= 0 else scheduler.final_alpha_cumprod for t in before])

    @property
    def net(self) -> nn.Module:
        """The U-Net."""
        return self.pipe.unet

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the U-Net's input."""
        size = self.pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.pipe.unet.config.in_channels, height, width

    @property
    def picture_size(self) -> tuple[int, int]:
        """As the autoencoder enlarges latents."""
        _, height, width = self.shape
        scale = 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)
        return height * scale, width * scale

    @property
    def longest(self) -> int:
        """CLIP's 77, or as the tokenizer says."""
        return int(self.pipe.tokenizer.model_max_length)

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """By the pipeline."""
        return Conditions(self.pipe.encode_prompt(list(prompts), self.pipe.device, 1, False)[0])

    def network(self, latent: Tensor, times: Tensor, conditions: Conditions) -> Tensor:
        """As the scheduler's ``prediction_type`` says, at times 0 to 999."""
        return self.net(latent, times, encoder_hidden_states=conditions.hidden, return_dict=False)[0]

    def time(self, i: int) -> float:
        """T."""
        return float(self.times[i])

    def step(self, latent: Tensor, predicted: Tensor, i: int, noise: float) -> Gaussian:
        """DDIM's; ``noise`` is η."""
        alpha, after = self.alphas[self.times[i]].to(latent), self.next[i].to(latent)
        return ddim_step(latent, predicted, alpha, after, noise, self.prediction)

    def clean(self, latent: Tensor, predicted: Tensor, i: int) -> Tensor:
        """x̂_0."""
        return clean_and_noise(latent, predicted, self.alphas[self.times[i]].to(latent), self.prediction)[0]

    def errors(self, clean: Tensor, conditions: Conditions, levels: Tensor, noise: Tensor) -> Tensor:
        """Of what the network predicts."""
        times = (levels * self.every).long().clamp(max=self.every - 1)
        alpha = self.alphas.to(clean)[times].view(-1, 1, 1, 1)
        predicted = self.network(ddpm_noised(clean, noise, alpha), times, conditions)
        return denoising_error(predicted, ddpm_target(clean, noise, alpha, self.prediction))

    def hidden(self, pictures: Tensor, conditions: Conditions) -> Tensor:
        """What comes out of the U-Net's middle, a row a place."""
        latent = self.to_latents(pictures)
        times = torch.zeros(len(latent), device=latent.device, dtype=torch.long)
        seen = self.hook(self.pipe.unet.mid_block, before=False, run=lambda: self.network(latent, times, conditions))
        return seen.flatten(2).transpose(1, 2)

    def to_pictures(self, latent: Tensor) -> Tensor:
        """By the autoencoder."""
        return self.pipe.vae.decode(latent / self.pipe.vae.config.scaling_factor, return_dict=False)[0]

    def to_latents(self, pictures: Tensor) -> Tensor:
        """By the autoencoder: the likeliest."""
        return self.pipe.vae.encode(pictures).latent_dist.mode() * self.pipe.vae.config.scaling_factor


KNOWN: dict[str, type[Denoiser]] = {one.pipeline: one for one in (PixelFlow, StableDiffusion)}


def check_pipeline(folder: str) -> type[Denoiser]:
    """What takes the steps of a pipeline's folder.

    Raises:
        UserError: it is none, or one that cannot be trained here: what is missing or what to change.
    """
    try:
        index = json.loads((Path(folder) / INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is no pipeline of diffusers: {INDEX} is missing or broken ({error})",
            "Write one with pipe.save_pretrained(folder)",
        ) from None
    kind = index.get("_class_name")
    if kind not in KNOWN:
        raise UserError(f"{folder} is a {kind}, whose steps are not known here", f"Known: {', '.join(KNOWN)}")
    parts = [name for name, value in index.items() if not name.startswith("_") and isinstance(value, list) and value[0]]
    if gone := [name for name in parts if not (Path(folder) / name).is_dir()]:
        raise UserError(f"{folder} lacks {', '.join(gone)}, which its {INDEX} names", "Save the whole pipeline")
    settings = Path(folder) / "scheduler" / "scheduler_config.json"
    config = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
    wanted = KNOWN[kind].scheduler
    if (given := config.get("_class_name")) != wanted:
        raise UserError(
            f"{folder} samples with {given}, whose steps have no density that is known here",
            f"pipe.scheduler = {wanted}.from_config(pipe.scheduler.config), then pipe.save_pretrained(folder)",
        )
    for name in ("clip_sample", "thresholding", "use_dynamic_shifting", "stochastic_sampling"):
        if config.get(name):
            raise UserError(f"{settings}: {name} is on, through which no gradient goes", f'Set "{name}" to false')
    return KNOWN[kind]


def open_denoiser(folder: str, steps: int | None = None, guidance: float | None = None) -> Denoiser:
    """The pipeline in a folder, its steps ready to be taken.

    Raises:
        UserError: diffusers is not installed, or `check_pipeline` refuses the folder.
    """
    kind = check_pipeline(folder)
    try:
        import diffusers
        from diffusers.utils.logging import disable_progress_bar
    except ModuleNotFoundError:
        raise UserError("pictures need diffusers, which is not installed", EXTRA) from None
    from transformers.utils import logging as quiet

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    disable_progress_bar()
    quiet.disable_progress_bar()
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many sorts
        raise UserError(f"{folder} cannot be read as a pipeline ({error})", "Save it again") from None
    pipe.set_progress_bar_config(disable=True)
    return kind(pipe, steps, guidance)
