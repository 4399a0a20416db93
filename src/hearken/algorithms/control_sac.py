"""SAC of Stable-Baselines3 in an environment, paid by a reward model of clips (Lee, Smith and Abbeel 2021, PEBBLE).

It learns from all that was ever done, which is paid anew whenever the reward model has been fitted on: what a step was
paid when it was made does not matter. Needs fewer steps than PPO and more time for each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hearken.algorithms.control_sac_options import ControlSACConfig
from hearken.algorithms.control_training import Paid, improve
from hearken.domains.control.environment import Environment
from hearken.domains.control.policy import FILE
from hearken.errors import UserError

if TYPE_CHECKING:
    from hearken.algorithms.arriving import Desk
    from hearken.algorithms.control_online import Online
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact


def run(inputs: Inputs, options: ControlSACConfig, out: Path, online: Online | None = None) -> Artifact:
    """Train a policy in ``inputs.model``'s environment on ``inputs.reward``; ``online``: labels arrive."""
    return improve(inputs, options, out, sac, lambda algorithm, out: algorithm.save(out / FILE), online)


def run_online(inputs: Inputs, options: ControlSACConfig, out: Path, desk: Desk) -> Artifact:
    """The same, while a project's labelers judge clips of the policy (see `loop.online`)."""
    from hearken.algorithms.control_online import at_desk

    return run(inputs, options, out, at_desk(desk, Environment.named(inputs.model).question))


def sac(options: ControlSACConfig, paid: Paid, start: Path) -> Any:
    """The algorithm.

    Raises:
        UserError: actions are a choice, or the policy was trained by something else.
    """
    from stable_baselines3 import SAC

    if hasattr(paid.action_space, "n"):
        raise UserError(f"{paid.environment.id}: SAC takes actions in a Box, not a choice", "Improve by ppo")
    algorithm = SAC(
        "MlpPolicy", paid, learning_rate=options.lr, buffer_size=options.steps + paid.num_envs * options.rollout,
        learning_starts=options.start, batch_size=options.batch_size, tau=options.tau, gamma=options.gamma,
        train_freq=options.rollout, gradient_steps=options.updates, seed=options.seed, device="cpu",
        policy_kwargs={"net_arch": [options.width, options.width]},
    )  # fmt: skip
    if (start / FILE).is_file():
        try:
            algorithm.set_parameters(str(start / FILE), device="cpu")
        except (KeyError, ValueError, RuntimeError):
            raise UserError(
                f"{start / FILE} is no policy of SAC of this width", "Begin anew, or train it by ppo"
            ) from None
    return algorithm
