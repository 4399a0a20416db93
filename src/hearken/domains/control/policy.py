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
"""As `stable_baselines3.PPO.save` or `SAC.save` writes it, of an ``MlpPolicy``."""
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


Layer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weights (out, in) and bias."""


@dataclass(frozen=True)
class Seen:
    """How observations are normalised before a network sees them."""

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __call__(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Numbers of about 0 and deviation 1."""
        x = (observation.reshape(-1) - self.mean) / np.sqrt(self.variance + 1e-8)
        return x.clip(-CLIP, CLIP).astype(np.float32)


@dataclass(frozen=True)
class Trained:
    """PPO's network, with tanh layers: of a Box the mean of a normal distribution, of a choice its logits."""

    space: Any
    layers: list[Layer]
    deviation: NDArray[np.float32] | None
    seen: Seen

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator, greedy: bool) -> Any:
        """See `Acts`."""
        x = self.seen(observation)
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


@dataclass(frozen=True)
class Squashed:
    """SAC's network, with ReLU layers: tanh of a normal distribution, stretched to the bounds of the actions."""

    space: Any
    layers: list[Layer]
    middle: Layer
    log_deviation: Layer
    seen: Seen

    def __call__(self, observation: NDArray[Any], rng: np.random.Generator, greedy: bool) -> Any:
        """See `Acts`."""
        x = self.seen(observation)
        for weight, bias in self.layers:
            x = np.maximum(weight @ x + bias, 0)
        action = self.middle[0] @ x + self.middle[1]
        if not greedy:
            deviation = np.exp((self.log_deviation[0] @ x + self.log_deviation[1]).clip(-20, 2))
            action = action + deviation * rng.standard_normal(action.shape, np.float32)
        low, high = self.space.low, self.space.high
        return (low + (np.tanh(action).reshape(self.space.shape) + 1) / 2 * (high - low)).astype(self.space.dtype)


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
        squashed = "actor.mu.weight" in state
        start = "actor.latent_pi." if squashed else "mlp_extractor.policy_net."
        hidden = [key.removesuffix(".weight") for key in state if key.startswith(start) and key.endswith(".weight")]
        ends = ["actor.mu", "actor.log_std"] if squashed else ["action_net"]
        layers = [
            (state[f"{name}.weight"], state[f"{name}.bias"])
            for name in [*sorted(hidden, key=lambda key: int(key.rpartition(".")[2])), *ends]
        ]
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no policy of Stable-Baselines3 that can be read ({error})", "Save it again"
        ) from None
    kwargs = about.get("policy_kwargs") or {}
    if odd := {name for name, value in kwargs.items() if value is not False} - {"net_arch", ":type:", ":serialized:"}:
        raise UserError(f"{path}: its policy_kwargs name {min(odd)}", "An MlpPolicy with its usual layers is read")
    acts, size = opened.action_space, int(np.prod(opened.observation_space.shape))
    wanted = int(acts.n) if hasattr(acts, "n") else int(np.prod(acts.shape))
    if layers[0][0].shape[1] != size or len(layers[-1][1]) != wanted:
        raise UserError(
            f"{path} sees {layers[0][0].shape[1]} numbers and acts by {len(layers[-1][1])}; {environment.id} gives "
            f"{size} and takes {wanted}", f"Name where it was trained in {Path(name) / 'environment.json'}",
        )  # fmt: skip
    seen = Seen(np.zeros(size), np.ones(size))
    if (norm := Path(name) / NORM).is_file():
        with np.load(norm, allow_pickle=False) as saved:
            seen = Seen(saved["mean"], saved["variance"])
    if squashed:
        return Squashed(acts, layers[:-2], layers[-2], layers[-1], seen)
    deviation = None if hasattr(acts, "n") else np.exp(state["log_std"])
    return Trained(acts, layers, deviation, seen)
