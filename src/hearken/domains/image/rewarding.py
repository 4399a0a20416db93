"""A reward model of pictures: the policy's own network, read before its last layer, with a head on top.

As a reward model of texts begins with the policy's weights (Stiennon et al. 2020), this one begins with those of a
pipeline, which already knows shapes, colours and prompts. It reads the picture without noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hearken.domains.image.codec import Picture
from hearken.domains.image.tensors import to_tensor
from hearken.errors import UserError
from hearken.models.diffusion import Conditions, Denoiser, open_denoiser

FILE = "reward.safetensors"
BACKBONE = "backbone"
BATCH = 256


class PictureReward(nn.Module):
    """Scores pictures of prompts, in log-odds.

    Args:
        denoiser: whose network is read, and trained.
        width: F of what its `Denoiser.hidden` gives.
        hidden: units of the head.
    """

    def __init__(self, denoiser: Denoiser, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.denoiser, self.net = denoiser, denoiser.net
        self.head = nn.Sequential(
            nn.LayerNorm(2 * width), nn.Linear(2 * width, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    @classmethod
    def of(cls, pipeline: str, hidden: int = 64) -> PictureReward:
        """A new one, on a pipeline's network."""
        denoiser = open_denoiser(pipeline)
        with torch.no_grad():
            conditions = denoiser.encode([""])
            blank = denoiser.to_pictures(torch.zeros(1, *denoiser.shape))
            width = denoiser.hidden(blank, conditions).shape[-1]
        return cls(denoiser, width, hidden)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures that the network reads."""
        return self.denoiser.picture_size

    def forward(self, pictures: Tensor, conditions: Conditions) -> Tensor:
        """(R, 3, H, W) in [-1, 1] -> (R,); differentiable in the pictures."""
        seen = self.denoiser.hidden(pictures, conditions)
        return self.head(torch.cat([seen.mean(1), seen.amax(1)], -1)).squeeze(-1)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], pictures: Sequence[Picture]) -> list[float]:
        """Of pictures of any size."""
        found: list[float] = []
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            conditions = self.denoiser.encode(list(prompts[some]))
            found += self(to_tensor(pictures[some], self.size), conditions).tolist()
        return found

    def save(self, folder: Path) -> None:
        """Into a folder, with the pipeline that it reads with."""
        folder.mkdir(parents=True, exist_ok=True)
        self.denoiser.save(folder / BACKBONE)
        save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / FILE)

    @classmethod
    def load(cls, folder: str | Path) -> PictureReward:
        """What `save` wrote.

        Raises:
            UserError: the folder holds no such file, or a damaged one.
        """
        path = Path(folder) / FILE
        try:
            state = load_file(path)
            width, hidden = state["0.weight"].shape[0] // 2, state["1.weight"].shape[0]
        except Exception as error:  # safetensors raises its own sort
            raise UserError(
                f"{path} holds no reward model of pictures ({error})", "Train one: hearken train reward"
            ) from None
        made = cls(open_denoiser(str(Path(folder) / BACKBONE)), width, hidden)
        made.head.load_state_dict(state)
        return made.eval().requires_grad_(False)
