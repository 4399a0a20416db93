"""A reward of single steps, learnt from comparisons of clips: an ensemble of small networks (Christiano et al. 2017).

A clip's reward is the sum of its steps'; the chance that it is preferred is Bradley and Terry's of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hearken.domains.control.clips import Clip, check_clip
from hearken.domains.control.environment import Environment
from hearken.errors import UserError

FILE = "reward.safetensors"
SLOPE = 0.01
"""Of the leaky ReLU below 0."""


class Ensemble(nn.Module):
    """M networks r(observation, action) at once, with two hidden layers.

    Args:
        size: F numbers of a step.
        members: M.
        hidden: units of a layer.
    """

    def __init__(self, size: int, members: int = 3, hidden: int = 64) -> None:
        super().__init__()
        sizes = [size, hidden, hidden, 1]
        self.weights = nn.ParameterList(torch.randn(members, n, m) * (2 / n) ** 0.5 for n, m in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(members, 1, m) for m in sizes[1:])
        for name, value in {
            "mean": torch.zeros(size), "deviation": torch.ones(size),
            "shift": torch.zeros(members, 1), "scale": torch.ones(members, 1),
        }.items():  # fmt: skip
            self.register_buffer(name, value)

    @property
    def members(self) -> int:
        """M."""
        return self.weights[0].shape[0]

    @property
    def size(self) -> int:
        """F."""
        return self.weights[0].shape[1]

    def see(self, steps: Tensor) -> None:
        """Scale what is seen by the mean and deviation of (N, F) steps."""
        self.mean, self.deviation = steps.mean(0), steps.std(0) + 1e-3

    def forward(self, steps: Tensor) -> Tensor:
        """(N, F) steps, or (M, N, F) of each member its own -> (M, N) rewards, in log-odds."""
        x = ((steps - self.mean) / self.deviation).clamp(-10, 10).expand(self.members, -1, -1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            if number < 2:
                x = nn.functional.leaky_relu(x, SLOPE)
        return x.squeeze(-1)

    @torch.no_grad()
    def normalise(self, steps: Tensor) -> None:
        """Give each member mean 0 and deviation 1 on (N, F) steps."""
        raw = self(steps)
        self.shift, self.scale = raw.mean(1, keepdim=True), raw.std(1, keepdim=True) + 1e-6

    @torch.no_grad()
    def pay(self, steps: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, F) steps -> (N,) the mean of the normalised members: what a policy is paid."""
        return ((self(torch.from_numpy(steps)) - self.shift) / self.scale).mean(0).double().numpy()

    @torch.no_grad()
    def sums(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """K clips of (T, F) steps -> (M, K) their sums by each member, in log-odds."""
        parts = self(torch.from_numpy(np.concatenate(clips))).double().split([len(clip) for clip in clips], 1)
        return torch.stack([part.sum(1) for part in parts], 1).numpy()

    def score(self, clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """K clips of (T, F) steps -> (K,) their sums, in log-odds, averaged over the members."""
        return self.sums(clips).mean(0)

    def save(self, folder: Path, environment: Environment) -> None:
        """Into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / FILE)
        environment.write(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Ensemble:
        """What `save` wrote.

        Raises:
            UserError: the folder holds no such file, or a damaged one.
        """
        path = Path(folder) / FILE
        try:
            state = load_file(path)
            members, size, hidden = state["weights.0"].shape
            made = cls(size, members, hidden)
            made.load_state_dict(state)
        except Exception as error:  # safetensors raises its own sort
            raise UserError(
                f"{path} holds no reward model of clips ({error})", "Train one: hearken train reward"
            ) from None
        return made.eval()


def features_of(
    clips: Sequence[Clip], environment: Environment, opened: Any, size: int = 0
) -> list[NDArray[np.float32]]:
    """What a reward model sees of clips, (T, F) of each.

    Args:
        clips: of one environment.
        environment: which.
        opened: it.
        size: F that a model was trained for; 0 where there is none yet.

    Raises:
        UserError: a clip is of another environment, or of other sizes than it has.
    """
    acts, shape = opened.action_space, opened.observation_space.shape
    for clip in clips:
        check_clip(clip, environment, shape, acts.shape)
    found = [clip.seen(acts) for clip in clips]
    if found and size and found[0].shape[1] != size:
        raise UserError(
            f"the reward model reads {size} numbers a step, a clip has {found[0].shape[1]}", "Train it anew"
        )
    return found
