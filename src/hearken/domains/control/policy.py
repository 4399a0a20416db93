"""Policies that act: those that Stable-Baselines3 saves, read without it and without running any code in them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hearken.domains.control.environment import Environment
from hearken.errors import UserError

FILE = "policy.zip"
"""As `stable_baselines3.PPO.save` writes it, of an ``MlpPolicy``."""
NORM = "normalisation.npz"
"""Mean and variance of the observations and variance of the returns that it was trained with."""
CLIP = 10.0
"""Normalised observations are cut off here, as by `stable_baselines3.common.vec_env.VecNormalize`."""


class Acts(Protocol):
    """observation, rng, whether the likeliest action is taken -> action."""

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator, greedy: bool) -> Any: ...


@dataclass(frozen=True)
class Random:
    """Acts at random: every action as likely."""

    space: Any

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator, greedy: bool) -> Any:
        """See `Acts`."""
        if hasattr(self.space, "n"):
            return int(self.space.start) + int(rng.integers(self.space.n))
        return rng.uniform(self.space.low, self.space.high).astype(self.space.dtype)


@dataclass(frozen=True)
class Trained:
    """A network with tanh layers: of a Box the mean of a normal distribution, of a choice its logits."""

    space: Any
    layers: list[tuple[NDArray[np.float32], NDArray[np.float32]]]
    deviation: NDArray[np.float32] | None
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator, greedy: bool) -> Any:
        """See `Acts`."""
        x = ((observation.reshape(-1) - self.mean) / np.sqrt(self.variance + 1e-8)).clip(-CLIP, CLIP).astype(np.float32)
        for number, (weight, bias) in enumerate(self.layers):
            x = weight @ x + bias
            if number + 1 < len(self.layers):
                x = np.tanh(x)
        if self.deviation is None:
            noise = 0.0 if greedy else rng.gumbel(size=x.shape)
            return int(self.space.start) + int(np.argmax(x + noise))
        if not greedy:
            x = x + self.deviation * rng.standard_normal(x.shape, np.float32)
        return x.reshape(self.space.shape).clip(self.space.low, self.space.high).astype(self.space.dtype)


def load_policy(name: str, environment: Environment, opened: Any) -> Acts:
    """The policy in a folder; where it holds none, or an environment is named, one that acts at random.

    Raises:
        UserError: its file cannot be read, or is for another environment.
    """
    path = Path(name) / FILE
    if not path.is_file():
        return Random(opened.action_space)
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read("data"))
            state = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
        state = {key: value.numpy() for key, value in state.items()}
        hidden = sorted(int(key.split(".")[2]) for key in state if key.startswith("mlp_extractor.policy_net.")
                        and key.endswith(".weight"))  # fmt: skip
        names = [*(f"mlp_extractor.policy_net.{at}" for at in hidden), "action_net"]
        layers = [(state[f"{one}.weight"], state[f"{one}.bias"]) for one in names]
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no PPO policy of Stable-Baselines3 that can be read ({error})", "Save it again"
        ) from None
    if odd := set(about.get("policy_kwargs") or {}) - {"net_arch", ":type:", ":serialized:"}:
        raise UserError(f"{path}: its policy_kwargs name {min(odd)}", "An MlpPolicy with its usual tanh layers is read")
    acts, size = opened.action_space, int(np.prod(opened.observation_space.shape))
    wanted = int(acts.n) if hasattr(acts, "n") else int(np.prod(acts.shape))
    if layers[0][0].shape[1] != size or len(layers[-1][1]) != wanted:
        raise UserError(
            f"{path} sees {layers[0][0].shape[1]} numbers and acts by {len(layers[-1][1])}; {environment.id} gives "
            f"{size} and takes {wanted}", f"Name where it was trained in {Path(name) / 'environment.json'}",
        )  # fmt: skip
    mean, variance = np.zeros(size), np.ones(size)
    if (norm := Path(name) / NORM).is_file():
        with np.load(norm, allow_pickle=False) as saved:
            mean, variance = saved["mean"], saved["variance"]
    deviation = None if hasattr(acts, "n") else np.exp(state["log_std"])
    return Trained(acts, layers, deviation, mean, variance)
