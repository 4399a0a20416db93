"""Pictures as a domain: text-to-image pipelines with DDIM or flow matching. Torch is loaded by what needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from hearken.domains.base import SCORES, Domain, Drawn, Facts, Measured, Published, Scorer, mean
from hearken.domains.best_of import BestOf
from hearken.domains.image import figures
from hearken.domains.image.codec import Picture, read_picture, write_png
from hearken.errors import UserError
from hearken.feedback.examples import Content, content_key
from hearken.feedback.media import MediaFolder
from hearken.rollout.sampler import SamplingParameters

INDEX = "model_index.json"
REWARD = "reward.safetensors"
BATCH = 64
"""Pictures that are drawn at once."""

LOAD = """```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}")
pipe("a prompt").images[0].save("picture.png")
```
"""


class PictureSampling(SamplingParameters):
    """How pictures are drawn: from noise, by steps without further noise."""

    steps: int | None = Field(None, ge=1)
    """From noise to a picture; none: the pipeline's usual (DDIM 50, flow matching 10)."""
    guidance: float | None = Field(None, ge=1)
    """Weight of classifier-free guidance, 1 is without; none: the pipeline's usual (Stable Diffusion 7.5)."""

    @model_validator(mode="after")
    def _of_text(self) -> Self:
        """Refuse what only texts have."""
        plain = SamplingParameters()
        for name in ("max_new_tokens", "temperature", "top_p", "top_k"):
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(f"{name} is of texts; a picture has none")
        return self


class Image(Domain):
    """A policy is a pipeline's folder; a response is a PNG."""

    name = "image"
    viewer = "image"
    sampling = PictureSampling
    figures = figures.TITLES

    def recognises(self, model: str) -> bool:
        """Whether it is a folder with a ``model_index.json``."""
        return (Path(model) / INDEX).is_file()

    def check_model(self, name: str, flag: str = "--model") -> None:
        """Refuse what is no pipeline, or one whose steps have no known density."""
        from hearken.models.diffusion import check_pipeline

        check_pipeline(name)

    def check_reward(self, name: str) -> None:
        """Refuse a folder without a reward model of pictures."""
        super().check_reward(name)
        if not (Path(name) / REWARD).is_file():
            raise UserError(
                f"--reward {name} holds no reward model of pictures", "Train one with: hearken train reward"
            )

    def sample(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int, files: MediaFolder, *,
        facts: Facts | None = None,
    ) -> Iterator[list[Drawn]]:  # fmt: skip
        """Pictures; the noise that one begins with is of prompt, seed and number, the same for all policies."""
        for part in self._draw(policy, prompts, k, how, seed):
            yield [Drawn(prompt, files.keep(write_png(picture)).path, seed, number) for prompt, number, picture in part]

    def _draw(
        self, policy: str, prompts: Sequence[Content], k: int, how: Any, seed: int
    ) -> Iterator[list[tuple[Content, int, Picture]]]:
        import torch

        from hearken.domains.image.tensors import to_bytes
        from hearken.models.diffusion import open_denoiser

        denoiser = open_denoiser(policy, getattr(how, "steps", None), getattr(how, "guidance", None))
        denoiser.check_prompts([caption(prompt) for prompt in prompts])
        together = max(1, BATCH // k)
        for first in range(0, len(prompts), together):
            rows = [(prompt, number) for prompt in prompts[first : first + together] for number in range(k)]
            start = denoiser.start([_generator(prompt, seed, number) for prompt, number in rows])
            with torch.no_grad():
                conditions = denoiser.encode([caption(prompt) for prompt, _ in rows])
                pictures = to_bytes(denoiser.to_pictures(denoiser.sample(conditions, start)))
            yield [(*row, picture) for row, picture in zip(rows, pictures, strict=True)]

    def measure(
        self, policy: str, reference: str, prompts: Sequence[Content], how: Any, seed: int, files: MediaFolder, *,
        choice: BestOf | None = None, facts: Facts | None = None,
    ) -> Measured:  # fmt: skip
        """A picture of each prompt and its figures; diversity by the distance to a second one from other noise."""
        seen = super().measure(policy, reference, prompts, how, seed, files, choice=choice, facts=facts)
        pictures = [self.read(content, files) for content in seen.responses]
        found = {
            name: mean([getattr(figures, name)(picture) for picture in pictures], prompts)
            for name in ("brightness", "saturation", "sharpness")
        }
        others = [picture for part in self._draw(policy, prompts, 1, how, seed + 1) for _, _, picture in part]
        apart = [figures.distance(a, b) for a, b in zip(pictures, others, strict=True)]
        return Measured(seen.responses, seen.finished, found | {"diversity": mean(apart, prompts)})

    def decode(self, data: bytes) -> Picture:
        """See `codec.read_picture`."""
        return read_picture(data)

    def describe(self, content: str, files: MediaFolder) -> dict[str, Any]:
        """Its size and figures."""
        picture = self.read(content, files)
        names = ("brightness", "saturation", "sharpness")
        return {
            "pixels": f"{picture.shape[1]} x {picture.shape[0]}",
            **{name: round(getattr(figures, name)(picture), 3) for name in names},
        }  # fmt: skip

    def scorer(self, reward: str, files: MediaFolder, facts: Facts | None = None) -> Scorer:
        """A reward model's scores, in log-odds."""
        from hearken.domains.image.rewarding import PictureReward

        model = PictureReward.load(reward)

        def score(
            prompts: Sequence[Content], responses: Sequence[Sequence[Any]],
            finished: Sequence[Sequence[bool]] | None = None,
        ) -> list[list[float]]:  # fmt: skip
            rows = [(prompt, content) for prompt, some in zip(prompts, responses, strict=True) for content in some]
            scores = iter(model.score([caption(one) for one, _ in rows], [self.read(one, files) for _, one in rows]))
            return [[next(scores) for _ in some] for some in responses]

        return score

    def published(self, folder: Path, name: str, *, reward: bool) -> Published:
        """A pipeline that diffusers loads by itself; a reward model that only this package reads."""
        if reward:
            use = "To rank or score pictures of prompts like those that it was fitted on."
            return Published(library="hearken", task="image-classification", use=f"{use} {SCORES}")
        return Published(
            library="diffusers", task="text-to-image", on_hub=True, load=LOAD.format(name=name),
            use="To make pictures of prompts like those that it was trained on.",
        )  # fmt: skip


def caption(prompt: Content) -> str:
    """The words of a prompt: of messages, those of the last."""
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _generator(prompt: Content, seed: int, number: int) -> Any:
    import torch

    digest = hashlib.sha256(f"{seed}\0{number}\0{content_key(prompt)}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


DOMAIN = Image()
