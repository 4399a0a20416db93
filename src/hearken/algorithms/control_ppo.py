"""PPO of Stable-Baselines3 in an environment, paid by a reward model of clips (Christiano et al. 2017, section 2.2.1).

What the environment pays is not learnt from: it is replaced by the mean of the ensemble's normalised members, and
divided by the running deviation of its discounted sum, as observations are by theirs. It is logged beside it.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hearken.algorithms.control_ppo_options import ControlPPOConfig
from hearken.domains.control.environment import EXTRA, Environment, check_finite, features
from hearken.domains.control.policy import CLIP, FILE, NORM, load_policy
from hearken.domains.control.rewarding import Ensemble
from hearken.errors import UserError
from hearken.progress import progress
from hearken.rewards.trust import check_card
from hearken.training.artifact import NOTICES, finish, write_json

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecNormalize
except ModuleNotFoundError:
    raise UserError("PPO in an environment needs Stable-Baselines3, which is not installed", EXTRA) from None

if TYPE_CHECKING:
    from hearken.algorithms.stage import Inputs
    from hearken.training.artifact import Artifact

LAST = 20
"""Episodes over which returns are averaged."""


class Paid(VecEnvWrapper):
    """Environments that pay what a reward model says; ``true`` is what they paid themselves, of ended episodes."""

    def __init__(self, venv: Any, environment: Environment, ensemble: Ensemble) -> None:
        super().__init__(venv)
        self.environment, self.ensemble = environment, ensemble
        self.true: list[float] = []
        self.predicted: list[float] = []
        self.terminated = 0
        self._sums = np.zeros((2, venv.num_envs))

    def reset(self) -> Any:
        """All of them."""
        self._seen: Any = self.venv.reset()
        self._sums[:] = 0
        return self._seen

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        self._acts = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Finish it; the reward is the model's."""
        seen: Any
        seen, own, done, infos = self.venv.step_wait()
        check_finite(self.environment.id, seen, own)
        paid = self.ensemble.pay(features(self.action_space, self._seen, self._acts))
        self._seen = seen
        self._sums += (own, paid)
        for number in np.flatnonzero(done):
            self.true.append(float(self._sums[0, number]))
            self.predicted.append(float(self._sums[1, number]))
            self.terminated += not infos[number].get("TimeLimit.truncated", False)
            self._sums[:, number] = 0
        return seen, paid.astype(np.float32), done, infos


class Log(BaseCallback):
    """A row of ``metrics.jsonl`` after each rollout."""

    def __init__(self, paid: Paid, bar: Any, file: Any) -> None:
        super().__init__()
        self.paid, self.bar, self.file = paid, bar, file
        self.row: dict[str, float] = {}

    def _on_step(self) -> bool:
        self.bar.advance(self.paid.num_envs)
        return True

    def _on_rollout_end(self) -> None:
        if self.paid.true:
            self.row = {
                "step": self.num_timesteps, "return": float(np.mean(self.paid.true[-LAST:])),
                "predicted": float(np.mean(self.paid.predicted[-LAST:])), "episodes": len(self.paid.true),
            }  # fmt: skip
            self.file.write(json.dumps(self.row) + "\n")
            self.file.flush()


def run(inputs: Inputs, options: ControlPPOConfig, out: Path) -> Artifact:
    """Train a policy in ``inputs.model``'s environment on ``inputs.reward``, and write it to ``out``."""
    began = time.monotonic()
    assert inputs.reward is not None
    check_card(inputs.reward, trust=options.trust_reward)
    environment, ensemble = Environment.named(inputs.model), Ensemble.load(inputs.reward)
    if (learnt_in := Environment.named(inputs.reward)).key != environment.key:
        what = f"{inputs.reward} is a reward for {learnt_in.id}, not for {environment.id} as it is set up here"
        raise UserError(what, "Train a reward model on clips of this environment")
    with closing(environment.open()) as opened:
        size = int(np.prod(opened.observation_space.shape))
        size += int(opened.action_space.n if hasattr(opened.action_space, "n") else np.prod(opened.action_space.shape))
        if size != ensemble.size:
            what = f"{inputs.reward} reads {ensemble.size} numbers a step, {environment.id} gives {size}"
            raise UserError(what, "Train it anew on clips of this version")
        load_policy(inputs.model, environment, opened)  # says what is wrong with it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these are slower on several
    with closing(DummyVecEnv([environment.open] * options.environments)) as venv:
        venv.seed(options.seed)
        paid = Paid(venv, environment, ensemble)
        normal = VecNormalize(paid, gamma=options.gamma, clip_obs=CLIP)
        start_normal(normal, Path(inputs.model) / NORM)
        ppo = PPO(
            "MlpPolicy", normal, n_steps=options.rollout, batch_size=options.batch_size, n_epochs=options.epochs,
            learning_rate=options.lr, gamma=options.gamma, gae_lambda=options.lam, clip_range=options.clip,
            ent_coef=options.entropy, seed=options.seed, device="cpu",
        )  # fmt: skip
        if (Path(inputs.model) / FILE).is_file():
            ppo.set_parameters(str(Path(inputs.model) / FILE), device="cpu")
        with progress("PPO", options.steps) as bar, (out / "run" / "metrics.jsonl").open("w") as file:
            log = Log(paid, bar, file)
            ppo.learn(options.steps, callback=log)
        ppo.save(out / FILE)
        save_normal(normal, out / NORM)
    torch.set_num_threads(threads)
    environment.write(out)
    figures = {name: value for name, value in log.row.items() if name != "step"} | {"steps": ppo.num_timesteps}
    if paid.terminated:
        write_json(
            out / "run" / NOTICES,
            [f"{paid.terminated} of {len(paid.true)} episodes ended by themselves: when an episode ends tells what is "
             "wanted, beside the comparisons"],
        )  # fmt: skip
    seconds = time.monotonic() - began
    data = {"environment": environment.id}
    return finish(out, options.stage, inputs=inputs, options=options, data=data, metrics=figures, seconds=seconds)


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
