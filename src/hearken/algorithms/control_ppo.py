"""PPO of Stable-Baselines3 in an environment, paid by a reward model of clips (Christiano et al. 2017, section 2.2.1).

What the environment pays is not learnt from: it is replaced by the mean of the ensemble's normalised members, and
divided by the running deviation of its discounted sum, as observations are by theirs. It is logged beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hearken.algorithms.control_ppo_options import ControlPPOConfig
from hearken.algorithms.control_training import Paid, improve
from hearken.domains.control.environment import Environment
from hearken.domains.control.policy import CLIP, FILE, NORM

if TYPE_CHECKING:
    from hearken.algorithms.arriving import Desk
    from hearken.algorithms.control_online import Online
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


def run(inputs: Inputs, options: ControlPPOConfig, out: Path, online: Online | None = None) -> Artifact:
    """Train a policy in ``inputs.model``'s environment on ``inputs.reward``; ``online``: labels arrive."""
    return improve(inputs, options, out, ppo, save, online)


def run_online(inputs: Inputs, options: ControlPPOConfig, out: Path, desk: Desk) -> Artifact:
    """The same, while a project's labelers judge clips of the policy (see `loop.online`)."""
    from hearken.algorithms.control_online import at_desk

    return run(inputs, options, out, at_desk(desk, Environment.named(inputs.model).question))


def ppo(options: ControlPPOConfig, paid: Paid, start: Path) -> Any:
    """The algorithm, with normalised observations and rewards."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    normal = VecNormalize(paid, gamma=options.gamma, clip_obs=CLIP)
    start_normal(normal, start / NORM)
    algorithm = PPO(
        "MlpPolicy", normal, n_steps=options.rollout, batch_size=options.batch_size, n_epochs=options.epochs,
        learning_rate=options.lr, gamma=options.gamma, gae_lambda=options.lam, clip_range=options.clip,
        ent_coef=options.entropy, seed=options.seed, device="cpu",
    )  # fmt: skip
    if (start / FILE).is_file():
        algorithm.set_parameters(str(start / FILE), device="cpu")
    return algorithm


def save(algorithm: Any, out: Path) -> None:
    """What it made."""
    algorithm.save(out / FILE)
    save_normal(algorithm.get_vec_normalize_env(), out / NORM)


def start_normal(normal: Any, file: Path) -> None:
    """Go on with the statistics of a `VecNormalize` that a policy was trained with, where there are some."""
    if file.is_file():
        with np.load(file, allow_pickle=False) as saved:
            observations, returns = normal.obs_rms, normal.ret_rms
            shape = observations.mean.shape
            observations.mean, observations.var = saved["mean"].reshape(shape), saved["variance"].reshape(shape)
            observations.count = returns.count = float(saved["count"])
            returns.var = saved["returns"]


def save_normal(normal: Any, file: Path) -> None:
    """Keep them, as numbers alone."""
    seen = normal.obs_rms
    np.savez(
        file, mean=seen.mean.reshape(-1), variance=seen.var.reshape(-1), count=seen.count, returns=normal.ret_rms.var
    )
